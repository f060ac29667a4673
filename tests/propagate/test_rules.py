"""Every rule against its paper's formula written out in plain loops (``tests/reference/rules.py``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import headwater as hw
from tests.reference import rules
from tests.reference.audit import TIGHT, assert_accounted, assert_balanced, relative_error, score, seed
from tests.reference.nets import double, draw, explain

OPERATORS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dense": (lambda: nn.Linear(6, 4), (6,)),
    "conv1d stride padding": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1), (2, 8)),
    "conv1d groups dilation": (lambda: nn.Conv1d(4, 4, 2, dilation=2, groups=2), (4, 7)),
    "conv2d padding": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 5, 4)),
    "conv2d stride dilation uneven": (lambda: nn.Conv2d(2, 2, (3, 2), (2, 1), (2, 0), (1, 2)), (2, 6, 5)),
    "conv2d depthwise": (lambda: nn.Conv2d(3, 6, 3, padding=1, groups=3), (3, 4, 4)),
    "conv2d reflect": (lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), (2, 4, 4)),
    "conv2d replicate": (lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="replicate"), (2, 4, 4)),
    "conv2d circular": (lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), (2, 4, 4)),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2, stride=(1, 2, 1), padding=1), (1, 3, 3, 3)),
    "transposed conv1d": (lambda: nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1, output_padding=1), (2, 4)),
    "transposed conv2d groups": (lambda: nn.ConvTranspose2d(4, 2, 3, stride=2, groups=2, dilation=2), (4, 3, 3)),
    "transposed conv3d": (lambda: nn.ConvTranspose3d(1, 2, 2, stride=2, padding=1), (1, 2, 3, 2)),
}

# Name: the library's rule and the reference, for inputs of any sign.
RULES: dict[str, tuple[Any, rules.Rule]] = {
    "zero": (hw.rules.Zero(), rules.zero),
    "epsilon": (hw.rules.Epsilon(1e-2), rules.epsilon(1e-2)),
    "epsilon small": (hw.rules.Epsilon(1e-6), rules.epsilon(1e-6)),
    "gamma": (hw.rules.Gamma(0.25), rules.generalized_gamma(0.25)),
    "gamma large": (hw.rules.Gamma(3.0), rules.generalized_gamma(3.0)),
    "alpha 2 beta 1": (hw.rules.AlphaBeta(2, 1), rules.alpha_beta(2, 1, True)),
    "alpha 1 beta 0": (hw.rules.AlphaBeta(1, 0), rules.alpha_beta(1, 0, True)),
    "alpha 1.5 beta 0.5 without bias": (hw.rules.AlphaBeta(1.5, 0.5, bias=False), rules.alpha_beta(1.5, 0.5, False)),
    "z plus": (hw.rules.ZPlus(), rules.z_plus),
}

# For rectified outputs and inputs that an operator before made non-negative.
RECTIFIED: dict[str, tuple[Any, rules.Rule]] = {
    "zero": (hw.rules.Zero(), rules.zero),
    "epsilon": (hw.rules.Epsilon(1e-2), rules.epsilon(1e-2)),
    "gamma, review Eq. 2": (hw.rules.Gamma(0.25), rules.gamma(0.25)),
    "beta 0, earthquake paper Eq. 4": (hw.rules.AlphaBeta(1, 0, bias=False), rules.lrp_beta(0.0)),
    "beta 0.5, earthquake paper Eq. 4": (hw.rules.AlphaBeta(1.5, 0.5, bias=False), rules.lrp_beta(0.5)),
    "beta 1, earthquake paper Eq. 4": (hw.rules.AlphaBeta(2, 1, bias=False), rules.lrp_beta(1.0)),
    "alpha 2 beta 1": (hw.rules.AlphaBeta(2, 1), rules.alpha_beta(2, 1, True)),
    "z plus": (hw.rules.ZPlus(), rules.z_plus),
}

INPUT_RULES: dict[str, tuple[Any, rules.Rule]] = {
    "w squared": (hw.rules.WSquare(), rules.w_squared),
    "flat": (hw.rules.Flat(), rules.flat),
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_reference_computes_what_torch_computes(operator: str) -> None:
    build, shape = OPERATORS[operator]
    module, x = double(build()), draw(2, *shape)
    assert relative_error(rules.forward(rules.layer_of(module, shape), x), module(x).detach()) < 1e-13


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_rule_on_signed_inputs(operator: str, rule: str) -> None:
    build, shape = OPERATORS[operator]
    module, x = double(build()), draw(2, *shape)
    ours, formula = RULES[rule]
    z = module(x).detach()
    expected = rules.redistribute(rules.layer_of(module, shape), formula, x, z * seed(z))
    assert relative_error(explain(module, x, {"default": ours}).relevance, expected) <= TIGHT


@pytest.mark.parametrize("rule", RECTIFIED)
@pytest.mark.parametrize("operator", OPERATORS)
def test_rule_on_non_negative_inputs_before_relu(operator: str, rule: str) -> None:
    build, shape = OPERATORS[operator]
    module, x = double(build()), draw(2, *shape)
    ours, formula = RECTIFIED[rule]
    a = x.relu()
    y = module(a).detach().relu()
    expected = rules.redistribute(rules.layer_of(module, shape), formula, a, y * seed(y))
    model = nn.Sequential(nn.ReLU(), module, nn.ReLU())
    assert relative_error(explain(model, x, {"default": ours}).relevance, expected) <= TIGHT


@pytest.mark.parametrize("operator", OPERATORS)
def test_relative_epsilon_is_measured_per_sample(operator: str) -> None:
    build, shape = OPERATORS[operator]
    module, x = double(build()), draw(2, *shape) * torch.tensor([1.0, 30.0]).reshape(2, *[1] * len(shape))
    z = module(x).detach()
    layer = rules.layer_of(module, shape)
    expected = rules.redistribute_relative_epsilon(layer, 0.25, x, z * seed(z))
    found = explain(module, x, {"default": hw.rules.Epsilon(0.25, relative=True)}).relevance
    for n in range(2):
        assert relative_error(found[n], expected[n]) <= TIGHT


@pytest.mark.parametrize("in_place", [False, True], ids=["relu", "relu in place"])
def test_relative_epsilon_is_measured_before_the_rectifier(in_place: bool) -> None:
    first, last, x = double(nn.Linear(5, 6)), double(nn.Linear(6, 3)), draw(2, 5)
    model, a = nn.Sequential(first, nn.ReLU(in_place), last), first(x).relu().detach()
    z = last(a).detach()
    above = rules.redistribute_relative_epsilon(rules.layer_of(last, (6,)), 0.25, a, z * seed(z))
    expected = rules.redistribute_relative_epsilon(rules.layer_of(first, (5,)), 0.25, x, above)
    table = {"default": hw.rules.Epsilon(0.25, relative=True)}
    assert relative_error(explain(model, x, table).relevance, expected) <= TIGHT
    without_ledger = hw.explain(model, x, target=score, composite=hw.Composite(table))
    assert relative_error(without_ledger.relevance, expected) <= TIGHT


@pytest.mark.parametrize("black", [False, True], ids=["random", "all black"])
@pytest.mark.parametrize("rule", INPUT_RULES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_input_rule(operator: str, rule: str, black: bool) -> None:
    build, shape = OPERATORS[operator]
    module = double(build())
    x = torch.zeros(2, *shape, dtype=torch.float64) if black else draw(2, *shape)
    ours, formula = INPUT_RULES[rule]
    z = module(x).detach()
    expected = rules.redistribute(rules.layer_of(module, shape), formula, x, z * seed(z))
    assert relative_error(explain(module, x, {"input": ours}).relevance, expected) <= TIGHT


def bounds_of(kind: str, shape: tuple[int, ...]) -> tuple[Any, Any]:
    per_channel = torch.linspace(0.5, 1.5, shape[0], dtype=torch.float64).reshape(-1, *[1] * (len(shape) - 1))
    everywhere = draw(*shape, key=11).abs() + 0.1
    return {
        "scalar": (-2.0, 3.0),
        "channel": (-3 * per_channel, 2 * per_channel),
        "tensor": (-3 - everywhere, 3 + everywhere),
        "low only": (-2.5, 0.0),
    }[kind]


def flat_bounds(bounds: tuple[Any, Any], shape: tuple[int, ...]) -> list[list[float]]:
    return [torch.as_tensor(b, dtype=torch.float64).broadcast_to(shape).flatten().tolist() for b in bounds]


@pytest.mark.parametrize("black", [False, True], ids=["random", "all black"])
@pytest.mark.parametrize("kind", ["scalar", "channel", "tensor", "low only"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_box(operator: str, kind: str, black: bool) -> None:
    build, shape = OPERATORS[operator]
    module, (low, high) = double(build()), bounds_of(kind, shape)
    signed = draw(2, *shape).clamp(min=torch.as_tensor(low), max=torch.as_tensor(high))
    x = torch.zeros_like(signed) if black else signed
    z = module(x).detach()
    formula = rules.box(*flat_bounds((low, high), shape))
    expected = rules.redistribute(rules.layer_of(module, shape), formula, x, z * seed(z))
    assert expected.abs().max() > 0
    in_the_rule = explain(module, x, {"input": hw.rules.Box(low, high)}).relevance
    in_the_call = explain(module, x, {"input": hw.rules.Box()}, bounds=(low, high)).relevance
    assert relative_error(in_the_rule, expected) <= TIGHT
    assert relative_error(in_the_call, expected) <= TIGHT


@pytest.mark.parametrize("options", [{}, {"ledger": True}, {"batch_size": 2}], ids=["together", "ledger", "chunks"])
@pytest.mark.parametrize("where", ["rule", "call"])
def test_bounds_of_every_sample(where: str, options: dict[str, Any]) -> None:
    module, x = double(nn.Conv2d(2, 3, 3)), draw(3, 2, 4, 4)
    low, high = x - draw(3, 2, 4, 4, key=5).abs() - 0.1, x + draw(3, 2, 4, 4, key=6).abs() + 0.1
    z = module(x).detach()
    layer, relevance = rules.layer_of(module, (2, 4, 4)), z * seed(z)
    formulas = [rules.box(*flat_bounds((low[n], high[n]), (2, 4, 4))) for n in range(3)]
    expected = torch.cat(
        [rules.redistribute(layer, f, x[n : n + 1], relevance[n : n + 1]) for n, f in enumerate(formulas)]
    )
    if where == "rule":
        composite = hw.Composite({"input": hw.rules.Box(low, high)})
    else:
        composite, options = hw.Composite({"input": hw.rules.Box()}), options | {"bounds": (low, high)}
    found = hw.explain(module, x, target=score, composite=composite, **options)
    assert relative_error(found.relevance, expected) <= TIGHT


def test_pass_hands_relevance_on_unchanged() -> None:
    first, second, x = double(nn.Linear(5, 4)), double(nn.Linear(4, 4)), draw(3, 5)
    hidden = first(x).detach()
    z = second(hidden).detach()
    above = rules.redistribute(rules.identity((4,)), rules.passing, hidden, z * seed(z))
    below = rules.redistribute(rules.layer_of(first, (5,)), rules.zero, x, above)
    found = explain(nn.Sequential(first, second), x, {"layer:1": hw.rules.Pass(), "default": hw.rules.Zero()})
    assert relative_error(found.relevance, below) <= TIGHT


class Step(nn.Module):
    """One step of the thesis's recurrent cell: pixels enter beside rectified activations of the step before."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.cell, self.out = nn.Linear(3, 4), nn.Linear(3 + 4, 5), nn.Linear(5, 2)
        double(self)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.before(x[:, 1]))
        return self.out(F.relu(self.cell(torch.cat([x[:, 0], hidden], 1))))


