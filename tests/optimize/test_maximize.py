"""Activation maximization: against optima in closed form, one term of the objective at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import headwater as hw
from headwater.optimize import maximize
from headwater.optimize.climb import blurred, roughness, variation
from tests.reference.audit import assert_same
from tests.reference.nets import draw


def linear(w: Tensor) -> Any:
    return lambda x: (x * w).flatten(1).sum(1)


def test_of_a_linear_score_under_l2() -> None:
    """``w·x - λ mean x²`` is largest at ``x = w d / 2λ``."""
    w = draw(5)
    found = maximize(linear(w), start=torch.zeros(1, 5).double(), l2=4.0, rate=0.1, steps=3000)
    assert found.converged.all()
    assert_same(found.x[0], w * 5 / 8, 1e-2)
    assert_same(found.score, linear(w)(found.x))


def test_of_a_linear_score_under_a_spectral_penalty() -> None:
    """In the Fourier basis each frequency k has its own quadratic, of weight ``(k / k_max)²``."""
    w, n = draw(1, 1, 8), 8
    w = w - w.mean()  # the constant is not penalized
    found = maximize(
        linear(w), start=torch.zeros(1, 1, 8).double(), spectral=2.0, rate=0.05, steps=5000, tolerance=1e-7
    )
    weight = (torch.fft.fftfreq(n, dtype=torch.float64) * 2).square()
    spectrum = torch.fft.fft(w[0, 0])
    expected = torch.fft.ifft(torch.where(weight > 0, spectrum / weight.clamp(min=1e-9), 0)).real * n / 4
    assert_same(found.x[0, 0] - found.x[0, 0].mean(), expected, 2e-2)


def test_total_variation_flattens() -> None:
    """Two plateaus: where the penalty outweighs the step, a signal that matches a staircase becomes flat."""
    stairs = torch.cat([torch.zeros(5), torch.ones(5)]).view(1, 1, 10).double()

    def score(x: Tensor) -> Tensor:
        return -(x - stairs).square().flatten(1).sum(1)

    flat = maximize(score, start="zeros", shape=(1, 10), tv=50.0, steps=500)
    steep = maximize(score, start="zeros", shape=(1, 10), tv=0.0, steps=500)
    assert variation(flat.x, (2,)).item() < 0.02
    assert_same(steep.x, stairs.float(), 0.05)


def test_weight_decay_settles_where_it_balances() -> None:
    """Without a penalty a linear score grows without end; decay bounds Adam's steps of one rate: ``x = 1 / decay``."""
    found = maximize(linear(torch.ones(3)), shape=(3,), decay=0.5, rate=0.02, steps=2000, tolerance=1e-9)
    assert_same(found.x, torch.full((1, 3), 2.0), 0.02)


def test_bounds_jitter_and_blur() -> None:
    w = torch.randn(1, 2, 8, 8)
    found = maximize(linear(w), shape=(2, 8, 8), bounds=(-0.5, 1.0), steps=200)
    assert_same(found.x, torch.where(w > 0, 1.0, -0.5), 1e-2)
    plain = maximize(linear(w), shape=(2, 8, 8), steps=40)
    blurry = maximize(linear(w), shape=(2, 8, 8), steps=40, blur=1.0)
    shaken = maximize(linear(w), shape=(2, 8, 8), steps=40, jitter=3)
    assert roughness(blurry.x, (2, 3)) < 0.5 * roughness(plain.x, (2, 3))
    assert variation(shaken.x, (2, 3)) < 0.8 * variation(plain.x, (2, 3))
    assert torch.equal(maximize(linear(w), shape=(2, 8, 8), steps=40, jitter=3).x, shaken.x)


def test_blur_is_a_gaussian_and_keeps_constants() -> None:
    line = torch.zeros(1, 1, 41)
    line[0, 0, 20] = 1
    at = torch.arange(-20.0, 21.0)
    expected = torch.exp(-at.square() / 8) / torch.exp(-at.square() / 8).sum()
    assert_same(blurred(line, 2.0, (2,))[0, 0], expected, 2e-2)
    assert_same(blurred(torch.ones(2, 3, 5, 4), 3.0, (2, 3)), torch.ones(2, 3, 5, 4), 1e-5)


