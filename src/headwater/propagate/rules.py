"""The rules of LRP for affine operators, and those for attention and activations.

A rule turns the factor ``c`` of an affine call's output into the factor of its input. It sees the call as an
:class:`~headwater.propagate.affine.Affine`: input ``op.x``, output ``op.z``, bias ``op.bias``, ``op.forward(x, w)``,
``op.transpose(s, w)``, ``op.sums()`` and ``op.back(p, q)``. Relevance of the output is ``op.z * c``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.errors import InvalidComposite
from headwater.propagate.tags import product

if TYPE_CHECKING:
    from headwater.propagate.affine import Affine
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation


class Rule:
    """Base of all rules. A rule for affine operators overrides :meth:`factor`, or :meth:`split` if it is no factor."""

    native: ClassVar[bool] = False  # the ordinary gradient is already this rule
    at_input: ClassVar[bool] = False  # gives relevance to inputs that are zero
    uses_linear: ClassVar[bool] = True  # asks a folded call for its sums without bias
    needs_places: ClassVar[bool] = False  # asks a call for its place in the model

    @property
    def per_sample(self) -> bool:
        """Looks at a whole sample at once (a norm, a maximum)."""
        return False

    scales: ClassVar[bool] = False  # the ordinary gradient of what :meth:`scaled` makes of the factor is this rule

    def scaled(self, z: Tensor, c: Tensor) -> Tensor:
        """The factor ``c`` of an output ``z``, scaled, for rules that are a gradient but for that."""
        return c

    def factor(self, op: Affine, c: Tensor) -> Tensor:
        """Factor of the input (shape of ``op.x``) from the factor ``c`` of the output (shape of ``op.z``)."""
        raise InvalidComposite(f"{self!r} is no rule for affine operators such as {op.call.operator.name!r}")

    def split(self, op: Affine, c: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Factor of the input and, from rules that are no factor, relevance of the input."""
        return self.factor(op, c), None

    def local(self, engine: Propagation, call: Call) -> Any:
        """Treat a call under a preset of plain gradients (guided backprop and its kin)."""
        return engine.native(call)


def divide(a: Tensor, b: Tensor) -> Tensor:
    """``a / b``, and 0 where ``b`` is 0, in the derivative too. ``a`` must be a temporary: it may be overwritten."""
    none = b == 0
    if torch.is_grad_enabled():
        return torch.where(none, torch.zeros_like(a), a / torch.where(none, torch.ones_like(b), b))
    return a.div_(b).masked_fill_(none, 0)


def solid(total: Tensor) -> Tensor:
    """A total that is never negative (a temporary), with infinity in place of 0: what is divided by it is then 0."""
    return F.threshold(total, 0.0, torch.inf) if torch.is_grad_enabled() else torch.threshold_(total, 0.0, torch.inf)


def share(a: Tensor, total: Tensor) -> Tensor:
    """``a / total`` for a total that is never negative, and 0 where it is 0; both must be temporaries."""
    return a.div_(solid(total))  # one pass for the zeros where a mask takes three


def _bias_parts(op: Affine) -> tuple[Tensor | float, Tensor | float]:
    return (0.0, 0.0) if op.bias is None else (op.bias.clamp(min=0), op.bias.clamp(max=0))


