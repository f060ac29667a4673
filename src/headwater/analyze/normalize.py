"""Heatmaps made comparable: the step ``normalize`` of spectral relevance analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headwater.errors import InvalidInput


@dataclass(frozen=True)
class Normalization:
    """What makes heatmaps comparable, in this order; each step can be left out.

    Attributes:
        channels: sum over the channels (the first axis of maps with two axes or more), or "keep" them.
        part: "signed", "absolute" or "positive" relevance.
        blur: standard deviation of a Gaussian, in pixels; 0 for none.
        size: the longest side that is kept, by average pooling; None for all pixels.
        fourier: the magnitude of the spectrum instead of the map: the same wherever in the picture something lies.
        scale: "sum" (of magnitudes 1: shares of relevance), "standardize" (mean 0, deviation 1), "max" (1) or "none".

    Source: Samek et al. 2021 (review), Algorithm 4; Lapuschkin et al. 2019.
    """

    channels: Literal["sum", "keep"] = "sum"
    part: Literal["signed", "absolute", "positive"] = "signed"
    blur: float = 0.5
    size: int | None = 16
    fourier: bool = False
    scale: Literal["sum", "standardize", "max", "none"] = "sum"

    def __post_init__(self) -> None:
        choices = {"channels": ("sum", "keep"), "part": ("signed", "absolute", "positive"), "scale": tuple(_SCALES)}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InvalidInput(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.blur < 0 or (self.size is not None and self.size < 1):
            raise InvalidInput(f"blur must not be negative and size at least 1, not {self.blur} and {self.size}")

    def __call__(self, maps: NDArray[Any]) -> NDArray[np.float32]:
        """Features ``[n, d]`` of maps ``[n, *shape]``."""
        x = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))
        if x.dim() == 2:  # plain features have neither channels nor neighbours
            x = x[:, None]
            return self._scaled(self._part(x).flatten(1))
        if x.dim() > 5:
            raise InvalidInput(
                f"maps of {x.dim() - 1} axes: at most channels and three axes of space can be normalized"
            )
        if self.channels == "sum":
            x = x.sum(1, keepdim=True)
        x = self._smoothed(self._part(x))
        if self.fourier:
            x = torch.fft.rfftn(x, dim=tuple(range(2, x.dim()))).abs()
        return self._scaled(x.flatten(1))

    def _part(self, x: Tensor) -> Tensor:
        return {"signed": lambda: x, "absolute": x.abs, "positive": lambda: x.clamp(min=0)}[self.part]()

    def _smoothed(self, x: Tensor) -> Tensor:
        """Blurred and pooled: both are linear along each axis of space, so that one matrix does both."""
        longest = max(x.shape[2:])
        factor = 1.0 if self.size is None else min(1.0, self.size / longest)
        for axis in range(2, x.dim()):
            side = x.shape[axis]
            kept = max(1, round(side * factor))
            if self.blur or kept < side:
                x = (x.movedim(axis, -1) @ (_blur(side, self.blur) @ _pool(side, kept))).movedim(-1, axis)
        return x

    def _scaled(self, x: Tensor) -> NDArray[np.float32]:
        found: NDArray[np.float32] = _SCALES[self.scale](x.double()).float().numpy()
        return found


def _blur(side: int, deviation: float) -> Tensor:
    """``[from, to]``: a Gaussian around each pixel, of weights that sum to one within the map."""
    if not deviation:
        return torch.eye(side)
    distance = torch.arange(side)[:, None] - torch.arange(side)
    weights = torch.exp(-0.5 * (distance / deviation) ** 2)
    return weights / weights.sum(0)


def _pool(side: int, kept: int) -> Tensor:
    """``[from, to]``: means over ``kept`` windows as even as can be."""
    to = torch.arange(kept)
    first, last = to * side // kept, -((-(to + 1) * side) // kept)
    pixel = torch.arange(side)[:, None]
    inside = ((pixel >= first) & (pixel < last)).float()
    return inside / inside.sum(0)


def _standardize(x: Tensor) -> Tensor:
    x = x - x.mean(1, keepdim=True)
    return _divide(x, x.square().mean(1, keepdim=True).sqrt())


def _divide(x: Tensor, by: Tensor) -> Tensor:
    """A map without any relevance stays zero."""
    return x / torch.where(by > 0, by, torch.ones_like(by))


_SCALES = {
    "standardize": _standardize,
    "sum": lambda x: _divide(x, x.abs().sum(1, keepdim=True)),
    "max": lambda x: _divide(x, x.abs().amax(1, keepdim=True)),
    "none": lambda x: x,
}
