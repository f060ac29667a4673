"""Results of a step as files: tensors as safetensors, the rest as JSON that says where each tensor belongs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from headwater.dataset.files import LocalFiles
from headwater.errors import InvalidInput

_TENSOR, _ARRAY = "__tensor__", "__array__"


def write(folder: Path, name: str, values: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write ``NAME.safetensors`` and then ``NAME.json``, so that a step is there whole or not at all.

    Args:
        folder: made where it is missing.
        name: of the step.
        values: tensors, arrays, numbers, strings, ``None``, and lists and dicts of those; tuples come back as lists.
        about: what the result holds for (scale, seed) and what it took; plain values.

    Raises:
        InvalidInput: a value that is none of those; the text says where it is.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _encode(dict(values), tensors, name)
    files = LocalFiles(folder)
    files.remove(f"{name}.json")
    files.write(f"{name}.safetensors", safetensors.torch.save(tensors))
    files.write(f"{name}.json", json.dumps({**about, "values": tree}, indent=1).encode())


def read(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What ``write`` was given as values and as ``about``, or ``None`` where the step is not there."""
    files = LocalFiles(folder)
    try:
        about = json.loads(files.read(f"{name}.json"))
        tensors = safetensors.torch.load(files.read(f"{name}.safetensors"))
    except FileNotFoundError:
        return None
    return _decode(about.pop("values"), tensors), about


def _encode(value: Any, tensors: dict[str, torch.Tensor], place: str) -> Any:
    if isinstance(value, torch.Tensor | np.ndarray):
        tensor = value if isinstance(value, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(value))
        tensors[place] = tensor.detach().cpu().contiguous().clone()
        return {_TENSOR if isinstance(value, torch.Tensor) else _ARRAY: place}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _encode(item, tensors, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item, tensors, f"{place}.{number}") for number, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InvalidInput(
        f"{place} is a {type(value).__name__}: a step returns tensors, arrays, numbers, strings, and lists and "
        "dicts (with strings for keys) of those"
    )


def _decode(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _ARRAY in value:
        return tensors[value[_ARRAY]].numpy()
    return {key: _decode(item, tensors) for key, item in value.items()}
