"""Integrals along paths: against closed forms, the papers' loops, Captum, and the axioms."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import headwater as hw
from headwater.average.paths import nodes
from headwater.points import Noise, Rows
from tests.reference.audit import assert_same
from tests.reference.nets import double, draw

CAPTUM = pytest.mark.skipif(importlib.util.find_spec("captum") is None, reason="the oracle is captum")
ROUNDED = 1e-6  # Captum's places on the path are float32


def smooth() -> nn.Sequential:
    return double(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.GELU(), nn.Linear(7, 3)))


def picture_net() -> nn.Sequential:
    return double(
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.Softplus(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3)),
    )


def gradient(model: nn.Module, x: Tensor, target: int) -> Tensor:
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(model(x)[:, target].sum(), x)[0]


# ---------------------------------------------------------------------- integrated gradients


@pytest.mark.parametrize("rule", ["gauss_legendre", "midpoint", "trapezoid"])
def test_a_quadratic_form_has_a_closed_form(rule: str) -> None:
    """For ``f = xᵀ A x + bᵀ x``: ``R_i = (x_i - z_i) [(A + Aᵀ)(x + z) / 2 + b]_i``; these rules are exact on lines."""
    a, b, x, z = draw(4, 4, key=1), draw(4, key=2), draw(3, 4), draw(3, 4, key=9)

    def f(x: Tensor) -> Tensor:
        return torch.einsum("ni,ij,nj->n", x, a, x) + x @ b

    e = hw.explain(f, x, method="integrated_gradients", baselines=z, steps=3, rule=rule)
    assert_same(e.relevance, (x - z) * ((x + z) / 2 @ (a + a.T) + b))
    assert_same(e.reference, f(z))
    assert e.delta.abs().max() < 1e-12


def test_algorithm_1_on_a_sequence_of_points() -> None:
    """The review's loop: factor at each point times the step to the next."""
    model, points = smooth(), draw(6, 2, 6)
    expected = sum(gradient(model, points[n], 1) * (points[n + 1] - points[n]) for n in range(5))
    e = hw.explain(model, points[-1], target=1, method="IG", path=points, steps=5, rule="left")
    assert_same(e.relevance, expected)
    assert_same(e.reference, model(points[0])[:, 1])


def test_a_curved_path_is_complete_too() -> None:
    model, x = smooth(), draw(3, 6)
    bend = draw(6)

    def path(t: Tensor, x: Tensor, start: Tensor) -> Tensor:
        return start + t * (x - start) + t * (1 - t) * bend

    curved = hw.explain(model, x, target=0, method="IG", path=path, rule="midpoint", steps=200, baselines=1.0)
    straight = hw.explain(model, x, target=0, method="IG", baselines=1.0)
    assert curved.delta.abs().max() < 1e-3
    assert (curved.relevance - straight.relevance).abs().max() > 1e-2


def test_several_baselines_are_averaged() -> None:
    model, x = smooth(), draw(3, 6)
    baselines = [None, 0.5, draw(6), draw(3, 6), lambda value: value.mean(1, keepdim=True).expand_as(value)]
    e = hw.explain(model, x, target=2, method="IG", baselines=baselines)
    single = torch.stack([hw.explain(model, x, target=2, method="IG", baselines=b).relevance for b in baselines])
    assert_same(e.relevance, single.mean(0))
    assert_same(e.details["standard_error"], single.std(0) / 5**0.5)
    assert e.delta.abs().max() < 1e-6


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("rule", ["gauss_legendre", "midpoint", "trapezoid", "left"])
def test_nodes_lie_in_the_stretches_that_they_stand_for(rule: str, steps: int) -> None:
    grid = nodes(rule, steps)
    assert grid.low[0, 0] == 0
    assert grid.high[0, -1] == pytest.approx(1)
    assert (grid.low <= grid.at + 1e-15).all()
    assert (grid.at <= grid.high + 1e-15).all()


