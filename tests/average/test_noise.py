"""Explanations averaged over noise, dropout and models: against loops, Captum, closed forms and their own errors."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import headwater as hw
from headwater.average.means import Mean
from headwater.points import Rows
from tests.reference.audit import assert_same
from tests.reference.nets import double, draw

CAPTUM = pytest.mark.skipif(importlib.util.find_spec("captum") is None, reason="the oracle is captum")


def smooth() -> nn.Sequential:
    return double(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)))


def test_a_quadratic_form_has_closed_forms() -> None:
    """``∇f = (A + Aᵀ) x``: noise of σ leaves its mean, and gives it the variance ``σ² Σ_j (A + Aᵀ)²_ij``."""
    a, x = draw(5, 5), draw(2, 5, key=8)
    b = a + a.T

    def f(x: Tensor) -> Tensor:
        return torch.einsum("ni,ij,nj->n", x, a, x)

    options = {"draws": 4000, "sigma": 0.3}
    mean = hw.explain(f, x, method="smoothgrad", **options)
    assert ((mean.relevance - x @ b).abs() < 4 * mean.details["standard_error"]).all()
    variance = hw.explain(f, x, method="vargrad", **options).relevance
    assert_same(variance, (0.09 * b.square().sum(1)).expand(2, 5), 0.1)
    square = hw.explain(f, x, method="smoothgrad_squared", **options).relevance
    assert_same(square, variance + mean.relevance.square())


@CAPTUM
@pytest.mark.parametrize(
    ("method", "theirs"),
    [("smoothgrad", "smoothgrad"), ("smoothgrad_squared", "smoothgrad_sq"), ("vargrad", "vargrad")],
)
def test_captum_lies_beside_it(method: str, theirs: str) -> None:
    from captum.attr import NoiseTunnel, Saliency

    model, x = smooth(), draw(2, 6)
    found = NoiseTunnel(Saliency(model)).attribute(
        x, nt_type=theirs, nt_samples=4000, nt_samples_batch_size=500, stdevs=0.4, target=1, abs=False
    )
    ours = hw.explain(model, x, target=1, method=method, draws=4000, sigma=0.4)
    assert_same(ours.relevance, found, 0.06)


def test_noise_is_a_share_of_each_samples_range() -> None:
    """Of ``x²``, whose gradient tells the point: ``2 (x + ε)``."""
    x = torch.tensor([[0.0, 1.0, 0.5], [0.0, 10.0, 5.0]], dtype=torch.float64)
    variance = hw.explain(lambda x: x.square().sum(1), x, method="vargrad", draws=2000, noise_level=0.2).relevance / 4
    assert_same(variance.mean(1), torch.tensor([0.04, 4.0], dtype=torch.float64), 0.1)


def test_any_explainer_is_averaged() -> None:
    model, x = smooth(), draw(2, 6)
    for of in ("lrp", "sensitivity", "gradient_x_input", "integrated_gradients", "deeplift", "feature_ablation"):
        e = hw.explain(model, x, target=1, method="smoothgrad", of=of, sigma=0.0, draws=2)
        assert_same(e.relevance, hw.explain(model, x, target=1, method=of).relevance)
        assert (e.details["standard_error"] < 1e-12).all()
    e = hw.explain(model, x, target=1, method="smoothgrad", of="lrp", composite="epsilon", sigma=0.0, draws=2)
    assert_same(e.relevance, hw.explain(model, x, target=1, composite="epsilon").relevance)
    with pytest.raises(hw.InvalidInput, match="nothing"):
        hw.explain(model, x, method="smoothgrad", of="nothing")
    with pytest.raises(hw.InvalidInput, match="noise_level"):
        hw.explain(model, x, method="smoothgrad", noise_level=-1.0)


@pytest.mark.parametrize("method", ["smoothgrad", "vargrad", "smooth_ig", "integrated_gradients"])
def test_neither_the_batch_nor_its_size_matters(method: str) -> None:
    model, x = smooth(), draw(4, 6)
    e = hw.explain(model, x, method=method)
    for size in (1, 3, 7, 64):
        assert_same(hw.explain(model, x, method=method, batch_size=size).relevance, e.relevance, 1e-9)
    assert_same(hw.explain(model, x[2:3], method=method).relevance, e.relevance[2:3], 1e-9)
    assert torch.equal(hw.explain(model, x, method=method).relevance, e.relevance)
    if method != "integrated_gradients":
        assert not torch.equal(hw.explain(model, x, method=method, seed=1).relevance, e.relevance)


# ---------------------------------------------------------------------- the mean itself


@settings(max_examples=25)
@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.floats(-1e4, 1e4),
)  # fmt: skip
def test_means_in_any_division_into_batches(n: int, draws: int, points: int, sizes: list[int], offset: float) -> None:
    values = draw(n, draws, points, 3) + offset
    rows, mean, start, turn = values.flatten(0, 2), Mean(n, squares=True), 0, 0
    while start < len(rows):
        stop = min(start + sizes[turn % len(sizes)], len(rows))
        part = Rows.of(slice(start, stop), draws, points)
        mean.add(part, rows[start:stop])  # prepared and dropped, as when memory ran out
        mean.add(part, rows[start:stop])()
        start, turn = stop, turn + 1
    totals = values.sum(2)
    torch.testing.assert_close(mean.result, totals.mean(1))
    torch.testing.assert_close(mean.variance, totals.var(1, correction=0), atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(mean.second_moment, totals.square().mean(1))
    if draws > 1:
        torch.testing.assert_close(mean.standard_error, totals.std(1) / draws**0.5, atol=1e-9, rtol=1e-6)


# ---------------------------------------------------------------------- dropout and ensembles


class Dropping(nn.Module):
    """A linear model behind dropout: its gradient times input is ``w x m / (1 - p)`` for a mask ``m``."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.head = nn.Dropout(0.25), nn.Linear(6, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(x))[:, 0]


