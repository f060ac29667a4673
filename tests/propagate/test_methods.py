"""The methods beside LRP, against their definitions written out on a rectified network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater import propagated
from tests.reference import rules
from tests.reference.audit import TIGHT, assert_same, relative_error, score, seed
from tests.reference.nets import double, draw


def network() -> nn.Sequential:
    return double(
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(inplace=True), nn.Linear(7, 3)),
    )


def activations(model: nn.Sequential, x: Tensor) -> list[Tensor]:
    """Input of each module, then the output."""
    values = [x]
    with torch.no_grad():
        for module in model:
            values.append(module(values[-1].clone()))
    return values


def walked(model: nn.Sequential, x: Tensor, through_relu: Any) -> Tensor:
    """Signals from the output to the input: transposed weights, and a rule for ReLU of (signal, its input)."""
    values = activations(model, x)
    signal = seed(values[-1])
    for module, below in list(zip(model, values[:-1], strict=True))[::-1]:
        signal = through_relu(signal, below) if isinstance(module, nn.ReLU) else signal @ module.weight.detach()
    return signal


def test_gradient_and_what_is_made_of_it() -> None:
    model, x = network(), draw(3, 6)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(model(leaf)).sum(), leaf)
    assert_same(hw.explain(model, x, target=score, method="gradient").relevance, gradient)
    assert_same(hw.explain(model, x, target=score, method="gradient_x_input").relevance, gradient * x)
    assert_same(hw.explain(model, x, target=score, method="sensitivity").relevance, gradient.abs())
    squared = hw.explain(model, x, target=score, method="sensitivity", squared=True).relevance
    assert_same(squared, gradient.square())


def test_guided_backprop_lets_positive_signals_through_active_units() -> None:
    model, x = network(), draw(3, 6)
    expected = walked(model, x, lambda signal, z: signal * (signal > 0) * (z > 0))
    assert_same(hw.explain(model, x, target=score, method="guided_backprop").relevance, expected)


def test_deconvnet_lets_positive_signals_through() -> None:
    model, x = network(), draw(3, 6)
    expected = walked(model, x, lambda signal, z: signal * (signal > 0))
    assert_same(hw.explain(model, x, target=score, method="deconvnet").relevance, expected)


def excitation(model: nn.Sequential, x: Tensor, top: rules.Rule) -> Tensor:
    """Marginal winning probabilities, scaled by the score: z+ in every layer but the top one."""
    values = activations(model, x)
    relevance = values[-1] * seed(values[-1])
    for i, formula in ((4, top), (2, rules.z_plus), (0, rules.z_plus)):
        layer = rules.layer_of(model[i], (model[i].in_features,))
        relevance = rules.redistribute(layer, formula, values[i], relevance)
    return relevance


def contrast(taps: list[rules.Tap], bias: float) -> list[float]:
    """The winner against a unit with negated weights: a w+ / sum a w+  -  a (-w)+ / sum a (-w)+."""
    above = sum(t.a * rules.positive(t.w) for t in taps)
    below = sum(t.a * rules.positive(-t.w) for t in taps)
    return [
        rules.ratio(t.a * rules.positive(t.w), above) - rules.ratio(t.a * rules.positive(-t.w), below) for t in taps
    ]


@pytest.mark.parametrize(
    ("method", "top"), [("excitation_backprop", rules.z_plus), ("contrastive_excitation_backprop", contrast)]
)
def test_excitation_backprop(method: str, top: rules.Rule) -> None:
    model, x = network(), draw(3, 6).abs()
    found = hw.explain(model, x, target=score, method=method).relevance
    assert relative_error(found, excitation(model, x, top)) <= TIGHT


def test_attnlrp_on_a_network_without_attention_is_lrp_epsilon() -> None:
    model, x = network(), draw(3, 6)
    expected = hw.explain(model, x, target=score, composite="epsilon").relevance
    for method in ("attnlrp", "cplrp"):
        assert_same(hw.explain(model, x, target=score, method=method).relevance, expected)


def test_every_method_has_a_row_and_answers() -> None:
    model, x = network(), draw(2, 6)
    rows = list(hw.methods())
    assert {row.name for row in rows} >= {
        "gradient",
        "sensitivity",
        "gradient_x_input",
        "guided_backprop",
        "deconvnet",
        "excitation_backprop",
        "contrastive_excitation_backprop",
        "lrp",
        "deep_taylor",
        "attnlrp",
        "cplrp",
    }
    for row in (row for row in propagated.ROWS if row.run):
        assert all((row.abbreviation, row.family, row.source, row.needs))
        assert hw.explain(model, x, method=row.name).relevance.shape == x.shape


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(hw.HeadwaterError, match="gradient_x_input"):
        hw.explain(network(), draw(2, 6), method="gradiant")
