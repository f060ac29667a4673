"""The affine operators of torch: linear layers, convolutions, matrix products and batch norm.

Complex ones pass their gradient (LRP-0): contributions that are complex have no sign, and no size, to share by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.errors import UnsupportedModel
from headwater.propagate import places
from headwater.propagate.affine import Affine, treat
from headwater.propagate.calls import bind
from headwater.propagate.folding import crop, fold
from headwater.propagate.maps import AnyMap, ConvMap, DeformedMap, LinearMap
from headwater.propagate.nested import replace
from headwater.propagate.tags import is_live, is_weight, raw_tag

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation


def linear(engine: Propagation, call: Call) -> Any:
    """``F.linear``."""
    x, w, b = bind(call, "input weight bias", None, None, None)
    if is_live(w) or is_live(b) or not is_live(x) or x.is_complex():
        matrix = engine.redo(torch.matmul, x, engine.redo(torch.t, w))
        return matrix if b is None else engine.redo(torch.add, matrix, b)
    return treat(engine, call, Affine(call, LinearMap(), x, w, b))


def convolution(engine: Propagation, call: Call) -> Any:
    """``conv1d`` to ``conv3d`` and their transposes, with or without a batch axis."""
    transposed = "transpose" in call.operator.name
    names = "input weight bias stride padding " + (
        "output_padding groups dilation" if transposed else "dilation groups"
    )
    defaults = (None, None, None, 1, 0, *((0, 1, 1) if transposed else (1, 1)))
    x, w, b, stride, padding, *rest = bind(call, names, *defaults)
    output_padding, groups, dilation = rest if transposed else (0, rest[1], rest[0])
    if is_live(w) or is_live(b) or not is_live(x) or x.is_complex():
        if b is None:
            return engine.product(call, [x, w]) if is_live(w) else engine.native(call)
        out = engine.redo(
            call.func, x, w, None, *call.args[3:], **{k: v for k, v in call.kwargs.items() if k != "bias"}
        )
        return engine.redo(torch.add, out, engine.redo(torch.Tensor.view, b, (-1, *[1] * (w.dim() - 2))))
    n = w.dim() - 2
    if x.dim() == w.dim() - 1:
        batched = engine.redo(call.func, engine.redo(torch.unsqueeze, x, 0), *call.args[1:], **_without(call.kwargs))
        return engine.redo(torch.squeeze, batched, 0)
    stride, dilation, output_padding = _tuple(stride, n), _tuple(dilation, n), _tuple(output_padding, n)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, w.shape[2:], strict=True)]
        if any(t % 2 for t in total):
            sides = [side for t in reversed(total) for side in (t // 2, t - t // 2)]
            return engine.redo(call.func, engine.redo(F.pad, x, sides), w, b, stride, 0, dilation, groups)
        padding = [t // 2 for t in total]
    padding = [0] * n if padding == "valid" else _tuple(padding, n)
    bias = None if b is None else b.view(1, -1, *[1] * n)
    mapped = ConvMap(stride, padding, dilation, groups, output_padding, transposed)
    return treat(engine, call, Affine(call, mapped, x, w, bias))


def deformed_convolution(engine: Propagation, call: Call) -> Any:
    """torchvision's ``deform_conv2d``: where it looks, and how much of that it takes (a gate), is constant."""
    names = "input weight offset mask bias stride_h stride_w pad_h pad_w dilation_h dilation_w groups offset_groups "
    x, w, offset, mask, bias, *rest = bind(call, names + "use_mask", *[None] * 14)
    if not is_live(x) or is_live(w) or is_live(bias):
        return engine.gap(call)
    offset, mask = (engine.hold(t) if is_live(t) else t for t in (offset, mask))
    func, nothing = call.func, torch.zeros_like(bias)
    call.args, call.kwargs, call.live = [x, w, offset, mask, bias, *rest], {}, [x]
    mapped = DeformedMap(lambda u, v: func(u, v, offset, mask, nothing, *rest))
    return treat(engine, call, Affine(call, mapped, x, w, bias.view(1, -1, 1, 1)))


def matmul(engine: Propagation, call: Call) -> Any:
    """Matrix products: with weights an affine operator, with constants homogeneous, with live tensors a product."""
    (a, b, *rest), kwargs = [*call.args, *call.kwargs.values()][: max(2, len(call.args))], call.kwargs
    kwargs = {k: v for k, v in kwargs.items() if v is not b}
    if is_live(a) and is_live(b):
        return engine.product(call, [a, b])
    x, w = (a, b) if is_live(a) else (b, a)
    if not is_weight(w) or x.is_complex():
        return engine.native(call)
    if x is a and w.dim() == 2 and call.operator.name in ("matmul", "mm"):
        return treat(engine, call, Affine(call, LinearMap(), x, w.t(), None))
    func, left = call.func, x is a

    def run(u: Tensor, v: Tensor) -> Tensor:
        return func(*((u, v) if left else (v, u)), *rest, **kwargs)

    return treat(engine, call, Affine(call, AnyMap(run), x, w, None))


