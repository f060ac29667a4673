"""Conditional propagation: the parts that go through a layer's channels add up to it, and equal a masked walk."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import headwater as hw
from tests.reference.audit import EXACT, assert_balanced, assert_same, fingerprint, score
from tests.reference.audit import assert_unchanged as unchanged
from tests.reference.nets import double, draw, norm

RULES = [
    None,
    "lrp_0",
    "epsilon_plus",
    hw.Composite({"input": hw.rules.WSquare(), "conv": hw.rules.AlphaBeta(2, 1), "default": hw.rules.Epsilon()}),
]


def network() -> nn.Sequential:
    return double(
        nn.Sequential(
            nn.Conv2d(2, 5, 3), norm(nn.BatchNorm2d(5)), nn.ReLU(inplace=True), nn.Conv2d(5, 4, 3), nn.GELU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3),
        ),
        0.4,
    )  # fmt: skip


@pytest.mark.parametrize("composite", RULES)
@pytest.mark.parametrize("layer", ["0", "1", "2", "3", "4", "5", "7"])
def test_the_channels_of_a_layer_add_up(layer: str, composite: Any) -> None:
    model, x = network(), draw(2, 2, 8, 8)
    whole = hw.explain(model, x, target=score, composite=composite, layers=[layer])
    channels = whole.layers[layer].shape[1]
    total = torch.zeros_like(whole.relevance)
    for k in range(channels):
        part = hw.explain(model, x, target=score, composite=composite, through=layer, keep=[k], ledger=True)
        assert_balanced(part)
        assert part.delta is None
        kept = torch.arange(channels) == k
        expected = whole.layers[layer] * kept.view(1, -1, *[1] * (whole.layers[layer].dim() - 2))
        assert_same(part.layers[layer], expected)
        total += part.relevance
    assert_same(total, whole.relevance, EXACT)


def test_it_is_the_gradient_masked_at_the_layer() -> None:
    """Against plain autograd with a hook that masks: LRP-0 of a ReLU net without a fold is gradient times input."""
    model = double(
        nn.Sequential(nn.Conv1d(3, 6, 3), nn.ReLU(), nn.Conv1d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    )
    x = draw(3, 3, 8)
    leaf = x.clone().requires_grad_()
    mask = torch.tensor([1.0, 0, 0, 1, 1, 0]).view(1, 6, 1)
    hidden = model[1](model[0](leaf))
    hidden.register_hook(lambda g: g * mask)
    (gradient,) = torch.autograd.grad(score(model[2:](hidden)).sum(), leaf)
    found = hw.explain(model, x, target=score, composite="lrp_0", through="1", keep=[0, 3, 4])
    assert_same(found.relevance, gradient * x)


class Tokens(nn.Module):
    """Patches as tokens, attention, and a recurrent layer: channels lie on the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.block = nn.Conv2d(1, 6, 2, 2), nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.memory, self.head = nn.GRU(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.block(self.patch(x).flatten(2).transpose(1, 2))
        return self.head(self.memory(tokens)[0][:, -1])


@pytest.mark.parametrize("layer", ["patch", "block", "memory"])
def test_channels_of_tokens_lie_on_the_last_axis(layer: str) -> None:
    model, x = double(Tokens(), 0.5), draw(2, 1, 6, 6)
    whole = hw.explain(model, x, target=score, layers=[layer])
    count = whole.layers[layer].shape[1 if layer == "patch" else -1]
    parts = [hw.explain(model, x, target=score, through=layer, keep=k).relevance for k in range(count)]
    assert_same(sum(parts), whole.relevance, 1e-9)
    with pytest.raises(hw.InvalidInput, match=f"0 to {count - 1}"):
        hw.explain(model, x, target=score, through=layer, keep=[count])


def test_masks_of_every_shape_and_several_layers() -> None:
    model, x = network(), draw(3, 2, 8, 8)
    ints = hw.explain(model, x, target=score, through="3", keep=[1, -1]).relevance
    channels = torch.tensor([False, True, False, True])
    for mask in (channels, channels.expand(3, 4), channels.view(4, 1, 1).expand(4, 4, 4)):
        assert_same(hw.explain(model, x, target=score, through="3", keep=mask).relevance, ints)
    both = hw.explain(model, x, target=score, through={"3": [1, 3], "0": [2]})
    nested = sum(hw.explain(model, x, target=score, through={"3": [k], "0": [2]}).relevance for k in (1, 3))
    assert_same(both.relevance, nested)
    assert_same(hw.explain(model, x, target=score, through="3", keep=range(4)).relevance,
                hw.explain(model, x, target=score).relevance)  # fmt: skip


def test_masks_of_single_samples_follow_them_through_batches() -> None:
    model, x = network(), draw(5, 2, 8, 8)
    masks = torch.eye(5, 4).bool()
    masks[4, 0] = True
    together = hw.explain(model, x, target=score, through="3", keep=masks, batch_size=2).relevance
    for i in range(5):
        alone = hw.explain(model, x[i : i + 1], target=score, through="3", keep=masks[i].nonzero().flatten())
        assert_same(together[i : i + 1], alone.relevance)


def test_a_layer_that_runs_twice_is_conditioned_each_time() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same, self.head = nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.same(F.relu(self.same(x)))))

    model, x = double(Twice()), draw(3, 4)
    mask = torch.tensor([1.0, 0, 1, 0])
    leaf = x.clone().requires_grad_()
    first = model.same(leaf)
    first.register_hook(lambda g: g * mask)
    second = model.same(F.relu(first))
    second.register_hook(lambda g: g * mask)
    (gradient,) = torch.autograd.grad(score(model.head(F.relu(second))).sum(), leaf)
    assert_same(
        hw.explain(model, x, target=score, composite="lrp_0", through="same", keep=[0, 2]).relevance, gradient * x
    )


