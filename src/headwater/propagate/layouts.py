"""Which axis of a hidden layer's output holds channels, known from the operators that a model has run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from headwater.propagate.calls import Call

_LAST = ("layer_norm", "rms_norm", "embedding")


class Layouts:
    """Watches a run: convolutions have channels on axis 1, dense, recurrent and layer norm operators on the last.

    Attributes:
        grids: spatial shapes of what convolutions returned.
    """

    def __init__(self) -> None:
        self.grids: set[tuple[int, ...]] = set()
        self._first: set[tuple[int, ...]] = set()
        self._last: set[tuple[int, ...]] = set()

    def __call__(self, call: Call, out: Tensor) -> None:
        kind, shape = call.operator.kind, tuple(out.shape)
        if kind == "conv":
            self.grids.add(shape[2:])
            self._first.add(shape)
        elif out.dim() > 2 and (kind in ("linear", "recurrent") or call.operator.name in _LAST):
            self._last.add(shape)

    def axis(self, value: Tensor) -> int:
        """The axis of channels in a layer's output ``[N, ...]``: 1 after convolutions, the last one of tokens."""
        shape, n = tuple(value.shape), value.dim()
        if n <= 2:
            return 1
        if shape in self._first or shape[2:] in self.grids:
            return 1
        if shape in self._last or shape[1:-1] in self.grids:
            return n - 1
        return 1 if n > 3 or any(len(grid) == n - 2 for grid in self.grids) else n - 1