@dataclass(frozen=True)
class Zero(Rule):
    """LRP-0: ``R_j = Σ_k a_j w_jk / Σ_0,j a_j w_jk R_k`` (review, Section V-B); the bias absorbs its share."""

    native: ClassVar[bool] = True

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
        z, relevance, boost = op.z, op.z * c, 1 + self.gamma
        top = z.clamp(min=0)
        # |z| + γ times the sum of the output's own sign, which is P for positive and P - z for negative outputs.
        denominator = op.positive_with_bias().mul_(self.gamma)
        denominator = denominator.add_(top, alpha=1 + boost).sub_(z, alpha=boost)
        # Shares of positive and of negative outputs: one of the two is zero, so that no mask is needed.
        denominator, of_top = solid(denominator), top * c
        of_bottom, of_top = (of_top - relevance).div_(denominator), of_top.div_(denominator)
        if op.booking and op.bias is not None:
            own = torch.where(z >= 0, op.bias.clamp(min=0), op.bias.clamp(max=0))
            op.book("bias", (op.bias + self.gamma * own) * (of_top + of_bottom))
        return op.back(torch.add(of_bottom, of_top, alpha=boost), torch.add(of_top, of_bottom, alpha=boost))

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
        sums = op.sums() if self.beta else (op.positive_sum(), None)
        biases = _bias_parts(op) if self.bias else (0.0, 0.0)
        carried: list[Tensor | None] = []
        for weight, total, bias in zip((self.alpha, -self.beta), sums, biases, strict=True):
            if total is None:
                carried.append(None)
                continue
            whole = total + bias
            if op.booking:
                op.book("empty side", torch.where(whole * weight <= 0, weight * op.z * c, torch.zeros_like(c)))
            s = share(abs(weight) * op.z * c, whole if weight > 0 else -whole)
            carried.append(s)
            if op.booking:
                op.book("bias", bias * s)
        return op.back(*carried)


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
class Box(Rule):
    """z^B, for inputs in a box: ``R_i = Σ_j (x_i w_ij - l_i w_ij⁺ - h_i w_ij⁻) / Σ_i (...) R_j``, without biases.

    Inputs that do not stem from the explained input (recurrent activations beside pixels) count with ``x_i w_ij⁺`` in
    the same denominator. (Review, Section V-B; thesis, Eq. 3.70.)

    Args:
        low, high: bounds broadcastable to the explained input; absent, those given to ``explain(bounds=...)``, else
            each sample's own range per channel (axis 1), widened to hold 0.
    """

    low: float | Tensor | None = None
    high: float | Tensor | None = None
    at_input: ClassVar[bool] = True

    def split(self, op: Affine, c: Tensor) -> tuple[Tensor | None, Tensor | None]:
        w, (low, high) = op.weight, self._bounds(op)
        pixels = None if op.source is None else op.source.pixels
        # As (x - l) w⁺ + (x - h) w⁻: every term is non-negative, so nothing cancels.
        above, below = op.x - low, op.x - high
        if pixels is not None:
            above = torch.where(pixels, above, op.x)
            below = torch.where(pixels, below, torch.zeros_like(below))
        up, down = w.clamp(min=0), w.clamp(max=0)
        pair = op.map.pair(above, below, up, down)
        total = op.forward(*pair) if pair else op.forward(above, up) + op.forward(below, down)
        relevance = op.z * c
        if op.booking:
            op.book("empty side", torch.where(total <= 0, relevance, torch.zeros_like(relevance)))
        s = share(relevance, total)
        if pair:
            from_low, from_high = op.transpose(s, pair[1], pair[0]).split(above.shape[op.map.inputs], op.map.inputs)
        else:
            from_low, from_high = op.transpose(s, up), op.transpose(s, down)
        given = above * from_low + below * from_high
        if pixels is None:
            return None, given
        nothing = torch.zeros_like(given)
        return torch.where(pixels, nothing, from_low), torch.where(pixels, given, nothing)

    def _bounds(self, op: Affine) -> tuple[Tensor, Tensor]:
        if op.source is not None and op.source.low is not None and op.source.high is not None:
            low, high = op.source.low, op.source.high
        elif self.low is not None and self.high is not None:
            low, high = (torch.as_tensor(b, dtype=op.x.dtype, device=op.x.device) for b in (self.low, self.high))
        else:
            low, high = own_range(op.x)
        return low.expand_as(op.x), high.expand_as(op.x)


