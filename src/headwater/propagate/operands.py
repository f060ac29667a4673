"""Operators of several live operands that are no plain product, and operators homogeneous of another degree than one.

By Euler's theorem ``Σ a · ∂f/∂a = d f`` for a function of degree ``d`` in all its operands together, so its gradient
over ``d`` conserves. Where an operand only steers (an exponent, a place to sample at, a matrix that is inverted) it is
constant, as a gate and a divisor are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.propagate import booking
from headwater.propagate.calls import bind
from headwater.propagate.nested import replace, unique
from headwater.propagate.pointwise import elementwise, root_of
from headwater.propagate.products import divisor_alone
from headwater.propagate.tags import is_live, product
from headwater.propagate.treatments import constant

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation


def steered(engine: Propagation, call: Call, steering: Tensor) -> Any:
    """A call linear in its other operands: the one that steers is constant, and nothing passes where it is alone."""
    if is_live(steering):
        if len(unique(call.live)) < 2:
            return divisor_alone(engine, call)
        swap = {id(steering): engine.hold(steering)}
        call.args = replace(call.args, swap)
        call.kwargs = {k: replace(v, swap) for k, v in call.kwargs.items()}
        call.live = [t for t in call.live if t is not steering]
    return engine.native(call)


def grid_sampler(engine: Propagation, call: Call) -> Any:
    """Sampling at live places: the places are constant, what is sampled takes all (deformable attention)."""
    return steered(engine, call, bind(call, "input grid", None, None)[1])


def of_regions(engine: Propagation, call: Call) -> Any:
    """torchvision's poolings of regions: the regions are constant, what they are cut from takes all."""
    return steered(engine, call, bind(call, "input rois", None, None)[1])


def elementwise_of_two(engine: Propagation, call: Call) -> Any:
    """An elementwise function of two tensors; of one alone, or of two functions of one tensor, a chain."""
    a, b = call.args[0], call.args[1] if len(call.args) > 1 else call.kwargs.get("other", call.kwargs.get("exponent"))
    if not (is_live(a) and is_live(b)) or root_of(engine, a) is root_of(engine, b):
        return elementwise(engine, call)
    a, b = engine.materialize(a), engine.materialize(b)
    name = call.operator.name
    if name in ("pow", "float_power", "atan2", "arctan2"):  # the exponent, the divisor in atan(a / b)
        if a.shape != b.shape:
            a, b = engine.redo(torch.broadcast_tensors, a, b)
        call.args, call.kwargs, call.live, call.bent = [a, engine.hold(b)], {}, [a], False
        return elementwise(engine, call)
    if name == "xlogy":
        return engine.redo(torch.mul, a, engine.redo(torch.log, b))
    if name == "logaddexp2":
        log2 = math.log(2)
        natural = engine.redo(torch.logaddexp, *(engine.redo(torch.mul, t, log2) for t in (a, b)))
        return engine.redo(torch.div, natural, log2)
    if name == "logaddexp":
        return engine.redo(torch.logsumexp, engine.redo(torch.stack, torch.broadcast_tensors(a, b)), 0)
    engine.settle(call)
    return engine.native(call)  # hypot, fmod, remainder: of degree one in both together


def quotient(engine: Propagation, call: Call) -> Any:
    """``div``; one that is rounded passes nothing, as rounding does."""
    return (constant if call.kwargs.get("rounding_mode") else elementwise)(engine, call)


def scaled_by_power(engine: Propagation, call: Call) -> Any:
    """``ldexp``: ``a 2ᵇ``."""
    a, b = bind(call, "input other", None, None)
    return engine.redo(torch.mul, a, engine.redo(torch.exp2, b)) if is_live(b) else engine.native(call)


def quantile(engine: Propagation, call: Call) -> Any:
    """``quantile``: which one is constant."""
    return steered(engine, call, bind(call, "input q", None, None)[1])


def parametric_relu(engine: Propagation, call: Call) -> Any:
    """``prelu``; by a live slope the negative values are a product."""
    x, slope = bind(call, "input weight", None, None)
    if not is_live(slope):
        return engine.native(call)
    if slope.numel() > 1 and x.dim() > 1:
        slope = engine.redo(torch.reshape, slope, (1, -1, *[1] * (x.dim() - 2)))
    negative = engine.redo(torch.mul, engine.redo(torch.clamp, x, max=0.0), slope)
    return engine.redo(torch.add, engine.redo(torch.relu, x), negative)


def trapezoid(engine: Propagation, call: Call) -> Any:
    """``trapezoid`` and its running sums; between live places the means of neighbours times their distances."""
    y, x, dim = bind(call, "y x dim", None, None, -1)
    if not is_live(x):
        return engine.native(call)
    n, line = y.shape[dim], dim if x.dim() > 1 else 0
    ends = [engine.redo(torch.narrow, y, dim, start, n - 1) for start in (0, 1)]
    steps = engine.redo(torch.diff, x, dim=line)
    if x.dim() == 1:
        steps = engine.redo(torch.reshape, steps, (-1, *[1] * (y.dim() - 1 - dim % y.dim())))
    parts = engine.redo(torch.mul, engine.redo(torch.div, engine.redo(torch.add, *ends), 2), steps)
    return engine.redo(torch.cumsum if "cumulative" in call.operator.name else torch.sum, parts, dim)


