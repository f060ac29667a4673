"""What every measure reads: relevance as one float tensor ``[N, ...]``, whatever it came as."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from headwater.errors import InvalidInput, NonFinite
from headwater.explanation import Explanation

Part = Literal["absolute", "positive", "negative", "signed"]
PARTS = ("absolute", "positive", "negative", "signed")


def relevance_of(value: Any, name: str = "relevance") -> Tensor:
    """Relevance ``[N, ...]`` of an explanation, a tensor or an array, detached and in a float dtype.

    Token ids count as one feature each: their relevance is summed over the embedding.

    Raises:
        InvalidInput: no numbers, no sample axis, an empty batch, or an explanation of several inputs.
        NonFinite: NaN or infinity.
    """
    if isinstance(value, Explanation):
        value = _of_explanation(value, name)
    try:
        tensor = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError):
        raise InvalidInput(f"{name} must be an Explanation, a tensor or an array, not {type(value).__name__}") from None
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.get_default_dtype())
    if not tensor.dim() or not tensor.numel():
        raise InvalidInput(f"{name} of shape {list(tensor.shape)}: the first axis must hold at least one sample")
    if not bool(tensor.isfinite().all()):
        raise NonFinite(f"{name} holds NaN or infinity: nothing can be measured on it")
    return tensor


def _of_explanation(explanation: Explanation, name: str) -> Any:
    relevance, inputs = explanation.relevance, explanation.inputs
    if not isinstance(relevance, Tensor):
        raise InvalidInput(f"{name} explains several inputs: pass the relevance of one of them")
    return relevance.sum(-1) if isinstance(inputs, Tensor) and relevance.dim() == inputs.dim() + 1 else relevance


def part_of(relevance: Tensor, part: Part) -> Tensor:
    """The part of the relevance that a measure looks at.

    Args:
        relevance: any shape.
        part: ``"absolute"`` |R|, ``"positive"`` R⁺, ``"negative"`` (-R)⁺, ``"signed"`` R itself.

    Raises:
        InvalidInput: another name.
    """
    if part == "absolute":
        return relevance.abs()
    if part == "positive":
        return relevance.clamp(min=0)
    if part == "negative":
        return relevance.neg().clamp(min=0)
    if part == "signed":
        return relevance
    raise InvalidInput(f"part must be one of {', '.join(PARTS)}, not {part!r}")


def rows_of(value: Any, part: Part, name: str = "relevance") -> Tensor:
    """One row of features for each sample, ``[N, F]`` in float64: what measures of a whole map are computed on."""
    relevance = relevance_of(value, name).double()
    return part_of(relevance.reshape(len(relevance), -1), part)


def pair(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Two relevances of the same features.

    Raises:
        InvalidInput: of different shapes.
    """
    first, second = relevance_of(a, "the first relevance"), relevance_of(b, "the second relevance")
    if first.shape != second.shape:
        raise InvalidInput(f"relevances of shapes {list(first.shape)} and {list(second.shape)} cannot be compared")
    return first.double(), second.double().to(first.device)


def shares(value: Any, part: Part, name: str = "relevance") -> Tensor:
    """Each feature's share of its sample's total, ``[N, F]``; NaN where the map has none of that part."""
    rows = rows_of(value, part, name)
    if part == "signed":
        raise InvalidInput("shares need one sign: choose part 'absolute', 'positive' or 'negative'")
    return rows / rows.sum(1, keepdim=True)


def picture(value: Any) -> Tensor:
    """Maps as grey pictures ``[N, H, W]`` in float64: channels summed; a series or table is a picture of few rows.

    ``[N, C, H, W]`` sums C, ``[N, C, D, H, W]`` also lays the slices below each other; ``[N, H, W]`` and ``[N, C, T]``
    stay; ``[N, F]`` has one row.
    """
    relevance = relevance_of(value).double()
    if relevance.dim() == 1:
        return relevance[:, None, None]
    if relevance.dim() == 2:
        return relevance[:, None]
    if relevance.dim() == 3:
        return relevance
    if relevance.dim() in (4, 5):
        summed = relevance.sum(1)
        return summed.reshape(len(summed), -1, summed.shape[-1])
    raise InvalidInput(f"relevance of shape {list(relevance.shape)} is no picture: sum or slice it first")
