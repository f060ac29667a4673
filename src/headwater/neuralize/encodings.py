"""Local descriptors and what they are encoded as: Fisher vectors and bags of words, with relevance back to the field.

A field (an image ``[C, H, W]``, a clip's motion ``[2, T, H, W]``) has descriptors of overlapping windows; a mixture
of Gaussians encodes their set as one vector. Relevance of a vector's dimension goes to the descriptors by what each
contributed to it, and from a descriptor evenly to the places in its window.

Source: Lapuschkin et al. 2016 (overview, reference [20]) and Section 5.3 of the overview; Sánchez et al. 2013 for the
encoding.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwater.neuralize.operators import give, operator

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation

_BINS = 8  # orientations
_STILL = 0.5  # motion of fewer pixels counts as none


def orientation_maps(u: Tensor, v: Tensor) -> Tensor:
    """Lengths of vectors ``(u, v)`` ``[N, *S]``, shared between the two nearest of 8 orientations: ``[N, 8, *S]``."""
    size = torch.sqrt(u.square() + v.square() + 1e-24)
    place = torch.atan2(v, u) * (_BINS / (2 * math.pi)) % _BINS
    bins = torch.arange(_BINS, dtype=u.dtype, device=u.device).view(1, -1, *[1] * (u.dim() - 1))
    away = (place.unsqueeze(1) - bins).abs()
    return (1 - torch.minimum(away, _BINS - away)).clamp(min=0) * size.unsqueeze(1)


def slopes(x: Tensor, axis: int) -> Tensor:
    """Central differences along an axis, one-sided at the ends; shape kept."""
    size = x.shape[axis]
    if size < 2:
        return torch.zeros_like(x)
    index = torch.arange(size, device=x.device)
    ahead, behind = (index + 1).clamp(max=size - 1), (index - 1).clamp(min=0)
    return (x.index_select(axis, ahead) - x.index_select(axis, behind)) / 2


def image_maps(x: Tensor) -> Tensor:
    """Orientations of an image's brightness gradients, ``[N, C, H, W]`` to ``[N, 8, H, W]``."""
    grey = x.mean(1)
    return orientation_maps(slopes(grey, 2), slopes(grey, 1))


def motion_maps(x: Tensor) -> Tensor:
    """Orientations of motion and of the edges of motion, ``[N, 2, T, H, W]`` to ``[N, 25, T, H, W]``.

    Histograms of flow with a bin for no motion, and motion boundary histograms of both components.
    """
    u, v = x[:, 0], x[:, 1]
    still = (u.square() + v.square() < _STILL**2).to(x.dtype).unsqueeze(1)
    edges = [orientation_maps(slopes(part, 3), slopes(part, 2)) for part in (u, v)]
    return torch.cat([orientation_maps(u, v), still, *edges], 1)


MAPS = {"gradients": image_maps, "motion": motion_maps}


