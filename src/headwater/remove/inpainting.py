"""Imputers that guess what was removed from what is around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.errors import InvalidInput
from headwater.remove.imputers import Fill, optional, want_floats, want_whole


@dataclass(frozen=True)
class Inpaint:
    """Simple inpainting of pictures and series: holes take the mean of what is known around them, near before far.

    What is known is averaged over ever larger blocks, and each hole is filled from the smallest smoothly enlarged
    average that reaches it (pull and push), in one pass over the pixels for all pictures of a batch.

    Source: Gortler et al.: The Lumigraph, SIGGRAPH 1996, Section 3.4; in the place of the review's inpainting.
    """

    draws = 1

    def prepare(self, x: Tensor, generator: torch.Generator) -> Fill:
        want_floats(self, x)
        if x.dim() not in (3, 4, 5):
            raise InvalidInput(f"{self} needs pictures or series, not x of shape {list(x.shape)}")
        fallback = x.mean(tuple(range(2, x.dim())), keepdim=True)  # where nothing at all is left

        def fill(x: Tensor, hole: Tensor, rows: Tensor, draw: Tensor | None = None) -> Tensor:
            want_whole(self, hole)
            known = (~hole).to(x.dtype).expand(len(rows), -1, *x.shape[2:])
            smooth = _pulled(x * known, known, fallback[rows.to(x.device)])
            return torch.where(hole, smooth, x)

        return fill


def _pulled(total: Tensor, weight: Tensor, fallback: Tensor) -> Tensor:
    """Weighted means where there is weight, and what coarser means say elsewhere; ``total`` is value times weight."""
    sides = total.shape[2:]
    mean = total / weight.clamp(min=torch.finfo(total.dtype).tiny)
    if max(sides) == 1:
        return torch.where(weight > 0, mean, fallback)
    pool: Any = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(sides)]
    window = tuple(min(2, side) for side in sides)
    coarse, known = (pool(t, window, ceil_mode=True, count_include_pad=False) for t in (total, weight))
    below = _pulled(coarse, known, fallback)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(sides)]
    return torch.where(weight > 0, mean, F.interpolate(below, sides, mode=mode, align_corners=False))


@dataclass(frozen=True)
class Biharmonic:
    """Inpainting by the smoothest surface through what is known, picture by picture, as scikit-image has it.

    Far slower than most models' forward; for few or small holes.

    Source: Damelin, Hoang: On Surface Completion and Image Inpainting by Biharmonic Functions, 2018.
    """

    draws = 1

    def prepare(self, x: Tensor, generator: torch.Generator) -> Fill:
        _want_pictures(self, x)
        restoration = optional("skimage.restoration", "scikit-image")
        fallback = x.mean((2, 3), keepdim=True)

        def smooth(picture: Tensor, hole: Tensor, own: Tensor) -> Tensor:
            if bool(hole.all()):
                return own.expand_as(picture)
            found = restoration.inpaint_biharmonic(picture.double().cpu().numpy(), hole.cpu().numpy(), channel_axis=0)
            return torch.from_numpy(found).to(picture)

        def fill(x: Tensor, hole: Tensor, rows: Tensor, draw: Tensor | None = None) -> Tensor:
            pictures, holes = _whole_pixels(self, x, hole, rows)
            own = fallback[rows.to(fallback.device)]
            return torch.stack([smooth(*each) for each in zip(pictures, holes, own, strict=True)])

        return fill


@dataclass(frozen=True)
class NoisyLinear:
    """Removed pixels solve a linear system: each is a mean of its neighbours, straight ones counting twice, and noise.

    Unlike a fixed value it leaves no trace of which pixels were removed. The exact solve takes some tenths of a second
    a picture, far more than most models' forward.

    Args:
        deviation: of the Gaussian noise, the same for all samples.

    Source: Rong et al.: A Consistent and Efficient Evaluation Strategy for Attribution Methods (ROAD), ICML 2022.
    """

    deviation: float = 0.01
    draws: int = 1

    def prepare(self, x: Tensor, generator: torch.Generator) -> Fill:
        _want_pictures(self, x)
        shape = (self.draws, *x.shape[1:])
        noise = self.deviation * torch.randn(shape, generator=generator, dtype=torch.float64).to(x.device, x.dtype)

        def fill(x: Tensor, hole: Tensor, rows: Tensor, draw: Tensor | None = None) -> Tensor:
            pictures, holes = _whole_pixels(self, x, hole, rows)
            solved = torch.stack([_solved(picture, hole) for picture, hole in zip(pictures, holes, strict=True)])
            drawn = noise[:1] if draw is None else noise[draw.to(noise.device)]
            return torch.where(holes[:, None], solved + drawn, pictures)

        return fill


_NEIGHBOURS = [(0, 1, 2.0), (1, 0, 2.0), (1, 1, 1.0), (1, -1, 1.0)]


def _solved(picture: Tensor, hole: Tensor) -> Tensor:
    """The picture with the pixels of the hole ``[H, W]`` replaced by weighted means of their neighbours."""
    sparse, solver = optional("scipy.sparse", "scipy"), optional("scipy.sparse.linalg", "scipy")
    missing = hole.cpu().numpy()
    unknown = int(missing.sum())
    if not unknown:
        return picture
    pixels = picture.detach().double().cpu().numpy()
    if unknown == missing.size:
        return picture.mean((1, 2), keepdim=True).expand_as(picture)
    number = np.full(missing.shape, -1)
    number[missing] = np.arange(unknown)
    diagonal, right = np.zeros(unknown), np.zeros((unknown, len(pixels)))
    entries = []
    for down, across, weight in _NEIGHBOURS:
        here, there = _overlap(missing.shape, down, across)
        for a, b in ((here, there), (there, here)):
            own, other = number[a], number[b]
            asked = own >= 0
            np.add.at(diagonal, own[asked], weight)
            both = asked & (other >= 0)
            entries.append((own[both], other[both], np.full(int(both.sum()), -weight)))
            known = asked & (other < 0)
            np.add.at(right, own[known], weight * pixels[:, b[0], b[1]][:, known].T)
    entries.append((np.arange(unknown), np.arange(unknown), diagonal))
    rows, columns, values = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    system = sparse.coo_matrix((values, (rows, columns)), (unknown, unknown))
    solution = solver.splu(system.tocsc()).solve(right)
    filled = pixels.copy()
    filled[:, missing] = solution.T
    return torch.from_numpy(filled).to(picture)


def _overlap(shape: tuple[int, ...], down: int, across: int) -> tuple[Any, Any]:
    """Two views of the same shape: each pixel, and its neighbour so far down and across."""
    height, width = shape
    here = (slice(0, height - down), slice(max(0, -across), width - max(0, across)))
    there = (slice(down, height), slice(max(0, across), width - max(0, -across)))
    return here, there


def _want_pictures(imputer: Any, x: Tensor) -> None:
    want_floats(imputer, x)
    if x.dim() != 4:
        raise InvalidInput(f"{imputer} needs pictures [N, C, H, W], not {list(x.shape)}")


def _whole_pixels(imputer: Any, x: Tensor, hole: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Copies ``[R, C, H, W]`` and their holes ``[R, H, W]``."""
    want_whole(imputer, hole)
    if hole.shape[1] != 1:
        raise InvalidInput(f"{imputer} removes whole pixels: choose features that take all channels together")
    return x.expand(len(rows), *x.shape[1:]), hole[:, 0].expand(len(rows), *x.shape[2:])
