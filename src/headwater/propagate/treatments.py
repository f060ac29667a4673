"""Treatments of single operators: mostly, operators written as those that they consist of."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headwater.errors import HeadwaterWarning, InvalidInput
from headwater.propagate import places
from headwater.propagate.calls import bind
from headwater.propagate.pointwise import elementwise
from headwater.propagate.soundness import allow_training

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation


def constant(engine: Propagation, call: Call) -> Any:
    """No relevance passes: comparisons, indices, rounding, shapes."""
    if engine.unfolding and call.operator.name in ("detach", "data"):
        return engine.redo(torch.Tensor.view_as, call.args[0], call.args[0])
    if call.operator.name in ("detach", "data", "numpy"):
        warnings.warn(
            f"{call.operator.name} {places.describe_here(engine.model)} ends the relevance of what it is called on.",
            HeadwaterWarning,
            stacklevel=2,
        )
    out = call.func(*call.args, **call.kwargs)
    return out.detach() if isinstance(out, Tensor) and out.requires_grad else out


def converted(engine: Propagation, call: Call) -> Any:
    """``as_tensor`` of a tensor is that tensor; of numbers read from live tensors nothing walks back."""
    return engine.native(call) if isinstance(bind(call, "data", None)[0], Tensor) else engine.gap(call)


def embedding(engine: Propagation, call: Call) -> Any:
    """A lookup in a live table moves its rows; live indices are floats where token ids are wanted."""
    if not call.args[0].is_floating_point() or not call.args[1].is_floating_point():
        return engine.native(call)
    where = places.describe_here(engine.model)
    raise InvalidInput(f"An embedding {where} wants token ids, but got floats: pass integers (x.long())")


def dropout(engine: Propagation, call: Call) -> Any:
    """Dropout is homogeneous given its mask; in training mode it needs ``allow_training=True``."""
    p = bind(call, "input p", None, 0.5)[1]
    training = call.args[2] if len(call.args) > 2 else call.kwargs.get("train", call.kwargs.get("training", True))
    if training and p:
        allow_training(engine, "Dropout is active")
    return engine.native(call)


def prod(engine: Propagation, call: Call) -> Any:
    """A product along an axis: each of its k factors takes 1/k."""
    x, dim = bind(call, "input dim", None, None)
    return engine.local(call, 1 / (x.numel() if dim is None else x.shape[dim]))


def variance(engine: Propagation, call: Call) -> Any:
    """Homogeneous of degree two: half the gradient conserves (Euler's theorem)."""
    return engine.local(call, 0.5)


def with_mean(engine: Propagation, call: Call) -> Any:
    """``var_mean`` and ``std_mean``, written as two."""
    x, *args = call.args
    spread = engine.redo(getattr(torch, call.operator.name.removesuffix("_mean")), x, *args, **call.kwargs)
    axes = {"dim": args[0]} if args and not isinstance(args[0], bool) else {}
    axes |= {k: v for k, v in call.kwargs.items() if k in ("dim", "keepdim")}
    if axes.get("dim", 0) is None:
        axes["dim"] = tuple(range(x.dim()))
    return spread, engine.redo(torch.mean, x, **axes)


def extremum(engine: Propagation, call: Call) -> Any:
    """``max``, ``min`` of a tensor with another: elementwise; along an axis: a choice, homogeneous."""
    other = call.args[1] if len(call.args) > 1 else call.kwargs.get("other")
    return elementwise(engine, call) if isinstance(other, Tensor) else engine.native(call)


def lerp(engine: Propagation, call: Call) -> Any:
    """``start + weight * (end - start)``, a sum and a product."""
    start, end, weight = bind(call, "input end weight", None, None, None)
    return engine.redo(torch.add, start, engine.redo(torch.mul, engine.redo(torch.sub, end, start), weight))


def gated_linear_unit(engine: Propagation, call: Call) -> Any:
    """``glu``: one half times the sigmoid of the other."""
    x, dim = bind(call, "input dim", None, -1)
    value, gate = engine.redo(torch.chunk, x, 2, dim)
    return engine.redo(torch.mul, value, engine.redo(torch.sigmoid, gate))


def cosine_similarity(engine: Propagation, call: Call) -> Any:
    """A product of two vectors, each divided by its constant length."""
    a, b, dim, eps = bind(call, "x1 x2 dim eps", None, None, 1, 1e-8)
    units = []
    for x in (a, b):
        length = engine.redo(torch.clamp, engine.redo(torch.linalg.vector_norm, x, 2, dim, True), min=eps)
        units.append(engine.redo(torch.div, x, length))
    return engine.redo(torch.sum, engine.redo(torch.mul, *units), dim)


def add_quotient(engine: Propagation, call: Call) -> Any:
    """``addcmul`` and ``addcdiv``: a sum and a product or quotient."""
    base, a, b, value = bind(call, "input tensor1 tensor2 value", None, None, None, 1)
    part = engine.redo(torch.mul if "mul" in call.operator.name else torch.div, a, b)
    return engine.redo(torch.add, base, part if value == 1 else engine.redo(torch.mul, part, value))


def polar(engine: Propagation, call: Call) -> Any:
    """``abs (cos angle + i sin angle)``, written as its real and imaginary parts."""
    length, direction = bind(call, "abs angle", None, None)
    parts = [engine.redo(torch.mul, length, engine.redo(f, direction)) for f in (torch.cos, torch.sin)]
    return engine.redo(torch.complex, *parts)


def angle(engine: Propagation, call: Call) -> Any:
    """The angle of a complex number, the ``atan2`` of its parts; of a real one it tells the sign alone."""
    (x,) = bind(call, "input", None)
    if not x.is_complex():
        return constant(engine, call)
    return engine.redo(torch.atan2, engine.redo(torch.imag, x), engine.redo(torch.real, x))


def distance(engine: Propagation, call: Call) -> Any:
    """``cdist``, ``pairwise_distance`` and ``dist``: a difference and its norm."""
    a, b, p = bind(call, "x1 x2 p", None, None, 2.0)[:3]
    if call.operator.name == "cdist":
        a, b = engine.redo(torch.unsqueeze, a, -2), engine.redo(torch.unsqueeze, b, -3)
    gap = engine.redo(torch.sub, a, b)
    if call.operator.name == "dist":
        return engine.redo(torch.linalg.vector_norm, gap, p)
    if call.operator.name == "pairwise_distance":
        gap = engine.redo(torch.add, gap, bind(call, "x1 x2 p eps", None, None, 2.0, 1e-6)[3])
    return engine.redo(torch.linalg.vector_norm, gap, p, -1)
