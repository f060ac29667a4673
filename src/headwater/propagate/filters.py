"""Filters on relevance during propagation (Tjoa and Guan 2020): what a composite's row may hold beside its rule.

Each threshold is ``θ = α max|R|``, for every sample and tensor on its own. A filter returns the multiplier of the
factor, so that relevance ``R`` becomes ``multiplier * R``; what it takes or adds is booked as absorbed by "filter".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from headwater.errors import InvalidComposite


@runtime_checkable
class Filter(Protocol):
    """Anything with ``multiplier(relevance) -> tensor`` of the same shape; the first axis holds samples."""

    def multiplier(self, relevance: Tensor) -> Tensor: ...


def _share(relevance: Tensor) -> Tensor:
    """``|R| / max|R|`` per sample, 0 for a map of zeros; same shape."""
    magnitude = relevance.abs()
    top = magnitude.flatten(1).amax(1) if relevance.dim() > 1 else magnitude
    top = top.view(-1, *[1] * (relevance.dim() - 1))
    return torch.where(top > 0, magnitude / top, torch.zeros_like(magnitude))


@dataclass(frozen=True)
class Clamp:
    """Limit ``|R|`` to ``α max|R|`` and keep the sign (seed paper, after its reference [12])."""

    alpha: float = 0.05

    def multiplier(self, relevance: Tensor) -> Tensor:
        share = _share(relevance)
        return torch.where(share > self.alpha, self.alpha / share, torch.ones_like(share))


@dataclass(frozen=True)
class FractionPass:
    """Zero what reaches ``α max|R|``: the culling of spikes (seed paper, after its reference [12])."""

    alpha: float = 0.2

    def multiplier(self, relevance: Tensor) -> Tensor:
        return (_share(relevance) < self.alpha).to(relevance.dtype)


@dataclass(frozen=True)
class FractionAmplify:
    """Multiply what reaches ``α max|R|`` by ``factor`` (seed paper, ``f_{α,A}`` with A = 2)."""

    alpha: float = 0.5
    factor: float = 2.0

    def multiplier(self, relevance: Tensor) -> Tensor:
        share = _share(relevance)
        return torch.where(share >= self.alpha, torch.full_like(share, self.factor), torch.ones_like(share))


@dataclass(frozen=True)
class Own:
    """The user's own filter: a function of the relevance that returns the multiplier; a composite makes it of one."""

    function: Callable[[Tensor], Tensor]

    def multiplier(self, relevance: Tensor) -> Tensor:
        """What the function returns.

        Raises:
            InvalidComposite: where that is no tensor that broadcasts to the relevance.
        """
        found = self.function(relevance)
        try:
            fits = torch.broadcast_shapes(found.shape, relevance.shape) == relevance.shape
        except (AttributeError, RuntimeError):
            fits = False
        if not fits:
            got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InvalidComposite(
                f"The filter {self.function!r} must return a multiplier that broadcasts to the relevance "
                f"{tuple(relevance.shape)}, not {got}"
            )
        return found
