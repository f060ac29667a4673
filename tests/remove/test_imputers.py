"""Imputers: what stands in the holes, and that nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import headwater as hw
from headwater.remove import imputers as im
from headwater.remove.inpainting import Biharmonic, Inpaint, NoisyLinear
from headwater.remove.references import Average, Conditional, Marginal, Permutation

PICTURES = [
    im.Constant(), im.Constant(0.3), im.Constant(torch.rand(3, 1, 1)), im.Mean(), im.Uniform(), im.Uniform(0, 1),
    im.Noise(), im.Blur(2.0), Inpaint(), Biharmonic(), NoisyLinear(), Marginal(torch.rand(6, 3, 8, 9)),
    Average(torch.rand(6, 3, 8, 9)), Conditional(torch.rand(6, 3, 8, 9), k=2), Permutation(draws=3),
    Conditional(torch.rand(6, 3, 8, 9), k=2, margin=1),
]  # fmt: skip


def filled(imputer: Any, x: Tensor, hole: Tensor, rows: Tensor, draw: Tensor | None = None) -> Tensor:
    fill = imputer.prepare(x, torch.Generator().manual_seed(0))
    return fill(x[rows], hole, rows, draw)


@pytest.mark.parametrize("imputer", PICTURES, ids=lambda i: type(i).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_only_holes_change(imputer: Any, dtype: torch.dtype) -> None:
    x, rows = torch.rand(3, 3, 8, 9, dtype=dtype), torch.tensor([2, 0, 2, 1])
    hole = torch.rand(4, 1, 8, 9) < 0.4
    found = filled(imputer, x, hole, rows)
    assert found.shape == (4, 3, 8, 9)
    assert found.dtype == dtype
    assert found.isfinite().all()
    assert torch.equal(found[~hole.expand_as(found)], x[rows][~hole.expand_as(found)])
    assert not torch.equal(found, x[rows])
    for whole in (torch.ones_like(hole), torch.zeros_like(hole)):
        assert filled(imputer, x, whole, rows).isfinite().all()


@pytest.mark.parametrize("imputer", PICTURES, ids=lambda i: type(i).__name__)
def test_a_sample_is_filled_alike_in_every_batch(imputer: Any) -> None:
    if isinstance(imputer, Permutation):
        pytest.skip("takes from the batch")
    x, hole = torch.rand(3, 3, 8, 9, dtype=torch.float64), torch.rand(1, 1, 8, 9) < 0.4
    whole = filled(imputer, x, hole.expand(3, -1, -1, -1), torch.arange(3))
    single = filled(imputer, x[1:2], hole, torch.tensor([0]))
    torch.testing.assert_close(single, whole[1:2])


def test_means_of_channels_and_of_a_reference() -> None:
    x = torch.rand(2, 3, 4, 4)
    everything = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    torch.testing.assert_close(
        filled(im.Mean(), x, everything, torch.arange(2)), x.mean((2, 3), keepdim=True).expand_as(x)
    )
    reference = torch.rand(5, 3, 4, 4)
    torch.testing.assert_close(
        filled(Average(reference), x, everything, torch.arange(2)), reference.mean(0).expand_as(x)
    )


def test_partial_holes_mix() -> None:
    x, hole = torch.rand(2, 3, 4, 4), torch.rand(2, 1, 4, 4)
    found = filled(im.Constant(0.5), x, hole, torch.arange(2))
    torch.testing.assert_close(found, x * (1 - hole) + 0.5 * hole)
    for imputer in (Inpaint(), im.Delete()):
        ids = torch.randint(1, 5, (2, 4))
        with pytest.raises(hw.HeadwaterError, match="whole holes"):
            filled(imputer, ids if isinstance(imputer, im.Delete) else x, hole[:, 0, 0] if ids is x else hole, rows())


def rows() -> Tensor:
    return torch.arange(2)


def test_draws_differ_and_come_from_the_examples() -> None:
    x, reference = torch.rand(2, 5), torch.arange(20.0).view(4, 5)
    hole = torch.tensor([[True, False, True, False, False]]).expand(6, 5)
    which, draw = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 2, 0, 1, 2])
    found = filled(Marginal(reference, 3), x, hole, which, draw)
    examples = [found[i, [0, 2]].tolist() for i in range(6)]
    assert examples[:3] == examples[3:]
    assert len({tuple(e) for e in examples}) == 3
    assert all(e in reference[:, [0, 2]].tolist() for e in examples)
    assert Marginal(reference, None).draws == Marginal(reference, 9).draws == 4


def test_the_nearest_examples_by_what_is_left() -> None:
    x = torch.tensor([[0.0, 5.0, 1.0]])
    reference = torch.tensor([[0.1, 7.0, 1.1], [9.0, 5.0, 9.0], [0.3, 8.0, 1.2], [4.0, 5.0, 4.0]])
    hole = torch.tensor([[False, True, False]]).expand(2, 3)
    found = filled(Conditional(reference, k=2), x, hole, torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert found.tolist() == [[0.0, 7.0, 1.0], [0.0, 8.0, 1.0]]


def test_conditional_against_a_loop() -> None:
    x, reference = torch.rand(3, 2, 6, dtype=torch.float64), torch.rand(9, 2, 6, dtype=torch.float64)
    hole, own = torch.rand(5, 2, 6) < 0.4, torch.tensor([0, 1, 2, 0, 1])
    found = filled(Conditional(reference, k=3), x, hole, own, torch.full((5,), 2))
    scale = reference.std((0, 2), correction=0)[:, None]
    for i, n in enumerate(own.tolist()):
        kept = ~hole[i]
        distance = [(((x[n] - r) / scale)[kept]).square().sum() for r in reference]
        third = reference[torch.stack(distance).argsort()[2]]
        torch.testing.assert_close(found[i], torch.where(hole[i], third, x[n]))


def test_permutations_give_every_sample_to_another() -> None:
    x = torch.arange(5.0)[:, None].repeat(1, 2)
    hole = torch.tensor([[True, False]]).expand(5, 2)
    for draw in range(4):
        found = filled(Permutation(draws=4), x, hole, torch.arange(5), torch.full((5,), draw))
        assert sorted(found[:, 0].tolist()) == x[:, 0].tolist()
        assert (found[:, 0] != x[:, 0]).all()
        assert torch.equal(found[:, 1], x[:, 1])
    with pytest.raises(hw.HeadwaterError, match="single sample"):
        filled(Permutation(), x[:1], hole[:1], torch.tensor([0]))


def test_words_leave_and_the_rest_moves_up() -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    hole = torch.tensor([[False, True, False, True]])
    assert filled(im.Delete(1), ids, hole, torch.tensor([0])).tolist() == [[5, 7, 1, 1]]
    assert filled(im.Constant(3), ids, hole, torch.tensor([0])).tolist() == [[5, 3, 7, 3]]


def test_the_middle_of_a_ramp_is_inpainted() -> None:
    ramp = torch.linspace(0, 1, 17, dtype=torch.float64).expand(1, 1, 17, 17)
    hole = torch.zeros(1, 1, 17, 17, dtype=torch.bool)
    hole[..., 6:11, 6:11] = True
    for imputer, most in ((Inpaint(), 0.2), (Biharmonic(), 1e-6), (NoisyLinear(0.0), 1e-6)):
        assert (filled(imputer, ramp, hole, torch.tensor([0])) - ramp).abs().max() < most


@pytest.mark.parametrize(
    ("imputer", "x"),
    [
        (im.Mean(), torch.ones(2, 3, dtype=torch.long)), (im.Blur(), torch.rand(2, 3)), (Inpaint(), torch.rand(2, 3)),
        (im.Constant(torch.rand(4)), torch.rand(2, 3)), (im.Constant("word"), torch.rand(2, 3)),
        (Marginal(torch.rand(2, 4)), torch.rand(2, 3)), (Marginal(torch.rand(0, 3)), torch.rand(2, 3)),
        (Marginal(np.full((2, 3), np.nan)), torch.rand(2, 3)), (Conditional(torch.rand(4, 3), k=0), torch.rand(2, 3)),
        (Conditional(torch.rand(4, 3), margin=2), torch.rand(2, 3)), (im.Delete(), torch.rand(2, 3)),
        (im.Uniform(torch.rand(5), 1.0), torch.rand(2, 3)), (NoisyLinear(), torch.rand(2, 3, 4)),
        (im.Blur(0.0), torch.rand(2, 3, 4)), (Permutation(draws=0), torch.rand(2, 3)),
    ],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_refusals(imputer: Any, x: Tensor) -> None:
    with pytest.raises(hw.HeadwaterError):
        imputer.prepare(x, torch.Generator())
