"""Fisher's discriminant: how far apart two groups lie, in units of their own spread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def separation(points: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[int, float]:
    """Each cluster against all other points along the direction that parts them best.

    ``J = (m₁ - m₀)ᵀ S⁻¹ (m₁ - m₀)`` with ``S`` the mean covariance of the two groups: the squared distance of the means
    in standard deviations. A few points in many dimensions always lie apart along some direction; so ``S`` is shrunk
    towards a multiple of the identity by ``d / (d + n)``, ``n`` the smaller group's size, and what the means differ by
    chance, ``tr S⁻¹ (S₁ / n₁ + S₀ / n₀)``, is taken off. Covariances are unbiased (a divisor of n - 1); a cluster of
    one shows none of its own, and is given that of the rest.

    Args:
        points: ``[N, d]``. labels: ``[N]``, -1 for points that belong to no cluster (they count among the others).

    Source: Fisher 1936; as a ranking of suspicious classes Anders et al. 2022 (the review's reference [6]).
    """
    centre = points.mean(0, dtype=np.float64)  # about which no digits are lost
    kinds = [int(k) for k in np.unique(labels)]
    moments = {k: _moments(points[labels == k], centre) for k in kinds}
    size, total, scatter = (sum(parts) for parts in zip(*moments.values(), strict=True))
    found = {}
    for k in (k for k in kinds if k >= 0):
        n, inner, own = moments[k]
        found[k] = _fisher((n, inner, own), (size - n, total - inner, scatter - own))
    return found


Moments = tuple[int, NDArray[np.float64], NDArray[np.float64]]  # number, sum and sum of products


def _fisher(one: Moments, other: Moments) -> float:
    if min(one[0], other[0]) < 1 or max(one[0], other[0]) < 2:
        return 0.0  # nothing to compare with
    (n, mean, spread), (m, rest, around) = _shape(one), _shape(other)
    spread, around = spread if n > 1 else around, around if m > 1 else spread
    within, d = (spread + around) / 2, len(mean)
    variance = max(float(np.trace(within)) / d, 1e-12)
    share = d / (d + min(n, m))
    within = (1 - share) * within + share * variance * np.eye(d)
    gap = mean - rest
    by_chance = np.trace(np.linalg.solve(within, spread / n + around / m))
    return max(0.0, float(gap @ np.linalg.solve(within, gap)) - float(by_chance))


def _shape(moments: Moments) -> Moments:
    """Number, mean and covariance; of one point a covariance of zero."""
    n, total, products = moments
    return n, total / n, (products - np.outer(total, total) / n) / max(n - 1, 1)


def _moments(points: NDArray[np.float32], centre: NDArray[np.float64]) -> Moments:
    """Number, ``Σ (x - c)`` and ``Σ (x - c)(x - c)ᵀ``, in blocks."""
    total = np.zeros((points.shape[1], points.shape[1]))
    for start in range(0, len(points), 65_536):
        block = points[start : start + 65_536] - centre
        total += block.T @ block
    return len(points), points.sum(0, dtype=np.float64) - len(points) * centre, total
