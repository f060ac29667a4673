"""Affine operators: what a rule may ask of one call, whatever its spelling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from headwater.errors import UnsupportedModel
from headwater.propagate import places
from headwater.propagate.rules import divide
from headwater.propagate.tags import Kept, is_weight, product

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation


class LinearMap:
    """``z = x Wᵀ`` on the last axis; weight ``(out, in)``."""

    inputs = -1  # the axis of the input's features

    def pair(self, x: Tensor, y: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor] | None:
        """Input and weight whose product is that of ``x`` with ``v`` plus that of ``y`` with ``w``."""
        return torch.cat([x, y], -1), torch.cat([v, w], 1)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return F.linear(x, w)

    def transpose(self, c: Tensor, w: Tensor, like: Tensor) -> Tensor:
        return c.matmul(w)

    def channels(self, z: Tensor) -> tuple[int, ...]:
        return (-1,)

    def per_channel(self, z: Tensor, t: Tensor) -> Tensor | None:
        return t if t.shape == z.shape[-1:] else None

    def scale(self, w: Tensor, s: Tensor) -> Tensor:
        return w * s[:, None]


class ConvMap:
    """A batched (transposed) convolution of any dimension without bias; weight as torch has it."""

    def __init__(self, stride: Any, padding: Any, dilation: Any, groups: int, output_padding: Any, transposed: bool):
        self.options = (stride, padding, dilation, transposed, output_padding, groups)

    inputs = 1

    def pair(self, x: Tensor, y: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor] | None:
        """As for linear maps; None where channels are grouped."""
        transposed, groups = self.options[3], self.options[5]
        return (torch.cat([x, y], 1), torch.cat([v, w], 0 if transposed else 1)) if groups == 1 else None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return torch.convolution(x, w, None, *self.options)

    def transpose(self, c: Tensor, w: Tensor, like: Tensor) -> Tensor:
        # Only the shape of the input matters for its gradient; where its type will not do, a scalar stands in for it.
        shape = like if like.dtype == c.dtype else c.new_empty(1).expand(like.shape)
        mask = [True, False, False]
        return torch.ops.aten.convolution_backward(c, shape, w, None, *self.options, mask)[0]  # type: ignore[no-any-return]

    def channels(self, z: Tensor) -> tuple[int, ...]:
        return (1, -1, *[1] * (z.dim() - 2))

    def per_channel(self, z: Tensor, t: Tensor) -> Tensor | None:
        alone = t.numel() == z.shape[1] and (t.shape[-z.dim() + 1 :] == z.shape[1:2] + (1,) * (z.dim() - 2))
        return t.reshape(-1) if alone else None

    def scale(self, w: Tensor, s: Tensor) -> Tensor:
        transposed, groups = self.options[3], self.options[5]
        if not transposed:
            return w * s.view(-1, *[1] * (w.dim() - 1))
        per_group = w.unflatten(0, (groups, -1)) * s.view(groups, 1, -1, *[1] * (w.dim() - 2))
        return per_group.flatten(0, 1)


class AnyMap:
    """Any function linear in ``x`` and in ``w`` (einsum, a matrix product from the left); transposed by autograd."""

    inputs = -1

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.forward = function

    def pair(self, x: Tensor, y: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor] | None:
        """None: which axes could be joined is unknown."""
        return None

    def transpose(self, c: Tensor, w: Tensor, like: Tensor) -> Tensor:
        with torch.enable_grad():
            x = torch.zeros_like(like, requires_grad=True)
            z = self.forward(x, w)
        return torch.autograd.grad(z, x, c, create_graph=torch.is_grad_enabled())[0]

    def channels(self, z: Tensor) -> tuple[int, ...]:
        return (-1,)

    def per_channel(self, z: Tensor, t: Tensor) -> Tensor | None:
        return t if t.shape == z.shape[-1:] else None

    def scale(self, w: Tensor, s: Tensor) -> Tensor | None:
        return None  # no known axis of its weight is the channels'


Map = LinearMap | ConvMap | AnyMap


class Affine:
    """One affine call ``z = w x + b`` as a rule sees it.

    Attributes:
        x: the input, detached unless the explanation is differentiable.
        z: the output with its bias (and batch norm, where that is folded in).
        bias: the bias, broadcastable to ``z``, or None.
        nonneg: the input is known to hold no negative value.
        source: the explained input's dummy and bounds, where it reaches this call only moved, shifted and scaled.
        booking: whether absorbed relevance is to be booked with :meth:`book`.
    """

    def __init__(
        self,
        call: Call,
        linear: Map,
        live: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scale: Tensor | None = None,
        inner: tuple[Affine, Tensor | None] | None = None,
        origin: Call | None = None,
    ) -> None:
        engine = call.engine
        tag = engine.tag(live)
        self.call, self.map, self.live, self.bias = call, linear, live, bias
        self.inner = inner  # the affine call that was folded in, and the scale of its output
        self.origin: Call = origin or call  # the call that a composite's row is chosen by
        self._weight, self._scale = weight, scale
        self._x = engine.keeper.keep(live if engine.differentiable else live.detach())
        self._z: Kept | None = None
        self._up: Tensor | None = None
        self.nonneg, self.source = tag.nonneg, tag.source
        self.relu = self.other = False  # who uses the output
        self.folded: tuple[Affine, tuple[Any, Kept]] | None = None  # the call that this one was folded into

    @property
    def x(self) -> Tensor:
        return self._x.value

    @property
    def z(self) -> Tensor:
        assert self._z is not None, "the output is known once the forward has run"
        return self._z.value

    @property
    def linear(self) -> Tensor:
        """The output without its bias; computed, not subtracted, so that a large bias does not drown it."""
        if self.bias is None:
            return self.z
        if self.inner is None:
            return self.forward(self.x, self.weight)
        before, scale = self.inner
        return before.linear if scale is None else before.linear * scale.view(self.map.channels(self.z))

    @property
    def weight(self) -> Tensor:
        """The weight, with a following batch norm folded in."""
        if self._scale is not None:
            scaled = self.map.scale(self._weight, self._scale)
            assert scaled is not None, "only maps whose channels are known are scaled"
            self._weight, self._scale = scaled, None
        return self._weight

    @property
    def up(self) -> Tensor:
        """The positive part of the weight, formed once."""
        if self._up is None:
            # Where nothing else has asked for the folded weight, scale and clamp in one go.
            fresh = self._scale is not None and not torch.is_grad_enabled()
            scaled = self.map.scale(self._weight, self._scale) if fresh and self._scale is not None else None
            self._up = self.weight.clamp(min=0) if scaled is None else scaled.clamp_(min=0)
        return self._up

    @property
    def positive(self) -> bool:
        """Negative outputs have factor zero: only a ReLU uses them."""
        return self.relu and not self.other

    @property
    def booking(self) -> bool:
        return self.call.engine.ledger

    def book(self, cause: str, amount: Tensor) -> None:
        """Book relevance absorbed by a cause; call it only where ``booking``."""
        self.call.book(cause, amount)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """The linear part for another input or weight; shape of ``z``."""
        return self.map.forward(x.to(w.dtype), w)

    def transpose(self, s: Tensor, w: Tensor | None = None, like: Tensor | None = None) -> Tensor:
        """``wᵀ s``: from the shape of ``z`` to that of ``x`` (or of ``like``)."""
        if w is None and self._scale is not None:
            s, w = s * self._scale.view(self.map.channels(s)), self._weight  # cheaper than scaling the weight
        w = self.weight if w is None else w
        return self.map.transpose(s.to(w.dtype), w, self.x if like is None else like).to(self.x.dtype)

    def sums(self) -> tuple[Tensor, Tensor]:
        """Sums of the positive and of the negative contributions ``x w`` to each output, without bias.

        For signed inputs they come from ``M = |x| |w|`` as ``(z ± M) / 2``; what lies below the rounding error of the
        sums is zero.
        """
        if self.nonneg:
            return self.forward(self.x, self.up), self.forward(self.x, self.weight.clamp(max=0))
        magnitude, linear = self.forward(self.x.abs(), self.weight.abs()), self.linear
        positive, negative = (magnitude + linear) / 2, (magnitude - linear) / 2
        return _above_rounding(magnitude, positive), _above_rounding(magnitude, negative).neg()

    def positive_with_bias(self) -> Tensor:
        """The sum of positive contributions, a positive bias among them; well conditioned under any bias."""
        if self.nonneg:
            positive = self.forward(self.x, self.up)
            return positive if self.bias is None else positive + self.bias.clamp(min=0)
        magnitude = self.forward(self.x.abs(), self.weight.abs())
        return (magnitude + self.z) / 2 if self.bias is None else (magnitude + self.bias.abs() + self.z) / 2

    def positive_sum(self) -> Tensor:
        """The sum of positive contributions alone, without bias."""
        if self.nonneg:
            return self.forward(self.x, self.up)
        pair = None if self.bias is None or self.inner else self._signed_pair()
        return self.sums()[0] if pair is None else self.forward(*pair)

    def _signed_pair(self) -> tuple[Tensor, Tensor] | None:
        """Positive and negative inputs side by side, against the weights with which they contribute positively."""
        w = self.weight
        return self.map.pair(self.x.clamp(min=0), self.x.clamp(max=0), w.clamp(min=0), w.clamp(max=0))

    def back(self, p: Tensor | None, q: Tensor | None) -> Tensor:
        """Factor of the input when positive contributions carry ``p`` and negative ones ``q`` (shape of ``z``)."""
        if self.nonneg:
            if q is None:
                assert p is not None, "one side at least must carry relevance"
                return self.transpose(p, self.up)
            down = self.transpose(q, self.weight.clamp(max=0))
            return down if p is None else down + self.transpose(p, self.up)
        w = self.weight
        if p is None or q is None:
            one = p if q is None else q
            assert one is not None, "one side at least must carry relevance"
            even, odd = self.transpose(one / 2), self.transpose(one / 2, w.abs())
            return even + self.x.sign() * odd if q is None else even - self.x.sign() * odd
        return self.transpose((p + q) / 2) + self.x.sign() * self.transpose((p - q) / 2, w.abs())

    def walk(self, c: Tensor) -> list[Tensor | None]:
        """Factor of the input, and relevance for its dummy where there is one."""
        engine = self.call.engine
        rule, filter_ = engine.composite.resolve(self.origin, engine.depth)
        if filter_ is not None:
            passed = c * filter_.multiplier(product(self.z, c))
            if self.booking:
                self.book("filter", product(self.z, c - passed))
            c = passed
        self.call.rule_name = repr(rule)
        factor, relevance = rule.split(self, c)
        if self.source is None:
            return [factor if relevance is None else self._as_factor(relevance, factor)]
        if relevance is not None and self.source.pixels is not None:
            rest = torch.where(self.source.pixels, torch.zeros_like(relevance), relevance)
            factor, relevance = self._as_factor(rest, factor), relevance - rest
        return [factor, relevance]

    def _as_factor(self, relevance: Tensor, factor: Tensor | None) -> Tensor:
        """Relevance of what is no explained input: what falls on zeros has nowhere to go."""
        extra = divide(relevance.clone(), self.x.clone())
        if self.booking:
            self.book("zero input", relevance - product(self.x, extra))
        return extra if factor is None else factor + extra


def _above_rounding(magnitude: Tensor, difference: Tensor) -> Tensor:
    """A difference of sums of this magnitude, and zero where it is no more than their rounding error."""
    rounding = magnitude * (4 * torch.finfo(magnitude.dtype).eps)
    return torch.where(difference > rounding, difference, torch.zeros_like(difference))


def treat(engine: Propagation, call: Call, affine: Affine) -> Tensor:
    """Run an affine call and give its output a backward by the rule of its row."""
    if affine.origin is not call:
        call.folded_into = affine.origin
    else:
        call.is_affine = True
        call.depth += 1
        call.first = call.first or affine.source is not None
    first, call.first = call.first, False
    affine.origin.at_input = affine.origin.at_input or first
    rule = engine.composite.early(affine.origin)
    if rule is not None and rule.native and not engine.ledger:
        out: Tensor = engine.note(call, call.func(*call.args, **call.kwargs), nonneg=False)
        call.rule_name = repr(rule)
    else:
        with torch.set_grad_enabled(engine.differentiable):
            out = call.func(*call.args, **call.kwargs)
        dummy = affine.source.dummy if affine.source is not None else None
        out = engine.reroute(call, out, [affine.live], affine.walk, nonneg=False, dummy=dummy)
    call.first = first
    safe = not engine.composite.per_sample  # a statistic of the output minds values whose factor is zero
    affine._z = engine.keeper.keep(out if engine.differentiable else out.detach(), relu_safe=safe)
    engine.tag(out).affine = affine
    call.release()  # a folded call would else refer to itself through its input's tag
    return out


def fold(engine: Propagation, call: Call, x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor | None:
    """Treat ``x * scale + shift`` after an affine call as one affine call from that call's own input.

    Args:
        engine, call: the call that scales and shifts.
        x: its input, which an affine call made.
        scale, shift: one value for each channel.

    Returns:
        The output; None where there is nothing to fold into, or where the rule (LRP-0) makes no difference.
    """
    affine = engine.tag(x).affine
    if affine is None or (scale is not None and isinstance(affine.map, AnyMap)):
        return None
    rule = engine.composite.early(affine.origin)
    if rule is not None and rule.native:
        return None
    shape = affine.map.channels(x)
    bias = affine.bias
    if scale is not None:
        bias = None if bias is None else bias * scale.view(shape)
    if shift is not None:
        bias = shift.view(shape) if bias is None else bias + shift.view(shape)
    total = affine._scale if scale is None else scale if affine._scale is None else scale * affine._scale
    nonneg = engine.tag(affine.live).nonneg  # then no sum is found by subtraction
    inner = None if nonneg or (rule is not None and not rule.uses_linear) else (affine, scale)
    whole = Affine(call, affine.map, affine.live, affine._weight, bias, total, inner, affine.origin)
    out = treat(engine, call, whole)
    if engine.capturing and whole._z is not None:
        affine.folded = whole, (get_gradient_edge(out), whole._z)
        engine.folded.append(affine)
    return out


# ---------------------------------------------------------------------- the calls


def linear(engine: Propagation, call: Call) -> Any:
    """``F.linear``."""
    x, w, b = bind(call, "input weight bias", None, None, None)
    if is_live(w) or is_live(b) or not is_live(x):
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
    if is_live(w) or not is_live(x):
        if b is None:
            return engine.product(call, [x, w])
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


def matmul(engine: Propagation, call: Call) -> Any:
    """Matrix products: with weights an affine operator, with constants homogeneous, with live tensors a product."""
    (a, b, *rest), kwargs = [*call.args, *call.kwargs.values()][: max(2, len(call.args))], call.kwargs
    kwargs = {k: v for k, v in kwargs.items() if v is not b}
    if is_live(a) and is_live(b):
        return engine.product(call, [a, b])
    x, w = (a, b) if is_live(a) else (b, a)
    if not is_weight(w):
        return engine.native(call)
    if x is a and w.dim() == 2 and call.operator.name in ("matmul", "mm"):
        return treat(engine, call, Affine(call, LinearMap(), x, w.t(), None))
    func, left = call.func, x is a

    def run(u: Tensor, v: Tensor) -> Tensor:
        return func(*((u, v) if left else (v, u)), *rest, **kwargs)  # type: ignore[no-any-return]

    return treat(engine, call, Affine(call, AnyMap(run), x, w, None))


def einsum(engine: Propagation, call: Call) -> Any:
    """``einsum`` and ``tensordot`` of any operands."""
    operands = [t for t in _tensors(call.args)]
    live = [t for t in operands if is_live(t)]
    if len(live) > 1:
        return engine.product(call, operands)
    weights = [t for t in operands if is_weight(t)]
    if len(weights) != 1 or len(operands) != 2:
        return engine.native(call)
    x, w, func, args, kwargs = live[0], weights[0], call.func, call.args, call.kwargs

    def run(u: Tensor, v: Tensor) -> Tensor:
        from headwater.propagate.nested import replace

        return func(*replace(args, {id(x): u, id(w): v}), **kwargs)  # type: ignore[no-any-return]

    return treat(engine, call, Affine(call, AnyMap(run), x, w, None))


def addmm(engine: Propagation, call: Call) -> Any:
    """``beta * bias + alpha * (a @ b)``: ``addmm``, ``addmv``, ``baddbmm``; a linear layer, or written as its parts."""
    names = {"batch1": "mat1", "batch2": "mat2", "mat": "mat1", "vec": "mat2"}
    call.kwargs = {names.get(k, k): v for k, v in call.kwargs.items()}
    bias, a, b, beta, alpha = bind(call, "input mat1 mat2 beta alpha", None, None, None, 1, 1)
    constants = not is_live(bias) and not is_live(b) and is_weight(b)
    if (
        is_live(a)
        and constants
        and beta == alpha == 1
        and b.dim() == 2
        and bias.dim() == 1
        and call.operator.name == "addmm"
    ):
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
        raise UnsupportedModel(f"Batch norm uses batch statistics {where}: call model.eval() before explaining.")
    scale = (var + eps).rsqrt() if w is None else w * (var + eps).rsqrt()
    shift = -mean * scale if b is None else b - mean * scale
    affine = engine.tag(x).affine
    if affine is not None and (x.dim() == 2 or isinstance(affine.map, ConvMap)):  # else its channels are not axis 1
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


def allow_training(engine: Propagation, what: str) -> None:
    """Let a random layer act as in training where that was asked for, under the explanation's seed.

    Raises:
        UnsupportedModel: where it was not.
    """
    if not engine.allow_training:
        raise UnsupportedModel(f"{what} {places.describe_here(engine.model)}: call model.eval() before explaining.")
    engine.seed_now()


def bind(call: Call, names: str, *defaults: Any) -> list[Any]:
    """The values of named parameters of a call, however they were passed."""
    values = list(call.args) + list(defaults[len(call.args) :])
    for i, name in enumerate(names.split()):
        if name in call.kwargs:
            values[i] = call.kwargs[name]
    return values


def is_live(value: Any) -> bool:
    """Whether an argument carries relevance."""
    return isinstance(value, Tensor) and value.requires_grad and not is_weight(value)


def _tuple(value: Any, n: int) -> list[int]:
    items = [value] if isinstance(value, int) else list(value)
    return items * n if len(items) == 1 else items


def _tensors(args: Sequence[Any]) -> list[Tensor]:
    return [t for a in args for t in (a if isinstance(a, (list, tuple)) else [a]) if isinstance(t, Tensor)]


def _without(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in kwargs.items() if k != "input"}
