"""Points and the distances to them, seen through affine preprocessing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headwater.neuralize.operators import squared_distances


@dataclass(frozen=True)
class AffineMap:
    """``z = (x - origin) matrixᵀ + offset``: what a chain of scalers and projections does.

    Attributes:
        matrix: ``[K, D]``, or ``[D]`` for a diagonal one; ``origin``: ``[D]``, the input that is mapped to ``offset``
            ``[K]``, which is zero where the map reaches zero at all.
    """

    matrix: Tensor
    origin: Tensor
    offset: Tensor

    @staticmethod
    def of(matrix: Tensor, shift: Tensor) -> AffineMap:
        """The map ``x matrixᵀ + shift``, about the input nearest to zero that it maps to zero."""
        origin = _nearest(matrix, -shift.unsqueeze(1)).squeeze(1)
        offset = matrix @ origin + shift
        tiny = torch.finfo(shift.dtype).eps ** 0.75 * (shift.abs().max() + 1)
        return AffineMap(matrix, origin, torch.where(offset.abs() <= tiny, torch.zeros_like(offset), offset))

    def then(self, other: AffineMap) -> AffineMap:
        """This map first, the other one after it."""
        first, second = self.matrix, other.matrix
        if first.dim() == 1:
            matrix = second * first
        else:
            matrix = second[:, None] * first if second.dim() == 1 else second @ first
        # Where the maps keep their origins the composition has this one's, exactly (a scaler's mean, say).
        moved = self.offset - other.origin
        shift = (second * moved if second.dim() == 1 else second @ moved) + other.offset
        if not bool(shift.any()):
            return AffineMap(matrix, self.origin, shift)
        return AffineMap.of(matrix, shift - matrix @ self.origin)

    def preimage(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs ``[M, D]`` whose images are nearest to points ``z`` ``[M, K]``, and the squared distances left."""
        away = _nearest(self.matrix, (z - self.offset).T).T
        left = (away @ self.matrix.T + self.offset - z).square().sum(1)
        return away + self.origin, left


def _nearest(matrix: Tensor, b: Tensor) -> Tensor:
    """The smallest solution of ``matrix x = b`` in the sense of least squares, ``[D, M]`` for ``b`` ``[K, M]``."""
    wide = matrix.shape[0] <= matrix.shape[1]
    q, r = torch.linalg.qr(matrix.T if wide else matrix)
    size = r.diagonal().abs()
    if not bool(size.min() > 1e-10 * size.max()):  # of a rank that is not full
        return torch.linalg.lstsq(matrix, b, driver="gelsd").solution
    if wide:
        return q @ torch.linalg.solve_triangular(r.T, b, upper=False)
    return torch.linalg.solve_triangular(r, q.T @ b, upper=True)


class Distances(nn.Module):
    """Squared distances to points, ``‖matrix (x - p_i)‖² + left_i``; shape ``[N, D]`` to ``[N, M]``.

    Args:
        points: ``[M, D]`` in the space of the input, or, with ``front``, ``[M, K]`` behind it.
        front: affine preprocessing that the distances are measured behind. The points are taken back through it, so
            that distances are explained in columns of the input, exactly.
        scale: ``[K]``, how much a difference along each axis counts (a standard deviation's reciprocal).
        root: ``[K, K]``, a matrix to apply to differences (a precision's root) instead of ``scale``.
    """

    relevance_without_factor = True

    points: Tensor
    center: Tensor
    matrix: Tensor | None
    left: Tensor | None

    def __init__(
        self, points: Tensor, front: AffineMap | None = None, scale: Tensor | None = None, root: Tensor | None = None
    ) -> None:
        super().__init__()
        metric = root if root is not None else None if scale is None else torch.diag(scale)
        left = None
        if front is not None:
            if metric is not None:  # the nearest preimage is so in the metric that counts
                front, points = AffineMap(metric @ front.matrix, front.origin, metric @ front.offset), points @ metric.T
            points, left = front.preimage(points)
            metric = front.matrix
            left = left if bool((left > 1e-20 * (1 + left.max())).any()) else None
        self.register_buffer("points", points)
        self.register_buffer("matrix", metric)
        self.register_buffer("left", left)
        self.register_buffer("center", points.mean(0))

    def forward(self, x: Tensor) -> Tensor:
        return squared_distances(x, self)

    def _seen(self, u: Tensor) -> Tensor:
        return u if self.matrix is None else u @ self.matrix.T

    def _back(self, seen: Tensor) -> Tensor:
        return seen if self.matrix is None else seen @ self.matrix

    def values(self, x: Tensor) -> Tensor:
        """Squared distances ``[N, M]``; about the points' centre, so that little cancels."""
        u, v = self._seen(x - self.center), self._seen(self.points - self.center)
        d = torch.addmm(v.square().sum(1), u, v.T, alpha=-2) + u.square().sum(1, keepdim=True)
        d = d.clamp(min=0)
        return d if self.left is None else d + self.left

    def relevance(self, x: Tensor, c: Tensor) -> Tensor:
        """``Σ_i c_i (x - p_i)_d (P (x - p_i))_d`` with ``P = matrixᵀ matrix``, by matrix products alone."""
        u, v = x - self.center, self.points - self.center
        seen = self._seen(v)
        pu, pv = self._back(self._seen(u)), self._back(seen)
        given = u * pu * c.sum(1, keepdim=True) + c @ (v * pv)
        return given - u * self._back(c @ seen) - pu * (c @ v)

    def residue(self, c: Tensor) -> Tensor | None:
        return None if self.left is None else c * self.left


class DiagonalDistances(nn.Module):
    """``Σ_d s_id² (x_d - p_id)²``: distances to points each with a scale of its own along each axis.

    Args:
        points, scales: ``[M, D]``.
    """

    relevance_without_factor = True

    points: Tensor
    weights: Tensor
    center: Tensor

    def __init__(self, points: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.register_buffer("points", points)
        self.register_buffer("weights", scales.square())
        self.register_buffer("center", points.mean(0))

    def forward(self, x: Tensor) -> Tensor:
        return squared_distances(x, self)

    def values(self, x: Tensor) -> Tensor:
        """Squared distances ``[N, M]``."""
        u, v, w = x - self.center, self.points - self.center, self.weights
        return (u.square() @ w.T - 2 * u @ (w * v).T + (w * v.square()).sum(1)).clamp(min=0)

    def relevance(self, x: Tensor, c: Tensor) -> Tensor:
        """``Σ_i c_i s_id² (x - p_i)_d²``, ``[N, D]``."""
        u, v, w = x - self.center, self.points - self.center, self.weights
        return u.square() * (c @ w) - 2 * u * (c @ (w * v)) + c @ (w * v.square())

    def residue(self, c: Tensor) -> Tensor | None:
        return None