class LocalDescriptors(nn.Module):
    """Descriptors of overlapping windows: maps averaged over cells, windows of cells, square roots, a projection.

    Args:
        kind: "gradients" of an image ``[N, C, H, W]``, or "motion" of a clip ``[N, 2, T, H, W]``.
        cell: places a cell has along each axis; ``cells``: cells a window has; windows overlap by all but one.
        mean, components: of a projection of the descriptors, ``[d]`` and ``[D, d]``, or None.
    """

    relevance_without_factor = True

    mean: Tensor | None
    components: Tensor | None

    def __init__(
        self, kind: str, cell: tuple[int, ...], cells: tuple[int, ...], mean: Tensor | None = None,
        components: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kind, self.cell, self.cells = kind, cell, cells
        self.register_buffer("mean", mean)
        self.register_buffer("components", components)

    def forward(self, x: Tensor) -> Tensor:
        return local_descriptors(x, self)

    def grid(self, shape: torch.Size) -> list[int]:
        """How many windows there are along each axis of a field of that shape."""
        return [n // c - k + 1 for n, c, k in zip(shape, self.cell, self.cells, strict=True)]

    def describe(self, x: Tensor) -> Tensor:
        """``[N, C, *S]`` to ``[N, L, D]``."""
        maps = MAPS[self.kind](x)
        pooled = (F.avg_pool2d if len(self.cell) == 2 else F.avg_pool3d)(maps, self.cell)
        for axis, size in enumerate(self.cells):
            pooled = pooled.unfold(axis + 2, size, 1)
        n, axes = len(self.cells), range(2, 2 + len(self.cells))
        windows = pooled.permute(0, *axes, 1, *range(2 + n, 2 + 2 * n)).flatten(n + 1).flatten(1, n)
        total = windows.sum(2, keepdim=True)
        rooted = (windows / torch.where(total > 0, total, torch.ones_like(total)) + 1e-24).sqrt()
        if self.components is None or self.mean is None:
            return rooted
        return (rooted - self.mean) @ self.components.T

    def places(self, relevance: Tensor, like: Tensor) -> Tensor:
        """Relevance of windows ``[N, L]``, spread evenly over the places in each: shaped like the field."""
        grid = self.grid(like.shape[2:])
        window = [c * k for c, k in zip(self.cell, self.cells, strict=True)]
        each = relevance.reshape(len(like), 1, *grid) / (math.prod(window) * like.shape[1])
        ones = torch.ones(1, 1, *window, dtype=each.dtype, device=each.device)
        fold = F.conv_transpose2d if len(window) == 2 else F.conv_transpose3d
        found = fold(each, ones, stride=self.cell)
        rest = [(0, n - m) for n, m in zip(like.shape[2:], found.shape[2:], strict=True)]
        return F.pad(found, [side for pair in reversed(rest) for side in pair]).expand(like.shape)


def _treat_descriptors(engine: Propagation, call: Call) -> Tensor:
    local = call.args[1]

    def relevance(x: Tensor, c: Tensor) -> Tensor:
        return local.places((local.describe(x) * c).sum(2), x)

    return give(engine, call, relevance)


@operator(_treat_descriptors)
def local_descriptors(x: Tensor, local: LocalDescriptors) -> Tensor:
    """See :class:`LocalDescriptors`; a descriptor's relevance goes evenly to the places in its window."""
    return local.describe(x)


# ---------------------------------------------------------------------- encodings of sets of descriptors


class Encoding(nn.Module):
    """Descriptors ``[N, L, D]`` to one vector ``[N, F]``: the average of what each descriptor contributes.

    Args:
        weights, means, variances: of a mixture of K Gaussians: ``[K]``, ``[K, D]``, ``[K, D]``.
        order: 0 for a bag of words, the average weight of each Gaussian ``[K]``; 2 for a Fisher vector, the derivatives
            of the log-likelihood by means and deviations ``[2 K D]``.
    """

    relevance_without_factor = True

    weights: Tensor
    means: Tensor
    variances: Tensor

    def __init__(self, weights: Tensor, means: Tensor, variances: Tensor, order: int = 2) -> None:
        super().__init__()
        self.order = order
        for name, value in (("weights", weights), ("means", means), ("variances", variances)):
            self.register_buffer(name, value)

    def forward(self, t: Tensor) -> Tensor:
        return encoding(t, self)

    def posteriors(self, t: Tensor) -> Tensor:
        """Weight of each Gaussian for each descriptor, ``[N, L, K]``."""
        inverse = 1 / self.variances
        constant = self.weights.log() - 0.5 * (self.variances.log() + self.means.square() * inverse).sum(1)
        return (t @ (self.means * inverse).T - 0.5 * t.square() @ inverse.T + constant).softmax(2)

    def encode(self, t: Tensor) -> Tensor:
        """``[N, L, D]`` to ``[N, F]``, by sums over descriptors alone: their contributions are never formed."""
        q = self.posteriors(t)
        mass = q.mean(1)
        if self.order == 0:
            return mass
        first = q.transpose(1, 2) @ t / t.shape[1]
        second = q.transpose(1, 2) @ t.square() / t.shape[1]
        mass = mass.unsqueeze(2)
        by_mean = (first - mass * self.means) / self.variances.sqrt()
        by_deviation = (second - 2 * first * self.means + mass * self.means.square()) / self.variances - mass
        root = self.weights.sqrt()[:, None]
        return torch.cat([(by_mean / root).flatten(1), (by_deviation / (root * 2**0.5)).flatten(1)], 1)

    def shares(self, t: Tensor, c: Tensor) -> Tensor:
        """Relevance of descriptors ``[N, L]``: what each contributed to the vector times factors ``c`` ``[N, F]``."""
        q = self.posteriors(t)
        if self.order == 0:
            return (q * c.unsqueeze(1)).sum(2) / t.shape[1]
        by_mean, by_deviation = c.reshape(len(c), 2, *self.means.shape).unbind(1)
        root = self.weights.sqrt()[:, None]
        a = by_mean / (root * self.variances.sqrt())  # of (t - μ) / (√w σ)
        b = by_deviation / (root * 2**0.5 * self.variances)  # of (t - μ)² / (√2w σ²)
        constant = b * self.means.square() - a * self.means - b * self.variances
        linear = t @ (a - 2 * b * self.means).transpose(1, 2) + t.square() @ b.transpose(1, 2)
        return (q * (linear + constant.sum(2).unsqueeze(1))).sum(2) / t.shape[1]


def _treat_encoding(engine: Propagation, call: Call) -> Tensor:
    encoder = call.args[1]

    def relevance(t: Tensor, c: Tensor) -> Tensor:
        # A descriptor is one thing: its relevance goes back in proportion to nothing but its squares, so that a factor
        # exists wherever some entry of it is not zero.
        squares = t.square()
        return squares / squares.sum(2, keepdim=True).clamp(min=1e-300) * encoder.shares(t, c).unsqueeze(2)

    return give(engine, call, relevance)


@operator(_treat_encoding)
def encoding(t: Tensor, encoder: Encoding) -> Tensor:
    """See :class:`Encoding`; a descriptor receives what it contributed to each dimension, of that one's relevance."""
    return encoder.encode(t)


class Normalize(nn.Module):
    """Signed square roots, then unit length: the improved Fisher vector's normalization.

    Square roots pass relevance on one to one; the length is constant.

    Args:
        power, length: which of the two.
    """

    def __init__(self, power: bool = True, length: bool = True) -> None:
        super().__init__()
        self.power, self.length = power, length

    def forward(self, z: Tensor) -> Tensor:
        if self.power:
            z = torch.sign(z) * torch.sqrt(torch.abs(z))
        if self.length:
            size = torch.linalg.vector_norm(z, dim=1, keepdim=True)
            z = z / torch.where(size == 0, torch.ones_like(size), size)
        return z
