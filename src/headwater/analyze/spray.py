"""Spectral relevance analysis (SpRAy): the strategies of a model, found by clustering its heatmaps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.analyze.clusters import Clustering, Mapping2d, cluster, draw_map
from headwater.analyze.features import features
from headwater.analyze.fisher import separation
from headwater.analyze.maps import Maps
from headwater.analyze.neighbours import neighbours
from headwater.analyze.normalize import Normalization
from headwater.analyze.spectral import spectrum
from headwater.analyze.strategies import Cluster, Group, Spray, describe
from headwater.errors import InvalidInput


@dataclass(frozen=True)
class Settings:
    """How a group of samples is analyzed; see :func:`spray`."""

    neighbours: int | None
    eigenvalues: int
    clusters: int | None
    clustering: Clustering
    smallest: float
    map: Mapping2d | None
    exact: int
    seed: int


def spray(
    source: Any,
    by: Any = "auto",
    normalization: Normalization | None = None,
    *,
    dimensions: int = 48,
    neighbours: int | None = None,
    eigenvalues: int = 24,
    clusters: int | None = None,
    clustering: Clustering = "kmeans",
    smallest: float = 0.01,
    map: Mapping2d | None = None,
    representatives: int = 8,
    exact: int = 20_000,
    seed: int = 0,
) -> Spray:
    """Cluster heatmaps: which strategies does the model use, and which of them are suspicious?

    Heatmaps are normalized; their nearest neighbours span a graph; the lowest eigenvectors of its Laplacian embed
    them; clusters in the embedding are strategies. A cluster that lies far from the rest of its group is a suspect:
    a model that looks at a watermark has heatmaps unlike all others of the class. Up to ``exact`` samples every step
    is exact; beyond, features are projected to principal components, neighbours are found through an index and
    eigenvectors by iteration from a coarse graph. No step holds an array of N x N.

    Args:
        source: a store or its path, or relevance ``[N, ...]``.
        by: analyze each group by itself: a column of the store's table ("label", "target"), or one value a sample;
            None for all in one. "auto" takes the explained class where the store has one.
        normalization: what makes heatmaps comparable.
        dimensions: principal components that are kept beyond ``exact`` samples.
        neighbours: of each sample in the graph; by default log2 of the group's size, 10 at least.
        eigenvalues: that are computed. clusters: for k-means; by default as many as the eigengap says.
        clustering: "kmeans" or "hdbscan". smallest: the least share of its group that makes a cluster of HDBSCAN.
        map: "umap" or "tsne" for places on a plane, None for none.
        representatives: samples nearest to the middle of each cluster that are named.
        exact: the largest number of samples that is treated without approximation.
        seed: for k-means, landmarks and maps.

    Returns:
        A :class:`Spray`; prints as a table of suspects.

    Raises:
        InvalidInput: fewer than three samples, groups that do not fit, or settings out of range.
        MissingExtra: without the extra ``spray``.

    Source: Lapuschkin et al. 2019; Samek et al. 2021 (review), Algorithm 4; Anders et al. 2022 for the ranking.
    """
    settings = Settings(neighbours, eigenvalues, clusters, clustering, smallest, map, exact, seed)
    _check(settings, dimensions)
    maps = Maps.of(source)
    if len(maps.valid) < 3:
        raise InvalidInput(f"{len(maps.valid)} heatmaps are too few to cluster: pass three at least")
    if isinstance(by, str) and by == "auto":
        by = "target" if maps.store is not None and maps.store.targets is not None else None
    values = maps.groups(by)
    normalization = Normalization() if normalization is None else normalization
    points = features(maps, normalization, dimensions if len(maps.valid) > exact else None)
    found = _Collected.empty(len(maps), settings)
    own = None if values is None else values[maps.valid]
    for name in [None] if own is None else np.unique(own):
        members = np.arange(len(points)) if own is None else np.flatnonzero(own == name)
        found.add(
            None if name is None else name.item(), maps.valid[members], points[members], settings, representatives
        )
    means, sums = describe(maps, found.labels, len(found.clusters))
    return Spray(
        found.labels,
        found.embedding,
        found.places,
        found.outliers,
        found.groups,
        found.clusters,
        means,
        sums,
        source=maps,
    )


def _check(settings: Settings, dimensions: int) -> None:
    least = {"dimensions": (dimensions, 2), "eigenvalues": (settings.eigenvalues, 2), "exact": (settings.exact, 0)}
    given = {"neighbours": settings.neighbours, "clusters": settings.clusters}
    least |= {name: (value, 1) for name, value in given.items() if value is not None}
    for name, (value, minimum) in least.items():
        if value < minimum:
            raise InvalidInput(f"{name} must be at least {minimum}, not {value}")
    if settings.clustering not in ("kmeans", "hdbscan"):
        raise InvalidInput(f"clustering must be 'kmeans' or 'hdbscan', not {settings.clustering!r}")
    if settings.map not in ("umap", "tsne", None):
        raise InvalidInput(f"map must be 'umap', 'tsne' or None, not {settings.map!r}")
    if not 0 < settings.smallest <= 1:
        raise InvalidInput(f"smallest must be a share in (0, 1], not {settings.smallest}")


@dataclass
class _Collected:
    """The groups' results, put where their samples are."""

    labels: NDArray[np.int64]
    embedding: NDArray[np.float32]
    places: NDArray[np.float32] | None
    outliers: NDArray[np.float64]
    groups: list[Group]
    clusters: list[Cluster]

    @staticmethod
    def empty(n: int, settings: Settings) -> _Collected:
        return _Collected(
            np.full(n, -1), np.full((n, settings.eigenvalues), np.nan, np.float32),
            None if settings.map is None else np.full((n, 2), np.nan, np.float32), np.full(n, np.nan), [], [],
        )  # fmt: skip

    def add(
        self, name: Any, rows: NDArray[np.int64], points: NDArray[np.float32], settings: Settings, representatives: int
    ) -> None:
        """Analyze one group."""
        if len(rows) < 3 or (points == points[0]).all():  # nothing to compare: one cluster that is no suspect
            first = len(self.clusters)
            self.labels[rows] = first
            self.groups.append(Group(name, len(rows), np.zeros(0), 0.0))
            self.clusters.append(Cluster(first, name, len(rows), 1.0, 0.0, rows[:representatives].tolist()))
            return
        k = min(settings.neighbours or max(10, round(math.log2(len(rows)))), len(rows) - 1)
        exact = len(rows) <= settings.exact
        around = neighbours(points, k, exact)
        found = spectrum(around, points, settings.eigenvalues, exact)
        count = settings.clusters or found.gap()
        embedding = found.embedding()
        own = cluster(
            embedding[:, :count],
            settings.clustering,
            count,
            max(2, round(settings.smallest * len(rows))),
            settings.seed,
        )
        self.embedding[rows, : embedding.shape[1]] = embedding
        self.outliers[rows] = around.outlierness()
        if self.places is not None and settings.map is not None:
            self.places[rows] = draw_map(embedding, settings.map, settings.seed)
        first, separations = len(self.clusters), separation(points, own)
        self.labels[rows] = np.where(own < 0, -1, own + first)
        for label in range(own.max() + 1):
            members = np.flatnonzero(own == label)
            middle = embedding[members].mean(0)
            order = np.argsort(((embedding[members] - middle) ** 2).sum(1), kind="stable")[:representatives]
            share = len(members) / len(rows)
            near = rows[members[order]].tolist()
            self.clusters.append(Cluster(first + label, name, len(members), share, separations[label], near))
        self.groups.append(Group(name, len(rows), found.eigenvalues, found.residual))
