"""NaN and infinity, in weights, input or on the way, are refused by name; minus infinity in a mask is legal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from tests.propagate.test_refusals import body, refused
from tests.reference.audit import assert_balanced, assert_same


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_not_finite_weights(value: float) -> None:
    model, x = body(torch.relu)
    hw.explain(model, x)
    with torch.no_grad():
        model.head.bias[1] = value
    refused(model, x, r"head\.bias", "NaN|infinity", kind=hw.NonFinite)
    with torch.no_grad():
        model.head.bias[1] = 0
    hw.explain(model, x)


def test_not_finite_buffers() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()).eval()
    model[1].running_mean[2] = torch.nan
    refused(model, torch.randn(2, 4), r"1\.running_mean|'1'", kind=hw.NonFinite)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_not_finite_inputs(value: float) -> None:
    model, x = body(torch.relu)
    x[1, 2] = value
    refused(model, x, "x holds", "NaN|infinity", kind=hw.NonFinite)

    class Two(nn.Module):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return left + right

    refused(Two(), (torch.ones(2, 4), x), r"x\[1\] holds", kind=hw.NonFinite)
    refused(Two(), {"left": x, "right": torch.ones(2, 4)}, r"x\['left'\] holds", kind=hw.NonFinite)


OVERFLOWING: dict[str, Callable[[Tensor], Tensor]] = {
    "log": lambda x: (-x.abs() - 1).log(),
    "exp": lambda x: (x.abs() + 1000).exp(),
    "rsqrt": lambda x: (x - x).rsqrt(),
}


@pytest.mark.parametrize("operator", OVERFLOWING)
def test_not_finite_on_the_way(operator: str) -> None:
    refused(*body(OVERFLOWING[operator]), "NaN|infinity", f"'{operator}'", "'middle'", kind=hw.NonFinite)


def test_infinity_that_the_model_takes_back() -> None:
    """What overflows and comes back finite is refused with its layer's name, or explained by finite numbers."""
    model, x = body(lambda x: 1 / (1 + (x.abs() + 1000).exp()))
    try:
        e = hw.explain(model, x, ledger=True)
    except hw.NonFinite as error:
        assert "'middle'" in str(error)  # noqa: PT017 (either outcome is right)
    else:
        assert torch.isfinite(e.relevance).all()
        assert_balanced(e, 1e-4)


class Masked(nn.Module):
    """Attention written out, with an additive mask."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.head = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        weights = (self.q(x) @ self.k(x).mT / 2 + mask).softmax(-1)
        return self.head(weights @ self.v(x)).mean(1)


def test_minus_infinity_in_a_mask_is_legal() -> None:
    model, x = Masked().double().eval(), torch.randn(2, 3, 4, dtype=torch.float64)
    mask = torch.full((3, 3), -torch.inf, dtype=torch.float64).triu(1)
    given = hw.explain(model, (x, mask.expand(2, 3, 3)), ledger=True)
    assert given.relevance[1] is None, "a mask is no evidence"
    assert_balanced(dataclasses.replace(given, relevance=given.relevance[0]))
    filled = hw.explain(lambda x: model(x, torch.zeros(()).double().masked_fill(mask < 0, -torch.inf)), x, ledger=True)
    assert_balanced(filled)
    assert_same(filled.relevance, given.relevance[0], 1e-12)


def test_a_row_that_is_masked_wholly() -> None:
    mask = torch.zeros(2, 3, 3)
    mask[0, 1] = -torch.inf
    refused(Masked().eval(), (torch.randn(2, 3, 4), mask), "softmax", "NaN", kind=hw.NonFinite)


@pytest.mark.parametrize("composite", ["lrp_0", "epsilon"])
def test_an_activation_that_overflows_behind_a_finite_output_is_refused(composite: str) -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.SiLU(), nn.Linear(1, 1, bias=False), nn.Tanh()).eval()
    with torch.no_grad():
        model[0].weight.fill_(3e38)
        model[2].weight.fill_(1.0)
    with pytest.raises(hw.errors.NonFinite, match="overflowed"):
        hw.explain(model, torch.tensor([[5.0]]), target=0, composite=composite)
