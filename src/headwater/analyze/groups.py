"""Groups of features: boxes, masks, channels, windows of time, bands of frequency, words, objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headwater.analyze.maps import array_of
from headwater.errors import InvalidInput

Masks = NDArray[np.float64]
REST = "rest"


@dataclass(frozen=True)
class FeatureGroups:
    """A partition of the features of a sample, the same for all samples or one for each.

    Attributes:
        names: of the groups; the last is "rest", what the others leave, so that sums are conserved.
        of: ``sample numbers -> [n, groups, *shape]``, each feature's shares in 0 to 1 summing to 1; or the masks
            ``[groups, *shape]`` that hold for all.
    """

    names: tuple[str, ...]
    of: Masks | Callable[[NDArray[np.int64]], Masks]

    def pool(self, maps: NDArray[Any], numbers: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Relevance of each group ``[n, groups]``, of maps ``[n, *shape]``; their sum is that of the map.

        Raises:
            InvalidInput: masks of another shape.
        """
        flat = np.asarray(maps, np.float64).reshape(len(maps), -1)
        if isinstance(self.of, np.ndarray):
            self._check(self.of.shape[1:], maps.shape[1:])
            return np.asarray(flat @ self.of.reshape(len(self.names), -1).T)
        masks = _complete(self.of(np.arange(len(maps)) if numbers is None else numbers))
        self._check(masks.shape[2:], maps.shape[1:])
        return np.asarray(np.einsum("nd,ngd->ng", flat, masks.reshape(*masks.shape[:2], -1)))

    def __call__(self, relevance: Tensor) -> Tensor:
        """The same for a tensor, as ``pooled=`` of :func:`headwater.run` and measures over training want it."""
        if not isinstance(self.of, np.ndarray):
            raise InvalidInput("groups that differ between samples cannot be pooled within a batch: use pool()")
        return torch.from_numpy(self.pool(array_of(relevance)))

    @staticmethod
    def _check(found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        if found != wanted:
            raise InvalidInput(f"the groups are of samples of shape {found}, the relevance is of {wanted}")


def masks(named: Mapping[str, Any], share: bool = False) -> FeatureGroups:
    """Groups from masks ``[*shape]``, of booleans or of shares in 0 to 1.

    Args:
        share: features in several masks are divided among them; else such masks are an error.

    Raises:
        InvalidInput: no mask, shapes that differ, values outside 0 to 1, or masks that overlap.
    """
    if not named:
        raise InvalidInput("no mask: name one at least")
    arrays = [np.asarray(array_of(mask), np.float64) for mask in named.values()]
    if len({array.shape for array in arrays}) > 1:
        raise InvalidInput(f"masks of different shapes: {', '.join(str(array.shape) for array in arrays)}")
    stacked = np.stack(arrays)
    if share:
        stacked = stacked / np.maximum(stacked.sum(0), 1.0)
    return FeatureGroups((*named, REST), _complete(stacked[None])[0])


def boxes(shape: Sequence[int], named: Mapping[str, Sequence[int]], share: bool = False) -> FeatureGroups:
    """Groups from boxes ``(top, left, bottom, right)``, ends excluded, in samples of ``[..., H, W]``."""
    return masks({name: _box(shape, box) for name, box in named.items()}, share)


def channels(shape: Sequence[int], named: Mapping[str, Sequence[int]] | None = None) -> FeatureGroups:
    """Groups of channels (the first axis of a sample); by default each by itself."""
    named = {f"channel {c}": [c] for c in range(shape[0])} if named is None else named
    found = {}
    for name, chosen in named.items():
        mask = np.zeros(shape)
        try:
            mask[list(chosen)] = 1.0
        except IndexError:
            raise InvalidInput(f"{name!r} names channels {list(chosen)} of {shape[0]}") from None
        found[name] = mask
    return masks(found)


def windows(
    shape: Sequence[int], axis: int = -1, edges: Sequence[int] | None = None, names: Sequence[str] | None = None
) -> FeatureGroups:
    """Groups of successive steps along an axis: windows of time, frames, bands of a spectrogram, columns of a table.

    Args:
        edges: where each window begins, and the end of the last; by default every step is a window.
    """
    steps = shape[axis]
    edges = range(steps + 1) if edges is None else edges
    if list(edges) != sorted(set(edges)) or len(edges) < 2 or edges[0] < 0 or edges[-1] > steps:
        raise InvalidInput(f"edges must rise within 0 to {steps}, not {list(edges)}")
    pairs = list(pairwise(edges))
    names = [f"{low}-{high}" if high > low + 1 else str(low) for low, high in pairs] if names is None else names
    if len(names) != len(pairs):
        raise InvalidInput(f"{len(names)} names for {len(pairs)} windows")
    position = np.arange(steps).reshape([-1 if a == axis % len(shape) else 1 for a in range(len(shape))])
    return masks(
        {
            n: np.broadcast_to((position >= low) & (position < high), shape)
            for n, (low, high) in zip(names, pairs, strict=True)
        }
    )


def segments(labels: Any, names: Mapping[int, str] | None = None) -> FeatureGroups:
    """Groups from a map of whole numbers ``[*shape]``: superpixels, regions, parts of a body."""
    values = array_of(labels)
    kinds = np.unique(values)
    return masks({(names or {}).get(int(kind), f"segment {int(kind)}"): values == kind for kind in kinds})


def objects(
    shape: Sequence[int], names: Sequence[str], detected: Callable[[int], Sequence[tuple[str, Sequence[int]]]]
) -> FeatureGroups:
    """Groups of what was detected in each sample: ``detected(number)`` gives names and boxes as for :func:`boxes`.

    Where boxes overlap they share.
    """

    def of(numbers: NDArray[np.int64]) -> Masks:
        found = np.zeros((len(numbers), len(names), *shape))
        for row, number in enumerate(numbers):
            for name, box in detected(int(number)):
                if name not in names:
                    raise InvalidInput(f"sample {number} has an object {name!r}, which is none of {', '.join(names)}")
                place = found[row, list(names).index(name)]
                np.maximum(place, _box(shape, box), out=place)
        return np.asarray(found / np.maximum(found.sum(1, keepdims=True), 1.0))

    return FeatureGroups((*names, REST), of)


def words(
    length: int, groups: Callable[[int], Sequence[str]], names: Sequence[str], width: int | None = None
) -> FeatureGroups:
    """Groups of tokens: ``groups(number)`` names the group of each token of a sample (unknown names are the rest).

    Args:
        length: tokens of a sample. width: of the embedding, where relevance is ``[N, T, D]``; None for ``[N, T]``.
    """

    def of(numbers: NDArray[np.int64]) -> Masks:
        found = np.zeros((len(numbers), len(names), length))
        for row, number in enumerate(numbers):
            for position, name in enumerate(list(groups(int(number)))[:length]):
                if name in names:
                    found[row, list(names).index(name), position] = 1.0
        return found if width is None else np.repeat(found[..., None], width, -1)

    return FeatureGroups((*names, REST), of)


def _box(shape: Sequence[int], box: Sequence[int]) -> NDArray[np.float64]:
    top, left, bottom, right = box
    if len(shape) < 2 or not (0 <= top < bottom <= shape[-2] and 0 <= left < right <= shape[-1]):
        raise InvalidInput(f"the box {tuple(box)} does not lie in samples of shape {tuple(shape)}")
    mask = np.zeros(shape)
    mask[..., top:bottom, left:right] = 1.0
    return mask


def _complete(stacked: Masks) -> Masks:
    """Masks ``[n, groups, *shape]`` with the rest as one more group."""
    total = stacked.sum(1, keepdims=True)
    if stacked.min(initial=0.0) < 0 or total.max(initial=0.0) > 1 + 1e-9:
        raise InvalidInput("groups overlap, or have shares outside 0 to 1: every feature has one group, or share=True")
    return np.concatenate([stacked, np.maximum(1 - total, 0.0)], 1)