def einsum(engine: Propagation, call: Call) -> Any:
    """``einsum`` and ``tensordot`` of any operands."""
    operands = _tensors(call.args)
    live = [t for t in operands if is_live(t)]
    if len(live) > 1:
        return engine.product(call, operands)
    weights = [t for t in operands if is_weight(t)]
    if len(weights) != 1 or len(operands) != 2 or live[0].is_complex():
        return engine.native(call)
    x, w, func, args, kwargs = live[0], weights[0], call.func, call.args, call.kwargs

    def run(u: Tensor, v: Tensor) -> Tensor:
        return func(*replace(args, {id(x): u, id(w): v}), **kwargs)

    return treat(engine, call, Affine(call, AnyMap(run), x, w, None))


def addmm(engine: Propagation, call: Call) -> Any:
    """``beta * bias + alpha * (a @ b)``: ``addmm``, ``addmv``, ``baddbmm``; a linear layer, or written as its parts."""
    names = {"batch1": "mat1", "batch2": "mat2", "mat": "mat1", "vec": "mat2"}
    call.kwargs = {names.get(k, k): v for k, v in call.kwargs.items()}
    bias, a, b, beta, alpha = bind(call, "input mat1 mat2 beta alpha", None, None, None, 1, 1)
    weighted = is_live(a) and not is_live(bias) and not is_live(b) and is_weight(b) and not a.is_complex()
    if weighted and beta == alpha == 1 and b.dim() == 2 and bias.dim() == 1 and call.operator.name == "addmm":
        return treat(engine, call, Affine(call, LinearMap(), a, b.t(), bias))
    product_ = engine.redo(torch.matmul, a, b)
    product_ = product_ if alpha == 1 else engine.redo(torch.mul, product_, alpha)
    if beta == 0:
        return product_
    return engine.redo(torch.add, product_, bias if beta == 1 else engine.redo(torch.mul, bias, beta))


def batch_norm(engine: Propagation, call: Call) -> Any:
    """Batch norm with running statistics: a scale and a shift of each channel, folded where a rule minds signs."""
    x, w, b, mean, var, training, _, eps, *_ = call.args
    if training or mean is None:
        where = places.describe_here(engine.model)
        raise UnsupportedModel(
            f"Batch norm uses batch statistics {where}, so that a sample's answer depends on the others: call "
            "model.eval() before explaining, and let it keep running statistics."
        )
    if is_live(w) or is_live(b) or not is_live(x):
        rest = (mean, var, training, 0.0, eps, *call.args[8:])
        return scaled_and_shifted(engine, engine.redo(call.func, x, None, None, *rest), w, b, 1)

    def scaled() -> Tensor:
        return (var + eps).rsqrt() if w is None else w * (var + eps).rsqrt()

    scale = engine.prepare(("scale", eps), (w, var), scaled)
    shift = -mean * scale if b is None else b - mean * scale
    affine = engine.tag(x).affine
    if affine is not None and (x.dim() == 2 or affine.map.inputs == 1):  # else its channels are not axis 1
        folded = fold(engine, call, x, scale, shift)
        if folded is not None:
            return folded
    shape = (1, -1, *[1] * (x.dim() - 2))
    with torch.set_grad_enabled(engine.differentiable):
        out = call.func(*call.args, **call.kwargs)

    def walk(c: Tensor) -> list[Tensor]:
        if engine.ledger:
            call.book("bias", shift.view(shape) * c)
        return [c * scale.view(shape)]

    return engine.reroute(call, out, [x], walk, nonneg=False)


def scaled_and_shifted(engine: Propagation, x: Tensor, scale: Any, shift: Any, channels: int | None) -> Any:
    """``x * scale + shift``, either of them live or absent; along axis ``channels``, or the last ones where None."""
    for function, vector in ((torch.mul, scale), (torch.add, shift)):
        if vector is not None:
            shape = vector.shape if channels is None else (-1, *[1] * (x.dim() - 1 - channels))
            x = engine.redo(function, x, engine.redo(torch.reshape, vector, shape))
    return x


def indexed(engine: Propagation, call: Call) -> Any:
    """Indexing moves values; a crop of what a convolution made can take in the batch norm behind it."""
    z = call.args[0]
    out = engine.native(call)
    if (tag := raw_tag(z)) is not None and tag.affine is not None and isinstance(out, Tensor) and is_live(z):
        whole = engine.tag(z).affine
        if whole is not None:
            crop(engine, call, whole, z, out)
    return out


def _tuple(value: Any, n: int) -> list[int]:
    items = [value] if isinstance(value, int) else list(value)
    return items * n if len(items) == 1 else items


def _tensors(args: Sequence[Any]) -> list[Tensor]:
    return [t for a in args for t in (a if isinstance(a, (list, tuple)) else [a]) if isinstance(t, Tensor)]


def _without(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in kwargs.items() if k != "input"}
