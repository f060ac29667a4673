"""What spectral relevance analysis found in the store, as the folder that it was saved to holds it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.analyze.strategies import Cluster, Group, Spray
from headwater.errors import InvalidInput
from headwater.viewer.columns import Columns, title_of
from headwater.viewer.refusals import NotThere

_BROKEN = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True, eq=False)
class Analysis:
    """Clusters of an explanation's heatmaps.

    Attributes:
        found: as :func:`headwater.analyze.spray` returned it; ``classes``: names of the groups, where they are classes.
    """

    found: Spray
    classes: Sequence[str]

    @staticmethod
    def read(folder: Path, samples: int, classes: Sequence[str]) -> Analysis:
        """Read what :meth:`headwater.analyze.Spray.save` wrote.

        Raises:
            InvalidInput: it is missing, damaged, or of another number of samples.
        """
        try:
            facts = json.loads((folder / "spray.json").read_text())
            with np.load(folder / "spray.npz", allow_pickle=False) as arrays:
                values = {name: arrays[name] for name in arrays.files}
            groups = [Group(**{**group, "eigenvalues": np.array(group["eigenvalues"])}) for group in facts["groups"]]
            found = Spray(
                values["labels"], values["embedding"], values.get("places"), values["outliers"],
                groups, [Cluster(**cluster) for cluster in facts["clusters"]], values["means"], values["totals"],
            )  # fmt: skip
        except FileNotFoundError as error:
            raise InvalidInput(f"there is no analysis in {folder}: headwater spray STORE --out writes one") from error
        except _BROKEN as error:
            raise InvalidInput(f"the analysis in {folder} is damaged ({error}): write it again") from error
        lengths = {len(values[name]) for name in ("labels", "embedding", "outliers")}
        if lengths != {samples} or len(found.means) != len(found.clusters):
            raise InvalidInput(
                f"the analysis in {folder} is of other samples than the store's {samples}: write it again"
            )
        return Analysis(found, classes)

    def cluster(self, label: int) -> Cluster:
        """A cluster by its number.

        Raises:
            NotThere: there is none of that number.
        """
        for cluster in self.found.clusters:
            if cluster.label == label:
                return cluster
        raise NotThere(f"there is no cluster {label}: the analysis found {len(self.found.clusters)}")

    def group_title(self, name: Any) -> str:
        """What a reader calls a group."""
        return "all" if name is None else title_of(name, self.classes)

    @cached_property
    def members(self) -> NDArray[np.int32]:
        """The group of each sample by its place in ``found.groups``, -1 for a sample in no cluster; ``[N]``."""
        places = {repr(group.name): index for index, group in enumerate(self.found.groups)}
        own = np.array([places[repr(cluster.group)] for cluster in self.found.clusters] + [-1], np.int32)
        return own[self.found.labels]

    def clusters(self) -> list[dict[str, Any]]:
        """All clusters, suspects first, the most suspicious of them before the others."""
        ranks = {cluster.label: rank for rank, cluster in enumerate(self.found.suspects, start=1)}
        order = sorted(self.found.clusters, key=lambda c: (ranks.get(c.label, len(ranks) + 1), -c.separation))
        return [
            {
                "label": c.label, "group": c.group, "group_title": self.group_title(c.group), "size": c.size,
                "share": c.share, "separation": c.separation, "suspect": ranks.get(c.label),
                "total": self.found.totals[c.label], "representatives": c.representatives,
            }
            for c in order
        ]  # fmt: skip

    def spectrum(self) -> list[dict[str, Any]]:
        """Each group's eigenvalues, the most suspicious group first."""
        groups = {repr(group.name): group for group in self.found.groups}
        return [
            {
                "group": name, "title": self.group_title(name), "size": groups[repr(name)].size,
                "eigenvalues": groups[repr(name)].eigenvalues, "gap": gap(groups[repr(name)].eigenvalues),
                "residual": groups[repr(name)].residual, "suspicion": suspicion,
            }
            for name, suspicion in self.found.suspicious_groups
        ]  # fmt: skip

    def near(self, row: int, count: int) -> list[dict[str, Any]]:
        """The samples of the same group whose heatmaps are most alike, by distance in the spectral embedding."""
        group = self.members[row]
        if group < 0:
            return []
        rows = np.flatnonzero(self.members == group)
        points = np.nan_to_num(self.found.embedding[rows])
        distances = ((points - np.nan_to_num(self.found.embedding[row])) ** 2).sum(1)
        distances[rows == row] = np.inf
        nearest = np.argsort(distances, kind="stable")[: min(count, len(rows) - 1)]
        return [{"row": rows[i], "distance": float(np.sqrt(distances[i]))} for i in nearest]

    def columns(self, prefix: str, columns: Columns) -> None:
        """Add the cluster, the group and the outlierness of each sample to the store's columns."""
        found = self.found
        titles = [f"{self.group_title(c.group)} / {c.label}" if c.group is not None else str(c.label)
                  for c in found.clusters]  # fmt: skip
        codes, outliers = found.labels.astype(np.int32), found.outliers.astype(np.float32)
        labels, groups = [c.label for c in found.clusters], [group.name for group in found.groups]
        of = f" ({prefix[:-1]})" if prefix else ""
        columns.add(f"{prefix}cluster", f"cluster{of}", "category", lambda: ("category", codes, titles, labels))
        columns.add(
            f"{prefix}group", f"group{of}", "category",
            lambda: ("category", self.members, [self.group_title(name) for name in groups], groups),
        )  # fmt: skip
        columns.add(f"{prefix}outlier", f"outlierness{of}", "number", lambda: ("number", outliers, (), ()))


def gap(eigenvalues: NDArray[np.float64]) -> int:
    """The number of clusters after which the largest step between eigenvalues comes, two at least where there are."""
    from headwater.analyze.spectral import Spectrum

    if len(eigenvalues) < 2:
        return len(eigenvalues)
    return Spectrum(eigenvalues, np.zeros((0, 0)), 0.0).gap()
