"""Imputers that take what is missing from a set of real examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.errors import InvalidInput
from headwater.remove.imputers import Fill, drawing, filling, mixed, want_floats


@dataclass(frozen=True, eq=False)
class Marginal:
    """What some example of a reference set has there, whatever surrounds it: features are taken to be independent.

    Args:
        references: ``[M, ...]``, each like one input; a tensor or an array.
        draws: how many examples, drawn without repetition and shared by all samples and holes; None takes all.

    Source: Zintgraf et al. 2017, Section 3 (marginal sampling); the interventional value function of SHAP.
    """

    references: Any = field(repr=False)
    draws: int = 10

    def __post_init__(self) -> None:
        count = len(self.references)
        object.__setattr__(self, "draws", count if self.draws is None else min(self.draws, count))

    def prepare(self, x: Tensor, generator: torch.Generator) -> Fill:
        reference = like(self.references, x)
        order = torch.randperm(len(reference), generator=generator)[: self.draws]
        return drawing(reference[order.to(reference.device)])


@dataclass(frozen=True, eq=False)
class Average:
    """The mean of a reference set, ``[M, ...]``: of each column, pixel or step by itself."""

    references: Any = field(repr=False)
    draws = 1

    def prepare(self, x: Tensor, generator: torch.Generator) -> Fill:
        want_floats(self, x)
        return filling(like(self.references, x).mean(0, keepdim=True))


@dataclass(frozen=True, eq=False)
class Conditional:
    """What the k examples of a reference set have there that are nearest to the input in what is left of it.

    Near is the Euclidean distance over what was not removed, each column or channel in units of its deviation in the
    reference set.

    Args:
        references: ``[M, ...]``, each like one input; a tensor or an array.
        k: how many neighbours; the model's answers are averaged over them.
        margin: look only so many pixels or steps around the hole; None looks at all that is left.

    Source: Zintgraf et al. 2017, Section 3.1, with neighbours in the place of a Gaussian; Robnik-Šikonja and
    Kononenko 2008.
    """

    references: Any = field(repr=False)
    k: int = 10
    margin: int | None = None

    @property
    def draws(self) -> int:
        return min(self.k, len(self.references))

    def prepare(self, x: Tensor, generator: torch.Generator) -> Fill:
        want_floats(self, x)
        if self.k < 1 or (self.margin is not None and (self.margin < 1 or x.dim() < 3)):
            raise InvalidInput(f"{self} needs k of at least 1, and a margin of at least 1 on pictures or series alone")
        reference = like(self.references, x)
        scale = _scale(reference)
        known = (reference / scale).flatten(1)

        def fill(x: Tensor, hole: Tensor, rows: Tensor, draw: Tensor | None = None) -> Tensor:
            kept = self._context(hole.expand(len(rows), *x.shape[1:])).to(x.dtype).flatten(1)
            own = (x / scale).flatten(1) * kept
            distances = kept @ known.square().T - 2 * own @ known.T
            nearest = distances.topk(self.draws, dim=1, largest=False).indices
            place = torch.zeros_like(rows) if draw is None else draw
            chosen = nearest.gather(1, place.to(nearest.device)[:, None]).squeeze(1)
            return mixed(x, reference[chosen], hole)

        return fill

    def _context(self, hole: Tensor) -> Tensor:
        """Which entries neighbours are judged by."""
        if hole.dtype != torch.bool:
            hole = hole > 0.5
        if self.margin is None:
            return ~hole
        side = 2 * self.margin + 1
        pool: Any = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}[hole.dim()]
        return (pool(hole.float(), side, 1, self.margin) > 0) & ~hole


@dataclass(frozen=True, eq=False)
class Permutation:
    """What another sample has there: of the batch, each sample giving to one other, or of a reference set.

    Args:
        references: ``[M, ...]``, or None for the batch itself.
        draws: how many exchanges.
    """

    references: Any = field(default=None, repr=False)
    draws: int = 10

    def prepare(self, x: Tensor, generator: torch.Generator) -> Fill:
        n = len(x)
        if not isinstance(self.draws, int) or self.draws < 1:
            raise InvalidInput(f"at least 1 exchange is needed, not {self.draws!r}")
        if self.references is not None:
            givers = like(self.references, x)
            giver = torch.randint(len(givers), (self.draws, n), generator=generator)
        elif n < 2:
            raise InvalidInput("a single sample has nobody to exchange with: pass more, or a reference set")
        else:
            givers = x
            order = torch.rand(self.draws, n, generator=generator).argsort(1)
            giver = torch.empty_like(order).scatter_(1, order, order.roll(1, 1))  # each takes from the one before

        def fill(x: Tensor, hole: Tensor, rows: Tensor, draw: Tensor | None = None) -> Tensor:
            at = giver[torch.zeros_like(rows) if draw is None else draw, rows]
            return mixed(x, givers[at.to(givers.device)], hole)

        return fill


def like(reference: Any, x: Tensor) -> Tensor:
    """A reference set as a tensor of the inputs' type, on their device.

    Raises:
        InvalidInput: where it is no set of such inputs, or not finite.
    """
    try:
        found = torch.as_tensor(reference).detach().to(x.device, x.dtype)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidInput(f"references must be a tensor or an array, not {type(reference).__name__}") from None
    if found.shape[1:] != x.shape[1:] or not len(found):
        raise InvalidInput(
            f"references of shape {list(found.shape)} is no set of inputs {list(x.shape)}: [M, ...] each"
        )
    if x.is_floating_point() and not bool(found.isfinite().all()):
        raise InvalidInput("references hold NaN or infinity: clean it first")
    return found


def _scale(reference: Tensor) -> Tensor:
    """The deviation of each column or channel, broadcastable to the reference; 1 where nothing varies."""
    axes = tuple(i for i in range(reference.dim()) if i != 1)
    scale = reference.std(axes, correction=0, keepdim=True)
    return torch.where(scale > 0, scale, torch.ones_like(scale))
