"""The nearest neighbours of every point, exact or by an index, and the graph that they span."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.errors import MissingExtra

_CELL = 64  # points in a cell of the index, on average
_PROBES = 20  # cells that are searched for a point
_BLOCK = 4096


@dataclass(frozen=True)
class Neighbours:
    """The ``k`` nearest other points of every point.

    Attributes:
        indices: ``[N, k]``, nearest first; ``distances``: ``[N, k]``, Euclidean.
    """

    indices: NDArray[np.int64]
    distances: NDArray[np.float32]

    def outlierness(self) -> NDArray[np.float64]:
        """How much sparser it is around each point than around its neighbours, ``[N]``; about 1 within a cluster.

        The mean distance to its neighbours over the mean of theirs: the local outlier factor in its simplified form
        (Schubert, Zimek, Kriegel 2014).
        """
        own = self.distances.mean(1, dtype=np.float64)
        around = own[self.indices].mean(1)
        return np.divide(own, around, out=np.where(own > 0, np.inf, 1.0), where=around > 0)


def neighbours(points: NDArray[np.float32], k: int, exact: bool) -> Neighbours:
    """The nearest neighbours of every point among the others.

    Args:
        points: ``[N, d]``. k: at most N - 1. exact: compare all pairs (in blocks, never all at once); else an inverted
            file over N / 64 random cells, found through a navigable small-world graph: time grows as N log N.
    """
    index = _flat(points) if exact else _inverted(points)
    indices = np.empty((len(points), k), np.int64)
    distances = np.empty((len(points), k), np.float32)
    for start in range(0, len(points), _BLOCK):
        place = slice(start, min(start + _BLOCK, len(points)))
        squares, found = index.search(points[place], k + 1)
        indices[place], squares = _others(np.arange(place.start, place.stop), found, squares)
        distances[place] = np.sqrt(np.maximum(squares, 0))
    _mix_equals(points, indices, distances)
    return Neighbours(indices, distances)


def _mix_equals(points: NDArray[np.float32], indices: NDArray[np.int64], distances: NDArray[np.float32]) -> None:
    """Have each of more than k + 1 equal points (maps without relevance, copies) take neighbours at random among them.

    An index names the same few first to all of them, which would make islands and bridges where there is one point.
    """
    rows = np.ascontiguousarray(points + 0.0)  # -0.0 and 0.0 are equal too
    whole = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, kinds, counts = np.unique(whole, return_inverse=True, return_counts=True)
    generator, k = np.random.default_rng(0), indices.shape[1]
    for kind in np.flatnonzero(counts > k + 1):
        own = np.flatnonzero(kinds == kind)
        further = generator.integers(1, len(own), (len(own), k))
        indices[own] = own[(np.arange(len(own))[:, None] + further) % len(own)]
        distances[own] = 0.0


def nearest(
    points: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Of each query the ``k`` nearest among few points: indices ``[Q, k]`` and distances ``[Q, k]``."""
    index = _flat(points)
    blocks = [index.search(queries[s : s + _BLOCK], k) for s in range(0, len(queries), _BLOCK)]
    squares, indices = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return indices, np.sqrt(np.maximum(squares, 0))


def _others(
    own: NDArray[np.int64], found: NDArray[np.int64], squares: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Without the point itself (or, among many equal points, without the last); what is missing repeats the nearest."""
    is_own = found == own[:, None]
    is_own[~is_own.any(1), -1] = True
    kept = (len(found), found.shape[1] - 1)
    found, squares = found[~is_own].reshape(kept), squares[~is_own].reshape(kept)
    missing = found < 0
    if missing.any():
        found = np.where(missing, found[:, :1], found)
        squares = np.where(missing, squares[:, :1], squares)
    return found, squares


def _flat(points: NDArray[np.float32]) -> Any:
    index = _faiss().IndexFlatL2(points.shape[1])
    index.add(np.ascontiguousarray(points))
    return index


def _inverted(points: NDArray[np.float32]) -> Any:
    """Cells around random points: as good as trained ones where they are many, and free."""
    faiss = _faiss()
    count, dimensions = len(points) // _CELL, points.shape[1]
    centres = np.sort(np.random.default_rng(0).choice(len(points), count, replace=False))
    quantizer = faiss.IndexHNSWFlat(dimensions, 16)
    quantizer.add(np.ascontiguousarray(points[centres]))
    quantizer.hnsw.efSearch = 2 * _PROBES
    index = faiss.IndexIVFFlat(quantizer, dimensions, count)
    index.is_trained = True
    index.add(np.ascontiguousarray(points))
    index.nprobe = _PROBES
    return index


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise MissingExtra("spray", "faiss-cpu") from error
    return faiss
