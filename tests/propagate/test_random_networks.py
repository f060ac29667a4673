"""Randomly built networks: the ledger balances, a batch is its samples, the model is left as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import headwater as hw
from tests.reference import rules
from tests.reference.audit import (
    TIGHT,
    assert_accounted,
    assert_balanced,
    assert_same,
    assert_unchanged,
    fingerprint,
    gradient_times_input,
    score,
    seed,
)
from tests.reference.nets import folded

WIDTH, CHANNELS, SIDE = 5, 3, 6


@dataclass(frozen=True)
class Step:
    """One operator on one or two of the values so far; ``key`` picks among weights, so that some are reused."""

    operator: str
    first: int
    second: int
    key: int


def norm2d(channels: int) -> nn.Module:
    bn = nn.BatchNorm2d(channels)
    bn.running_mean.normal_()
    bn.running_var.uniform_(0.5, 2.0)
    return bn


Apply = Callable[[Any, Tensor, Tensor], Tensor]

# Operators of [N, WIDTH]: what to build (None: nothing) and how to apply it.
HOMOGENEOUS_ROWS: dict[str, tuple[Callable[[], nn.Module] | None, Apply]] = {
    "linear": (lambda: nn.Linear(WIDTH, WIDTH, bias=False), lambda m, a, b: m(a)),
    "matmul": (lambda: nn.Linear(WIDTH, WIDTH, bias=False), lambda m, a, b: a @ m.weight.T),
    "residual": (lambda: nn.Linear(WIDTH, WIDTH, bias=False), lambda m, a, b: b + m(a).relu()),
    "join": (lambda: nn.Linear(2 * WIDTH, WIDTH, bias=False), lambda m, a, b: m(torch.cat([a, b], 1))),
    "relu": (None, lambda m, a, b: F.relu(a)),
    "relu in place": (None, lambda m, a, b: a.clone().relu_()),
    "leaky": (None, lambda m, a, b: F.leaky_relu(a, 0.2)),
    "add": (None, lambda m, a, b: a + b),
    "subtract": (None, lambda m, a, b: a - 0.5 * b),
    "maximum": (None, lambda m, a, b: torch.maximum(a, b)),
    "move": (None, lambda m, a, b: torch.stack([a, b.roll(1, 1)], 1).sum(1)),
    "sort": (None, lambda m, a, b: a.sort(1).values),
    "write": (None, lambda m, a, b: torch.cat([a[:, :2], b[:, 2:]], 1)),
    "spread": (None, lambda m, a, b: a.mean(1, keepdim=True) + b),
}
ROWS: dict[str, tuple[Callable[[], nn.Module] | None, Apply]] = HOMOGENEOUS_ROWS | {
    "biased": (lambda: nn.Linear(WIDTH, WIDTH), lambda m, a, b: m(a)),
    "gelu": (None, lambda m, a, b: F.gelu(a)),
    "silu": (None, lambda m, a, b: a * torch.sigmoid(a)),
    "tanh": (None, lambda m, a, b: torch.tanh(a)),
    "softplus": (None, lambda m, a, b: F.softplus(a)),
    "gate": (None, lambda m, a, b: torch.sigmoid(a) * b),
    "product": (None, lambda m, a, b: a * b.tanh()),
    "layer norm": (lambda: nn.LayerNorm(WIDTH), lambda m, a, b: m(a)),
    "unit length": (None, lambda m, a, b: a / (a.norm(dim=1, keepdim=True) + 0.1)),
    "softmax": (None, lambda m, a, b: a.softmax(1)),
    "batch norm": (lambda: nn.BatchNorm1d(WIDTH), lambda m, a, b: m(a)),
    "add a number": (None, lambda m, a, b: a + 0.3),
}


def convolution(bias: bool) -> nn.Module:
    return nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=bias)


MAPS: dict[str, tuple[Callable[[], nn.Module] | None, Apply]] = {
    "convolution": (lambda: convolution(False), lambda m, a, b: m(a)),
    "biased convolution": (lambda: convolution(True), lambda m, a, b: m(a)),
    "depthwise": (
        lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS),
        lambda m, a, b: m(a),
    ),
    "convolution, norm": (
        lambda: nn.Sequential(convolution(False), norm2d(CHANNELS)),
        lambda m, a, b: m(a),
    ),
    "residual block": (
        lambda: nn.Sequential(convolution(False), norm2d(CHANNELS), nn.ReLU(inplace=True), convolution(True)),
        lambda m, a, b: F.relu(m(a) + b),
    ),
    "norm first": (
        lambda: nn.Sequential(norm2d(CHANNELS), nn.ReLU(), convolution(False)),
        lambda m, a, b: b + m(a),
    ),
    "dense connection": (lambda: nn.Conv2d(2 * CHANNELS, CHANNELS, 1), lambda m, a, b: m(torch.cat([a, b], 1)).relu()),
    "relu": (None, lambda m, a, b: F.relu(a)),
    "down and up": (None, lambda m, a, b: F.interpolate(F.max_pool2d(a, 2), scale_factor=2) + b),
    "average": (None, lambda m, a, b: F.avg_pool2d(a, 3, 1, 1) + b),
    "silu": (None, lambda m, a, b: F.silu(a)),
    "excite": (
        lambda: nn.Linear(CHANNELS, CHANNELS),
        lambda m, a, b: b * torch.sigmoid(m(a.mean((2, 3))))[:, :, None, None],
    ),
    "group norm": (lambda: nn.GroupNorm(1, CHANNELS), lambda m, a, b: m(a)),
    "add": (None, lambda m, a, b: a + b),
}


def assigned(a: Tensor, b: Tensor) -> Tensor:
    a[:, 1:3] = b[:, 2:4]
    return a


def doubled(a: Tensor, b: Tensor) -> Tensor:
    a[:, ::2] *= 2
    return a


def lowered_by_a_view(a: Tensor, b: Tensor) -> Tensor:
    a.unflatten(1, (1, WIDTH))[:, 0, 2:].sub_(b[:, 2:])
    return a


# One function twice: leaving its operands alone, and writing to the first.
SPELLINGS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "relu": (lambda a, b: F.relu(a), lambda a, b: F.relu(a, inplace=True)),
    "clamp": (lambda a, b: a.clamp(min=0), lambda a, b: a.clamp_(min=0)),
    "add": (lambda a, b: a + b, lambda a, b: a.add_(b)),
    "subtract": (lambda a, b: a - 0.5 * b, lambda a, b: a.sub_(b, alpha=0.5)),
    "lower": (lambda a, b: a - 0.3, lambda a, b: a.sub_(0.3)),
    "negate": (lambda a, b: -a, lambda a, b: a.neg_()),
    "scale": (lambda a, b: a * -1.5, lambda a, b: a.mul_(-1.5)),
    "gate": (lambda a, b: a * torch.sigmoid(b), lambda a, b: a.mul_(torch.sigmoid(b))),
    "tanh": (lambda a, b: a.tanh(), lambda a, b: a.tanh_()),
    "fill": (lambda a, b: a.masked_fill(b > 0, 0.0), lambda a, b: a.masked_fill_(b > 0, 0.0)),
    "assign": (lambda a, b: torch.cat([a[:, :1], b[:, 2:4], a[:, 3:]], 1), assigned),
    "double": (lambda a, b: torch.stack([(2 - i % 2) * a[:, i] for i in range(WIDTH)], 1), doubled),
    "lower by a view": (lambda a, b: torch.cat([a[:, :2], a[:, 2:] - b[:, 2:]], 1), lowered_by_a_view),
}


class Spelled(nn.Module):
    """Steps between linear layers; in place, a step overwrites its first operand, as its twin pretends to."""

    def __init__(self, steps: list[Step], in_place: bool) -> None:
        super().__init__()
        self.steps, self.in_place = steps, in_place
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(3)])
        self.read = nn.Linear(WIDTH, 3)

    def forward(self, v: Tensor) -> Tensor:
        values = [layer(v) for layer in self.layers]
        for step in self.steps:
            i, b = step.first % 3, values[step.second % 3]
            b = b.clone() if b is values[i] else b
            values[i] = SPELLINGS[step.operator][self.in_place](values[i], b)
            if step.key:
                values[step.second % 3] = self.layers[i](values[i])
        return self.read(sum(values))


class Composed(nn.Module):
    """Runs the steps; the sum of the last two values is read by a dense layer."""

    def __init__(self, steps: list[Step], table: dict[str, Any], features: int, bias: bool) -> None:
        super().__init__()
        self.steps, self.table = steps, table
        self.parts = nn.ModuleDict()
        for step in steps:
            build, name = table[step.operator][0], self.part_name(step)
            if build is not None and name not in self.parts:
                self.parts[name] = build()
        self.read = nn.Linear(features, 3, bias=bias)

    def part_name(self, step: Step) -> str:
        return f"{step.operator} {step.key}".replace(".", "")

    def forward(self, v: Tensor) -> Tensor:
        values = [v]
        for step in self.steps:
            name = self.part_name(step)
            part = getattr(self.parts, name, None)
            a, b = values[step.first % len(values)], values[step.second % len(values)]
            values.append(self.table[step.operator][1](part, a, b))
        return self.read(sum(values[-2:]).flatten(1))


RULES: dict[str, tuple[Any, rules.Rule]] = {
    "zero": (hw.rules.Zero(), rules.zero),
    "epsilon": (hw.rules.Epsilon(1e-2), rules.epsilon(1e-2)),
    "gamma": (hw.rules.Gamma(0.25), rules.generalized_gamma(0.25)),
    "alpha 2 beta 1": (hw.rules.AlphaBeta(2, 1), rules.alpha_beta(2, 1, True)),
    "z plus": (hw.rules.ZPlus(), rules.z_plus),
}
WRITTEN_OUT = {name: ROWS[name] for name in ("linear", "biased", "join", "relu", "add")}


def programs(table: dict[str, Any]) -> st.SearchStrategy[list[Step]]:
    recent = st.integers(-3, -1)
    step = st.builds(Step, st.sampled_from(sorted(table)), recent, st.integers(-4, -1), st.integers(0, 1))
    return st.lists(step, min_size=1, max_size=8)


def built(
    steps: list[Step], table: dict[str, Any], shape: tuple[int, ...], bias: bool = True
) -> tuple[nn.Module, Tensor]:
    """A network in float64 and three samples."""
    torch.manual_seed(len(steps))
    model = Composed(steps, table, torch.Size(shape).numel(), bias).double().eval()
    return model, torch.randn(3, *shape, dtype=torch.float64)


def by_loops(model: Any, v: Tensor, formula: rules.Rule) -> Tensor:
    """Relevance of a composed network by a rule written out in loops, walked back step by step."""
    values, steps = [v], []
    with torch.no_grad():
        for step in model.steps:
            first, second = step.first % len(values), step.second % len(values)
            part = getattr(model.parts, model.part_name(step), None)
            steps.append((step.operator, first, second, part))
            values.append(model.table[step.operator][1](part, values[first], values[second]))
        read = sum(values[-2:])
        z = model.read(read)
    relevance = [torch.zeros_like(value) for value in values]
    at_read = rules.redistribute(rules.layer_of(model.read, (WIDTH,)), formula, read, z * seed(z))
    for i in range(max(0, len(values) - 2), len(values)):
        relevance[i] += proportion(values[i], read) * at_read
    for i in reversed(range(1, len(values))):
        operator, first, second, part = steps[i - 1]
        a, b, above = values[first], values[second], relevance[i]
        if operator == "add":
            relevance[first] += proportion(a, values[i]) * above
            relevance[second] += proportion(b, values[i]) * above
        elif operator == "relu":
            relevance[first] += above
        elif operator == "join":
            below = rules.redistribute(rules.layer_of(part, (2 * WIDTH,)), formula, torch.cat([a, b], 1), above)
            relevance[first] += below[:, :WIDTH]
            relevance[second] += below[:, WIDTH:]
        else:
            relevance[first] += rules.redistribute(rules.layer_of(part, (WIDTH,)), formula, a, above)
    return relevance[0]


def proportion(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole == 0, 0.0, part / whole)


def assert_sound(model: nn.Module, v: Tensor, composite: str | None) -> None:
    before = fingerprint(model)
    e = hw.explain(model, v, target=score, composite=composite, ledger=True)
    assert_unchanged(before, model)
    assert_balanced(e)
    assert_accounted(e)
    for n in range(len(v)):
        alone = hw.explain(model, v[n : n + 1], target=score, composite=composite)
        assert_same(alone.relevance, e.relevance[n : n + 1], 1e-8)
    single = hw.explain(model.float(), v.float(), target=score, composite=composite, ledger=True)
    assert_balanced(single, 1e-4)


SMALL = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])


@SMALL
@given(programs(HOMOGENEOUS_ROWS))
def test_homogeneous_networks_are_exact(steps: list[Step]) -> None:
    model, v = built(steps, HOMOGENEOUS_ROWS, (WIDTH,), bias=False)
    e = hw.explain(model, v, target=score, composite=hw.Composite({"default": hw.rules.Zero()}), ledger=True)
    assert_balanced(e)
    assert (e.ledger.absorbed() == 0).all()
    assert_same(e.relevance, gradient_times_input(model, v), TIGHT)


@pytest.mark.parametrize("rule", RULES)
@SMALL
@given(steps=programs(WRITTEN_OUT))
def test_rules_in_networks_of_any_shape_against_loops(rule: str, steps: list[Step]) -> None:
    model, v = built(steps, WRITTEN_OUT, (WIDTH,))
    ours, formula = RULES[rule]
    e = hw.explain(model, v, target=score, composite=hw.Composite({"default": ours}), ledger=True)
    assert_balanced(e)
    assert_same(e.relevance, by_loops(model, v, formula), 1e-8)


@pytest.mark.parametrize("composite", [None, "epsilon_alpha2_beta1"], ids=str)
@SMALL
@given(steps=programs(ROWS))
def test_dense_networks(composite: str | None, steps: list[Step]) -> None:
    assert_sound(*built(steps, ROWS, (WIDTH,)), composite)


@pytest.mark.parametrize("rule", ["zero", "gamma", "alpha 2 beta 1"])
@SMALL
@given(steps=programs(SPELLINGS))
@example(steps=[Step(name, -2, -1, 0) for name in ("clamp", "lower by a view", "relu", "add")])
@example(steps=[Step("lower", -2, -3, 0), Step("tanh", -2, -2, 0), Step("tanh", -2, -2, 0)])
@example(steps=[Step("clamp", -2, -2, 0), Step("lower", -2, -3, 0), Step("gate", -2, -1, 0)])
@example(steps=[Step(name, -2, -3, 0) for name in ("tanh", "lower by a view", "relu", "negate")])
def test_in_place_networks_of_any_shape(rule: str, steps: list[Step]) -> None:
    torch.manual_seed(0)
    functional = Spelled(steps, False).double().eval()
    in_place = Spelled(steps, True).double().eval()
    in_place.load_state_dict(functional.state_dict())
    v = torch.randn(3, WIDTH, dtype=torch.float64)
    table = hw.Composite({"default": RULES[rule][0]})
    expected = hw.explain(functional, v, target=score, composite=table, ledger=True)
    found = hw.explain(in_place, v, target=score, composite=table, ledger=True)
    assert_balanced(found)
    assert_same(found.output, expected.output, 1e-12)
    assert_same(found.relevance, expected.relevance, 1e-8)
    without_ledger = hw.explain(in_place, v, target=score, composite=table)
    assert_same(without_ledger.relevance, expected.relevance, 1e-8)


def with_folded_norms(model: Any) -> Any:
    """A copy whose convolutions have taken up the batch norm that follows them."""
    copied = copy.deepcopy(model)
    for name, part in copied.parts.items():
        if isinstance(part, nn.Sequential) and isinstance(part[0], nn.Conv2d):
            setattr(copied.parts, name, nn.Sequential(folded(part[0], part[1]), *part[2:]))
    return copied


@pytest.mark.parametrize("composite", [None, "epsilon_plus", "epsilon_alpha2_beta1"], ids=str)
@SMALL
@given(steps=programs(MAPS))
def test_folded_networks_of_any_shape(composite: str | None, steps: list[Step]) -> None:
    model, v = built(steps, MAPS, (CHANNELS, SIDE, SIDE))
    expected = hw.explain(with_folded_norms(model), v, target=score, composite=composite)
    found = hw.explain(model, v, target=score, composite=composite)
    assert_same(found.output, expected.output, TIGHT)
    assert_same(found.relevance, expected.relevance, 1e-8)


@pytest.mark.parametrize("composite", [None, "epsilon_plus", "epsilon_alpha2_beta1"], ids=str)
@SMALL
@given(steps=programs(MAPS))
def test_convolutional_networks(composite: str | None, steps: list[Step]) -> None:
    assert_sound(*built(steps, MAPS, (CHANNELS, SIDE, SIDE)), composite)