def spectrogram(engine: Propagation, call: Call) -> Any:
    """``stft``: a product with its window, where that is live."""
    window = next((v for v in (*call.args[1:], *call.kwargs.values()) if is_live(v)), None)
    return engine.native(call) if window is None else engine.product(call, [call.args[0], window])


def sparse_product(engine: Propagation, call: Call) -> Any:
    """``torch.sparse.mm`` and ``sampled_addmm``: a product where both factors are live, and what it is added to."""
    base, factors = call.args[:-2], list(call.args[-2:])
    if base and is_live(base[0]):
        return engine.gap(call)
    share = 0.5 if all(is_live(t) for t in factors) else 1.0
    return engine.local(call, share, causes=booking.constant_share(engine, call))


def add_outer(engine: Propagation, call: Call) -> Any:
    """``addr``: a sum with an outer product."""
    base, a, b, beta, alpha = bind(call, "input vec1 vec2 beta alpha", None, None, None, 1, 1)
    part = engine.redo(torch.outer, a, b)
    parts = [p if s == 1 else engine.redo(torch.mul, p, s) for p, s in ((base, beta), (part, alpha))]
    return engine.redo(torch.add, *parts)


def clamp(engine: Propagation, call: Call) -> Any:
    """``clamp``; between live bounds a choice among tensors."""
    name = call.operator.name
    x, low, high = bind(call, "input max min" if name == "clamp_max" else "input min max", None, None, None)
    low, high = (high, low) if name == "clamp_max" else (low, high)
    if not (is_live(low) or is_live(high)):
        return elementwise(engine, call)
    for bound, choose in ((low, torch.maximum), (high, torch.minimum)):
        if bound is not None:
            x = engine.redo(choose, x, bound if isinstance(bound, Tensor) else torch.full_like(x, bound).detach())
    return x


def cumulative_product(engine: Propagation, call: Call) -> Any:
    """Each of the first ``k`` values takes 1/k of the ``k``-th product."""
    x, dim = bind(call, "input dim", None, None)
    counts = torch.arange(1, x.shape[dim] + 1, dtype=x.dtype, device=x.device)
    counts = counts.view(-1, *[1] * (x.dim() - 1 - dim % x.dim()))
    return engine.local(call, gradient=lambda pull, cs: pull(None if cs[0] is None else cs[0] / counts))


def cumulative_logsumexp(engine: Propagation, call: Call) -> Any:
    """``logcumsumexp`` by its gradient, which absorbs the entropy of each softmax."""

    def causes(cs: Any, factors: Any) -> None:
        x, dim = bind(call, "input dim", None, None)
        x = x.detach()
        y = x.logcumsumexp(dim)
        sides = [((x + part.log()).logcumsumexp(dim) - y).exp() for part in (x.clamp(min=0), (-x).clamp(min=0))]
        if cs[0] is not None:
            call.book("entropy", product(y - sides[0] + sides[1], cs[0]))

    return engine.native(call, causes)


def bilinear(engine: Propagation, call: Call) -> Any:
    """``bilinear``: a product of two inputs by weights, and a bias."""
    a, b, weight, bias = bind(call, "input1 input2 weight bias", None, None, None, None)
    out: Tensor = engine.redo(torch.einsum, "...i,oij,...j->...o", a, weight, b)
    return out if bias is None else engine.redo(torch.add, out, bias)


def squared_error(engine: Propagation, call: Call) -> Any:
    """``mse_loss``: a difference, squared."""
    a, b, reduction = bind(call, "input target reduction", None, None, 1)
    squares = engine.redo(torch.square, engine.redo(torch.sub, a, b))
    if _REDUCTIONS[reduction] == "none":
        return squares
    return engine.redo(getattr(torch, _REDUCTIONS[reduction]), squares)


def cross_entropy(engine: Propagation, call: Call) -> Any:
    """The loss, as the negative log-softmax of the true class; soft or smoothed targets are weighted sums of them."""
    x, target, weight, reduction, ignored, smoothing = bind(
        call, "input target weight reduction ignore_index label_smoothing", None, None, None, 1, -100, 0.0
    )
    axis = min(1, x.dim() - 1)
    logits = engine.redo(torch.log_softmax, x, axis)
    if target.is_floating_point() or smoothing or is_live(target):
        return engine.gap(call)
    return engine.redo(F.nll_loss, logits, target, weight, ignore_index=ignored, reduction=_REDUCTIONS[reduction])


_REDUCTIONS = ("none", "mean", "sum")


def renormed(engine: Propagation, call: Call) -> Any:
    """``renorm``: slices scaled down to a norm, which is constant."""
    x, p, dim, most = bind(call, "input p dim maxnorm", None, None, None, None)
    others = [d for d in range(x.dim()) if d != dim % x.dim()]
    with torch.set_grad_enabled(engine.differentiable):
        length = torch.linalg.vector_norm(x, p, others, keepdim=True)
        scale = torch.where(length > most, most / (length + 1e-7), torch.ones_like(length))
    return engine.redo(torch.mul, x, engine.hold(scale))