def test_dropout_spreads_as_its_masks_do() -> None:
    model, x = double(Dropping()), draw(3, 6)
    e = hw.explain(model, x, method="monte_carlo_dropout", of="gradient_x_input", draws=2000)
    exact = model.head.weight.detach() * x
    assert not any(m.training for m in model.modules())
    assert ((e.relevance - exact).abs() <= 4.5 * e.details["standard_error"]).all()
    assert_same(e.details["spread"], exact.abs() * (0.25 / 0.75) ** 0.5, 0.1)
    assert_same(e.output, model(x))
    again = hw.explain(model, x[1:2], method="monte_carlo_dropout", of="gradient_x_input", draws=2000)
    assert_same(again.relevance, e.relevance[1:2])
    other = hw.explain(model, x, method="monte_carlo_dropout", of="gradient_x_input", draws=2000, seed=1)
    assert not torch.equal(other.relevance, e.relevance)


def test_dropout_that_the_user_switched_on() -> None:
    model, x = double(Dropping()).train(), draw(3, 6)
    e = hw.explain(model, x, method="monte_carlo_dropout", allow_training=True)
    assert e.details["spread"].max() > 0
    assert model.drop.training


def test_a_model_without_dropout_is_refused() -> None:
    with pytest.raises(hw.UnsupportedModel, match="no dropout"):
        hw.explain(smooth(), draw(2, 6), method="monte_carlo_dropout")


def test_an_ensemble_has_the_mean_and_spread_of_its_models() -> None:
    torch.manual_seed(1)
    models = [nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double().eval() for _ in range(4)]
    x = draw(3, 6)
    e = hw.explain(models[0], x, method="ensemble", models=models[1:])
    target = models[0](x).argmax(1)
    single = [hw.explain(m, x, target=target) for m in models]
    maps = torch.stack([s.relevance for s in single])
    assert_same(e.relevance, maps.mean(0))
    assert_same(e.details["spread"], maps.std(0))
    assert_same(e.details["outputs"], torch.stack([s.output for s in single], 1))
    assert_same(e.output, e.details["outputs"].mean(1))
    with pytest.raises(hw.InvalidInput, match="models="):
        hw.explain(models[0], x, method="ensemble")
    models[1].train()[0].weight.data[0, 0] = torch.nan
    with pytest.raises(hw.NonFinite):
        hw.explain(models[0], x, method="ensemble", models=models[1:])
