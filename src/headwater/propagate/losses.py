"""Losses that torch computes in one call, written out as the operators that they consist of.

They bear the names and take the arguments of torch's own; ``reduction`` is a number there (none, mean, sum).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def _reduced(values: Tensor, reduction: int) -> Tensor:
    return values if reduction == 0 else values.mean() if reduction == 1 else values.sum()


def l1_loss(input: Tensor, target: Tensor, reduction: int = 1) -> Tensor:
    """``|x - t|``."""
    return _reduced((input - target).abs(), reduction)


def smooth_l1_loss(input: Tensor, target: Tensor, reduction: int = 1, beta: float = 1.0) -> Tensor:
    """Huber's loss over ``beta``."""
    return huber_loss(input, target, reduction, beta) / beta if beta else l1_loss(input, target, reduction)


def huber_loss(input: Tensor, target: Tensor, reduction: int = 1, delta: float = 1.0) -> Tensor:
    """Half the square of ``x - t`` up to ``delta``, from there on straight."""
    gap = (input - target).abs()
    return _reduced(torch.where(gap < delta, 0.5 * gap.square(), delta * (gap - 0.5 * delta)), reduction)


def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: int = 1) -> Tensor:
    """``-t log x - (1 - t) log(1 - x)``, logarithms cut at -100."""
    logs = (part.log().clamp(min=-100) for part in (input, 1 - input))
    values = -(target * next(logs) + (1 - target) * next(logs))
    return _reduced(values if weight is None else values * weight, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, pos_weight: Tensor | None = None, reduction: int = 1
) -> Tensor:
    """``t softplus(-x) + (1 - t) softplus(x)``."""
    positive = target * F.softplus(-input)
    positive = positive if pos_weight is None else positive * pos_weight
    values = positive + (1 - target) * F.softplus(input)
    return _reduced(values if weight is None else values * weight, reduction)


def kl_div(input: Tensor, target: Tensor, reduction: int = 1, *, log_target: bool = False) -> Tensor:
    """``t (log t - x)``."""
    values = target.exp() * (target - input) if log_target else torch.xlogy(target, target) - target * input
    return _reduced(values, reduction)


def soft_margin_loss(input: Tensor, target: Tensor, reduction: int = 1) -> Tensor:
    """``log(1 + exp(-t x))``."""
    return _reduced(F.softplus(-target * input), reduction)


def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float, reduction: int
) -> Tensor:  # fmt: skip
    """``exp(x) - t x``, or ``x - t log x``; in full with Stirling's term."""
    values = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        stirling = target * target.log() - target + 0.5 * (2 * torch.pi * target).log()
        values = values + torch.where(target > 1, stirling, torch.zeros_like(stirling))
    return _reduced(values, reduction)


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: int = 1
) -> Tensor:
    """``relu(margin - t (x1 - x2))``."""
    return _reduced((margin - target * (input1 - input2)).relu(), reduction)


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, reduction: int = 1) -> Tensor:
    """``x`` of what belongs together, else ``relu(margin - x)``."""
    return _reduced(torch.where(target == 1, input, (margin - input).relu()), reduction)


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: int = 1
) -> Tensor:
    """One less the cosine of what belongs together, else ``relu(cosine - margin)``."""
    likeness = F.cosine_similarity(input1, input2, -1)
    return _reduced(torch.where(target == 1, 1 - likeness, (likeness - margin).relu()), reduction)


def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6,
    swap: bool = False, reduction: int = 1,
) -> Tensor:  # fmt: skip
    """``relu(margin + d(anchor, positive) - d(anchor, negative))``."""
    near, far = (F.pairwise_distance(anchor, other, p, eps) for other in (positive, negative))
    if swap:
        far = torch.minimum(far, F.pairwise_distance(positive, negative, p, eps))
    return _reduced((margin + near - far).relu(), reduction)


LOSSES: dict[str, Callable[..., Tensor]] = {
    loss.__name__: loss
    for loss in (
        l1_loss, smooth_l1_loss, huber_loss, binary_cross_entropy, binary_cross_entropy_with_logits, kl_div,
        soft_margin_loss, poisson_nll_loss, margin_ranking_loss, hinge_embedding_loss, cosine_embedding_loss,
        triplet_margin_loss,
    )
}  # fmt: skip