def own_range(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each sample's own range per channel (axis 1), widened to hold 0; broadcastable to ``x``."""
    axes = tuple(range(2, x.dim())) or tuple(range(1, x.dim())) or (0,)
    return x.amin(axes, keepdim=True).clamp(max=0), x.amax(axes, keepdim=True).clamp(min=0)


class _WeightRule(Rule):
    """Shares that depend on the weights alone, over the inputs that exist."""

    at_input: ClassVar[bool] = True

    def shares(self, w: Tensor) -> Tensor:
        raise NotImplementedError

    def split(self, op: Affine, c: Tensor) -> tuple[Tensor | None, Tensor | None]:
        shares = self.shares(op.weight)
        exists = torch.ones_like(op.x)
        total = op.forward(exists, shares)
        relevance = op.z * c
        if op.booking:
            op.book("empty side", torch.where(total <= 0, relevance, torch.zeros_like(relevance)))
        return None, op.transpose(share(relevance, total), shares)


@dataclass(frozen=True)
class WSquare(_WeightRule):
    """w²: ``R_i = Σ_j w_ij² / Σ_i w_ij² R_j`` for unbounded inputs (review, Section V-B; thesis, Section 3)."""

    def shares(self, w: Tensor) -> Tensor:
        return w.square()


@dataclass(frozen=True)
class Flat(_WeightRule):
    """Flat: every input of an output takes an equal share (review, Section V-B)."""

    def shares(self, w: Tensor) -> Tensor:
        return torch.ones_like(w)


@dataclass(frozen=True)
class ByDomain(Rule):
    """Deep Taylor's rule for the first layer, by the domain of its input (thesis, Section 3; review, Section V-B).

    It is z^B where bounds are given, else for each sample z⁺ if it is non-negative and w² if it is not.
    """

    at_input: ClassVar[bool] = True

    @property
    def per_sample(self) -> bool:
        return True

    def split(self, op: Affine, c: Tensor) -> tuple[Tensor | None, Tensor | None]:
        if op.source is not None and op.source.low is not None:
            return Box().split(op, c)
        x, z = op.x, op.z
        nonneg = (x >= 0).flatten(1).all(1)
        nonneg_in = nonneg.view(-1, *[1] * (x.dim() - 1))
        nonneg_out = nonneg.view(-1, *[1] * (z.dim() - 1))
        factor = ZPlus().factor(op, torch.where(nonneg_out, c, torch.zeros_like(c)))
        _, relevance = WSquare().split(op, torch.where(nonneg_out, torch.zeros_like(c), c))
        assert relevance is not None
        return torch.where(nonneg_in, factor, torch.zeros_like(factor)), relevance


@dataclass(frozen=True)
class Pass(Rule):
    """Relevance passes unchanged from output to input, which must have the same shape."""

    at_input: ClassVar[bool] = True

    def split(self, op: Affine, c: Tensor) -> tuple[Tensor | None, Tensor | None]:
        if op.x.shape != op.z.shape:
            raise InvalidComposite(
                f"Pass needs an operator that keeps the shape; {op.call.operator.name!r} in layer {op.call.layer!r} "
                f"maps {tuple(op.x.shape)} to {tuple(op.z.shape)}"
            )
        return None, product(op.z, c)


@dataclass(frozen=True)
class Hold(Rule):
    """The output is constant: it only steers, and what it is multiplied with takes all.

    With it the signal takes all through the scan of a selective state space: hold the projection that makes step sizes,
    input and output matrices from the signal, ``{"layer:*.x_proj": Hold()}`` in Mamba (Jafari et al., MambaLRP, NeurIPS
    2024). It must be known before the forward: by class, name or layer, not by depth, and without a filter.
    """


# ---------------------------------------------------------------------- attention


@dataclass(frozen=True)
class AttnLRP(Rule):
    """Attention as AttnLRP has it: equal shares of each matrix product, the gradient for the softmax."""


@dataclass(frozen=True)
class CPLRP(Rule):
    """Attention as CP-LRP has it: the attention weights are constant, the values take all."""


# ---------------------------------------------------------------------- soft pooling (log-sum-exp)


@dataclass(frozen=True)
class Gradient(Rule):
    """Soft pooling by its gradient: ``R_k = p_k a_k R / y``; what is left of ``R`` is the entropy, and absorbed."""


@dataclass(frozen=True)
class Proportional(Rule):
    """Soft pooling in proportion to the weights: ``R_k = p_k R`` (review, Section VI-A and its reference [67])."""


@dataclass(frozen=True)
class WinnerTakesAll(Rule):
    """Soft pooling as hard pooling: the input with the largest weight takes all of ``R``."""


# ---------------------------------------------------------------------- activations under plain gradients


@dataclass(frozen=True)
class Guided(Rule):
    """Guided backprop: an activation passes only positive factors, times its own gradient (thesis, Eq. 3.30)."""

    def local(self, engine: Propagation, call: Call) -> Any:
        return engine.local(call, gradient=lambda pull, cs: pull(*_positive(cs)))


@dataclass(frozen=True)
class Deconv(Rule):
    """Deconvnet: an activation passes only positive factors, whatever its own sign."""

    def local(self, engine: Propagation, call: Call) -> Any:
        return engine.local(call, gradient=lambda pull, cs: _positive(cs))


def _positive(cs: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [None if c is None else c.clamp(min=0) for c in cs]
