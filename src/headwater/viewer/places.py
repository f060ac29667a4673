"""Where each sample lies on the map: planes of the analysis, groups side by side, and principal components."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.analyze.features import features
from headwater.analyze.maps import Maps
from headwater.analyze.normalize import Normalization
from headwater.viewer.analysis import Analysis

_MARGIN = 0.08  # of a tile, left free around its points
_TITLE = 0.06  # of a tile, left free above them too
_WITHIN = 0.001  # of the points, the part that may lie outside what a tile is scaled to, on each side


def principal(maps: Maps) -> NDArray[np.float32]:
    """The first two principal components of the normalized heatmaps, ``[N, 2]`` in -1 to 1; NaN without one."""
    found = np.full((len(maps), 2), np.nan, np.float32)
    if len(maps.valid):
        points = features(maps, Normalization(), 2)
        found[maps.valid] = np.pad(points[:, :2], ((0, 0), (0, max(0, 2 - points.shape[1]))))
    return fitted(found)


def of_analysis(analysis: Analysis) -> tuple[NDArray[np.float32], list[dict[str, Any]]]:
    """Places ``[N, 2]`` in -1 to 1 and the tiles that the groups fill, whose planes have nothing to do with each other.

    A tile has its ``title``, its number of samples ``n``, its lower left corner ``x``, ``y``, ``width``, ``height``.
    """
    raw = analysis.found.places
    raw = np.asarray(analysis.found.embedding[:, 1:3] if raw is None else raw, np.float32)
    groups = analysis.found.groups
    if len(groups) <= 1:
        return fitted(raw), []
    across = math.ceil(math.sqrt(len(groups)))
    side = 2 / across
    found, tiles = np.full_like(raw, np.nan), []
    down = math.ceil(len(groups) / across)
    for index, group in enumerate(groups):
        rows = np.flatnonzero(analysis.members == index)
        x, y = -1 + side * (index % across), side * down / 2 - side * (1 + index // across)
        middle = np.array([x + side / 2, y + (1 - _TITLE) * side / 2], np.float32)
        found[rows] = (1 - _MARGIN - _TITLE) * side / 2 * fitted(raw[rows]) + middle
        title = analysis.group_title(group.name)
        tiles.append({"title": title, "n": len(rows), "x": x, "y": y, "width": side, "height": side})
    return found, tiles


def fitted(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Moved and scaled into -1 to 1, the aspect kept; a few that lie far out are put on the border."""
    there = np.isfinite(points).all(1)
    if not there.any():
        return points
    low, high = np.quantile(points[there], [_WITHIN, 1 - _WITHIN], axis=0)
    if (np.count_nonzero(there) * _WITHIN) < 1:
        low, high = points[there].min(0), points[there].max(0)
    half = max(float((high - low).max()) / 2, 1e-12)
    return np.clip((points - (low + high) / 2) / half, -1, 1).astype(np.float32)
