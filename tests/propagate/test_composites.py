"""Composites, presets and filters in networks of several layers, against loops applied layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from tests.reference import rules
from tests.reference.audit import TIGHT, assert_balanced, assert_same, relative_error, score, seed
from tests.reference.nets import double, draw, explain

RULES: dict[str, tuple[Any, rules.Rule]] = {
    "epsilon": (hw.rules.Epsilon(1e-2), rules.epsilon(1e-2)),
    "gamma": (hw.rules.Gamma(0.25), rules.generalized_gamma(0.25)),
    "z plus": (hw.rules.ZPlus(), rules.z_plus),
}


class SmallNet(nn.Sequential):
    """Two convolutions and two dense layers, rectified: the input has shape ``[N, 2, 5, 5]``."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 3, stride=2), nn.ReLU(), nn.Flatten(),
            nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3),
        )  # fmt: skip


def layered(model: nn.Sequential, x: Tensor, formulas: list[rules.Rule], between: list[Any] | None = None) -> Tensor:
    """Relevance by one formula an affine layer, from the input up; ``between`` filters it at each layer's output."""
    inputs, layers, a = [], [], x
    for module in model:
        if isinstance(module, nn.Linear | nn.Conv2d):
            inputs.append(a)
            layers.append(rules.layer_of(module, tuple(a.shape[1:])))
        a = module(a).detach()
    relevance = a * seed(a)
    filters = between or [None] * len(layers)
    for layer, formula, below, keep in list(zip(layers, formulas, inputs, filters, strict=True))[::-1]:
        relevance = relevance.reshape(len(x), *layer.output_shape)
        if keep is not None:
            relevance = keep(relevance)
        relevance = rules.redistribute(layer, formula, below, relevance)
    return relevance


PRESETS: dict[str, list[rules.Rule]] = {
    "epsilon": [rules.epsilon(1e-6)] * 4,
    "epsilon_plus": [rules.z_plus] * 2 + [rules.epsilon(1e-6)] * 2,
    "epsilon_plus_flat": [rules.flat, rules.z_plus] + [rules.epsilon(1e-6)] * 2,
    "epsilon_alpha2_beta1": [rules.alpha_beta(2, 1, True)] * 2 + [rules.epsilon(1e-6)] * 2,
    "epsilon_gamma_box": [rules.box([-3.0] * 50, [3.0] * 50), rules.gamma(0.25)] + [rules.epsilon(1e-6)] * 2,
}


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_is_its_rules_layer_by_layer(preset: str) -> None:
    model, x = double(SmallNet()), draw(2, 2, 5, 5).clamp(-3, 3)
    e = hw.explain(model, x, target=score, composite=preset, bounds=(-3.0, 3.0), ledger=True)
    assert_balanced(e)
    assert relative_error(e.relevance, layered(model, x, PRESETS[preset])) <= TIGHT


def test_cmp_preset_is_three_bands_of_sixteen_layers() -> None:
    """The review's recipe for VGG-16: seven layers of gamma (z^B below), six of relative epsilon, three of LRP-0."""
    torch.manual_seed(2)
    layers = [nn.Linear(6, 6) for _ in range(16)]
    model = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))[:-1].double().eval()
    inputs = [draw(2, 6).clamp(-2, 2)]
    with torch.no_grad():
        for layer in layers[:-1]:
            layer.weight.mul_(1.5)
            inputs.append(layer(inputs[-1]).relu())
        z = model(inputs[0])
    relevance = z * seed(z)
    for i in reversed(range(16)):
        layer, a = rules.layer_of(layers[i], (6,)), inputs[i]
        if 7 <= i < 13:
            relevance = rules.redistribute_relative_epsilon(layer, 0.25, a, relevance)
        else:
            formula = rules.zero if i >= 13 else rules.box([-2.0] * 6, [2.0] * 6) if i == 0 else rules.gamma(0.25)
            relevance = rules.redistribute(layer, formula, a, relevance)
    e = hw.explain(model, inputs[0], target=score, composite="cmp", bounds=(-2.0, 2.0), ledger=True)
    assert_balanced(e)
    assert relative_error(e.relevance, relevance) <= TIGHT


def test_default_recipe_on_a_convolutional_network() -> None:
    model, x = double(SmallNet()), draw(2, 2, 5, 5)
    expected = layered(model, x, [rules.generalized_gamma(10), rules.gamma(10)] + [rules.epsilon(1e-6)] * 2)
    assert relative_error(explain(model, x, None).relevance, expected) <= TIGHT


@pytest.mark.parametrize("black", [False, True], ids=["random", "all black"])
def test_selectors_from_the_most_specific(black: bool) -> None:
    model = double(SmallNet())
    x = torch.zeros(2, 2, 5, 5, dtype=torch.float64) if black else draw(2, 2, 5, 5)
    table = {
        "input": hw.rules.Flat(),
        "layer:2": hw.rules.AlphaBeta(2, 1),
        "conv": hw.rules.Gamma(9.0),
        "depth:0.75-1": hw.rules.Zero(),
        "linear": hw.rules.Epsilon(0.1),
        "default": hw.rules.ZPlus(),
    }
    formulas = [rules.flat, rules.alpha_beta(2, 1, True), rules.epsilon(0.1), rules.zero]
    assert relative_error(explain(model, x, table).relevance, layered(model, x, formulas)) <= TIGHT


