"""The rules that give relevance to inputs that are zero, and so are no factor: z^B, w², flat, pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from headwater.errors import InvalidComposite
from headwater.propagate.rules.affine import ZPlus
from headwater.propagate.rules.base import Rule, share
from headwater.propagate.tags import product

if TYPE_CHECKING:
    from headwater.propagate.affine import Affine


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
        nonneg = (x >= 0).flatten(1).all(1) if x.dim() > 1 else (x >= 0).all()  # a sample that the model took out
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
