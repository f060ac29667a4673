"""Operands that are weights, places or windows elsewhere and here depend on the input, against what they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import headwater as hw
from tests.reference.audit import assert_balanced, assert_same, score
from tests.reference.nets import draw

Pair = Callable[[Tensor, Tensor], Tensor]
WEIGHT, EDGE = draw(3, 2, 2), torch.eye(2, dtype=torch.float64)
MEAN, VAR = draw(3), draw(3, key=5).abs() + 0.5


def each(function: Pair) -> Pair:
    """A function of one sample and the operand that belongs to it."""
    return lambda a, b: torch.stack([function(v, u).flatten() for v, u in zip(a, b, strict=True)])


def affine(x: Tensor, u: Tensor) -> Tensor:
    """Scaled by three values of ``u`` and shifted by its other three, along axis 1."""
    shape = (1, 3, *[1] * (x.dim() - 2))
    return x * u[:3].reshape(shape) + u[3:].reshape(shape)


def _log2(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([a, b]).mul(0.6931471805599453).logsumexp(0) / 0.6931471805599453


PAIRS: dict[str, tuple[Pair, Pair]] = {
    "bias of a convolution": (
        each(lambda v, u: F.conv1d(v[:4].view(1, 2, 2), WEIGHT, u[:3])),
        each(lambda v, u: F.conv1d(v[:4].view(1, 2, 2), WEIGHT) + u[:3].view(1, 3, 1)),
    ),
    "bias of a transposed convolution": (
        each(lambda v, u: F.conv_transpose1d(v[:4].view(1, 2, 2), WEIGHT.transpose(0, 1), u[:3])),
        each(lambda v, u: F.conv_transpose1d(v[:4].view(1, 2, 2), WEIGHT.transpose(0, 1)) + u[:3].view(1, 3, 1)),
    ),
    "batch norm": (
        each(lambda v, u: F.batch_norm(v.view(2, 3), MEAN, VAR, u[:3], u[3:])),
        each(lambda v, u: affine((v.view(2, 3) - MEAN) / (VAR + 1e-5).sqrt(), u)),
    ),
    "batch norm of a constant": (
        each(lambda v, u: F.batch_norm(MEAN[None] * 2, MEAN, VAR, u[:3], v[:3])),
        each(lambda v, u: MEAN[None] / (VAR + 1e-5).sqrt() * u[:3] + v[:3]),
    ),
    "layer norm": (
        each(lambda v, u: F.layer_norm(v, (6,), u, u.flip(0))),
        each(lambda v, u: F.layer_norm(v, (6,)) * u + u.flip(0)),
    ),
    "rms norm": (each(lambda v, u: F.rms_norm(v, (6,), u)), each(lambda v, u: F.rms_norm(v, (6,)) * u)),
    "group norm": (
        each(lambda v, u: F.group_norm(v.view(1, 3, 2), 3, u[:3], u[3:])),
        each(lambda v, u: affine(F.group_norm(v.view(1, 3, 2), 3), u)),
    ),
    "instance norm": (
        each(lambda v, u: F.instance_norm(v.view(1, 3, 2), weight=u[:3], bias=u[3:])),
        each(lambda v, u: affine(F.instance_norm(v.view(1, 3, 2)), u)),
    ),
    "instance norm by given statistics": (
        each(lambda v, u: F.instance_norm(v.view(1, 3, 2), MEAN, VAR, u[:3], u[3:], use_input_stats=False)),
        each(lambda v, u: affine((v.view(1, 3, 2) - MEAN[:, None]) / (VAR[:, None] + 1e-5).sqrt(), u)),
    ),
    "slope": (
        each(lambda v, u: F.prelu(v.view(1, 6), u)),
        each(lambda v, u: v.relu() + v.clamp(max=0) * u),
    ),
    "places of a trapezoid": (
        lambda a, b: torch.trapezoid(a, b, dim=1)[:, None],
        lambda a, b: ((a[:, 1:] + a[:, :-1]) / 2 * b.diff(dim=1)).sum(1, keepdim=True),
    ),
    "places of running trapezoids": (
        each(lambda v, u: torch.cumulative_trapezoid(v, u)),
        lambda a, b: ((a[:, 1:] + a[:, :-1]) / 2 * b.diff(dim=1)).cumsum(1),
    ),
    "power of two": (torch.ldexp, lambda a, b: a * b.exp2()),
    "logarithms to base two": (torch.logaddexp2, _log2),
    "window": (
        each(lambda v, u: torch.stft(torch.cat([v, v]), 6, 3, window=u, center=False, return_complex=True).abs()),
        each(lambda v, u: torch.fft.rfft(torch.cat([v, v]).unfold(0, 6, 3) * u).t().abs()),
    ),
    "rounded quotient": (lambda a, b: torch.div(a, b, rounding_mode="floor") * a + b, lambda a, b: (a // b) * a + b),
    "outer product added": (
        each(lambda v, u: torch.addr(EDGE, v[:2], u[:2], beta=0.5, alpha=2)),
        each(lambda v, u: EDGE * 0.5 + torch.outer(v[:2], u[:2]) * 2),
    ),
    "sparse product": (
        each(lambda v, u: torch.sparse.mm(torch.diag(v).to_sparse(), u[:, None])),
        each(lambda v, u: torch.diag(v) @ u[:, None]),
    ),
}


@pytest.mark.parametrize("composite", ["lrp_0", "epsilon_plus", None])
@pytest.mark.parametrize("name", PAIRS)
def test_a_live_operand_is_explained_as_what_it_stands_for(name: str, composite: str | None) -> None:
    short, written = (lambda x, f=f: f(x[:, :6], x[:, 6:]) for f in PAIRS[name])
    x = draw(2, 12)
    e = hw.explain(short, x, target=score, composite=composite, ledger=True)
    assert_balanced(e)
    assert_same(e.output, score(short(x)))
    options: dict[str, Any] = {"target": score, "composite": composite}
    assert_same(hw.explain(written, x, **options).relevance, e.relevance)
    assert_same(hw.explain(short, x, **options).relevance, e.relevance)
    if name != "sparse product":  # torch differentiates it no further
        assert_same(hw.explain(short, x, **options, differentiable=True).relevance.detach(), e.relevance)


@pytest.mark.parametrize("name", sorted(PAIRS.keys() - {"sparse product"}))
def test_gradients_and_differences_of_live_operands(name: str) -> None:
    model, x = lambda x: PAIRS[name][0](x[:, :6], x[:, 6:]), draw(2, 12)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(score(model(leaf)).sum(), leaf)
    assert_same(hw.explain(model, x, target=score, method="gradient").relevance, slope)
    e = hw.explain(model, x, target=score, method="deeplift", baselines=draw(2, 12, key=6))
    assert torch.allclose(e.relevance.sum(1), e.output - e.reference)


def test_a_live_fraction_only_says_which_quantile() -> None:
    x = draw(2, 12)
    model = each(lambda v, u: torch.quantile(v, u[:2].sigmoid()))
    e = hw.explain(lambda x: model(x[:, :6], x[:, 6:]), x, target=score, ledger=True)
    assert_balanced(e)
    assert bool((e.relevance[:, 6:] == 0).all())
