"""One affine call as a rule sees it, whatever its spelling."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.errors import InvalidComposite
from headwater.propagate.calls import node_of, on_walk
from headwater.propagate.maps import Map
from headwater.propagate.rules import Hold, Rule, divide
from headwater.propagate.tags import Kept, product

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation
    from headwater.propagate.kinds import Operator


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
        self._sources = (weight, scale)
        self._x: Kept | None = None
        self._z: Kept | None = None
        self._up: Tensor | None = None
        self.nonneg, self.source = tag.nonneg, tag.source
        self.relu = self.other = False
        self.kept: Tensor | None = None  # conditional propagation: what of the output may pass
        self.folded: tuple[Affine, tuple[Any, Kept]] | None = None  # the call that this one was folded into
        self.cropped = False  # some places of the output were taken
        self.uncropped: Affine | None = None  # the call of whose output this one's is a part

    @property
    def x(self) -> Tensor:
        assert self._x is not None, "the input is kept where the rule looks at it"
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

    def _prepared(self, how: Hashable, make: Callable[[], Tensor]) -> Tensor:
        return self.call.engine.prepare((how, self.map.layout), self._sources, make)

    @property
    def weight(self) -> Tensor:
        """The weight, with a following batch norm folded in."""
        if self._scale is not None:
            weight, scale = self._weight, self._scale
            self._weight, self._scale = self._prepared("folded", lambda: self.map.scale(weight, scale)), None
        return self._weight

    def _folded(self) -> Tensor:
        """The weight, for something to be made of it: the folded one stays only where that is not kept."""
        if self.call.engine.prepared is None or self._scale is None:
            return self.weight
        return self.map.scale(self._weight, self._scale)

    @property
    def up(self) -> Tensor:
        """The positive part of the weight, formed once."""
        if self._up is None:
            self._up = self.damped(0.0)
        return self._up

    @property
    def down(self) -> Tensor:
        """The negative part of the weight."""
        return self._prepared("negative", lambda: self._folded().clamp(max=0))

    @property
    def magnitude(self) -> Tensor:
        """The weight without its sign."""
        return self._prepared("magnitude", lambda: self._folded().abs())

    def damped(self, slope: float) -> Tensor:
        """The weight with its negative part multiplied by ``slope``."""

        def make() -> Tensor:
            if self._scale is None or torch.is_grad_enabled():
                return F.leaky_relu(self.weight, slope)
            # In one go where nothing else has asked for the folded weight.
            return F.leaky_relu_(self.map.scale(self._weight, self._scale), slope)

        return self._prepared(("damped", slope), make)

    def used_by(self, operator: Operator) -> None:
        """Note who uses the output: with ReLU alone, negative outputs have factor zero."""
        if operator.name == "relu":
            self.relu = True
        else:
            self.other = True

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
            return self.forward(self.x, self.up), self.forward(self.x, self.down)
        return _halves(self.forward(self.x.abs(), self.magnitude), self.linear)

    def sums_with_bias(self) -> tuple[Tensor, Tensor]:
        """Sums of the positive and of the negative contributions, a bias among them; one forward for both.

        As they add up to the output, ``M = |x| |w| + |b|`` tells both: ``(z ± M) / 2``.
        """
        magnitude = self.forward(self.x if self.nonneg else self.x.abs(), self.magnitude)
        return _halves(magnitude if self.bias is None else magnitude.add_(self.bias.abs()), self.z)

    def positive_with_bias(self) -> Tensor:
        """The sum of positive contributions, a positive bias among them; well conditioned under any bias."""
        if self.nonneg:
            positive = self.forward(self.x, self.up)
            return positive if self.bias is None else positive.add_(self.bias.clamp(min=0))
        positive = self.forward(self.x.abs(), self.magnitude).add_(self.z)
        return (positive if self.bias is None else positive.add_(self.bias.abs())).div_(2)

    def positive_sum(self) -> Tensor:
        """The sum of positive contributions alone, without bias."""
        if self.nonneg:
            return self.forward(self.x, self.up)
        if self.bias is None or self.inner:
            return self.sums()[0]
        x, w = self.x, self.weight
        return self.forward(x.clamp(min=0), w.clamp(min=0)).add_(self.forward(x.clamp(max=0), w.clamp(max=0)))

    def back(self, p: Tensor | None, q: Tensor | None) -> Tensor:
        """Factor of the input when positive contributions carry ``p`` and negative ones ``q``.

        Both have the shape of ``z`` and must be temporaries: they may be overwritten.
        """
        if self.nonneg:
            if q is None:
                assert p is not None, "one side at least must carry relevance"
                return self.transpose(p, self.up)
            down = self.transpose(q, self.down)
            return down if p is None else down.add_(self.transpose(p, self.up))
        if p is None or q is None:
            one = p if q is None else q
            assert one is not None, "one side at least must carry relevance"
            even, odd = self.transpose(one / 2), self.transpose(one / 2, self.magnitude)
            return even + self.x.sign() * odd if q is None else even - self.x.sign() * odd
        odd = (p - q).div_(2)
        even = p.add_(q).div_(2)
        del p, q  # the largest layers decide the peak of memory
        factor = self.transpose(even)
        del even
        return factor.add_(self.transpose(odd, self.magnitude).mul_(self.x.sign()))

    def walk(self, c: Tensor) -> list[Tensor | None]:
        """Factor of the input, and relevance for its dummy where there is one."""
        engine = self.call.engine
        rule, filter_ = engine.composite.resolve(self.origin, engine.depth)
        if filter_ is not None:
            passed = c * filter_.multiplier(product(self.z, c))
            if self.booking:
                self.book("filter", product(self.z, c - passed))
            c = passed
        if self.kept is not None:
            if self.booking:
                self.book("not kept", product(self.z, c * (1 - self.kept)))
            c = c * self.kept
        if engine.names is not None:
            self.call.rule_name = str(rule)
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


def _halves(magnitude: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """The positive and the negative summands of a total, each summed, from the sum of all magnitudes, a temporary."""
    rounding = magnitude * (4 * torch.finfo(magnitude.dtype).eps)
    positive, negative = (magnitude + total).div_(2), magnitude.neg_().add_(total).div_(2)
    return positive.masked_fill_(positive <= rounding, 0), negative.masked_fill_(negative >= -rounding, 0)


def treat(engine: Propagation, call: Call, affine: Affine) -> Tensor:
    """Run an affine call and give its output a backward by the rule of its row."""
    if affine.origin is not call:
        call.folded_into = affine.origin
    else:
        call.is_affine = True
        call.depth += 1
        if engine.composite.needs_places:
            call.place = engine.place(call.layer, affine._weight)
        engine.depth = max(engine.depth, call.depth)
        call.first = call.first or affine.source is not None
    first, call.first = call.first, False
    affine.origin.at_input = affine.origin.at_input or first
    rule = engine.composite.early(affine.origin)
    if isinstance(rule, Hold):
        return _held(engine, call, rule)
    if rule is not None and rule.native and not engine.ledger:
        return _native(engine, call, rule, first)
    own = affine.map.own_node and affine.origin is call and affine.source is None
    if own and rule is not None and rule.scales and engine.unwatched:
        out: Tensor = engine.note(call, call.func(*call.args, **call.kwargs), nonneg=False)
        affine._z = engine.keeper.keep(out.detach(), relu_safe=True)
        # What a walk is to bring for a tensor it takes before the hooks of the node.
        node_of(out).register_prehook(_scaling(engine, rule, affine._z))
    else:
        affine._x = engine.keeper.keep(_asked(engine, affine, rule))
        with torch.set_grad_enabled(engine.differentiable):
            out = call.func(*call.args, **call.kwargs)
        dummy = affine.source.dummy if affine.source is not None else None
        out = engine.reroute(call, out, [affine.live], affine.walk, nonneg=False, dummy=dummy)
    call.first = first
    if affine._z is None:
        safe = not engine.composite.per_sample  # a statistic of the output minds values whose factor is zero
        affine._z = engine.keeper.keep(out if engine.differentiable else out.detach(), relu_safe=safe)
    note(engine, out, affine)
    call.release()  # a folded call would else refer to itself through its input's tag
    return out


def _asked(engine: Propagation, affine: Affine, rule: Rule | None) -> Tensor:
    """The input as a rule asks for it: its values, or its shape alone, which holds no memory."""
    x = affine.live if engine.differentiable else affine.live.detach()
    looks = rule is None or rule.uses_input or not affine.map.by_shape
    return x if looks or not engine.unwatched or affine.source is not None else x.new_zeros(()).expand(x.shape)


def note(engine: Propagation, out: Tensor, affine: Affine) -> None:
    """Note which call made a tensor, for what may be folded into it."""
    tag = engine.tag(out)
    tag.affine, tag.operand = affine, affine.live
    del affine.live  # a walk refers to the call, and would hold the memory of its input to the end


def _native(engine: Propagation, call: Call, rule: Rule, first: bool) -> Tensor:
    """The output of a call whose ordinary gradient is its rule: nothing is kept, and nothing folds into it."""
    out: Tensor = engine.note(call, call.func(*call.args, **call.kwargs), nonneg=False)
    call.first = first
    if engine.names is not None:
        call.rule_name = str(rule)
    call.release()
    return out


def _held(engine: Propagation, call: Call, rule: Hold) -> Tensor:
    """The output of a call as a constant."""
    if engine.differentiable:
        raise InvalidComposite(f"{rule!r} leaves no derivative of what it holds: explain without differentiable=True")
    with torch.no_grad():
        out: Tensor = call.func(*call.args, **call.kwargs)
    call.rule_name, call.shape = str(rule), tuple(out.shape)
    call.release()
    return out


def _scaling(engine: Propagation, rule: Rule, z: Kept) -> Callable[..., Any]:
    """The rule as a hook of the node that made ``z``: the operator's own gradient does the rest."""
    kept: list[Kept] = [z]

    def scale(walker: Propagation, cs: tuple[Tensor | None, ...]) -> tuple[Tensor, ...] | None:
        c = cs[0]
        if not kept or c is None:
            return None
        value = kept[0].value
        if not walker.retaining:
            kept.clear()
        return (rule.scaled(value if value.shape == c.shape else value.reshape(c.shape), c),)

    return on_walk(engine, scale)