class Series(nn.Module):
    """A small convolutional classifier of three-component series."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(3, 4, 5, 2), nn.ReLU(), nn.Conv1d(4, 4, 5, 2), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(4 * 13, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def test_starts_of_every_kind() -> None:
    torch.manual_seed(1)
    model = Series().eval()
    zeros = maximize(model, 1, shape=(3, 64), steps=60, l2=1.0)
    random = maximize(model, 1, start="random", shape=(3, 64), count=3, steps=60, l2=1.0)
    x = torch.randn(2, 3, 64)
    real = maximize(model, 1, start=x, steps=60, l2=1.0)
    for found, n in ((zeros, 1), (random, 3), (real, 2)):
        assert found.x.shape == (n, 3, 64)
        assert found.curve.shape == found.objective.shape == (len(found.curve), n)
        assert (found.score > model(found.start)[:, 1].detach()).all()
        assert (found.objective[-1] > found.objective[0]).all()
        assert_same(found.score, model(found.x)[:, 1].detach(), 1e-4)
    assert torch.equal(real.start, x)
    assert len({tuple(row.tolist()) for row in random.start[:, 0, :3]}) == 3


def test_each_start_stops_by_itself_and_does_not_see_the_others() -> None:
    torch.manual_seed(1)
    model, x = Series().double().eval(), draw(3, 3, 64)
    together = maximize(model, 1, start=x, l2=2.0, steps=300)
    assert together.converged.any()
    for i in range(3):
        alone = maximize(model, 1, start=x[i : i + 1], l2=2.0, steps=300)
        assert_same(alone.x, together.x[i : i + 1], 1e-6)
        assert alone.stopped.item() == together.stopped[i]
    divided = maximize(model, 1, start=x, l2=2.0, steps=300, batch_size=2)
    assert_same(divided.x, together.x, 1e-6)


def test_targets_of_every_kind() -> None:
    torch.manual_seed(1)
    model = Series().eval()
    options = {"shape": (3, 64), "steps": 10}
    for target in (0, hw.target.LogOdds(1), hw.target.Neuron("body.0", (2, 4)), hw.target.Sum()):
        found = maximize(model, target, **options)
        assert found.curve[-1] > found.curve[0]

    def loss(output: Tensor) -> Tensor:
        return -nn.functional.cross_entropy(output, torch.ones(len(output), dtype=torch.long), reduction="none")

    assert maximize(model, loss, **options).score > -0.7
    with pytest.raises(hw.InvalidTarget):
        maximize(model, 7, **options)


def test_embeddings_dicts_and_the_model_left_alone() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(10, 4), nn.Linear(4, 3)

        def forward(self, ids: Tensor, scale: Tensor) -> Tensor:
            return self.head(torch.tanh(self.embed(ids)).mean(1)) * scale[:, None]

    torch.manual_seed(1)
    model, ids = Reader().eval(), torch.randint(10, (2, 5))
    state = [p.clone() for p in model.parameters()]
    found = maximize(model, 1, start={"ids": ids, "scale": torch.ones(2)}, steps=30, bounds=(-3, 3))
    assert found.x["ids"].shape == (2, 5, 4)
    assert_same(found.start["ids"], model.embed(ids).detach(), 1e-6)
    assert (found.score > found.curve[0]).all()
    assert all(torch.equal(a, b) and a.grad is None for a, b in zip(model.parameters(), state, strict=True))
    both = maximize(lambda a, b: -(a - 1).square().sum(1) - (b + 1).square().sum(1), shape=((2,), (3,)), steps=400)
    assert_same(both.x[1], torch.full((1, 3), -1.0), 0.05)


def test_saved_and_told(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    found = maximize(linear(torch.ones(3)), shape=(3,), steps=5)
    assert "5 steps" in repr(found)
    assert torch.equal(load_file(found.save(tmp_path / "optimum.safetensors"))["x"], found.x)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("needs shape=", {}),
        ("'ones' is not known", {"start": "ones", "shape": (3,)}),
        ("has its own", {"start": torch.zeros(1, 3), "shape": (3,)}),
        ("steps must be", {"shape": (3,), "steps": 0}),
        ("tv must be", {"shape": (3,), "tv": -1.0}),
        ("low < high", {"shape": (3,), "bounds": (1.0, 0.0)}),
        ("rate must be", {"shape": (3,), "rate": 0.0}),
        ("optimizer='lbfgs' is not known", {"shape": (3,), "optimizer": "lbfgs"}),
        ("axes=", {"shape": (3,), "axes": (4,), "jitter": 1}),
    ],
)
def test_what_is_refused(text: str, options: dict[str, Any]) -> None:
    with pytest.raises(hw.InvalidInput, match=text):
        maximize(linear(torch.ones(3)), **options)


def test_gradient_ascent_with_momentum_steps_as_its_formula_says() -> None:
    torch.manual_seed(0)
    model, start = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)).double(), torch.randn(2, 4, dtype=torch.float64)
    found = maximize(model, F.logsigmoid, start=start, optimizer="sgd", rate=0.3, steps=3, patience=9)
    x, velocity = start.clone(), torch.zeros_like(start)
    for _ in range(3):
        slope = torch.sigmoid(-model(x))[:, None] * model[0].weight
        velocity = 0.9 * velocity + slope
        x = x + 0.3 * velocity
    torch.testing.assert_close(found.x, x.detach())
