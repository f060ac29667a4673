"""Does the relevance lie where the evidence is known to be? Masks, boxes, and blocks of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headwater.errors import InvalidInput
from headwater.evaluate.maps import Part, part_of, relevance_of


@dataclass(frozen=True)
class PointingGame:
    """Hits of the pointing game.

    Attributes:
        hits: bool ``[N]``.
        accuracy: the mean over classes of each class's share of hits (all samples are one class where none was named).
        by_class: share of hits by class.
        tolerance: in pixels.
    """

    hits: Tensor
    accuracy: float
    by_class: dict[int, float]
    tolerance: float


def boxes_mask(boxes: Sequence[Any], size: tuple[int, int]) -> Tensor:
    """Masks ``[N, H, W]`` from boxes.

    Args:
        boxes: for each sample its boxes ``[B, 4]`` as left, top, right, bottom in pixels, the last two exclusive.
        size: H and W.

    Raises:
        InvalidInput: boxes of another shape, or an empty one.
    """
    mask = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for i, sample in enumerate(boxes):
        own = torch.as_tensor(sample, dtype=torch.float64)
        own = own[None] if own.dim() == 1 else own
        if own.dim() != 2 or own.shape[1] != 4 or bool(((own[:, 2] <= own[:, 0]) | (own[:, 3] <= own[:, 1])).any()):
            raise InvalidInput(
                f"the boxes of sample {i} must have shape [B, 4]: left < right and top < bottom, not {sample}"
            )
        for left, top, right, bottom in own.round().long().clamp(min=0).tolist():
            mask[i, top:bottom, left:right] = True
    return mask


def pointing_game(
    relevance: Any, mask: Any, *, tolerance: float = 15.0, classes: Any = None, keep: Any = None
) -> PointingGame:
    """Does the most relevant pixel lie on the object, or nearer to it than ``tolerance``?

    The protocol of TorchRay: the point is the maximum of the map (channels summed; the first of equals); it hits if any
    pixel of the mask is at a Euclidean distance below ``tolerance`` (0 asks for the mask itself); the accuracy is the
    mean over the classes that occur, so that rare classes count as much.

    Args:
        relevance: an explanation, ``[N, C, H, W]`` or ``[N, H, W]``; or a series ``[N, C, T]`` with a mask ``[N, T]``.
        mask: bool, ``[N, H, W]`` or ``[N, T]``; :func:`boxes_mask` makes one from boxes.
        tolerance: in pixels.
        classes: int ``[N]``, the object's class.
        keep: bool ``[N]``, the samples that count (a "difficult" subset); all by default.

    Raises:
        InvalidInput: shapes that do not fit, an empty mask among the samples that count, or none to count.

    Source: Zhang et al.: Top-down Neural Attention by Excitation Backprop, IJCV 2018; protocol of Fong, Patrick,
    Vedaldi: Understanding Deep Networks via Extremal Perturbations, ICCV 2019 (TorchRay).
    """
    maps, where = _maps_and_mask(relevance, mask)
    n = len(maps)
    counted = torch.ones(n, dtype=torch.bool) if keep is None else torch.as_tensor(keep, dtype=torch.bool).cpu()
    labels = torch.zeros(n, dtype=torch.long) if classes is None else torch.as_tensor(classes).long().cpu()
    if counted.shape != (n,) or labels.shape != (n,) or not bool(counted.any()):
        raise InvalidInput(f"classes and keep need one entry for each of {n} samples, and keep at least one of them")
    _refuse_empty(where.flatten(1)[counted.to(where.device)])
    points = maps.flatten(1).argmax(1)
    axes = torch.unravel_index(points, maps.shape[1:])
    distance = torch.zeros_like(maps)
    for axis, at in enumerate(axes):
        offsets = torch.arange(maps.shape[axis + 1], device=maps.device, dtype=maps.dtype) - at[:, None]
        shape = [n if i == 0 else -1 if i == axis + 1 else 1 for i in range(maps.dim())]
        distance = distance + offsets.square().reshape(shape)
    near = (distance < tolerance**2) | (distance == 0)
    hits = (where & near).flatten(1).any(1).cpu()
    by_class = {int(c): float(hits[counted & (labels == c)].double().mean()) for c in labels[counted].unique()}
    return PointingGame(hits, sum(by_class.values()) / len(by_class), by_class, tolerance)


def mass_accuracy(relevance: Any, mask: Any, *, part: Part = "positive") -> Tensor:
    """Share of the relevance that lies within the mask, ``[N]``, 0 to 1.

    Args:
        relevance, mask: as for :func:`pointing_game`, or a mask shaped like the relevance.
        part: of the relevance, after channels are summed; negative evidence is left out by default.

    Returns:
        ``[N]``; NaN where a map has no such relevance.

    Source: Arras, Osman, Samek: CLEVR-XAI, Information Fusion 81, 2022 (relevance mass accuracy).
    """
    if part == "signed":
        raise InvalidInput("a share needs one sign: choose part 'positive', 'absolute' or 'negative'")
    maps, where = _maps_and_mask(relevance, mask)
    mass = part_of(maps, part).flatten(1)
    return (mass * where.flatten(1)).sum(1) / mass.sum(1)


def rank_accuracy(relevance: Any, mask: Any, *, part: Part = "signed") -> Tensor:
    """Share of the K most relevant features that lie within a mask of K features, ``[N]``, 0 to 1.

    Args:
        relevance, mask: as for :func:`mass_accuracy`; no mask may be empty.
        part: of the relevance, by which features are ranked; of equals the first comes first.

    Source: Arras, Osman, Samek: CLEVR-XAI, Information Fusion 81, 2022 (relevance rank accuracy).
    """
    maps, where = _maps_and_mask(relevance, mask)
    inside = where.flatten(1)
    _refuse_empty(inside)
    order = part_of(maps, part).flatten(1).argsort(dim=1, descending=True, stable=True)
    size = inside.sum(1)
    first = torch.arange(inside.shape[1], device=inside.device) < size[:, None]
    return (inside.gather(1, order) & first).sum(1) / size.double()


def block_shares(relevance: Any, blocks: int, *, part: Part = "positive", axis: int = -1) -> Tensor:
    """Share of the relevance in each of equal blocks along an axis, ``[N, blocks]``, the rows summing to 1.

    Args:
        relevance: an explanation or ``[N, ...]``.
        blocks: how many blocks the axis is divided into.
        part: the thesis sets negative relevance to zero (``"positive"``); ``"signed"`` keeps it.
        axis: of the relevance.

    Raises:
        InvalidInput: an axis that cannot be divided so.

    Source: Chormai 2018 (thesis), Section 4.3.2.
    """
    rows = part_of(relevance_of(relevance).double(), part)
    if not -rows.dim() <= axis < rows.dim() or axis % rows.dim() == 0:
        raise InvalidInput(f"axis {axis} is no feature axis of relevance {list(rows.shape)}")
    length = rows.shape[axis]
    if blocks < 1 or length % blocks:
        raise InvalidInput(f"an axis of {length} entries has no {blocks} equal blocks")
    total = rows.movedim(axis, 1).reshape(len(rows), blocks, -1).sum(2)
    return total / total.sum(1, keepdim=True)


def block_percentage(relevance: Any, marks: Any, *, part: Part = "positive", axis: int = -1) -> Tensor:
    """Share of the relevance that the marked blocks got, ``[N]``: the thesis's percentage of correct relevance.

    Args:
        relevance, part, axis: as for :func:`block_shares`.
        marks: bool ``[N, blocks]``, the blocks that belong to the right answer.

    Source: Chormai 2018 (thesis), Section 4.3.2.
    """
    shares, right = _marked(relevance, marks, part, axis)
    return (shares * right).sum(1)


def block_cosine(relevance: Any, marks: Any, *, part: Part = "positive", axis: int = -1) -> Tensor:
    """Cosine between the marks and the blocks' shares, ``[N]``: 1 only if the marked blocks share equally.

    Args:
        relevance, marks, part, axis: as for :func:`block_percentage`.

    Source: Chormai 2018 (thesis), Eq. 4.1.
    """
    shares, right = _marked(relevance, marks, part, axis)
    return (shares * right).sum(1) / (shares.norm(dim=1) * right.norm(dim=1))


def _marked(relevance: Any, marks: Any, part: Part, axis: int) -> tuple[Tensor, Tensor]:
    right = torch.as_tensor(marks)
    if right.dim() != 2 or not bool(right.bool().any(1).all()):
        raise InvalidInput(f"marks must be bool [N, blocks] with at least one mark a sample, not {list(right.shape)}")
    shares = block_shares(relevance, right.shape[1], part=part, axis=axis)
    if len(shares) != len(right):
        raise InvalidInput(f"{len(right)} rows of marks for {len(shares)} samples")
    return shares, right.to(shares)


def _maps_and_mask(relevance: Any, mask: Any) -> tuple[Tensor, Tensor]:
    """Relevance over the mask's axes (channels summed) and the mask."""
    maps = relevance_of(relevance).double()
    where = torch.as_tensor(mask)
    if where.dtype.is_floating_point and not bool(((where == 0) | (where == 1)).all()):
        raise InvalidInput("mask must hold True and False, or 1 and 0")
    where = where.bool().to(maps.device)
    if maps.dim() == where.dim() + 1 and maps.shape[2:] == where.shape[1:]:
        maps = maps.sum(1)
    if maps.shape != where.shape:
        raise InvalidInput(f"a mask of shape {list(where.shape)} does not fit relevance of shape {list(maps.shape)}")
    return maps, where


def _refuse_empty(inside: Tensor) -> None:
    empty = (~inside.any(1)).nonzero().flatten().tolist()
    if empty:
        raise InvalidInput(f"the masks of samples {empty[:5]} are empty: leave these samples out")
