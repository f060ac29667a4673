"""Windows that slide over any number of axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headwater.errors import InvalidInput


@dataclass(frozen=True)
class Windows:
    """Windows over inputs ``[N, ...]``, the last axis fastest.

    Attributes:
        starts, stops: along each axis, ``[W_a]``; a window that would reach beyond the end is cut there.
        shape: of one input; axes that all windows cover whole have one.
    """

    starts: tuple[Tensor, ...]
    stops: tuple[Tensor, ...]
    shape: tuple[int, ...]

    @staticmethod
    def of(x: Tensor, window: Any = None, stride: Any = None) -> Windows:
        """Windows of a size and stride over inputs ``x``, ``[N, ...]``.

        Args:
            window: a number for every spatial axis, or one for each of them, or one for each axis and the channels
                before; None: a seventh of the shorter side of pictures and volumes, a twentieth of a series, one
                column or word.
            stride: likewise; None: half a window.

        Raises:
            InvalidInput: windows that do not fit the axes.
        """
        axes = tuple(x.shape[1:])
        if not axes or not math.prod(axes):
            raise InvalidInput(f"x of shape {list(x.shape)} has no axes for windows to slide over")
        channels = 1 if len(axes) > 1 else 0
        places = axes[channels:]
        size = _own_size(places, x.dim()) if window is None else window
        sizes = _for_axes(size, axes, channels, "window")
        steps = tuple(max(1, s // 2) for s in sizes) if stride is None else _for_axes(stride, axes, channels, "stride")
        starts, stops = [], []
        for length, side, step in zip(axes, sizes, steps, strict=True):
            count = min(max(0, math.ceil((length - side) / step)) + 1, math.ceil(length / step))
            starts.append(torch.arange(count) * step)
            stops.append((starts[-1] + side).clamp(max=length))
        return Windows(tuple(starts), tuple(stops), axes)

    @property
    def count(self) -> int:
        """W, how many windows there are."""
        return math.prod(len(start) for start in self.starts)

    def holes(self, index: Tensor) -> Tensor:
        """Which entries the windows ``[B]`` cover, bool ``[B, *S]``, S broadcastable to the input; -1 covers none."""
        hole = torch.ones(len(index), *[1] * len(self.shape), dtype=torch.bool, device=index.device)
        hole &= (index >= 0).view(-1, *[1] * len(self.shape))
        rest = index.clamp(min=0)
        for axis in reversed(range(len(self.shape))):
            start, stop = self.starts[axis].to(index.device), self.stops[axis].to(index.device)
            at, rest = rest % len(start), rest // len(start)
            if len(start) > 1 or int(stop[0]) < self.shape[axis]:
                places = torch.arange(self.shape[axis], device=index.device)
                inside = (places >= start[at][:, None]) & (places < stop[at][:, None])
                hole = hole & inside.view(len(index), *[-1 if a == axis else 1 for a in range(len(self.shape))])
        return hole

    def averaged(self, scores: Tensor) -> Tensor:
        """At each entry the mean score ``[N, W]`` of the windows that cover it, ``[N, ...]``; 0 where none does."""
        total = scores.reshape(len(scores), *[len(start) for start in self.starts])
        covering = torch.ones([1] * len(self.shape), dtype=scores.dtype, device=scores.device)
        for axis, length in enumerate(self.shape):
            places = torch.arange(length)
            cover = (places >= self.starts[axis][:, None]) & (places < self.stops[axis][:, None])
            cover = cover.to(scores.device, scores.dtype)
            total = torch.tensordot(total, cover, ([axis + 1], [0])).movedim(-1, axis + 1)
            covering = covering * cover.sum(0).view([-1 if a == axis else 1 for a in range(len(self.shape))])
        return total / covering.clamp(min=1)

    def corners(self) -> Tensor:
        """Where each window begins and ends along each axis, ``[W, A, 2]``."""
        begin = torch.stack([t.flatten() for t in torch.meshgrid(*self.starts, indexing="ij")], 1)
        end = torch.stack([t.flatten() for t in torch.meshgrid(*self.stops, indexing="ij")], 1)
        return torch.stack([begin, end], 2)


def _own_size(places: Sequence[int], dim: int) -> int:
    if dim == 2:
        return 1
    return max(1, round(min(places) / (20 if dim == 3 else 7)))


def _for_axes(size: Any, axes: tuple[int, ...], channels: int, what: str) -> tuple[int, ...]:
    """A size for each axis; channels go together unless they have one of their own."""
    spatial = len(axes) - channels
    sizes = tuple(size) if isinstance(size, (tuple, list)) else (size,) * spatial
    if not all(isinstance(s, int) and not isinstance(s, bool) and s >= 1 for s in sizes):
        raise InvalidInput(f"{what} must be a positive int, or one for each axis, not {size!r}")
    if len(sizes) == spatial:
        sizes = axes[:channels] + sizes
    if len(sizes) != len(axes):
        raise InvalidInput(f"{what}={size!r} does not fit the axes {list(axes)} of x: give {spatial} numbers")
    return tuple(min(s, length) for s, length in zip(sizes, axes, strict=True)) if what == "window" else sizes
