"""Fisher's discriminant: how far apart two groups lie, in units of their own spread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_RIDGE = 0.01  # of the mean variance: what a direction without any spread is taken to have


def separation(points: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[int, float]:
    """Each cluster against all other points along the direction that parts them best.

    ``J = (m₁ - m₀)ᵀ S_w⁻¹ (m₁ - m₀)`` with ``S_w`` the mean covariance of the two groups and a ridge: the squared
    distance of the means in standard deviations. From sums over clusters alone, so that each point is seen once.

    Args:
        points: ``[N, d]``. labels: ``[N]``, -1 for points that belong to no cluster (they count among the others).

    Source: Fisher 1936; as a ranking of suspicious classes Anders et al. 2022 (the review's reference [6]).
    """
    kinds = np.unique(labels)
    if len(kinds) < 2:
        return dict.fromkeys((int(k) for k in kinds if k >= 0), 0.0)
    count = {int(k): int((labels == k).sum()) for k in kinds}
    total = {int(k): points[labels == k].sum(0, dtype=np.float64) for k in kinds}
    # about the overall mean, that no digits are lost
    centre = sum(total.values()) / len(points)
    scatter = {int(k): _scatter(points[labels == k], centre) for k in kinds}
    all_scatter = sum(scatter.values())
    found = {}
    for k in (int(k) for k in kinds if k >= 0):
        n, m = count[k], len(points) - count[k]
        inner = total[k] / n - centre
        outer = -inner * n / m
        within = (scatter[k] / n - np.outer(inner, inner)) / 2 + (
            (all_scatter - scatter[k]) / m - np.outer(outer, outer)
        ) / 2
        within += np.eye(len(within)) * max(_RIDGE * np.trace(within) / len(within), 1e-12)
        gap = inner - outer
        found[k] = float(gap @ np.linalg.solve(within, gap))
    return found


def _scatter(points: NDArray[np.float32], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """``Σ (x - c)(x - c)ᵀ``, in blocks."""
    total = np.zeros((points.shape[1], points.shape[1]))
    for start in range(0, len(points), 65_536):
        block = points[start : start + 65_536] - centre
        total += block.T @ block
    return total