def test_complete_to_a_thousandth_with_the_default_steps() -> None:
    model, x = picture_net(), draw(3, 2, 8, 8)
    assert hw.explain(model, x, method="IG").delta.abs().max() < 1e-3
    assert hw.explain(model.float(), x.float(), method="IG").delta.abs().max() < 1e-3


def test_of_lrp_along_the_path_is_the_mean_of_its_factors() -> None:
    model, x = smooth(), draw(2, 6)
    e = hw.explain(model, x, target=1, method="IG", of="lrp", composite="epsilon", steps=4, rule="midpoint")
    factors = []
    for k in range(4):
        point = (k + 0.5) / 4 * x
        with hw.propagating(composite="epsilon") as p:
            live = p.input(point) if hasattr(p, "input") else point.clone().requires_grad_()
            factors.append(p.relevance(live, of=model(live)[:, 1]) / point)
    assert_same(e.relevance, x * torch.stack(factors).mean(0), 1e-9)


# ---------------------------------------------------------------------- Captum


@CAPTUM
@pytest.mark.parametrize("per_sample", [False, True])
def test_integrated_gradients_as_captum_has_them(per_sample: bool) -> None:
    from captum.attr import IntegratedGradients

    model, x = picture_net(), draw(3, 2, 8, 8)
    z = draw(3, 2, 8, 8, key=9) if per_sample else draw(1, 2, 8, 8, key=9)
    theirs = IntegratedGradients(model).attribute(x, z, target=[0, 2, 1], n_steps=20)
    assert_same(hw.explain(model, x, target=[0, 2, 1], method="IG", baselines=z, steps=20).relevance, theirs, ROUNDED)


@CAPTUM
def test_internal_influence_and_conductance_as_captum_has_them() -> None:
    from captum.attr import InternalInfluence, LayerConductance

    model, x, z = picture_net(), draw(2, 2, 8, 8), draw(1, 2, 8, 8, key=9)
    ours = hw.explain(model, x, target=1, method="internal_influence", layer="1", baselines=z, steps=20)
    theirs = InternalInfluence(model, model[1]).attribute(x, z, target=1, n_steps=20)
    assert_same(ours.layers["1"], theirs, ROUNDED)
    ours = hw.explain(model, x, target=1, method="layer_conductance", layer="1", baselines=z, steps=400)
    # Captum sums one-sided steps, whose error falls with their length alone.
    theirs = LayerConductance(model, model[1]).attribute(x, z, target=1, n_steps=2000, method="riemann_trapezoid")
    assert_same(ours.layers["1"], theirs, 2e-3)


@CAPTUM
def test_neurons_as_captum_has_them() -> None:
    from captum.attr import NeuronConductance, NeuronGuidedBackprop, NeuronIntegratedGradients

    model = double(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Softplus(), nn.Flatten(), nn.ReLU(), nn.Linear(144, 3)))
    x, where = draw(2, 2, 8, 8), (2, 3, 4)
    theirs = NeuronConductance(model, model[1]).attribute(x, where, target=1, n_steps=30, method="gausslegendre")
    ours = hw.explain(model, x, target=1, method="neuron_conductance", layer="1", neuron=where, steps=30)
    assert_same(ours.relevance, theirs, ROUNDED)
    theirs = NeuronIntegratedGradients(model, model[0]).attribute(x, where, n_steps=30)
    ours = hw.explain(model, x, method="neuron_integrated_gradients", layer="0", neuron=where, steps=30)
    assert_same(ours.relevance, theirs, ROUNDED)
    theirs = NeuronGuidedBackprop(model, model[4]).attribute(x, (1,))
    ours = hw.explain(model, x, method="neuron_guided_backprop", layer="4", neuron=1)
    assert_same(ours.relevance, theirs, 1e-9)


# ---------------------------------------------------------------------- conductance by its definition


