"""The artefact that some samples share, as explanations show it: where it lies, and how it is pasted elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headwater.analyze.maps import Maps, array_of
from headwater.analyze.repair.selection import rows_of
from headwater.analyze.strategies import Spray
from headwater.dataset.sources import Source, source_of, stack
from headwater.errors import InvalidInput

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KEPT = 500  # samples of each side that are held in memory


@dataclass(frozen=True)
class Artefact:
    """What a model looks at in some samples of a class, and not in the others.

    Attributes:
        members: samples that bear it ``[k, *shape]``; ``rest``: others of their class ``[m, *shape]``, which mostly do
            not; at most 500 each.
        region: where it lies, 0 to 1, broadcastable to a sample.
        excess: how much more of the members' relevance than of the rest's lies at each place, as ``region``.
        target: the class that it speaks for; None where classes are unknown.
        rows: of all samples that were selected; ``share``: their part of the class, 0 to 1.
    """

    members: Tensor
    rest: Tensor
    region: Tensor
    excess: Tensor
    target: int | None
    rows: NDArray[np.int64] = field(repr=False)
    share: float

    def paste(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Samples ``[N, *shape]`` with the region of a member, drawn at random for each, in the place of their own."""
        drawn = torch.randint(len(self.members), (len(x),), generator=generator)
        donors, region = self.members[drawn].to(x), self.region.to(x)
        return x + region * (donors - x)

    def __str__(self) -> str:
        of = "" if self.target is None else f" of class {self.target}"
        covered = float(self.region.mean())
        return (
            f"an artefact of {len(self.rows)} samples ({self.share:.1%}{of}); its region covers {covered:.1%} of a "
            f"sample and holds {float((self.excess * self.region).sum() / self.excess.sum().clamp(min=1e-12)):.0%} "
            "of the relevance that the rest of the class does not have"
        )

    def plot(self) -> Figure:
        """The excess of relevance, the region on a member, and the artefact pasted; needs the extra ``plot``.

        Raises:
            InvalidInput: the samples are no pictures.
        """
        from headwater.analyze.repair.picture import artefact_picture

        return artefact_picture(self)


def artefact(
    source: Any, selection: Any, data: Any = None, *, region: Any = None, threshold: float = 0.2, seed: int = 0
) -> Artefact:
    """The artefact of a cluster or selection of explanations.

    Its region is where the selected samples have more relevance than the rest of their class: maps are summed over the
    channels, divided by the sum of their magnitudes and averaged on either side; the region is where the difference
    reaches ``threshold`` of its largest value. Nothing but the selection tells it.

    Args:
        source: what :func:`headwater.analyze.spray` found; a store or its path; or relevance ``[N, *shape]``.
        selection: a cluster or its number (of what spray found), ids, row numbers, a mask ``[N]``, or the name of a
            selection that the viewer saved beside the store.
        data: the samples that were explained, as for :func:`headwater.run`; None where the store kept them.
        region: where the artefact lies, where that is known: broadcastable to a sample, booleans or 0 to 1.
        threshold: of the region, as a part of the largest excess, above 0 and below 1.
        seed: for data sets that draw their samples at random.

    Raises:
        InvalidInput: a selection that names nothing or every sample of its class, data of another length or kind, or a
            region that does not fit.

    Source: Lapuschkin et al. 2019; Anders et al. 2022, Section 3 (clusters as sets of samples with an artefact).
    """
    if not 0 < threshold < 1:
        raise InvalidInput(f"threshold must lie between 0 and 1, not {threshold}")
    found = source if isinstance(source, Spray) else None
    maps = Maps.of(found.source if found is not None else source)
    rows = rows_of(selection, len(maps), found, maps.store)
    samples = _samples(maps, data)
    classes = _classes(maps, samples, seed)
    target = None if classes is None else _commonest(classes[rows])
    own = np.arange(len(maps)) if classes is None else np.flatnonzero(classes == target)
    rest = np.setdiff1d(np.intersect1d(own, maps.valid), rows)
    rows_explained = np.intersect1d(rows, maps.valid)
    if not len(rows_explained) or not len(rest):
        which = "samples" if target is None else f"samples of class {target}"
        raise InvalidInput(
            f"the selection holds {len(rows_explained)} explained samples and leaves {len(rest)} {which}: the artefact "
            "shows in the difference, so that both are needed"
        )
    kept = _spread(rows_explained), _spread(rest)
    sides = [stack([_floats(sample) for sample, _ in samples.load_all(side.tolist(), seed)]) for side in kept]
    excess = torch.from_numpy(_mean_share(maps, kept[0]) - _mean_share(maps, kept[1])).float()
    if sides[0].shape[1:] != maps.shape:
        raise InvalidInput(
            f"samples of shape {list(sides[0].shape[1:])} and relevance of {list(maps.shape)}: tokens have no region "
            "that could be pasted; explain a model of floats"
        )
    where = _region(excess, threshold) if region is None else _given(region, sides[0].shape[1:])
    return Artefact(sides[0], sides[1], where, excess.clamp(min=0), target, rows, len(rows) / max(1, len(own)))