@pytest.mark.parametrize("rule", ["box", "flat", "w squared"])
def test_pixels_beside_hidden_activations_share_one_denominator(rule: str) -> None:
    """Under z^B the hidden ones count with z+ (thesis, 3.61); where they are zero, flat and w^2 have nowhere to go."""
    model, x = Step(), draw(2, 2, 3).clamp(-1, 1)
    ours, at_pixels, at_cell = {
        "box": (
            hw.rules.Box(-1.0, 1.0),
            rules.box([-1.0] * 3, [1.0] * 3),
            rules.box([-1.0] * 7, [1.0] * 7, pixels=[True] * 3 + [False] * 4),
        ),
        "flat": (hw.rules.Flat(), rules.flat, rules.flat),
        "w squared": (hw.rules.WSquare(), rules.w_squared, rules.w_squared),
    }[rule]
    hidden = model.before(x[:, 1]).relu().detach()
    a = torch.cat([x[:, 0], hidden], 1)
    upper = model.cell(a).relu().detach()
    z = model.out(upper).detach()

    top = rules.redistribute(rules.layer_of(model.out, (5,)), rules.z_plus, upper, z * seed(z))
    middle = rules.redistribute(rules.layer_of(model.cell, (7,)), at_cell, a, top)
    arriving = torch.where(hidden == 0, 0.0, middle[:, 3:])
    low = rules.redistribute(rules.layer_of(model.before, (3,)), at_pixels, x[:, 1], arriving)
    expected = torch.stack([middle[:, :3], low], 1)
    e = explain(model, x, {"input": ours, "default": hw.rules.ZPlus()})
    assert relative_error(e.relevance, expected) <= TIGHT
    assert_accounted(e)


# Several layers ---------------------------------------------------------------------------------------------


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
    expected = layered(model, x, [rules.generalized_gamma(0.25), rules.gamma(0.25)] + [rules.epsilon(1e-6)] * 2)
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


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "z plus"])
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
