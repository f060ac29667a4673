"""What spectral relevance analysis found: clusters, the suspects among them, their mean heatmaps; and its table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headwater.analyze.maps import Maps

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Group:
    """Samples that were analyzed together.

    Attributes:
        name: the value that they share; ``size``: how many they are.
        eigenvalues: of their graph, ascending: a gap after the n-th speaks for n clusters.
        residual: how far from exact the eigenvectors are.
    """

    name: Any
    size: int
    eigenvalues: NDArray[np.float64]
    residual: float


@dataclass(frozen=True)
class Cluster:
    """One strategy.

    Attributes:
        label: its number in ``Spray.labels``; ``group``: the value of its group; ``size``, ``share``: of the group.
        separation: Fisher's discriminant against the rest of the group; see :mod:`headwater.analyze.fisher`.
        representatives: samples nearest to its middle.
    """

    label: int
    group: Any
    size: int
    share: float
    separation: float
    representatives: list[int]


@dataclass(frozen=True)
class Spray:
    """The strategies in a data set's explanations.

    Attributes:
        labels: the cluster of each sample ``[N]``, -1 for none (noise, or no explanation).
        embedding: spectral, ``[N, eigenvalues]``; ``places``: on the map ``[N, 2]``, or None.
        outliers: ``[N]``, about 1 in the midst of others, larger where a heatmap stands alone.
        groups, clusters: in order; ``means``: mean heatmap of each cluster; ``totals``: sum of its relevance.
    """

    labels: NDArray[np.int64]
    embedding: NDArray[np.float32]
    places: NDArray[np.float32] | None
    outliers: NDArray[np.float64]
    groups: list[Group]
    clusters: list[Cluster]
    means: NDArray[np.float64]
    totals: NDArray[np.float64]
    source: Maps | None = field(default=None, repr=False)

    @property
    def suspects(self) -> list[Cluster]:
        """The clusters of less than half their group, the one most unlike the rest of its group first."""
        return sorted((c for c in self.clusters if c.share < 0.5), key=lambda c: -c.separation)

    @property
    def suspicious_groups(self) -> list[tuple[Any, float]]:
        """The groups by the separation of their clusters (mean, weighted by size), most suspicious first."""
        found = {}
        for group in self.groups:
            own = [c for c in self.clusters if c.group == group.name]
            found[group.name] = sum(c.separation * c.share for c in own)
        return sorted(found.items(), key=lambda item: -item[1])

    def members(self, label: int) -> NDArray[np.int64]:
        """The samples of a cluster."""
        return np.flatnonzero(self.labels == label)

    def ids(self, samples: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The names of samples, where they came from a store; else their numbers."""
        if self.source is None or self.source.store is None:
            return [str(i) for i in samples]
        return [str(self.source.store.ids[i]) for i in samples]

    def summary(self, count: int = 10) -> str:
        """The first suspects, one a line."""
        noise = int(((self.labels < 0) & np.isfinite(self.outliers)).sum())
        lines = [
            f"{len(self.clusters)} clusters of {int((self.labels >= 0).sum())} samples in {len(self.groups)} groups"
        ]
        if noise:
            lines.append(f"{noise} samples belong to no cluster")
        lines.append(
            f"{'suspect':>7}  {'group':>12}  {'cluster':>7}  {'size':>8}  {'share':>6}  {'separation':>10}  samples"
        )
        for rank, c in enumerate(self.suspects[:count], start=1):
            group = "all" if c.group is None else str(c.group)
            names = ", ".join(self.ids(c.representatives[:4]))
            lines.append(
                f"{rank:>7}  {group:>12}  {c.label:>7}  {c.size:>8}  {c.share:>6.1%}  {c.separation:>10.1f}  {names}"
            )
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()

    def save(self, folder: str | Path) -> Path:
        """Write ``spray.npz`` (arrays, no pickle) and ``spray.json`` (groups and clusters)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {
            "labels": self.labels,
            "embedding": self.embedding,
            "outliers": self.outliers,
            "means": self.means,
            "totals": self.totals,
        }
        if self.places is not None:
            arrays["places"] = self.places
        np.savez_compressed(folder / "spray.npz", **arrays)  # type: ignore[arg-type]
        groups = [{**asdict(group), "eigenvalues": group.eigenvalues.tolist()} for group in self.groups]
        clusters = [asdict(c) for c in self.clusters]
        (folder / "spray.json").write_text(json.dumps({"groups": groups, "clusters": clusters}, indent=1))
        return folder

    def plot(self, count: int = 3) -> Figure:
        """The map, the eigenvalues and the first suspects' mean heatmaps; needs the extra ``plot``."""
        from headwater.analyze.picture import picture

        return picture(self, count)


def describe(maps: Maps, labels: NDArray[np.int64], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean heatmap ``[count, *shape]`` and sum of relevance ``[count]`` of each cluster, in one pass."""
    from scipy.sparse import csr_matrix

    sums = np.zeros((count, int(np.prod(maps.shape))))
    for numbers, batch in maps.batches():
        own = labels[numbers]
        kept = own >= 0
        rows = batch[kept].reshape(int(kept.sum()), -1).astype(np.float64)
        picked = csr_matrix((np.ones(len(rows)), (own[kept], np.arange(len(rows)))), shape=(count, len(rows)))
        sums += picked @ rows
    size = np.bincount(labels[labels >= 0], minlength=count)[:, None]
    return (sums / np.maximum(size, 1)).reshape(count, *maps.shape), sums.sum(1)
