"""Relevance pooling: how much a group of features contributed to the decisions on a group of samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headwater.analyze.clusters import cluster
from headwater.analyze.groups import FeatureGroups
from headwater.analyze.maps import Maps, array_of
from headwater.errors import InvalidInput

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Pooled:
    """Relevance summed over groups of samples and of features.

    Attributes:
        samples: names of the groups of samples; ``features``: of the groups of features; ``sizes``: samples in each.
        values: ``[groups of samples, groups of features]``: they sum to the relevance of the whole data set.
    """

    samples: list[Any]
    features: list[str]
    sizes: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def means(self) -> NDArray[np.float64]:
        """Relevance a sample."""
        return np.asarray(self.values / self.sizes[:, None])

    @property
    def total(self) -> float:
        """The relevance of the whole data set."""
        return float(self.values.sum())

    def __str__(self) -> str:
        heads = ["samples", "number", *self.features, "sum"]
        rows = [
            [str(name), str(size), *(f"{v:.4g}" for v in row), f"{row.sum():.4g}"]
            for name, size, row in zip(self.samples, self.sizes, self.values, strict=True)
        ]
        rows.append(["all", str(self.sizes.sum()), *(f"{v:.4g}" for v in self.values.sum(0)), f"{self.total:.4g}"])
        widths = [max(len(line[i]) for line in [heads, *rows]) for i in range(len(heads))]
        return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in [heads, *rows])

    def plot(self) -> Figure:
        """Mean relevance of each group of features, a bar chart for each group of samples; needs the extra ``plot``."""
        from headwater.analyze.picture import bars

        return bars(self)


def pool(source: Any, samples: Any = "auto", features: FeatureGroups | None = None) -> Pooled:
    """Sum relevance over groups of samples and groups of features; nothing is lost on the way.

    ``R(G, I) = Σ_{n in G} Σ_{i in I} R_{i,n}``, in double precision, each sample in one group and each feature in one.

    Args:
        source: a store or its path, or relevance ``[N, ...]``.
        samples: a column of the store's table ("label", "target"), or one value a sample (clusters, say); None for
            all in one. "auto" takes the labels where a store has them.
        features: see :mod:`headwater.analyze.groups`; by default each feature by itself where samples are vectors,
            all in one where they are not.

    Raises:
        InvalidInput: groups that do not fit.

    Source: Samek et al. 2021 (review), Section VI-B1.
    """
    maps = Maps.of(source)
    if isinstance(samples, str) and samples == "auto":
        samples = "label" if maps.store is not None and maps.store.labels is not None else None
    values = maps.groups(samples)
    values = np.full(len(maps), "all") if values is None else values
    kinds, group = np.unique(values, return_inverse=True)
    names = list(features.names) if features else _default_names(maps)
    total = np.zeros((len(kinds), len(names)))
    for numbers, batch in maps.batches():
        np.add.at(total, group[numbers], _pooled(batch, numbers, features, len(names)))
    sizes = np.bincount(group[maps.valid], minlength=len(kinds))
    kept = sizes > 0  # a group all of whose samples were passed over
    return Pooled([kind.item() for kind in kinds[kept]], names, sizes[kept], total[kept])


def kmeans(x: Any, count: int, seed: int = 0) -> NDArray[np.int64]:
    """Group samples ``[N, ...]`` by k-means of their standardized features: ``[N]``, the largest group 0.

    Raises:
        InvalidInput: fewer samples than groups.
    """
    points = array_of(x).reshape(len(x), -1).astype(np.float64)
    if not 1 <= count <= len(points):
        raise InvalidInput(f"{len(points)} samples cannot be divided into {count} groups")
    deviation = points.std(0)
    points = (points - points.mean(0)) / np.where(deviation > 0, deviation, 1.0)
    return cluster(points.astype(np.float32), "kmeans", count, 1, seed)


def _default_names(maps: Maps) -> list[str]:
    return [str(i) for i in range(maps.shape[0])] if len(maps.shape) == 1 else ["all"]


def _pooled(
    batch: NDArray[Any], numbers: NDArray[np.int64], features: FeatureGroups | None, count: int
) -> NDArray[Any]:
    if features is not None:
        return features.pool(batch, numbers)
    flat = batch.reshape(len(batch), -1).astype(np.float64)
    return flat if flat.shape[1] == count else flat.sum(1, keepdims=True)
