"""Data in batches, however the user holds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from headwater.arguments import Inputs
from headwater.errors import InvalidInput


def batches_of(data: Any, size: int = 64) -> Iterator[Inputs]:
    """The model's inputs, batch by batch.

    Args:
        data: tensors as ``hw.explain`` takes them, divided into batches of ``size``; or an iterable of batches (a
            ``DataLoader``), where a pair of inputs and integer labels ``[N]`` stands for its inputs.

    Raises:
        InvalidInput: for data without a batch.
    """
    tensors = isinstance(data, (Tensor, Mapping)) or hasattr(data, "__array__")
    if tensors or (isinstance(data, tuple) and all(isinstance(v, Tensor) for v in data)):
        inputs = Inputs.of(data)
        for rows in torch.arange(inputs.samples).split(size):
            yield inputs.select(rows)
        return
    if not isinstance(data, Iterable) or isinstance(data, str):
        raise InvalidInput(f"data must be tensors or an iterable of batches, not {type(data).__name__}")
    empty = True
    for batch in data:
        empty = False
        yield Inputs.of(batch[0] if _labelled(batch) else batch)
    if empty:
        raise InvalidInput("data holds no batch")


def _labelled(batch: Any) -> bool:
    """Whether a batch is a pair of inputs and class labels."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not isinstance(batch[1], Tensor):
        return False
    labels = batch[1]
    return labels.dim() == 1 and not labels.is_floating_point() and labels.dtype != torch.bool