def test_conductance_by_its_definition() -> None:
    """Dhamdhere et al.: sum over inputs of ``(x_i - z_i) ∫ ∂f/∂y_j ∂y_j/∂x_i dt``, by Jacobians in a loop."""
    model, x, z = smooth(), draw(1, 6), draw(1, 6, key=9)
    lower, upper, grid = model[:2], model[2:], nodes("gauss_legendre", 40)
    total = torch.zeros(6, 8, dtype=torch.float64)
    for t, w in zip(grid.at[0], (grid.high - grid.low)[0], strict=True):
        point = z + t * (x - z)
        outer = gradient(upper, lower(point), 1)[0]
        inner = torch.autograd.functional.jacobian(lambda v: lower(v)[0], point)[:, 0]  # [8, 6]
        total += w * (x - z).T * inner.T * outer
    for method in ("total_conductance", "layer_conductance"):
        e = hw.explain(model, x, target=1, method=method, layer="1", baselines=z, steps=300, batch_size=64)
        assert_same(e.layers["1"][0], total.sum(0), 1e-4)
        assert_same(e.layers["1"].sum(1), e.output - e.reference, 1e-4)
    for j in (0, 5):
        e = hw.explain(model, x, target=1, method="neuron_conductance", layer="1", neuron=j, baselines=z)
        assert_same(e.relevance[0], total[:, j], 1e-9)


def test_a_channel_of_neurons_and_all_of_them() -> None:
    model, x = picture_net(), draw(2, 2, 8, 8)
    parts = [hw.explain(model, x, method="NC", layer="0", neuron=c).relevance for c in range(4)]
    assert_same(sum(parts), hw.explain(model, x, method="IG").relevance, 1e-9)


def test_a_layer_that_runs_twice_has_a_map_for_each_time() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.mix(torch.tanh(self.mix(x)))))

    model, x = double(Twice()), draw(3, 4)
    e = hw.explain(model, x, method="layer_conductance", layer="mix")
    assert len(e.layers["mix"]) == 2
    for part in e.layers["mix"]:
        assert_same(part.sum(1), e.output - e.reference, 1e-3)


# ---------------------------------------------------------------------- random paths


def test_algorithm_5() -> None:
    """The review's loop over starting points and midpoints, with the same starting points."""
    model, x, starts = smooth(), draw(2, 6), []

    def f(x: Tensor) -> Tensor:
        return model(x)[:, 0]

    e = hw.explain(f, x, method="smooth_ig", sigma=0.3, seed=3)

    noise = Noise(3, 0.1, 0.3)
    starts = [noise(Rows(0, *(torch.tensor([k]) for k in (0, s, 0)), 1), (0, 0), x[:1]) for s in range(5)]
    expected = torch.zeros_like(x)
    for start in starts:
        for t in range(1, 6):
            expected += (x - start) * gradient(model, start + (t - 0.5) / 5 * (x - start), 0) / 25
    assert_same(e.relevance, expected)
    assert_same(e.reference, torch.stack([f(s) for s in starts]).mean().expand(2))
    assert torch.stack(starts).std() == pytest.approx(0.3, rel=0.5)


def test_expected_gradients_lie_within_their_standard_error() -> None:
    model, x, references = smooth(), draw(2, 6), draw(12, 6, key=9)
    exact = torch.stack([hw.explain(model, x, target=1, method="IG", baselines=r).relevance for r in references]).mean(
        0
    )
    e = hw.explain(model, x, target=1, method="expected_gradients", references=references, draws=2400, steps=1)
    assert ((e.relevance - exact).abs() < 4 * e.details["standard_error"]).all()
    full = hw.explain(model, x, target=1, method="expected_gradients", references=references, draws=12, steps=200)
    assert_same(full.relevance, exact, 1e-3)  # every reference once, stretches almost as points
    assert_same(full.reference, model(references)[:, 1].mean().expand(2))