def test_the_model_is_left_as_it_was_and_other_methods_take_it() -> None:
    model, x = network(), draw(2, 2, 8, 8)
    before = fingerprint(model)
    for method in ("gradient", "gradient_x_input", "guided_backprop", "deep_taylor"):
        parts = [hw.explain(model, x, 0, method, through="3", keep=k).relevance for k in range(4)]
        assert all(p.isfinite().all() for p in parts)
    unchanged(before, model)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"through": "3"}, "needs keep="),
        ({"keep": [1]}, "through="),
        ({"through": "nowhere", "keep": [1]}, "no module 'nowhere'"),
        ({"through": {"3": [1]}, "keep": [1]}, "leave keep= out"),
        ({"through": "3", "keep": [9]}, "channels 0 to 3"),
        ({"through": "3", "keep": [0.5]}, "channels \\(ints\\)"),
        ({"through": "3", "keep": "all"}, "channels \\(ints\\)"),
        ({"through": "3", "keep": torch.ones(7, dtype=torch.bool)}, "has shape \\(7,\\)"),
        ({"through": ["3", "0"], "keep": [1]}, "not list"),
        ({"through": "3", "keep": [1], "method": "grad_cam"}, "has no through="),
    ],
)
def test_bad_conditions_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(hw.InvalidInput, match=text):
        hw.explain(network(), draw(2, 2, 8, 8), target=0, **options)


def test_a_layer_that_does_not_run_is_refused() -> None:
    model = network()
    model.spare = nn.Linear(2, 2)
    model.forward = lambda x: nn.Sequential(*list(model.children())[:-1])(x)  # type: ignore[method-assign]
    with pytest.raises(hw.InvalidInput, match="did not run"):
        hw.explain(model, draw(2, 2, 8, 8), target=0, through="spare", keep=[0])


def test_a_mask_of_a_samples_output_is_shared_however_many_samples_there_are() -> None:
    """As many samples as channels, in batches: the mask is not taken for one of samples."""
    model, x = network(), draw(4, 2, 8, 8)
    place = torch.zeros(4, 4, 4, dtype=torch.bool)
    place[1, 2:] = True
    whole = hw.explain(model, x, target=score, through="3", keep=place).relevance
    assert_same(hw.explain(model, x, target=score, through="3", keep=place[None], batch_size=3).relevance, whole)
    assert_same(hw.explain(model, x, target=score, through="3", keep=place, batch_size=2).relevance, whole)
    rest = hw.explain(model, x, target=score, through="3", keep=~place).relevance
    assert_same(whole + rest, hw.explain(model, x, target=score).relevance)
