"""What is removed at once: single values, pixels, patches, superpixels, words, time windows, columns, channels.

Features are labels: an integer tensor that says of each entry of an input which feature it belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from headwater.errors import InvalidInput, MissingExtra

Pool = Literal["sum", "mean", "maximum"]
NAMES = ("value", "channel", "grid", "superpixel")
ACROSS = {1: 64, 2: 8, 3: 4}  # cells of a grid along each axis, by the number of axes


@dataclass(frozen=True)
class Features:
    """A division of inputs ``[N, ...]`` into features.

    Attributes:
        labels: int64 ``[N or 1, *S]``, on the CPU; S has an axis for each of the input's, of its length or 1 (all of
            it together). Entries of label -1 belong to no feature: they are never removed.
        counts: how many features each sample has, ``[N]``.
        name: what one feature is, for axes of pictures.
        shape: of one input.
    """

    labels: Tensor
    counts: Tensor
    name: str
    shape: tuple[int, ...]

    @property
    def most(self) -> int:
        """F, the number of features of the sample that has most."""
        return int(self.counts.max())

    @cached_property
    def present(self) -> Tensor:
        """Which of F features each sample has, bool ``[N, F]``."""
        return torch.arange(self.most) < self.counts[:, None]

    @cached_property
    def sizes(self) -> Tensor:
        """How many entries of the input each feature has, ``[N or 1, F]``."""
        flat = self.labels.flatten(1) + 1
        counted = torch.zeros(len(flat), self.most + 1, dtype=torch.long)
        counted.scatter_add_(1, flat, torch.ones_like(flat))
        return counted[:, 1:] * (math.prod(self.shape) // max(1, flat.shape[1]))

    @cached_property
    def _in_order(self) -> bool:
        """Whether every entry of the labels is a feature by itself, one after the other."""
        flat = self.labels.flatten(1)
        return len(flat) == 1 and torch.equal(flat[0], torch.arange(self.most))

    def placed(self, values: Tensor, rows: Tensor | None = None, outside: float | bool = 0) -> Tensor:
        """Values of features at the entries that belong to them.

        Args:
            values: ``[R, F]``, of the samples ``rows`` ``[R]``; of all N without these.
            outside: the value where there is no feature.

        Returns:
            ``[R, *S]``, on the device of ``values``.
        """
        if self._in_order:
            return values.view(len(values), *self.labels.shape[1:])
        labels = self.labels.to(values.device)
        none = torch.full((len(values), 1), outside, dtype=values.dtype, device=values.device)
        values = torch.cat([none, values], 1)
        if len(labels) == 1:
            return values[:, labels[0] + 1]
        own = labels if rows is None else labels[rows.to(labels.device)]
        return values.gather(1, own.flatten(1) + 1).view(own.shape)

    def spread(self, scores: Tensor) -> Tensor:
        """Scores of features ``[N, F]`` shared evenly among their entries: ``[N, ...]`` with the same sums."""
        shares = scores / self.sizes.clamp(min=1).to(scores.device)
        return self.placed(shares).expand(len(scores), *self.shape).contiguous()

    def pooled(self, relevance: Tensor, pool: Pool = "sum") -> Tensor:
        """Relevance of the features, ``[N, F]``; minus infinity where a sample has fewer than F.

        Args:
            relevance: ``[N, ...]`` as the input, or without its channel axis, or ``[N, F]`` already.
            pool: of the entries of a feature.

        Raises:
            InvalidInput: another shape, or an unknown pool.
        """
        n, most = len(self.counts), self.most
        shape = self.labels.shape[1:]
        spread = _spread(relevance, n, shape)
        if spread is None:
            if relevance.shape != (n, most):
                raise InvalidInput(
                    f"relevance of shape {list(relevance.shape)} fits neither features {list(shape)} nor [{n}, {most}]"
                )
            return relevance.double().cpu().masked_fill(~self.present, -torch.inf)
        if pool not in ("sum", "mean", "maximum"):
            raise InvalidInput(f"pool must be 'sum', 'mean' or 'maximum', not {pool!r}")
        labels = self.labels.expand(n, *shape).broadcast_to(spread.shape).reshape(n, -1) + 1
        kind = {"sum": "sum", "mean": "mean", "maximum": "amax"}[pool]
        pooled = torch.zeros(n, most + 1, dtype=torch.float64)
        pooled.scatter_reduce_(1, labels, spread.reshape(n, -1), kind, include_self=False)
        return pooled[:, 1:].masked_fill(~self.present, -torch.inf)


def in_columns(x: Tensor) -> Tensor:
    """An argument with one value a sample, ``[N]``, as a table of one column; all others as they are."""
    return x[:, None] if x.dim() == 1 else x


def features_of(x: Tensor, features: Any = None) -> Features:
    """The features that an argument of the user's means for inputs ``x``, ``[N, ...]``.

    Inputs of three axes and more hold channels in the second, inputs ``[N, ...]`` of two have none.

    Args:
        x: the inputs.
        features: None: pixels, time steps, words or columns, by the shape of ``x`` (channels go together); ``"value"``
            every entry by itself; ``"channel"``; ``"grid"``: at most 8 x 8 patches of a picture, 64 windows of a
            series, 4 x 4 x 4 blocks of a volume, else columns or words; ``"superpixel"``: see :func:`superpixels`; an
            int or a tuple of ints: patches or windows of that size, cut off at the far edges; an integer tensor or
            array of labels ``x.shape[1:]`` or broadcastable to it, also without its channel axis, or one for each
            sample ``[N, ...]``; what has a negative label is never removed.

    Raises:
        InvalidInput: anything that does not fit ``x``.
        MissingExtra: for superpixels without scikit-image.
    """
    axes = x.shape[1:]
    if not axes or not math.prod(axes):
        raise InvalidInput(
            f"x of shape {list(x.shape)} has no features: it needs entries after the axis of the samples"
        )
    channels = 1 if len(axes) > 1 else 0  # a table or a text has none
    places = axes[channels:]
    if features is None or (isinstance(features, str) and features == "value"):
        shape = tuple(axes) if features else (*[1] * channels, *places)
        return _every(x, torch.arange(math.prod(shape)).reshape(shape), "value" if features else _word(x))
    if isinstance(features, str):
        return _named(x, features, channels)
    whole = isinstance(features, int) and not isinstance(features, bool)
    if whole or (isinstance(features, tuple) and features and all(isinstance(s, int) for s in features)):
        return _patches(x, features, channels)
    return _own(x, features, channels)


def superpixels(pictures: Tensor, count: int = 50, *, compactness: float = 30.0) -> Tensor:
    """Labels ``[N, 1, H, W]`` of regions of like colour; also of volumes, ``[N, 1, D, H, W]``.

    SLIC, on the pictures smoothed by a pixel: else noise would be one region.

    Args:
        pictures: ``[N, C, H, W]`` or ``[N, C, D, H, W]``, in any range: each is scaled to 0 to 1 first.
        count: about how many regions each gets.
        compactness: of the regions; larger is squarer.

    Raises:
        InvalidInput: another shape.
        MissingExtra: scikit-image is not installed.

    Source: Achanta et al.: SLIC Superpixels Compared to State-of-the-art Superpixel Methods, PAMI 34(11), 2012.
    """
    if pictures.dim() not in (4, 5) or not pictures.is_floating_point() or count < 1:
        raise InvalidInput(
            f"superpixels need pictures [N, C, H, W] and a count, not {list(pictures.shape)} and {count}"
        )
    try:
        from skimage.segmentation import slic
    except ModuleNotFoundError as error:
        raise MissingExtra("remove", "scikit-image") from error
    found = []
    for picture in pictures.detach().double().cpu():
        span = (picture.max() - picture.min()).clamp(min=torch.finfo(torch.float64).tiny)
        pixels = ((picture - picture.min()) / span).movedim(0, -1).numpy()
        grey = pixels.shape[-1] != 3
        found.append(
            slic(
                pixels.mean(-1) if grey else pixels, n_segments=count, compactness=compactness / (100 if grey else 1),
                sigma=1.0, start_label=0, channel_axis=None if grey else -1,
            )
        )  # fmt: skip
    return torch.stack([torch.from_numpy(labels) for labels in found])[:, None].long()


def jointly(parts: Sequence[Features]) -> tuple[Features, ...]:
    """Features of several arguments of a model under one numbering: those of the second follow those of the first."""
    counts = torch.stack([part.counts for part in parts]).sum(0)
    begin = torch.zeros_like(counts)
    found = []
    for part in parts:
        offset = begin[:1] if bool((begin == begin[0]).all()) else begin
        offset = offset.view(-1, *[1] * (part.labels.dim() - 1))
        labels = torch.where(part.labels < 0, part.labels, part.labels + offset)
        found.append(Features(labels, counts, part.name, part.shape))
        begin = begin + part.counts
    return tuple(found)


def _every(x: Tensor, labels: Tensor, name: str) -> Features:
    return Features(labels[None], torch.full((len(x),), int(labels.max()) + 1), name, tuple(x.shape[1:]))


def _named(x: Tensor, name: str, channels: int) -> Features:
    places = x.shape[1 + channels :]
    if name == "grid" and x.is_floating_point() and x.dim() > 2:
        across = ACROSS.get(len(places), 4)
        return _patches(x, tuple(math.ceil(side / across) for side in places), channels)
    if name == "grid":
        return features_of(x)
    if name == "superpixel":
        return _own(x, superpixels(x), channels, name)
    if name == "channel" and channels:
        return _every(x, torch.arange(x.shape[1]).reshape(-1, *[1] * len(places)), "channel")
    raise InvalidInput(
        f"features {name!r} are not known for x of shape {list(x.shape)}: choose from {', '.join(NAMES)}"
    )


def _patches(x: Tensor, size: int | Sequence[int], channels: int) -> Features:
    places = x.shape[1 + channels :]
    sizes = (size,) * len(places) if isinstance(size, int) else tuple(size)
    if len(sizes) != len(places) or min(sizes) < 1:
        raise InvalidInput(f"patches of {size} do not fit the axes {list(places)} of x")
    labels = torch.zeros((), dtype=torch.long)
    for length, side in zip(places, sizes, strict=True):
        along = torch.arange(length) // side
        labels = labels[..., None] * (int(along[-1]) + 1) + along
    name = ("window of " if len(places) == 1 else "patch of ") + "×".join(map(str, sizes))
    return _every(x, labels.reshape(*[1] * channels, *places), name)


def _own(x: Tensor, features: Any, channels: int, name: str = "feature") -> Features:
    """The user's labels, numbered from 0 within each sample."""
    try:
        labels = torch.as_tensor(features).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise InvalidInput(f"features must be a name, a size or labels, not {type(features).__name__}") from None
    axes, n = tuple(x.shape[1:]), len(x)
    given, together = tuple(labels.shape), (1,) * channels
    readings = [(1, *given), (1, *together, *given), given, (*given[:1], *together, *given[1:])]
    shape = next((each for each in readings if _broadcasts(each, (n, *axes))), None)
    if shape is None or labels.is_floating_point() or labels.is_complex():
        raise InvalidInput(f"labels of type {labels.dtype} and shape {list(labels.shape)} do not fit x {list(x.shape)}")
    numbered, counts = zip(*(_numbered(sample) for sample in labels.long().reshape(shape)), strict=True)
    if not max(counts):
        raise InvalidInput("features hold negative labels alone: nothing would be removed")
    return Features(torch.stack(numbered), torch.tensor(counts).expand(n).clone(), name, axes)


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) == len(to) and all(a in (1, b) for a, b in zip(shape, to, strict=True))


def _numbered(labels: Tensor) -> tuple[Tensor, int]:
    kinds, places = torch.unique(labels.clamp(min=-1), return_inverse=True)
    outside = int(bool((labels < 0).any()))
    return places - outside, len(kinds) - outside


def _spread(relevance: Tensor, n: int, shape: torch.Size) -> Tensor | None:
    """Relevance with an axis for each of the labels', summed where these hold all of it together."""
    spread = relevance.double().cpu()
    if spread.dim() == len(shape) and len(shape) > 1 and shape[0] == 1:
        spread = spread[:, None]  # channels have been summed already
    if spread.dim() != len(shape) + 1 or len(spread) != n:
        return None
    for axis, length in enumerate(shape, 1):
        if length == 1:
            spread = spread.sum(axis, keepdim=True)
    return spread if spread.shape[1:] == shape else None


def _word(x: Tensor) -> str:
    if not x.is_floating_point():
        return "word"
    return {2: "value", 3: "time step", 4: "pixel", 5: "voxel"}.get(x.dim(), "place")
