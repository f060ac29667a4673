"""Losses that are explained as what they consist of, against torch's own values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import headwater as hw
from tests.reference.audit import assert_balanced, assert_same
from tests.reference.nets import draw

SIGN = torch.tensor([1.0, -1.0, 1.0, -1.0]).double()
HALF = draw(3, 4, key=8).sigmoid()
WEIGHT = draw(4, key=9).abs()

LOSSES: dict[str, Callable[..., Tensor]] = {
    "l1": lambda x, **o: F.l1_loss(x, HALF, **o),
    "smooth l1": lambda x, **o: F.smooth_l1_loss(x, HALF, beta=0.7, **o),
    "smooth l1 at zero": lambda x, **o: F.smooth_l1_loss(x, HALF, beta=0.0, **o),
    "huber": lambda x, **o: F.huber_loss(x, HALF, delta=0.6, **o),
    "cross entropy of probabilities": lambda x, **o: F.binary_cross_entropy(x.sigmoid(), HALF, WEIGHT, **o),
    "cross entropy of logits": lambda x, **o: F.binary_cross_entropy_with_logits(
        x, HALF, WEIGHT, pos_weight=WEIGHT * 2, **o
    ),
    "divergence": lambda x, **o: F.kl_div(x.log_softmax(1), HALF, **o),
    "divergence of logarithms": lambda x, **o: F.kl_div(x.log_softmax(1), HALF.log(), log_target=True, **o),
    "soft margin": lambda x, **o: F.soft_margin_loss(x, SIGN.expand_as(x), **o),
    "poisson": lambda x, **o: F.poisson_nll_loss(x, HALF * 5, full=True, **o),
    "poisson of rates": lambda x, **o: F.poisson_nll_loss(x.exp(), HALF, log_input=False, **o),
    "ranking": lambda x, **o: F.margin_ranking_loss(x, x.flip(1) * 0.3, SIGN.expand_as(x), 0.2, **o),
    "hinge": lambda x, **o: F.hinge_embedding_loss(x.abs(), SIGN.expand_as(x), 0.9, **o),
    "cosine": lambda x, **o: F.cosine_embedding_loss(x, x.roll(1, 1), SIGN[: len(x)], 0.1, **o),
    "triplet": lambda x, **o: F.triplet_margin_loss(x, x.roll(1, 1), x.flip(1), 5.0, swap=True, **o),
}


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_explained(name: str, reduction: str) -> None:
    x, loss = draw(3, 4), LOSSES[name]

    def model(x: Tensor) -> Tensor:
        values = loss(x, reduction=reduction)
        return values.reshape(len(x), -1).sum(1) if reduction == "none" else values.expand(len(x))

    e = hw.explain(model, x, target=lambda y: y, ledger=True)
    assert_same(e.output, model(x))
    if reduction == "none":  # else the samples share one value
        assert_balanced(e)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(leaf).sum(), leaf)
    assert_same(hw.explain(model, x, target=lambda y: y, method="gradient").relevance, slope)


def reduce_into(kind: str, how: str, own: bool, x: Tensor) -> Tensor:
    place, start = torch.tensor([0, 1, 2, 2, 0, 1, 3, 3]), torch.full((len(x), 5), 0.7, dtype=x.dtype)
    if kind == "live":
        start, kind = x[:, :5].sin(), "index"
    if kind == "index":
        return start.index_reduce(1, place, x, how, include_self=own)
    if kind == "segments":
        how = {"amax": "max", "amin": "min"}.get(how, how)
        return torch.segment_reduce(x, how, lengths=torch.tensor([[3, 5], [4, 4]]), axis=1)
    return start.scatter_reduce(1, place.expand_as(x), x, how, include_self=own)


REDUCTIONS = [
    *((kind, how) for kind in ("scatter", "index", "live", "segments") for how in ("mean", "amax", "amin", "prod")),
    ("scatter", "sum"),
    ("segments", "sum"),
]


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("kind", "how"), REDUCTIONS)
def test_values_that_share_a_place(kind: str, how: str, own: bool) -> None:
    x = draw(2, 8)

    def model(x: Tensor) -> Tensor:
        return reduce_into(kind, how, own, x)

    weights = torch.arange(model(x).shape[1]).double().cos()
    options: dict[str, Any] = {"target": lambda y: (y * weights).sum(1), "composite": "lrp_0"}
    e = hw.explain(model, x, ledger=True, **options)
    assert_balanced(e)
    assert_same(hw.explain(model, x, **options).relevance, e.relevance)
    if how == "prod" and kind == "scatter" and own:  # places 0 to 3 have two factors of the input each
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad((model(leaf) * weights).sum(), leaf)
        assert_same(e.relevance, x * slope / 2)


@pytest.mark.parametrize("function", [torch.atan2, lambda a, b: (a.abs() + 1) ** b, lambda a, b: torch.atan2(a, b[:1])])
def test_a_steering_operand_in_differentiable_explanations(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    model, x = lambda x: function(x[:, :4], x[:, 4:]), draw(3, 8)
    e = hw.explain(model, x, target=0, differentiable=True)
    assert_same(e.relevance.detach(), hw.explain(model, x, target=0).relevance)
    assert e.relevance.requires_grad
