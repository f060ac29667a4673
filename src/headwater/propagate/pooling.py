"""Soft pooling: log-sum-exp as a soft maximum (and, of negated values, a soft minimum), by one of three named rules.

With ``y = log Σ_k exp a_k`` and ``p = softmax(a)``, the inputs of the pooling get

- :class:`~headwater.propagate.rules.Gradient`: ``p_k a_k`` of each unit of factor; the entropy of ``p`` is absorbed;
- :class:`~headwater.propagate.rules.Proportional`: ``p_k`` of the relevance;
- :class:`~headwater.propagate.rules.WinnerTakesAll`: all of it, for the largest.

Source: Samek et al. 2021 (review), Section VI-A.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headwater.propagate.calls import bind
from headwater.propagate.rules import Gradient, Proportional, Rule, divide
from headwater.propagate.tags import product

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation


def entropy(p: Tensor, dim: int | list[int], keepdim: bool = False) -> Tensor:
    """``-Σ p log p`` along axes, in nats; ``0 log 0`` is 0."""
    return -torch.xlogy(p, p).sum(dim, keepdim=keepdim)


def probabilities(a: Tensor, dim: list[int]) -> Tensor:
    """Softmax along axes together; none where all values are masked.

    ``exp(a - logsumexp(a))`` adds up to one only to the spacing of numbers of the size of ``a``: at scores in the
    thousands, in float32, to 1e-4 of it, of which relevance then makes the thousandfold.
    """
    highest = a.detach().amax(dim, keepdim=True)
    weights = (a - torch.where(highest.isfinite(), highest, 0.0)).exp()
    total = weights.sum(dim, keepdim=True)
    return weights / torch.where(total == 0, 1.0, total)


def shares(rule: Rule, p: Tensor, dim: int | list[int]) -> Tensor:
    """The share of each input of a pooling: ``p`` itself, or all for (each of) the largest."""
    if isinstance(rule, (Gradient, Proportional)):
        return p
    largest = (p == p.amax(dim, keepdim=True)).to(p.dtype)
    return largest / largest.sum(dim, keepdim=True)


def logsumexp(engine: Propagation, call: Call) -> Any:
    """``logsumexp``, by the rule of its row: a row of its own, of its class "softmax", or the gradient."""
    rule = engine.composite.pooling(call) or Gradient()
    call.rule_name = str(rule)
    x, dim = bind(call, "input dim", None, None)[:2]
    dims = [dim] if isinstance(dim, int) else list(dim)
    kept = engine.keeper.keep(x if engine.differentiable else x.detach())
    with torch.set_grad_enabled(engine.differentiable):
        out = call.func(*call.args, **call.kwargs)

    def walk(c: Tensor) -> list[Tensor]:
        a = kept.value
        p, y = probabilities(a, dims), a.logsumexp(dims, keepdim=True)
        c = c.reshape(y.shape)
        if isinstance(rule, Gradient):
            if engine.ledger:
                call.book("entropy", entropy(p, dims, True) * c)
            return [p * c]
        given = shares(rule, p, dims) * y * c
        factor = divide(given.clone(), a.clone())
        if engine.ledger:
            call.book("zero input", given - product(a, factor))
        return [factor]

    return engine.reroute(call, out, [x], walk)
