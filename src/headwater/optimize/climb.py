"""What every optimization here shares: scores and gradients at points of one's own, and smoothness of what is found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.errors import InvalidInput
from headwater.points import Place, embeddings
from headwater.question import Question

WALKED_AT_A_TIME = 1 << 21  # values of the input in one batch that is walked back by default


def places(question: Question) -> dict[Place, Tensor]:
    """The explained values as the model meets them: floats themselves, token ids as each of their embeddings.

    Raises:
        InvalidInput: for an explained argument without one row a sample.
    """
    inputs = question.inputs
    for i in question.explained:
        if len(inputs.values[i]) != inputs.samples:
            raise InvalidInput(
                f"Argument {i} of the model has {len(inputs.values[i])} rows for {inputs.samples} samples: what is "
                "optimized needs one row a sample"
            )
    floats = {(i, 0): inputs.values[i].detach() for i in question.explained if inputs.values[i].is_floating_point()}
    return floats if len(floats) == len(question.explained) else {**floats, **embeddings(question)}


def climb(
    question: Question, points: Mapping[Place, Tensor], multipliers: Mapping[Place, Tensor] | None = None
) -> tuple[Tensor, list[Tensor | None]]:
    """The model's scores at some points, and their gradients there, times multipliers where these are given.

    Args:
        question: about N samples, its target fixed.
        points, multipliers: ``[N, ...]`` for each place.

    Returns:
        scores ``[N]``, and for each argument of the model the gradient (of token ids in their embedding), or None.
    """
    scores: list[Tensor] = []
    gradients: list[list[Tensor | None]] = []

    def work(rows: slice) -> None:
        def move(argument: int, occurrence: int, value: Tensor) -> tuple[Tensor, Tensor | None]:
            place = (argument, occurrence)
            factor = None if multipliers is None else multipliers[place][rows].to(value.dtype)
            return points[place][rows].to(value.dtype), factor

        part = replace(question, progress=False).select(torch.arange(rows.start, rows.stop))
        answer = part.walk("gradient", "factor", move=move)
        scores.append(answer.output)
        gradients.append(answer.relevance)

    size = question.batch_size or max(1, WALKED_AT_A_TIME // max(1, sum(p[0].numel() for p in points.values())))
    replace(question, progress=False).in_batches(work, question.inputs.samples, min(size, 256))
    joined = [
        None if parts[0] is None else torch.cat([p for p in parts if p is not None])
        for parts in zip(*gradients, strict=True)
    ]
    return torch.cat(scores), joined


def spatial(value: Tensor, axes: Sequence[int] | None = None) -> tuple[int, ...]:
    """The axes along which values lie beside each other: those after the channels, or the ones given."""
    if axes is None:
        return tuple(range(2, value.dim()))
    found = tuple(sorted({a % value.dim() if -value.dim() <= a < value.dim() else -1 for a in axes}))
    if 0 in found or -1 in found:
        raise InvalidInput(f"axes={tuple(axes)} must name axes after that of the samples, below {value.dim()}")
    return found


def variation(value: Tensor, axes: Sequence[int], power: float = 1.0) -> Tensor:
    """Mean over neighbours of ``|difference|^power``, summed over axes, ``[N]``: total variation per value."""
    total = value.new_zeros(len(value))
    for axis in axes:
        if value.shape[axis] > 1:
            total = total + value.diff(dim=axis).abs().pow(power).flatten(1).mean(1)
    return total


def roughness(value: Tensor, axes: Sequence[int]) -> Tensor:
    """Mean power over frequencies, each weighted by the square of its share of the highest, ``[N]``."""
    if not axes:
        return value.new_zeros(len(value))
    power = torch.fft.fftn(value, dim=list(axes), norm="ortho").abs().square()
    weight = value.new_zeros(())
    for axis in axes:
        frequency = torch.fft.fftfreq(value.shape[axis], device=value.device, dtype=value.dtype) * 2
        weight = weight + frequency.square().view([-1 if d == axis else 1 for d in range(value.dim())])
    return (power * weight / len(axes)).flatten(1).mean(1)


def blurred(value: Tensor, sigma: float, axes: Sequence[int]) -> Tensor:
    """Gaussian blur along each of some axes; what lies beyond the edge repeats it.

    Args:
        value: ``[N, ...]``.
        sigma: standard deviation in steps of the axis; 0 leaves everything as it is.
    """
    if sigma <= 0:
        return value
    radius = math.ceil(3 * sigma)
    at = torch.arange(-radius, radius + 1, device=value.device, dtype=torch.float32)
    kernel = torch.exp(-at.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).to(value.dtype).view(1, 1, -1)
    for axis in axes:
        moved = value.movedim(axis, -1)
        lines = F.pad(moved.reshape(-1, 1, moved.shape[-1]), (radius, radius), mode="replicate")
        value = F.conv1d(lines, kernel).view(moved.shape).movedim(-1, axis)
    return value