@CAPTUM
def test_gradient_shap_lies_beside_captums() -> None:
    from captum.attr import GradientShap

    model, x, references = smooth(), draw(2, 6), draw(12, 6, key=9)
    theirs = GradientShap(model).attribute(x, references, n_samples=4000, stdevs=0.3, target=1)
    e = hw.explain(
        model, x, target=1, method="gradient_shap", references=references, draws=2400, steps=1, sigma=0.3
    )  # fmt: skip
    assert ((e.relevance - theirs).abs() < 6 * e.details["standard_error"]).all()


# ---------------------------------------------------------------------- axioms


@settings(max_examples=25)
@given(st.integers(0, 2**16), st.floats(-2, 2), st.floats(-2, 2))
def test_linear_in_the_model(seed: int, a: float, b: float) -> None:
    torch.manual_seed(seed)
    f, g = (nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)).double() for _ in "fg")
    x = draw(2, 6)

    def mixed(x: Tensor) -> Tensor:
        return a * f(x)[:, 0] + b * g(x)[:, 0]

    def of(model: Callable[[Tensor], Tensor]) -> Tensor:
        return hw.explain(model, x, method="IG", steps=4).relevance

    assert_same(of(mixed), a * of(lambda x: f(x)[:, 0]) + b * of(lambda x: g(x)[:, 0]), 1e-9)


@settings(max_examples=25)
@given(st.integers(0, 2**16))
def test_symmetric_features_and_dummies(seed: int) -> None:
    """Features that play the same part get the same, one that plays none gets nothing."""
    torch.manual_seed(seed)
    inner, x = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double(), draw(3, 4)
    x[:, 1] = x[:, 0]

    def f(x: Tensor) -> Tensor:
        return inner(torch.stack([x[:, 0] * x[:, 1], x[:, 2]], 1))[:, 0]

    e = hw.explain(f, x, method="IG")
    assert_same(e.relevance[:, 0], e.relevance[:, 1])
    assert (e.relevance[:, 3] == 0).all()


# ---------------------------------------------------------------------- refusals

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("at least 1", {"steps": 0}),
    ("gauss_legendre", {"rule": "simpson"}),
    ("does not broadcast", {"baselines": torch.zeros(5)}),
    ("NaN", {"baselines": torch.full((6,), torch.nan)}),
    ("empty list", {"baselines": []}),
    ("of type str", {"baselines": "black"}),
    ("end at x", {"path": torch.zeros(3, 2, 6)}),
    ("two points", {"path": torch.zeros(1, 2, 6)}),
    ("composite", {"composite": "epsilon"}),
    ("option 'baseline'", {"baseline": 0}),
]


@pytest.mark.parametrize(("text", "options"), REFUSED, ids=[text for text, _ in REFUSED])
def test_what_is_refused(text: str, options: dict[str, Any]) -> None:
    with pytest.raises(hw.HeadwaterError, match=text):
        hw.explain(smooth(), draw(2, 6), method="integrated_gradients", **options)


def test_what_is_missing_is_named() -> None:
    model, x = smooth(), draw(2, 6)
    with pytest.raises(hw.InvalidInput, match="references= is missing"):
        hw.explain(model, x, method="gradient_shap")
    with pytest.raises(hw.InvalidInput, match="references="):
        hw.explain(model, x, method="expected_gradients", references=draw(3, 5))
    with pytest.raises(hw.InvalidInput, match="layer= is missing"):
        hw.explain(model, x, method="layer_conductance")
    with pytest.raises(hw.InvalidInput, match="no module"):
        hw.explain(model, x, method="layer_conductance", layer="9")
    with pytest.raises(hw.InvalidInput, match="neuron="):
        hw.explain(model, x, method="neuron_conductance", layer="1")
    with pytest.raises(hw.InvalidInput, match="out of range"):
        hw.explain(model, x, method="neuron_conductance", layer="1", neuron=8)
    with pytest.raises(hw.InvalidInput, match="no target="):
        hw.explain(model, x, target=1, method="neuron_integrated_gradients", layer="1", neuron=2)
