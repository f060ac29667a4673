"""Multipliers of differences: every operator passes on what its result's difference from a reference is made of.

The model runs on the reference first and its calls are noted in order; on the explained input each nonlinear call is
compared with its fellow there. Every treatment is exact, ``Σ c Δx = Δy``, so that the whole is: elementwise functions
by their secant between the two points, products by their operands' midpoints, convex functions (pooling, norms,
log-sum-exp) by their gradient at the point where they are larger, scaled, as are linear calls whose constants (masks,
places) the model computed otherwise on the reference; norms, attention and recurrent layers are written as these parts.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from headwater.errors import UnsupportedModel
from headwater.propagate import places
from headwater.propagate.affine import Affine
from headwater.propagate.calls import Call, bind
from headwater.propagate.composites import Composite
from headwater.propagate.engine import Propagation
from headwater.propagate.kinds import Handler, native
from headwater.propagate.nested import carries, equal, flat, replace, same_memory, unique
from headwater.propagate.products import groups, normalizer_arguments, written_out
from headwater.propagate.rules import Rule, divide
from headwater.propagate.slopes import Slope, finite, scaled
from headwater.propagate.tags import is_live

_ELEMENTWISE = {"relu", "abs", "leaky_relu", "prelu", "rrelu", "sign", "sgn", "floor", "ceil", "round", "trunc", "fix"}
_CONCAVE = {"amin", "min", "minimum", "fmin", "cummin"}
# Their gradient is the same everywhere, so that it is their multiplier; anything unnamed is scaled, which is exact too.
_SAME_EVERYWHERE = """
add sub rsub neg sum mean nansum nanmean cumsum diff trace cat concat stack hstack vstack dstack column_stack row_stack
block_diag pad constant_pad_nd avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d
upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa scatter_add index_add
fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn complex
fft_fftshift fft_ifftshift im2col col2im copy
"""
_LINEAR = set(_SAME_EVERYWHERE.split())


@dataclass
class _Noted:
    """A call on the reference: its arguments and results, and the input of the affine call before it.

    ``live`` and ``constants`` are the tensors among the arguments that depend on the input and the others.
    """

    name: str
    args: Any
    kwargs: dict[str, Any]
    live: list[Tensor]
    constants: list[Tensor]
    results: list[Tensor]
    below: Tensor | None


class Difference(Rule):
    """The rule of all operators of a model; first asked on the reference, then on the explained input.

    Args:
        reveal: treat positive and negative contributions to an elementwise function apart (RevealCancel) where an
            affine call feeds it.
    """

    uses_linear: ClassVar[bool] = False

    def __init__(self, reveal: bool) -> None:
        self.reveal, self.noting = reveal, True
        self._noted: list[_Noted] = []
        self._next = 0
        self._engine: Any = lambda: None

    def factor(self, op: Affine, c: Tensor) -> Tensor:
        return op.transpose(c)

    def local(self, engine: Propagation, call: Call) -> Any:
        if self._engine() is not engine:  # another run
            self._engine, self._next = weakref.ref(engine), 0
            if self.noting:
                self._noted.clear()
        operator, live = call.operator, unique(call.live)
        name, kind = operator.name, operator.kind
        if kind == "unknown":
            return engine.gap(call)
        if name in ("mul", "div"):
            return self._quotient(engine, call) if name == "div" and is_live(call.args[1]) else self._bilinear(
                engine, call
            )  # fmt: skip
        if operator.affine:
            if len(call.live) > 1:
                return self._scaled(engine, call) if len(live) > 2 else self._bilinear(engine, call)
            return self._linear(engine, call, operator.handler if self.reveal else native)
        elementwise = (kind == "pointwise" and operator.elementwise) or name in _ELEMENTWISE
        if elementwise and len(live) == 1 and not live[0].is_complex():
            return self._elementwise(engine, call)
        if name in _PARTS:
            return _PARTS[name](engine, call)
        if kind in ("custom", "recurrent") or operator.checked or name in _WRITTEN:
            return operator.handler(engine, call)
        if kind == "constant":
            return engine.native(call)
        linear = operator.view or operator.joins or name in _LINEAR
        return self._linear(engine, call) if linear else self._scaled(engine, call)

    # ------------------------------------------------------------------ the two runs

    def _fellow(self, call: Call, out: Any, below: Tensor | None = None) -> _Noted | None:
        """Note a call on the reference (None), or find the one that was noted there."""
        if self.noting:
            given = flat([call.args, list(call.kwargs.values())])
            copies = {id(t): t.detach() if _is_parameter(call, t) else t.detach().clone() for t in given}
            kwargs = {k: replace(v, copies) for k, v in call.kwargs.items()}
            results = [t.detach().clone() for t in flat([out]) if carries(t)]
            live = [copies[id(t)] for t in unique(call.live)]
            constants = [copies[id(t)] for t in _constants(call)]
            args = replace(call.args, copies)
            self._noted.append(_Noted(call.operator.name, args, kwargs, live, constants, results, _copy(below)))
            return None
        shapes = [t.shape for t in (*unique(call.live), *flat([out])) if carries(t)]
        return self._met(call, lambda fellow: shapes == [t.shape for t in (*fellow.live, *fellow.results)])

    def _met(self, call: Call, alike: Callable[[_Noted], bool]) -> _Noted:
        """What was noted of this call on the reference.

        Raises:
            UnsupportedModel: where something else was, since the model went on by what it had computed.
        """
        fellow = self._noted[self._next] if self._next < len(self._noted) else None
        self._next += 1
        if fellow is None or fellow.name != call.operator.name or not alike(fellow):
            raise UnsupportedModel(
                f"The model took another path on the baseline than on x: {call.operator.name!r} "
                f"{places.describe_here(call.engine.model)} has no fellow there. Choose a baseline that takes the same."
            )
        return fellow

    def _by_parameters(self, call: Call, weights: list[Tensor]) -> None:
        """Note which parameters a linear call has, or see that they are the same as on the reference."""
        if self.noting:
            name = call.operator.name
            self._noted.append(_Noted(name, (), {}, [], [t.detach() for t in weights], [], None))
        else:
            self._met(call, lambda fellow: all(map(same_memory, weights, fellow.constants)))

    # ------------------------------------------------------------------ treatments

    def _elementwise(self, engine: Propagation, call: Call) -> Any:
        """The secant between the two points; the slope where they meet."""
        x = call.live[0]
        tag = engine.tag(x)
        affine, operand = (tag.affine, tag.operand) if self.reveal else (None, None)
        func, args, kwargs = call.func, call.args, call.kwargs

        def apply(z: Tensor) -> Tensor:
            swap = {id(x): z}
            return func(*replace(args, swap), **{k: replace(v, swap) for k, v in kwargs.items()})

        with torch.no_grad():
            out = apply(x.detach())
        fellow = self._fellow(call, out, None if affine is None else affine.x)
        if fellow is None:
            return engine.reroute(call, out, [x], lambda c: [c])
        there, y_there = fellow.live[0], fellow.results[0]
        if affine is not None and operand is not None and fellow.below is not None:
            below = fellow.below
            return engine.reroute(call, out, [operand], lambda c: [_revealed(affine, below, there, apply, y_there, c)])
        here, y_here = engine.keeper.keep(x.detach()), engine.keeper.keep(out.detach())

        def walk(c: Tensor) -> list[Tensor]:
            return [c * _secant(apply, here.value, there, y_here.value, y_there)]

        return engine.reroute(call, out, [x], walk)

    def _bilinear(self, engine: Propagation, call: Call) -> Any:
        """A product of two live operands: each takes the mean of the other at both points."""
        if len(call.live) < 2:
            return self._linear(engine, call)
        with torch.no_grad():
            out = call.func(*call.args, **call.kwargs)
        fellow, live = self._fellow(call, out), unique(call.live)
        if fellow is None:
            return engine.reroute(call, out, live, lambda c: [torch.zeros_like(t) for t in live])
        kept = [engine.keeper.keep(t.detach()) for t in live]

        def walk(c: Tensor) -> list[Tensor | None]:
            middle = [((k.value + t) / 2).requires_grad_() for k, t in zip(kept, fellow.live, strict=True)]
            with torch.enable_grad():
                swap = {id(t): m for t, m in zip(fellow.live, middle, strict=True)}
                kwargs = {k: replace(v, swap) for k, v in fellow.kwargs.items()}
                y = call_func(*replace(fellow.args, swap), **kwargs)
            return list(torch.autograd.grad(y, middle, c, allow_unused=True))

        call_func = call.func
        return engine.reroute(call, out, live, walk)

    def _quotient(self, engine: Propagation, call: Call) -> Any:
        """``a / b`` as ``a (1 / b)``."""
        a, b = call.args[:2]
        quotient = engine.redo(torch.mul, a, engine.redo(torch.reciprocal, b))
        mode = call.kwargs.get("rounding_mode")
        return quotient if mode is None else engine.redo(torch.trunc if mode == "trunc" else torch.floor, quotient)

    def _linear(self, engine: Propagation, call: Call, treatment: Handler = native) -> Any:
        """A call linear in its live operands; where its constants differ at the two points, it is scaled."""
        constants = _constants(call)
        if all(_is_parameter(call, t) for t in constants):
            if constants:
                self._by_parameters(call, constants)
            return treatment(engine, call)
        with torch.no_grad():
            out = call.func(*call.args, **call.kwargs)
        fellow = self._fellow(call, out)
        if fellow is None or all(map(equal, constants, fellow.constants)):
            return treatment(engine, call)
        out = engine.native(call)
        live = any(t.requires_grad for t in flat([out]))  # not so where only the type or shape of an argument is asked
        return self._scaled_from(engine, call, out, fellow) if live else out

    def _scaled(self, engine: Propagation, call: Call) -> Any:
        """The gradient at the point whose result is larger (of a concave function: smaller), scaled for each result."""
        with torch.no_grad():
            out = call.func(*call.args, **call.kwargs)
        fellow, live = self._fellow(call, out), unique(call.live)
        if fellow is None:
            return engine.reroute(call, out, live, lambda *cs: [torch.zeros_like(t) for t in live])
        return self._scaled_from(engine, call, out, fellow)

    def _scaled_from(self, engine: Propagation, call: Call, out: Any, fellow: _Noted) -> Any:
        live = unique(call.live)
        here = [engine.keeper.keep(t.detach()) for t in live]
        results = [engine.keeper.keep(t.detach()) for t in flat([out]) if carries(t)]
        func, args, kwargs, concave = call.func, call.args, call.kwargs, call.operator.name in _CONCAVE

        def walk(*cs: Tensor | None) -> list[Tensor | None]:
            steps = [finite(k.value - t) for k, t in zip(here, fellow.live, strict=True)]
            one = Slope(func, args, kwargs, live, [k.value for k in here], steps)
            other = Slope(func, fellow.args, fellow.kwargs, fellow.live, fellow.live, steps)
            pairs = [(r.value, t) for r, t in zip(results, fellow.results, strict=True)]
            return scaled(one, other, cs, pairs, concave)

        return engine.reroute(call, out, live, walk)


def _constants(call: Call) -> list[Tensor]:
    """What the model put into a call beside live tensors: weights, masks, places."""
    live = {id(t) for t in call.live}
    return [t for t in flat([call.args, list(call.kwargs.values())]) if id(t) not in live]


def _is_parameter(call: Call, t: Tensor) -> bool:
    """Whether a tensor is a parameter itself, which keeps its values, and not what the model made of some."""
    return isinstance(call.engine.original(t), nn.Parameter)


def _copy(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.detach().clone()


def _secant(apply: Any, x: Tensor, x0: Tensor, y: Tensor, y0: Tensor) -> Tensor:
    """``Δy / Δx``, and the slope at the middle where the two points are too close to tell it."""
    step, near = finite(x - x0), torch.finfo(x.dtype).eps ** 0.5
    close = step.abs() <= near * (x.abs() + x0.abs())
    close |= (step.abs() <= near) & ((y - y0).abs() <= near * (y.abs() + y0.abs()))
    with torch.enable_grad():
        middle = ((x + x0) / 2).requires_grad_()
        slope = torch.autograd.grad(apply(middle).sum(), middle)[0]
    slope = torch.where(middle.isfinite(), slope, torch.zeros_like(slope))
    return torch.where(close, slope, (y - y0) / torch.where(close, torch.ones_like(step), step))


def _revealed(affine: Affine, below: Tensor, z0: Tensor, apply: Any, y0: Tensor, c: Tensor) -> Tensor:
    """Factor of an affine call's input through the function ``apply`` of its output, by RevealCancel.

    Args:
        affine: the call; ``below`` and ``z0``: its input and output on the reference.
        apply: the function; ``y0``: its value there; ``c``: the factor of its result.
    """
    step = affine.x - below
    linear, magnitude = affine.forward(step, affine.weight), affine.forward(step.abs(), affine.magnitude)
    up, down = (magnitude + linear) / 2, (linear - magnitude) / 2
    with_up, with_down, with_both = apply(z0 + up), apply(z0 + down), apply(z0 + up + down)
    p = c * divide((with_up - y0 + with_both - with_down) / 2, up.clone())
    q = c * divide((with_down - y0 + with_both - with_up) / 2, down.clone())
    return affine.transpose((p + q) / 2) + step.sign() * affine.transpose((p - q) / 2, affine.magnitude)


def _softmax(engine: Propagation, call: Call) -> Any:
    """``exp(x - logsumexp(x))``; without the exponential for ``log_softmax``."""
    x, dim = bind(call, "input dim", None, -1)[:2]
    logs = engine.redo(torch.sub, x, engine.redo(torch.logsumexp, x, dim, True))
    return logs if "log" in call.operator.name else engine.redo(torch.exp, logs)


def _normalized(engine: Propagation, call: Call) -> Any:
    """Layer, RMS, group and instance norm as mean, square, reciprocal root and product."""
    redo, name = engine.redo, call.operator.name
    bound = normalizer_arguments(call)
    if name == "instance_norm" and not bound["use_input_stats"]:  # a scale and a shift
        return call.operator.handler(engine, call) if len(unique(call.live)) > 1 else engine.native(call)
    x = bound["input"]
    shape, axes = groups(name, x, bound)
    y = redo(torch.reshape, x, shape)
    if name != "rms_norm":
        y = redo(torch.sub, y, redo(torch.mean, y, axes, True))
    eps = torch.finfo(x.dtype).eps if bound["eps"] is None else bound["eps"]
    spread = redo(torch.rsqrt, redo(torch.add, redo(torch.mean, redo(torch.square, y), axes, True), eps))
    y = redo(torch.reshape, redo(torch.mul, y, spread), x.shape)
    per_channel = None if axes[0] < 0 else (1, -1, *[1] * (x.dim() - 2))
    for function, parameter in ((torch.mul, bound["weight"]), (torch.add, bound.get("bias"))):
        if parameter is not None:
            y = redo(function, y, parameter if per_channel is None else redo(torch.reshape, parameter, per_channel))
    return y


def _attention(engine: Propagation, call: Call) -> Any:
    """Attention written as its products and its softmax."""
    names = "query key value attn_mask dropout_p is_causal scale enable_gqa"
    return written_out(engine, *bind(call, names, *[None] * 4, 0.0, False, None, False))


_PARTS = {
    **dict.fromkeys(("softmax", "_softmax", "special_softmax", "log_softmax", "special_log_softmax"), _softmax),
    **dict.fromkeys(("layer_norm", "rms_norm", "group_norm", "instance_norm"), _normalized),
    "scaled_dot_product_attention": _attention,
}
_WRITTEN = {
    "glu", "lerp", "cosine_similarity", "addcmul", "addcdiv", "cdist", "pairwise_distance", "dist", "var_mean",
    "std_mean", "embedding", "embedding_bag",
}  # fmt: skip  # their treatments write them as other operators, which are then treated here


class Differences(Composite):
    """One rule for every operator."""

    def __init__(self, rule: Difference) -> None:
        super().__init__({"default": rule}, plain=True, name="deeplift")
        self.rule, self.unfolds = rule, True

    def row(self, call: Call) -> Rule | None:
        return self.rule
