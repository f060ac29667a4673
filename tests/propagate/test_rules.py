"""Every rule against its paper's formula written out in plain loops (``tests/reference/rules.py``)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import headwater as hw
from tests.reference import rules
from tests.reference.audit import TIGHT, assert_accounted, relative_error, score, seed
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


@pytest.mark.parametrize("bias", [None, 0.0, 0.5, -0.5, 1e6])
@pytest.mark.parametrize("signed", [False, True], ids=["non-negative", "signed"])
@pytest.mark.parametrize("rule", RULES)
def test_neurons_without_positive_or_negative_or_any_contributions(rule: str, signed: bool, bias: float | None) -> None:
    x = torch.tensor([[0.0, 2.0, 0.7, 1.3, 0.0], [0.1, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]]).double()
    x = x * torch.tensor([1.0, -1.0, -1.0, 1.0, -1.0]).double() if signed else x
    magnitude = draw(5, 5).abs()
    weight = torch.stack(
        [magnitude[0], -magnitude[1], magnitude[2] * x[0].sign(), -magnitude[3] * x[0].sign(), 0 * x[0]]
    )
    module = nn.Linear(5, 5, bias=bias is not None).double()
    with torch.no_grad():
        module.weight.copy_(weight)
        if bias is not None:
            module.bias.fill_(bias)
    ours, formula = RULES[rule]
    z = module(x).detach()
    expected = rules.redistribute(rules.layer_of(module, (5,)), formula, x, z * seed(z))
    model = module if signed else nn.Sequential(nn.ReLU(), module)
    e = explain(model, x, {"default": ours})
    assert relative_error(e.relevance, expected) <= TIGHT
    assert_accounted(e)


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


@pytest.mark.parametrize("shape", [(5,), (3, 5)])
def test_the_stabilizer_acts_before_an_activation_in_place(shape: tuple[int, ...]) -> None:
    """Rows of vectors come out of a dense layer as a view, whose node goes where an in-place operator writes to it."""
    width = 4 * math.prod(shape[:-1])
    model = double(nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(width, 3)))
    x = draw(2, *shape)
    expected = hw.explain(model, x, 1, composite=hw.Composite({"default": hw.rules.Epsilon(2.0)}), ledger=True)
    found = hw.explain(model, x, 1, composite=hw.Composite({"default": hw.rules.Epsilon(2.0)}))
    assert relative_error(found.relevance, expected.relevance) <= TIGHT


def test_plans_and_ledgers_name_rules_without_what_is_the_default() -> None:
    rules = hw.rules
    assert str(rules.Epsilon()) == "Epsilon(epsilon=1e-06)"
    assert str(rules.Epsilon(0.1, relative=True)) == "Epsilon(epsilon=0.1, relative=True)"
    assert str(rules.AlphaBeta(2, 1)) == "AlphaBeta(alpha=2, beta=1)"
    assert str(rules.AlphaBeta(2, 1, bias=False)) == "AlphaBeta(alpha=2, beta=1, bias=False)"
    assert str(rules.Box()) == "Box()"
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)).eval()
    x = torch.randn(2, 4)
    for printed in (hw.plan(model, x), hw.explain(model, x, ledger=True).ledger):
        assert "Epsilon(epsilon=1e-06) " in str(printed)


class Doubled(hw.rules.Epsilon):
    """A rule of a user's, made from another: twice the share of inputs above one."""

    def factor(self, op: Any, c: Tensor) -> Tensor:
        return op.transpose(c) * torch.where(op.x > 1, 2.0, 1.0)


def test_a_rule_made_from_another_is_asked_for_its_own_factor() -> None:
    layer, x = nn.Linear(3, 2, bias=False), torch.tensor([[0.5, 1.5, 2.5]])
    e = hw.explain(nn.Sequential(layer).eval(), x, target=0, composite=hw.Composite({"default": Doubled()}))
    torch.testing.assert_close(e.relevance, x * layer.weight[0].detach() * torch.tensor([1.0, 2.0, 2.0]))
