"""The spectrum of the neighbour graph: eigenvalues, whose gap tells the number of clusters, and an embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.analyze.neighbours import Neighbours, nearest
from headwater.errors import MissingExtra

_CELLS = 2048  # of the coarse graph that the large one's eigenvectors are started from
_STEPS = 30
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Spectrum:
    """The lowest eigenpairs of a normalized graph Laplacian.

    Attributes:
        eigenvalues: ``[m]``, ascending, in 0 to 2; ``vectors``: ``[N, m]``.
        residual: the largest ``|L v - λ v|`` of them.
    """

    eigenvalues: NDArray[np.float64]
    vectors: NDArray[np.float64]
    residual: float

    def gap(self, low: int = 2) -> int:
        """The number of clusters after which the largest step between eigenvalues comes, at least ``low``."""
        steps = np.diff(self.eigenvalues)[low - 1 :]
        return low + int(np.argmax(steps)) if len(steps) else len(self.eigenvalues)

    def embedding(self) -> NDArray[np.float32]:
        """The vectors with rows of length one (Ng, Jordan, Weiss 2002), ``[N, m]``."""
        length = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        return np.asarray(self.vectors / np.where(length > 0, length, 1.0), np.float32)


def spectrum(found: Neighbours, points: NDArray[np.float32], count: int, exact: bool) -> Spectrum:
    """The lowest ``count`` eigenpairs of ``I - D^(-1/2) A D^(-1/2)``, ``A`` the mean of the graph and its transpose.

    Islands of too few points to be clusters are tied to the nearest point outside, that they may not take all the
    eigenvectors.

    Args:
        exact: by Lanczos to machine precision; else by block iteration (LOBPCG) from the eigenvectors of a coarse
            graph of 2048 cells, at most 30 steps: time linear in N.
    """
    adjacency = _connected(_adjacency(found), points, found.indices.shape[1])
    degree = np.asarray(adjacency.sum(1)).ravel()
    root = 1 / np.sqrt(degree)
    normal = adjacency.multiply(root[:, None]).multiply(root[None]).tocsr()
    count = min(count, len(points) - 2)
    values, vectors = _lanczos(normal, count) if exact else _blocks(normal, np.sqrt(degree), points, count)
    order = np.argsort(-values)
    values, vectors = values[order], vectors[:, order]
    residual = np.linalg.norm(normal @ vectors - vectors * values, axis=0).max()
    return Spectrum(np.maximum(1 - values, 0.0), _oriented(vectors), float(residual))


def _adjacency(found: Neighbours) -> Any:
    n, k = found.indices.shape
    rows = np.arange(0, n * k + 1, k)
    graph = _sparse().csr_matrix(
        (np.ones(n * k, np.float32), found.indices.astype(np.int32).ravel(), rows), shape=(n, n)
    )
    graph.sum_duplicates()
    graph.data[:] = 1.0
    graph.setdiag(0.0)
    graph.eliminate_zeros()
    return ((graph + graph.T) * 0.5).tocsr()


def _connected(adjacency: Any, points: NDArray[np.float32], k: int) -> Any:
    """The graph with every island of at most 2 k + 2 points tied to the rest."""
    from scipy.sparse.csgraph import connected_components

    n = len(points)
    _, component = connected_components(adjacency, directed=False)
    size = np.bincount(component)
    islands = np.flatnonzero(size[component] <= 2 * k + 2)
    mainland = np.flatnonzero(size[component] > 2 * k + 2)
    if not len(islands) or not len(mainland):
        return adjacency
    around, _ = nearest(points[mainland], points[islands], 1)
    ends = mainland[around[:, 0]]
    half = _sparse().csr_matrix((np.full(len(islands), 0.5, np.float32), (islands, ends)), shape=(n, n))
    return (adjacency + half + half.T).tocsr()


def _lanczos(normal: Any, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if count < 1 or normal.shape[0] <= max(64, 3 * count):
        values, vectors = np.linalg.eigh(normal.toarray().astype(np.float64))
        return values[::-1][: max(count, 1)], vectors[:, ::-1][:, : max(count, 1)]
    from scipy.sparse.linalg import eigsh

    start = np.random.default_rng(0).standard_normal(normal.shape[0])
    found = eigsh(normal.astype(np.float64), count, which="LA", v0=start, ncv=max(2 * count + 1, 40), maxiter=20_000)
    return found[0], found[1]


def _blocks(
    normal: Any, root: NDArray[np.float64], points: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """From the eigenvectors of the graph of cells, whose ties are the sums of their points' ties."""
    import warnings

    from scipy.sparse.linalg import lobpcg

    n = len(points)
    centres = np.sort(np.random.default_rng(0).choice(n, min(_CELLS, n // 8), replace=False))
    cell = nearest(points[centres], points, 1)[0][:, 0]
    weight = np.sqrt(np.bincount(cell, root**2, minlength=len(centres)))
    cells = _sparse().csr_matrix((root / weight[cell], (np.arange(n), cell)), shape=(n, len(centres)))
    guard = count + 4  # the last vectors of a block converge slowest: a few more than are wanted
    _, start = _lanczos((cells.T @ normal.astype(np.float64) @ cells).tocsr(), min(guard, len(centres) // 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the residual is in the result
        values, vectors = lobpcg(
            normal.astype(np.float64), np.ascontiguousarray(cells @ start), largest=True, maxiter=_STEPS, tol=_TOLERANCE
        )
    order = np.argsort(-values)[:count]
    return values[order], vectors[:, order]


def _oriented(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each vector with its largest entry positive: the sign of an eigenvector means nothing."""
    largest = vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])]
    return vectors * np.where(largest < 0, -1.0, 1.0)


def _sparse() -> Any:
    try:
        from scipy import sparse
    except ModuleNotFoundError as error:
        raise MissingExtra("spray", "scipy") from error
    return sparse
