"""Operators of several operands, custom Functions and gates seen through views, against formulas written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import headwater as hw
from tests.reference.audit import assert_balanced, assert_same
from tests.reference.nets import double, draw

ZERO = hw.Composite({"default": hw.rules.Zero()})


class Two(nn.Module):
    """A function of two halves of its input, ``[N, 8]`` to ``[N]``."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x[:, :4], x[:, 4:]).flatten(1).sum(1)


def halves() -> tuple[Tensor, Tensor]:
    x = torch.randn(2, 8, dtype=torch.float64)
    return x[:, :4], x[:, 4:]


def shares(function: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    e = hw.explain(Two(function), torch.cat([a, b], 1), composite=ZERO, ledger=True)
    assert_balanced(e)
    return e.relevance[:, :4], e.relevance[:, 4:]


@pytest.mark.parametrize(
    ("view", "name"),
    [
        (lambda g: g, "itself"),
        (lambda g: g.view(-1, 2, 2).flatten(1), "reshaped"),
        (lambda g: g.expand_as(g), "expanded"),
        (lambda g: g.unsqueeze(1).transpose(1, 2).squeeze(2), "moved"),
        (lambda g: g.chunk(2, 1)[0].repeat(1, 2), "a part"),
    ],
)
def test_a_view_of_a_gate_is_a_gate(view: Callable[[Tensor], Tensor], name: str) -> None:
    a, b = halves()
    value, gate = shares(lambda a, b: a * view(torch.sigmoid(b)), a, b)
    assert_same(value, a * view(torch.sigmoid(b)))
    assert (gate == 0).all(), name


def test_sampled_values_take_all_and_places_none() -> None:
    a, b = halves()

    def sampled(a: Tensor, b: Tensor) -> Tensor:
        places = torch.stack([b.tanh(), b.cos()], -1)[:, None]
        return F.grid_sample(a.view(-1, 1, 2, 2), places, align_corners=False)

    value, places = shares(sampled, a, b)
    fixed = a.clone().requires_grad_()
    expected = torch.autograd.grad(sampled(fixed, b).sum(), fixed)[0] * a
    assert_same(value, expected)
    assert (places == 0).all()


def test_an_exponent_is_constant() -> None:
    a, b = halves()
    base, exponent = shares(lambda a, b: a.abs() ** (b + 3), a, b)
    assert_same(base, a.abs() ** (b + 3))
    assert (exponent == 0).all()


def test_each_of_the_first_values_takes_an_equal_share_of_a_cumulative_product() -> None:
    a, b = halves()
    found, _ = shares(lambda a, b: a.cumprod(1) + 0 * b, a, b)
    expected = torch.zeros_like(a)
    for k in range(4):
        expected[:, : k + 1] += a[:, : k + 1].prod(1, keepdim=True) / (k + 1)
    assert_same(found, expected)


def test_a_linear_system_is_linear_in_its_right_hand_side() -> None:
    a, b = halves()
    matrix = torch.eye(4, dtype=torch.float64) * 3
    found, divisor = shares(lambda a, b: torch.linalg.solve(matrix + b[:, :, None] * b[:, None], a), a, b)
    solution = torch.linalg.inv(matrix + b[:, :, None] * b[:, None])
    assert_same(found, solution.sum(1) * a)
    assert (divisor == 0).all()


def test_the_entropy_of_a_cumulative_logsumexp_is_absorbed() -> None:
    a, b = halves()
    e = hw.explain(Two(lambda a, b: a.logcumsumexp(1) + 0 * b), torch.cat([a, b], 1), composite=ZERO, ledger=True)
    expected = torch.zeros(2, dtype=torch.float64)
    for k in range(4):
        p = a[:, : k + 1].softmax(1)
        expected -= (p * p.log()).sum(1)
    assert_same(sum(row.absorbed.get("entropy", 0) for row in e.ledger), expected)


class Doubled(torch.autograd.Function):
    """The identity with twice its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


def test_a_custom_function_is_explained_by_its_forward_and_its_gradient_by_its_backward() -> None:
    before = vars(torch.autograd.Function)["apply"]
    model, x = Two(lambda a, b: Doubled.apply(a) * 3 + b), torch.randn(2, 8, dtype=torch.float64)
    e = hw.explain(model, x, ledger=True)
    assert_balanced(e)
    assert_same(e.relevance, torch.cat([3 * x[:, :4], x[:, 4:]], 1))
    gradient = hw.explain(model, x, method="gradient").relevance
    assert_same(gradient, torch.cat([torch.full((2, 4), 6.0), torch.ones(2, 4)], 1).double())
    assert vars(torch.autograd.Function)["apply"] is before


def test_an_untreated_operator_is_refused_only_where_relevance_reaches_it() -> None:
    x = torch.randn(2, 8, dtype=torch.float64)

    def beside(a: Tensor, b: Tensor) -> Tensor:
        torch.linalg.qr(a[:, :, None] * a[:, None])
        return a + b

    assert_same(hw.explain(Two(beside), x).relevance, x)
    with pytest.raises(hw.UnsupportedOperator, match=r"linalg_qr.*register"):
        hw.explain(Two(lambda a, b: torch.linalg.qr(a[:, :, None] * b[:, None]).Q), x)


@pytest.mark.parametrize("ledger", [False, True])
def test_a_row_that_is_masked_altogether_passes_nothing(ledger: bool) -> None:
    mask = torch.tensor([[True, True, False, True], [False] * 4])

    def attend(a: Tensor, b: Tensor) -> Tensor:
        p = a.masked_fill(~mask, -torch.inf).softmax(-1)
        return p.masked_fill(~mask.any(-1, keepdim=True), 0.0) * b

    x = torch.randn(2, 8, dtype=torch.float64)
    e = hw.explain(Two(attend), x, composite=ZERO, ledger=ledger)
    assert_same(e.relevance[0, 4:], x[0, :4].masked_fill(~mask[0], -torch.inf).softmax(-1) * x[0, 4:] / 2)
    assert (e.relevance[1] == 0).all()
    if ledger:
        assert_balanced(e)


class StateSpace(nn.Module):
    """A selective state space as Mamba writes it, ``[N, T, D]`` to ``[N]``; ``held`` detaches what steers the scan."""

    def __init__(self, held: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.held = held
        self.x_proj, self.dt_proj = nn.Linear(4, 2 + 3 + 3, bias=False), nn.Linear(2, 4)
        self.decay = nn.Parameter(-torch.rand(4, 3) - 0.5)
        self.double().eval()

    def forward(self, u: Tensor) -> Tensor:
        steering = self.x_proj(u)
        steering = steering.detach() if self.held else steering
        low, b, c = steering.split([2, 3, 3], -1)
        step = F.softplus(self.dt_proj(low))
        keep = torch.exp(step[..., None] * self.decay)
        enter = step[..., None] * b[:, :, None] * u[..., None]
        state, seen = torch.zeros_like(enter[:, 0]), []
        for t in range(u.shape[1]):
            state = keep[:, t] * state + enter[:, t]
            seen.append((state @ c[:, t, :, None]).squeeze(-1))
        return torch.stack(seen, 1).flatten(1).sum(1)


def test_the_signal_takes_all_through_the_scan_of_a_state_space() -> None:
    u = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(StateSpace(held=True)(u).sum(), u)[0] * u
    composite = hw.Composite({"layer:*x_proj": hw.rules.Hold(), "default": hw.rules.Zero()})
    e = hw.explain(StateSpace(held=False), u.detach(), composite=composite, ledger=True)
    assert_balanced(e)
    assert (e.ledger.absorbed() == 0).all()
    assert_same(e.relevance, expected.detach())
    assert_same(e.relevance.flatten(1).sum(1), e.output)
    shared = hw.explain(StateSpace(held=False), u.detach(), ledger=True)
    assert_balanced(shared)
    with pytest.raises(hw.errors.InvalidComposite, match="Hold"):
        hw.explain(StateSpace(held=False), u.detach(), composite=composite, differentiable=True)


@pytest.mark.parametrize(
    ("named", "plain"),
    [
        (lambda z: torch.tanh(input=z), torch.tanh),
        (lambda z: F.gelu(input=z, approximate="tanh"), lambda z: F.gelu(z, approximate="tanh")),
        (lambda z: torch.mul(input=z, other=torch.sigmoid(z)), lambda z: z * torch.sigmoid(z)),
    ],
)
def test_functions_called_by_keyword(named: Callable[[Tensor], Tensor], plain: Callable[[Tensor], Tensor]) -> None:
    layer, x = double(nn.Linear(4, 3)), draw(2, 4)
    found, expected = (hw.explain(lambda x, f=f: f(layer(x)), x, 1, ledger=True) for f in (named, plain))
    assert_same(found.relevance, expected.relevance)


def into_given(a: Tensor, b: Tensor) -> Tensor:
    """Results written into tensors that are given, one of them too small and one already in use."""
    product, largest, places = torch.empty_like(a), a.new_empty(0), torch.empty(0, dtype=torch.long)
    torch.mul(a, 2, out=product)
    torch.max(product + b, 1, out=(largest, places))
    torch.tanh(product, out=product)
    return product + b.gather(1, places[:, None]) + largest[:, None]


def test_results_written_into_given_tensors() -> None:
    def usual(a: Tensor, b: Tensor) -> Tensor:
        largest, places = (a * 2 + b).max(1)
        return (a * 2).tanh() + b.gather(1, places[:, None]) + largest[:, None]

    x = torch.randn(2, 8, dtype=torch.float64)
    for composite in (ZERO, None):
        e = hw.explain(Two(into_given), x, composite=composite, ledger=True)
        assert_balanced(e)
        assert_same(e.relevance, hw.explain(Two(usual), x, composite=composite).relevance)
    gradient = hw.explain(Two(into_given), x, method="gradient").relevance
    assert_same(gradient, hw.explain(Two(usual), x, method="gradient").relevance)


def test_dropout_of_nothing_in_training_mode_is_none() -> None:
    x = torch.randn(2, 8, dtype=torch.float64)
    e = hw.explain(Two(lambda a, b: F.dropout(a, 0.0, True) + F.alpha_dropout(b, p=0.0, training=True)), x)
    assert_same(e.relevance, x)
