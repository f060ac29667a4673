"""Groups of points, and points on a map: k-means, HDBSCAN, UMAP and t-SNE, through landmarks where there are many."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headwater.analyze.neighbours import nearest
from headwater.errors import InvalidInput, MissingExtra

LANDMARKS = 5_000
Clustering = Literal["kmeans", "hdbscan"]
Mapping2d = Literal["umap", "tsne"]


def cluster(points: NDArray[np.float32], method: Clustering, count: int, smallest: int, seed: int) -> NDArray[np.int64]:
    """A cluster for each point ``[N]``, numbered by size, largest first; -1 where HDBSCAN calls it noise.

    Args:
        method: "kmeans" into ``count`` clusters, or "hdbscan" into those of at least ``smallest`` points (found among
            5,000 landmarks where there are more points, each of which takes the cluster of its nearest landmark).
    """
    if method == "kmeans":
        return _by_size(_kmeans(points, min(count, len(points)), seed))
    if method != "hdbscan":
        raise InvalidInput(f"clustering must be 'kmeans' or 'hdbscan', not {method!r}")
    marks = landmarks(len(points), seed)
    share = len(marks) / len(points)
    smallest = max(2, round(smallest * share))
    found = (
        _sklearn("cluster").HDBSCAN(min_cluster_size=min(smallest, len(marks)), copy=True).fit_predict(points[marks])
    )
    if len(marks) < len(points):
        found = found[nearest(points[marks], points, 1)[0][:, 0]]
    return _by_size(found)


def landmarks(n: int, seed: int) -> NDArray[np.int64]:
    """At most 5,000 of ``n`` points, drawn at random, sorted."""
    if n <= LANDMARKS:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, LANDMARKS, replace=False))


def draw_map(points: NDArray[np.float32], method: Mapping2d, seed: int) -> NDArray[np.float32]:
    """Places on a plane ``[N, 2]``; beyond 5,000 points each lies amid its three nearest landmarks.

    Raises:
        InvalidInput: another method. MissingExtra: UMAP is not installed.
    """
    marks = landmarks(len(points), seed)
    if len(marks) < 8:  # too few for either method; the first two coordinates show them as well
        return np.ascontiguousarray(np.pad(points[:, :2], ((0, 0), (0, max(0, 2 - points.shape[1])))))
    placed = _placed(points[marks], method, seed)
    if len(marks) == len(points):
        return placed
    around, distances = nearest(points[marks], points, 3)
    weights = 1 / (distances + 1e-6)
    weights /= weights.sum(1, keepdims=True)
    return np.asarray((placed[around] * weights[..., None]).sum(1), np.float32)


def _placed(points: NDArray[np.float32], method: Mapping2d, seed: int) -> NDArray[np.float32]:
    if method == "umap":
        import warnings

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from umap import UMAP

                made = UMAP(n_neighbors=min(15, len(points) - 1), random_state=seed, n_jobs=1, init="random")
                return np.asarray(made.fit_transform(points), np.float32)
        except ModuleNotFoundError as error:
            raise MissingExtra("spray", "umap-learn") from error
    if method != "tsne":
        raise InvalidInput(f"map must be 'umap', 'tsne' or None, not {method!r}")
    made = _sklearn("manifold").TSNE(perplexity=min(30.0, (len(points) - 1) / 3), random_state=seed, init="random")
    return np.asarray(made.fit_transform(points), np.float32)


def _kmeans(points: NDArray[np.float32], count: int, seed: int) -> NDArray[np.int64]:
    """Centres from at most 100,000 points, where more would not move them."""
    library = _sklearn("cluster")
    step = -(-len(points) // 100_000)
    return np.asarray(library.KMeans(count, n_init=4, random_state=seed).fit(points[::step]).predict(points), np.int64)


def _by_size(labels: NDArray[Any]) -> NDArray[np.int64]:
    labels = np.asarray(labels, np.int64)
    kinds, sizes = np.unique(labels[labels >= 0], return_counts=True)
    order = {int(kind): rank for rank, kind in enumerate(kinds[np.argsort(-sizes, kind="stable")])}
    renumber = np.full(int(labels.max()) + 2, -1)
    for kind, rank in order.items():
        renumber[kind] = rank
    return np.where(labels < 0, -1, renumber[labels])


def _sklearn(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        raise MissingExtra("spray", "scikit-learn") from error
