"""Fingerprints: short strings that change when a model, a data set or an argument does."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_VALUES = (bool, int, float, str, Tensor, np.ndarray, nn.Module)


def of_bytes(data: bytes | memoryview) -> str:
    """128 bits of BLAKE2b, in hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def of_tensor(tensor: Tensor) -> str:
    """Of type, shape and content, wherever the tensor lies."""
    values = tensor.detach().cpu().contiguous()
    content = values.reshape(-1).view(torch.uint8).numpy() if values.numel() else np.zeros(0, np.uint8)
    return of_bytes(f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + of_bytes(content.data).encode())


def of_model(model: Callable[..., Any]) -> str:
    """Of the modules and all tensors that they hold; of the code where the model is a plain function."""
    if not isinstance(model, nn.Module):
        return of_bytes(describe(model).encode())
    parts = [repr(model)]
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    parts += [f"{name} {of_tensor(tensor)}" for name, tensor in tensors]
    return of_bytes("\n".join(parts).encode())


def describe(value: Any) -> str:
    """A text that is equal for equal arguments in every process: tensors by content, functions by their code."""
    if isinstance(value, (Tensor, np.ndarray)):
        tensor = torch.as_tensor(value)
        return f"tensor {tuple(tensor.shape)} {of_tensor(tensor)}"
    if isinstance(value, nn.Module):
        return f"{type(value).__name__} {of_model(value)}"
    if is_dataclass(value) and not isinstance(value, type):
        inner = ", ".join(f"{part.name}={describe(getattr(value, part.name))}" for part in fields(value))
        return f"{type(value).__name__}({inner})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {describe(part)}" for key, part in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(describe(part) for part in value) + "]"
    if callable(value) and not isinstance(value, type):
        return _function(value)
    text = repr(value)
    return type(value).__qualname__ if text == object.__repr__(value) else text  # which holds an address in memory


def _function(value: Callable[..., Any]) -> str:
    """The code, and what it takes from around it: a model within a closure is another when its weights are."""
    if isinstance(value, functools.partial):
        return f"partial {describe(value.func)} {describe(value.args)} {describe(value.keywords)}"
    name = getattr(value, "__qualname__", type(value).__qualname__)
    around = _around(value)
    return f"{name} {of_bytes(_code(value).encode())}" + (f" {around}" if around else "")


def _around(value: Any) -> str:
    """The plain values, tensors and modules that a function or an object that can be called depends on."""
    if isinstance(value, MethodType):
        value = value.__self__ if not isinstance(value.__self__, type) else value.__func__
    if isinstance(value, FunctionType):
        found = inspect.getclosurevars(value)
        names = {**found.globals, **found.nonlocals, **(value.__kwdefaults__ or {})}
        names |= {f"default {i}": default for i, default in enumerate(value.__defaults__ or ())}
    else:
        names = dict(getattr(value, "__dict__", {}))
    return ", ".join(f"{name}={describe(part)}" for name, part in sorted(names.items()) if isinstance(part, _VALUES))


def _code(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function if hasattr(function, "__code__") else type(function))
    except (OSError, TypeError):  # built in, or typed at a prompt
        return repr(getattr(getattr(function, "__code__", None), "co_code", type(function)))