def _samples(maps: Maps, data: Any) -> Source:
    if data is None:
        data = None if maps.store is None else maps.store.inputs
        if data is None:
            raise InvalidInput("pass data=, the samples that were explained: the store does not hold them")
        data = data if not hasattr(data, "batches") else _StoredInputs(data)
    source = source_of(data)
    if len(source) != len(maps):
        raise InvalidInput(f"data holds {len(source)} samples and the explanations {len(maps)}: pass the same samples")
    return source


@dataclass(frozen=True)
class _StoredInputs:
    """Rows of a store as a data set."""

    rows: Any

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> NDArray[Any]:
        return np.asarray(self.rows[index])


def _classes(maps: Maps, samples: Source, seed: int) -> NDArray[np.int64] | None:
    """The class that each explanation spoke for ``[N]``; else the labels; else None."""
    store = maps.store
    known = None if store is None else store.targets if store.targets is not None else store.labels
    if known is None and samples.kind == "arrays":
        known = array_of([label for _, label in samples.load_all(range(len(samples)), seed)])
    if known is None or np.asarray(known).dtype.kind not in "iu":
        return None
    return np.asarray(known, np.int64)


def _commonest(values: NDArray[np.int64]) -> int:
    kinds, counts = np.unique(values, return_counts=True)
    return int(kinds[counts.argmax()])


def _spread(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Evenly spread ones, where there are many."""
    return rows if len(rows) <= _KEPT else rows[np.linspace(0, len(rows) - 1, _KEPT).round().astype(np.int64)]


def _floats(sample: Any) -> Tensor:
    if not isinstance(sample, Tensor):
        raise InvalidInput("a model of several inputs: its samples have no one region that could be pasted")
    return sample if sample.is_floating_point() else sample.float()


def _mean_share(maps: Maps, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean map of these samples, each summed over channels (which stay as one axis) and scaled to one."""
    values = maps.take(rows).astype(np.float64)
    if values.ndim > 2:
        values = values.sum(1, keepdims=True)
    total = np.abs(values).reshape(len(values), -1).sum(1).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(np.divide(values, total, out=np.zeros_like(values), where=total > 0).mean(0))


def _region(excess: Tensor, threshold: float) -> Tensor:
    if not bool((excess > 0).any()):
        raise InvalidInput("the selected samples have nowhere more relevance than the rest: pass region=")
    return (excess >= threshold * excess.max()).to(excess.dtype)


def _given(region: Any, shape: torch.Size) -> Tensor:
    where = torch.as_tensor(array_of(region)).float()
    try:
        fits = torch.broadcast_shapes(where.shape, shape) == shape
    except RuntimeError:
        fits = False
    if not fits:
        raise InvalidInput(f"a region of shape {list(where.shape)} does not broadcast to samples of {list(shape)}")
    if not bool(((where >= 0) & (where <= 1)).all()) or not bool(where.any()):
        raise InvalidInput("a region holds booleans, or shares from 0 to 1, and some of them are not 0")
    return where
