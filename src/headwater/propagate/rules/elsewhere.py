"""The rules of what is not affine: attention, soft pooling, activations under plain gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from headwater.propagate.rules.base import Rule

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation

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
