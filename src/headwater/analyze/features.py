"""Features of all samples in one array: normalized heatmaps, projected to few dimensions where there are many."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.analyze.maps import BATCH, Maps
from headwater.analyze.normalize import Normalization

_SAMPLE = 50_000  # that the principal components are computed from


def features(maps: Maps, normalization: Normalization, dimensions: int | None) -> NDArray[np.float32]:
    """Normalized maps ``[valid samples, d]`` in the order of ``maps.valid``.

    Args:
        dimensions: project onto this many principal components (of evenly spread batches, 50,000 samples at most);
            None keeps all.
    """
    projection = None
    if dimensions is not None:
        projection = _components(maps, normalization, dimensions)
    found: NDArray[Any] | None = None
    start = 0
    for _, batch in maps.batches():
        rows: NDArray[Any] = normalization(batch)
        if projection is not None:
            mean, axes = projection
            rows = (rows - mean) @ axes
        if found is None:
            found = np.empty((len(maps.valid), rows.shape[1]), np.float32)
        found[start : start + len(rows)] = rows
        start += len(rows)
    assert found is not None, "there is at least one valid sample"
    return found


def _components(
    maps: Maps, normalization: Normalization, dimensions: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Mean ``[d]`` and principal axes ``[d, dimensions]``; None where the features are no more than that."""
    starts = np.arange(0, len(maps.valid), BATCH)
    picked = starts[:: max(1, len(maps.valid) // _SAMPLE)]
    sample = np.concatenate([normalization(maps.take(maps.valid[s : s + BATCH])) for s in picked])
    if sample.shape[1] <= dimensions:
        return None
    mean = sample.mean(0, dtype=np.float64)
    covariance = (sample - mean.astype(np.float32)).T @ (sample - mean.astype(np.float32)) / len(sample)
    _, axes = np.linalg.eigh(covariance.astype(np.float64))
    return mean.astype(np.float32), np.ascontiguousarray(axes[:, ::-1][:, :dimensions], dtype=np.float32)
