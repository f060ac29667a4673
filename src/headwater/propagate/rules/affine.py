"""The rules that give each input of an affine operator a factor: LRP-0, ε, γ, αβ, z⁺."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.errors import InvalidComposite
from headwater.propagate.rules.base import Rule, share, solid

if TYPE_CHECKING:
    from headwater.propagate.affine import Affine


@dataclass(frozen=True)
class Zero(Rule):
    """LRP-0: ``R_j = Σ_k a_j w_jk / Σ_0,j a_j w_jk R_k`` (review, Section V-B); the bias absorbs its share."""

    native: ClassVar[bool] = True
    uses_input: ClassVar[bool] = False

    def factor(self, op: Affine, c: Tensor) -> Tensor:
        if op.booking and op.bias is not None:
            op.book("bias", op.bias * c)
        return op.transpose(c)


@dataclass(frozen=True)
class Epsilon(Rule):
    """LRP-ε: ``R_j = Σ_k a_j w_jk / (z_k + ε sign z_k) R_k`` (review, Section V-B), with ``sign 0 = 1``.

    Args:
        epsilon: the stabilizer, at least 0; it absorbs its share and so takes out weak, contradictory evidence.
        relative: measure it in units of the root mean square of ``z``, per sample (first axis).
    """

    epsilon: float = 1e-6
    relative: bool = False
    uses_linear: ClassVar[bool] = False
    uses_input: ClassVar[bool] = False

    @property
    def per_sample(self) -> bool:
        return self.relative

    @property
    def scales(self) -> bool:  # type: ignore[override]
        return not self.relative

    def _size(self, z: Tensor) -> float:
        # Below its smallest normal number a type cannot tell the stabilizer from zero.
        return max(self.epsilon, torch.finfo(z.dtype).smallest_normal) if self.epsilon else 0.0

    def scaled(self, z: Tensor, c: Tensor) -> Tensor:
        if not self.epsilon:
            return c
        # z / (z + ε sign z) is |z| / (|z| + ε), which needs no care at zero.
        whole = z.abs().add_(self._size(z))  # the one temporary: the logits of a language model are its largest tensor
        return (z / whole if torch.is_grad_enabled() else torch.div(z, whole, out=whole)).abs_().mul_(c)

    def factor(self, op: Affine, c: Tensor) -> Tensor:
        z = op.z
        size: Tensor | float = self._size(z)
        if self.relative and self.epsilon:  # the unit is zero where the whole output is
            size = size * z.square().mean(tuple(range(1, z.dim())) or (0,), keepdim=True).sqrt()
            s = share(z.abs().mul_(c), z.abs().add_(size))
        else:
            s = self.scaled(z, c)
        if op.booking:
            op.book("stabilizer", torch.copysign(torch.as_tensor(size, dtype=z.dtype, device=z.device), z) * s)
            if op.bias is not None:
                op.book("bias", op.bias * s)
        return op.transpose(s)


@dataclass(frozen=True)
class Gamma(Rule):
    """LRP-γ: positive contributions weigh ``1 + γ`` (review, Section V-B).

    An output that is negative favours its negative contributions instead, and signed inputs mean ``(x w)⁺`` and
    ``(x w)⁻``: the generalized rule, which equals the review's for the non-negative neurons it is written for.

    Args:
        gamma: at least 0; 0 is LRP-0, infinity is z⁺.
    """

    gamma: float = 0.25
    uses_linear: ClassVar[bool] = False

    def factor(self, op: Affine, c: Tensor) -> Tensor:
        if op.nonneg and op.positive:
            return self._short(op, c)
        # Contributions of the output's own sign, whose sum is P for positive and P - z for negative outputs, weigh
        # ``1 + γ``, the others 1. A leaky ReLU of negative slope is the size of z, of one sign times that.
        z, boost = op.z, 1 + self.gamma
        q = F.leaky_relu(z, -boost)
        denominator = solid(torch.add(q, op.positive_with_bias(), alpha=self.gamma))
        q = q.mul_(c).div_(denominator)
        p = F.leaky_relu(z, -1 / boost).mul_(c).div_(denominator).mul_(boost)
        del denominator
        if op.booking and op.bias is not None:
            own = torch.where(z >= 0, op.bias.clamp(min=0), op.bias.clamp(max=0))
            op.book("bias", (op.bias + self.gamma * own) * torch.where(z >= 0, q, p))
        return op.back(p, q)

    def _short(self, op: Affine, c: Tensor) -> Tensor:
        """Non-negative inputs, and outputs of which only the positive carry relevance: one modified weight.

        Both sides of the quotient are divided by ``1 + γ``, so that ``w + γ w⁺`` is a leaky ReLU of the weight.
        """
        w = op.damped(1 / (1 + self.gamma))
        bias = None if op.bias is None else F.leaky_relu(op.bias, 1 / (1 + self.gamma))
        total = op.forward(op.x, w)
        if bias is not None:
            total = total + bias if torch.is_grad_enabled() else total.add_(bias)
        # An output that a ReLU lets through is positive, and so is this total.
        s = share(op.z * c, total)
        if op.booking and bias is not None:
            op.book("bias", bias * s)
        return op.transpose(s, w)


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """LRP-αβ: ``R_j = Σ_k (α (a_j w_jk)⁺ / z_k⁺ - β (a_j w_jk)⁻ / z_k⁻) R_k`` (overview, Eq. 3), ``α - β = 1``.

    Args:
        alpha, beta: weights of positive and negative contributions; ``AlphaBeta(1 + b, b, bias=False)`` is the
            earthquake paper's LRP-β (Eq. 4).
        bias: positive biases join the positive sum, negative ones the negative; without, biases are ignored.

    Raises:
        InvalidComposite: where ``alpha - beta`` is not 1 or ``beta`` is negative.
    """

    alpha: float = 2.0
    beta: float = 1.0
    bias: bool = True

    def __post_init__(self) -> None:
        if self.beta < 0 or abs(self.alpha - self.beta - 1) > 1e-9:
            raise InvalidComposite(f"AlphaBeta needs beta >= 0 and alpha - beta = 1, not {self.alpha} and {self.beta}")

    def factor(self, op: Affine, c: Tensor) -> Tensor:
        bias = op.bias if self.bias else None
        if not self.beta:
            positive = op.positive_sum()
            positive = positive if bias is None else positive.add_(bias.clamp(min=0))
            return op.back(self._side(op, c, positive, self.alpha, bias), None)
        sums = list(op.sums() if bias is None else op.sums_with_bias())  # no name holds them longer than needed
        if op.nonneg:
            factor = op.back(None, self._side(op, c, sums.pop().neg_(), -self.beta, bias))
            return factor.add_(op.back(self._side(op, c, sums.pop(), self.alpha, bias), None))
        q = self._side(op, c, sums.pop().neg_(), -self.beta, bias)
        p = self._side(op, c, sums.pop(), self.alpha, bias)
        return op.back(p, q)

    def _side(self, op: Affine, c: Tensor, total: Tensor, weight: float, bias: Tensor | None) -> Tensor:
        """What contributions of one sign carry; ``total`` is the magnitude of their sum, a temporary."""
        relevance = (op.z * c).mul_(weight)
        if op.booking:
            op.book("empty side", torch.where(total <= 0, relevance, torch.zeros_like(relevance)))
        s = share(relevance.mul_(math.copysign(1, weight)), total)
        if op.booking and bias is not None:
            op.book("bias", (bias.clamp(min=0) if weight > 0 else bias.clamp(max=0)) * s)
        return s


@dataclass(frozen=True)
class ZPlus(Rule):
    """z⁺: ``R_j = Σ_k (a_j w_jk)⁺ / Σ_j (a_j w_jk)⁺ R_k``, without biases (thesis, Section 3; review, Section V-B)."""

    def factor(self, op: Affine, c: Tensor) -> Tensor:
        total, relevance = op.positive_sum(), op.z * c
        if op.booking:
            op.book("empty side", torch.where(total <= 0, relevance, torch.zeros_like(relevance)))
        return op.back(share(relevance, total), None)


@dataclass(frozen=True)
class WinnerContrast(ZPlus):
    """Contrastive excitation backprop: z⁺, and at the last affine operator the difference to the negated unit.

    That unit has the same weights with the other sign (Zhang et al. 2018):
    ``R_j = Σ_k ((a_j w_jk)⁺ / z_k⁺ - (a_j w_jk)⁻ / z_k⁻) R_k``, which sums to zero.
    """

    def factor(self, op: Affine, c: Tensor) -> Tensor:
        if op.origin.depth < op.call.engine.depth:
            return super().factor(op, c)
        positive, negative = op.sums()
        p, q = share(op.z * c, positive.clone()), share(op.z * c, -negative)
        if op.booking:
            op.book("contrast", op.z * c - positive * p - negative * q)
        return op.back(p, q)


@dataclass(frozen=True)
class Hold(Rule):
    """The output is constant: it only steers, and what it is multiplied with takes all.

    With it the signal takes all through the scan of a selective state space: hold the projection that makes step sizes,
    input and output matrices from the signal, ``{"layer:*.x_proj": Hold()}`` in Mamba (Jafari et al., MambaLRP, NeurIPS
    2024). It must be known before the forward: by class, name or layer, not by depth, and without a filter.
    """
