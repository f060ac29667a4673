"""The operators of exported programs (``torch.ops.aten``), in the spelling that models are written in.

A program of :mod:`torch.export` calls ATen's operators directly; once decomposed, only those of the core set. Most
bear the name of a torch function with the same arguments; the others are written here as such functions, so that one
class table serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload

_HOMES = (torch, torch._C._nn, torch._C._linalg, torch._C._fft, torch._C._special, Tensor)  # type: ignore[attr-defined]


def name_of(operator: OpOverload) -> str:
    """The name of an operator without its overload: ``add_`` of ``aten::add_.Tensor``; of others, with namespace."""
    return operator._schema.name.removeprefix("aten::")


def spelling(operator: OpOverload) -> Callable[..., Any] | None:
    """The torch function that an operator of ATen is, taking the same arguments; None where there is none."""
    if operator.namespace != "aten":
        return None
    name = name_of(operator)
    found = WRITTEN.get(name) or next((getattr(home, name) for home in _HOMES if hasattr(home, name)), None)
    return found if callable(found) else None


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int,
) -> Tensor:  # fmt: skip
    n = weight.dim() - 2
    if transposed:
        run = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)[n - 1]
        return run(x, weight, bias, stride, padding, output_padding, groups, dilation)
    return (torch.conv1d, torch.conv2d, torch.conv3d)[n - 1](x, weight, bias, stride, padding, dilation, groups)


def _layer_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
    return torch.layer_norm(x, shape, weight, bias, eps), None, None


def _rms_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None, eps: float | None) -> Any:
    return torch.rms_norm(x, shape, weight, eps), None


def _group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, c: int, area: int, groups: int, eps: float
) -> Any:
    return torch.group_norm(x, groups, weight, bias, eps), None, None


def _batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> Any:
    return torch.batch_norm(x, weight, bias, mean, var, training, momentum, eps, False), None, None


def _fixed_batch_norm(x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float) -> Any:
    return _batch_norm(x, weight, bias, mean, var, False, momentum, eps)


def _softmax(x: Tensor, dim: int, to_float: bool) -> Tensor:
    return torch.softmax(x, dim, dtype=torch.float32 if to_float else None)


def _log_softmax(x: Tensor, dim: int, to_float: bool) -> Tensor:
    return torch.log_softmax(x, dim, dtype=torch.float32 if to_float else None)


def _attention(
    query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0, causal: bool = False, *,
    attn_mask: Tensor | None = None, scale: float | None = None,
) -> Any:  # fmt: skip
    return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout, causal, scale=scale), None


def _slice(x: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:
    return x[(slice(None),) * (dim % x.dim()) + (slice(start, end, step),)]


def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    return x[tuple(slice(None) if i is None else i for i in indices)]


def _pad(mode: str) -> Callable[[Tensor, Sequence[int]], Tensor]:
    return lambda x, sides: F.pad(x, list(sides), mode)


def _copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    return source.to(target.dtype).expand_as(target)


def _to_copy(x: Tensor, *, dtype: Any = None, device: Any = None, memory_format: Any = None, **_: Any) -> Tensor:
    return x.to(device=device or x.device, dtype=dtype or x.dtype, copy=True, memory_format=memory_format)


WRITTEN: dict[str, Callable[..., Any]] = {
    "convolution": _convolution,
    "native_layer_norm": _layer_norm,
    "_fused_rms_norm": _rms_norm,
    "native_group_norm": _group_norm,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit_no_training": _fixed_batch_norm,
    "_softmax": _softmax,
    "_safe_softmax": lambda x, dim, dtype=None: torch.softmax(x, dim, dtype=dtype),
    "_log_softmax": _log_softmax,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "slice": _slice,
    "index": _index,
    "_unsafe_index": _index,
    "_unsafe_view": Tensor.view,
    "_adaptive_avg_pool2d": F.adaptive_avg_pool2d,
    "_adaptive_avg_pool3d": F.adaptive_avg_pool3d,
    "copy": _copy,
    "_to_copy": _to_copy,
    "alias": lambda x: x.view_as(x),
    "lift_fresh_copy": Tensor.clone,
    **{f"{mode}_pad{n}d": _pad(kind) for mode, kind in (("reflection", "reflect"), ("replication", "replicate"))
       for n in (1, 2, 3)},
}  # fmt: skip
