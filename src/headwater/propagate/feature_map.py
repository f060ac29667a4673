"""The last feature map of a model: the one that class activation maps look at, found while the model runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from headwater.errors import UnsupportedModel
from headwater.propagate.captures import Watcher
from headwater.propagate.tags import Kept

if TYPE_CHECKING:
    from headwater.propagate.calls import Call

NAME = "the last feature map"
_PREFIX = 16  # at most so many tokens stand before those of the patches (class, registers)


class FeatureMap(Watcher):
    """Finds the last feature map with more than one place, whatever made it.

    After convolutions it is the last result with the places of the last convolution: batch norm, activation, residual
    sums and concatenations that follow are part of it, pooling is not. Before attention it is what was normalized
    last: in a vision transformer, the input of the last attention, behind which only the class token counts.
    """

    def __init__(self, find: bool = True) -> None:
        super().__init__()
        self.find = find
        self.after: list[str] = []  # operators since the map was made
        self._grid: tuple[int, ...] | None = None
        self._norm: tuple[Any, Kept, Tensor | None] | None = None
        self._found: tuple[Any, Kept, Tensor | None] | None = None

    def __call__(self, call: Call, out: Tensor) -> None:
        super().__call__(call, out)
        operator, places = call.operator, tuple(out.shape[2:])
        if not operator.view:
            self.after.append(operator.kind if operator.affine else operator.name)
        if not self.find:
            return
        if operator.kind == "conv" and math.prod(places) > 1:
            self._grid = places
        if self._grid is not None and places == self._grid and out.is_floating_point():
            self._found, self.after = _note(call, out), []
        elif operator.name in ("layer_norm", "rms_norm") and out.dim() > 2:
            self._norm = _note(call, out)
        elif self._norm is not None and _attends(call, out):
            self._found, self._norm, self._grid, self.after = self._norm, None, None, []

    def left(self, name: str) -> None:
        if not self.find:
            self.after = []

    def noted(self) -> dict[str, list[tuple[Any, Kept, Tensor | None]]]:
        if not self.find:
            return {}
        if self._found is None:
            raise UnsupportedModel(
                "The model has no feature map that class activation maps could look at: no convolution with more than "
                "one place, and no attention over normalized tokens. Name a layer with layer=, or choose a method "
                "without one, such as 'lrp' or 'gradient_x_input'."
            )
        return {NAME: [self._found]}

    def channels_first(self, value: Tensor, image: tuple[int, ...]) -> Tensor:
        """A map ``[N, C, *places]`` from a layer's output, for an input of spatial shape ``image``.

        Raises:
            UnsupportedModel: where the tokens of the output are no grid.
        """
        if value.dim() < 3:
            raise UnsupportedModel(
                f"The layer's output {tuple(value.shape)} has no places to map: name a layer before they are pooled"
            )
        value = value if self.axis(value) == 1 else value.movedim(-1, 1)
        if value.dim() > 3 or len(image) < 2:
            return value
        grid = self._token_grid(value.shape[2], image)
        return value[:, :, value.shape[2] - math.prod(grid) :].unflatten(2, grid)

    def _token_grid(self, tokens: int, image: tuple[int, ...]) -> tuple[int, ...]:
        """The grid of patches that so many tokens are, a few others before them."""
        alike = [grid for grid in self.grids if len(grid) == len(image) and 0 <= tokens - math.prod(grid) <= _PREFIX]
        if alike:
            return max(alike, key=math.prod)
        for prefix in range(_PREFIX + 1):
            scale = ((tokens - prefix) / math.prod(image)) ** (1 / len(image)) if tokens > prefix else 0.0
            grid = tuple(round(size * scale) for size in image)
            if grid and math.prod(grid) == tokens - prefix:
                return grid
        raise UnsupportedModel(f"{tokens} tokens are no grid of patches of an input of {image}: name another layer=")


def _note(call: Call, out: Tensor) -> tuple[Any, Kept, Tensor | None]:
    return get_gradient_edge(out), call.engine.keeper.keep(out.detach()), None


def _attends(call: Call, out: Tensor) -> bool:
    """Attention, fused or as the softmax of scores between tokens."""
    square = out.dim() > 2 and out.shape[-1] == out.shape[-2] > 1
    return call.operator.kind == "attention" or (call.operator.kind == "softmax" and square)
