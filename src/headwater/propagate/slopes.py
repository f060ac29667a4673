"""The gradient of one call at one of two points, scaled so that it makes up the change of every result between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from headwater.errors import UnsupportedOperator
from headwater.propagate.nested import carries, flat, replace


def finite(difference: Tensor) -> Tensor:
    """A difference, and none between two places that a mask has set to minus infinity."""
    return torch.where(difference.isfinite(), difference, torch.zeros_like(difference))


class Slope:
    """The gradient of a call at a point.

    Args:
        func, args, kwargs: the call.
        old: the live tensors within its arguments that ``values`` stand for; ``steps``: how each differs from the
            other point.

    Attributes:
        moved: how far each result moves along the steps by this gradient.
    """

    def __init__(
        self, func: Any, args: Any, kwargs: Any, old: Sequence[Tensor], values: Sequence[Tensor],
        steps: Sequence[Tensor],
    ) -> None:  # fmt: skip
        self._leaves = [v.detach().clone().requires_grad_() for v in values]
        swap = {id(t): leaf for t, leaf in zip(old, self._leaves, strict=True)}
        with torch.enable_grad():
            out = func(*replace(args, swap), **{k: replace(v, swap) for k, v in kwargs.items()})
            self._ends = [t for t in flat([out]) if carries(t)]
            # Of ones: what is linear in them is so there too where it was written with their logarithms.
            seeds = [torch.ones_like(y, requires_grad=True) for y in self._ends]
            back = torch.autograd.grad(self._ends, self._leaves, seeds, create_graph=True, allow_unused=True)
            parts = [(g.conj() * step).real.sum() for g, step in zip(back, steps, strict=True) if g is not None]
            along = sum(parts, torch.zeros(()))
        try:
            forward = torch.autograd.grad(along, seeds, allow_unused=True, retain_graph=True)
        except RuntimeError as error:  # some kernels have no second derivative
            name = getattr(func, "__name__", str(func))
            raise UnsupportedOperator(
                f"Differences through {name!r} need its second derivative, which torch does not have: write it as "
                "other operators, or choose another method."
            ) from error
        self.moved = [torch.zeros_like(y) if m is None else m for y, m in zip(self._ends, forward, strict=True)]

    @property
    def still(self) -> list[Tensor]:
        """Where a result does not move."""
        return [m.abs() <= torch.finfo(m.dtype).tiny for m in self.moved]

    def back(
        self, cs: Sequence[Tensor | None], changes: Sequence[Tensor], chosen: Sequence[Tensor]
    ) -> list[Tensor | None]:
        """Factors of the inputs by the chosen results, each scaled so that ``factor * moved = c * change``."""
        weighted = []
        for c, moved, still, change, mine in zip(cs, self.moved, self.still, changes, chosen, strict=True):
            if c is None:
                weighted.append(torch.zeros_like(moved))
                continue
            scale = torch.where(still, torch.ones_like(moved), change / torch.where(still, 1.0, moved))
            weighted.append(torch.where(mine, c * scale.conj(), torch.zeros_like(moved)))
        return list(torch.autograd.grad(self._ends, self._leaves, weighted, allow_unused=True))


def scaled(here: Slope, there: Slope, cs: Sequence[Tensor | None], results: Sequence[tuple[Tensor, Tensor]],
           concave: bool) -> list[Tensor | None]:  # fmt: skip
    """Factors by the gradient at the point where a result is larger (of a concave function: smaller), scaled.

    Where a result does not move by that gradient though it changes, the other point's serves.

    Args:
        here, there: the two points; ``results``: what each result is here and there.
        cs: factors of the results.
    """
    changes = [finite(y - y0) for y, y0 in results]
    chosen = []
    for (y, y0), still, still0 in zip(results, here.still, there.still, strict=True):
        first = (_size(y) >= _size(y0)) != concave
        chosen.append(torch.where(first, ~still | still0, ~still & still0))
    other = [~mine for mine in chosen]
    sides = zip(here.back(cs, changes, chosen), there.back(cs, changes, other), strict=True)
    return [a if b is None else b if a is None else a + b for a, b in sides]


def _size(y: Tensor) -> Tensor:
    return y.abs() if y.is_complex() else y