@pytest.mark.parametrize("domain", ["any", "non-negative", "box"])
def test_deep_taylor_picks_its_input_rule_by_domain(domain: str) -> None:
    model, x = double(SmallNet()), draw(2, 2, 5, 5).clamp(-3, 3)
    options: dict[str, Any] = {}
    if domain == "any":
        first = rules.w_squared
    elif domain == "non-negative":
        x, first = x.abs(), rules.z_plus
    else:
        first, options = rules.box([-3.0] * 50, [3.0] * 50), {"bounds": (-3.0, 3.0)}
    e = hw.explain(model, x, target=score, method="deep_taylor", ledger=True, **options)
    assert_balanced(e)
    assert relative_error(e.relevance, layered(model, x, [first] + [rules.z_plus] * 3)) <= TIGHT


def test_deep_taylor_of_a_sample_does_not_depend_on_the_others() -> None:
    model, x = double(SmallNet()), draw(2, 2, 5, 5)
    x[0] = x[0].abs()
    together = hw.explain(model, x, target=score, method="deep_taylor").relevance
    for n in range(2):
        alone = hw.explain(model, x[n : n + 1], target=score, method="deep_taylor").relevance
        assert relative_error(together[n : n + 1], alone) <= TIGHT


# Filters (seed: Tjoa and Guan, 2020) ------------------------------------------------------------------------


def clamp(relevance: Tensor, alpha: float) -> Tensor:
    return torch.stack([r.clamp(-alpha * r.abs().max(), alpha * r.abs().max()) for r in relevance])


def fraction_pass(relevance: Tensor, alpha: float) -> Tensor:
    return torch.stack([torch.where(r.abs() >= alpha * r.abs().max(), 0.0, r) for r in relevance])


def amplify(relevance: Tensor, alpha: float, factor: float) -> Tensor:
    return torch.stack([torch.where(r.abs() >= alpha * r.abs().max(), factor * r, r) for r in relevance])


FILTERS: dict[str, tuple[Any, Callable[[Tensor], Tensor]]] = {
    "clamp": (hw.filters.Clamp(0.2), lambda r: clamp(r, 0.2)),
    "fraction pass": (hw.filters.FractionPass(0.6), lambda r: fraction_pass(r, 0.6)),
    "amplify": (hw.filters.FractionAmplify(0.5, factor=2), lambda r: amplify(r, 0.5, 2.0)),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", FILTERS)
def test_filter_acts_on_the_relevance_at_its_layers_output(name: str, rule: str) -> None:
    model, x = double(SmallNet()), draw(2, 2, 5, 5)
    ours, formula = RULES[rule]
    filter_, by_formula = FILTERS[name]
    expected = layered(model, x, [formula] * 4, [None, by_formula, None, None])
    e = explain(model, x, {"layer:2": (ours, filter_), "default": ours})
    assert relative_error(e.relevance, expected) <= TIGHT
    booked = {row.layer: row.absorbed["filter"] for row in e.ledger if "filter" in row.absorbed}
    assert set(booked) == {"2"}
    assert (booked["2"] != 0).all()


class Skipping(nn.Module):
    """Adds a layer's output to the input, and puts it beside the input; ``[N, 3]`` to ``[N, 2]``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.beside = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.first(x)
        scores: Tensor = self.beside(torch.cat([x, self.second(y).relu()], 1))
        return scores


def test_a_sum_with_the_input_is_no_input() -> None:
    plan = hw.plan(double(Skipping()), draw(2, 3), composite=hw.Composite({"input": hw.rules.Flat()}))
    rules_of = {row.layer: row.rule for row in plan if row.layer}
    assert rules_of == {"first": "Flat()", "second": "Zero()", "beside": "Flat()"}


RELATIVE = hw.Composite({"default": hw.rules.Epsilon(0.25, relative=True)})


def test_rules_of_whole_samples_in_models_that_take_samples_out() -> None:
    torch.manual_seed(0)
    one, other = double(nn.Linear(4, 2)), double(nn.Linear(4, 2))

    def chosen(x: Tensor) -> Tensor:
        return torch.stack([(one if v.sum() > 0 else other)(v) for v in x])

    x = torch.cat([draw(3, 4), draw(2, 4, key=4).abs()])
    for method in ("deep_taylor", "lrp"):
        together = hw.explain(chosen, x, 0, method, RELATIVE if method == "lrp" else None).relevance
        usual = torch.cat(
            [hw.explain(one if v.sum() > 0 else other, v[None], 0, method,
                        RELATIVE if method == "lrp" else None).relevance for v in x]
        )  # fmt: skip
        assert_same(together, usual)


def test_rules_of_whole_samples_in_models_that_take_no_sample_alone() -> None:
    graph, layer, x = torch.rand(5, 5, dtype=torch.float64), double(nn.Linear(3, 2)), draw(5, 3)
    with pytest.raises(hw.UnsupportedModel, match=r"whole samples.*epsilon.*alone"):
        hw.explain(lambda x: (layer(x).t() @ graph).t(), x, 0, composite=RELATIVE)
    with pytest.warns(hw.HeadwaterWarning, match="score is another"):
        e = hw.explain(lambda x: (layer(x).t() @ torch.ones(len(x), len(x)).double()).t(), x, 0, composite=RELATIVE)
    assert_same(e.output, layer(x)[:, 0])
    with pytest.raises(hw.UnsupportedModel, match=r"whole samples.*first axis"):
        hw.explain(lambda x: layer(x).mean(0, keepdim=True), x, 0, composite=RELATIVE)
