"""Tensors within the nested arguments and results of calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


def flat(value: Iterable[Any]) -> list[Tensor]:
    """The tensors in nested lists and tuples, in order."""
    found: list[Tensor] = []
    for item in value:
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, (list, tuple)) and type(item) is not torch.Size:
            found.extend(flat(item))
    return found


def carries(tensor: Tensor) -> bool:
    """Whether a tensor's type can carry relevance."""
    return tensor.dtype.is_floating_point or tensor.dtype.is_complex


def unique(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors without repetition of the same object."""
    return list({id(t): t for t in tensors}.values())


def same_memory(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are one view of the same values."""
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of any layout hold equal values; the same memory does, without a look."""
    if not a.layout == b.layout == torch.strided:
        return torch.equal(a.to_dense(), b.to_dense())
    return same_memory(a, b) or torch.equal(a, b)


def rebuild(like: Any, items: list[Any]) -> Any:
    """A list, tuple or named tuple with other items; the same object where nothing changed."""
    if all(a is b for a, b in zip(items, like, strict=True)):
        return like
    if hasattr(like, "_fields"):
        return type(like)(*items)
    return type(like)(items)


def replace(value: Any, swap: dict[int, Tensor]) -> Any:
    """Nested arguments with some tensors exchanged by identity."""
    if isinstance(value, Tensor):
        return swap.get(id(value), value)
    if isinstance(value, (list, tuple)) and type(value) is not torch.Size:
        return rebuild(value, [replace(v, swap) for v in value])
    return value
