"""Elementwise operators: chains of them become one function with one secant, wherever they were written.

``0.5 * z * (1 + tanh(k * (z + a * z**3)))`` is one function of ``z``. Each elementwise call notes the function that
leads from a *root* to its result; when another operator uses the result, its factor goes to the root by the secant from
zero, ``(f(z) - f(0)) / z``, and ``f(0)`` is absorbed. Homogeneous and affine chains need no secant: their gradient is
right.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headwater.propagate.filtering import filtered
from headwater.propagate.folding import fold
from headwater.propagate.tags import Kept, Tag, is_live, product

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation

HOMOGENEOUS, AFFINE, BENT = 0, 1, 2
# Functions that have no value at zero and divide nothing.
_LOGARITHMS = {
    "log", "log2", "log10", "logit", "erfinv", "acosh", "arccosh", "lgamma", "digamma", "polygamma", "mvlgamma",
    "special_ndtri",
}  # fmt: skip


@dataclass(frozen=True)
class Expansion:
    """``f(0)``, ``f'(0)`` and ``f''(0)`` in double precision, shaped like the constants of the chain; 0 for infinity.

    Attributes:
        finite: there is a value at zero; ``null``: it is zero; ``open``: it is not. ``number``: the slope.
    """

    value: Tensor
    slope: Tensor
    bend: Tensor

    @cached_property
    def finite(self) -> bool:
        return bool(self.value.isfinite().all())

    @cached_property
    def null(self) -> bool:
        return bool((self.value == 0).all())

    @cached_property
    def open(self) -> bool:
        return bool((self.value != 0).any())

    @cached_property
    def number(self) -> float | None:
        """The slope where it is one for all places, and known without waiting for a device."""
        return float(self.slope.detach()) if self.slope.device.type == "cpu" and not self.slope.dim() else None


_PLAIN = (int, float, str, type(None), torch.dtype)
_KNOWN: dict[Any, Expansion] = {}  # by function, of those whose constants are plain
_MOST = 256  # a model may make new constants for ever


class Chain:
    """An elementwise function ``f`` of one live tensor, its root.

    Attributes:
        root: the live tensor; kept, since an in-place operator may change the model's own.
        function: ``f``, on any tensor that broadcasts against the constants within.
        degree: HOMOGENEOUS, AFFINE or BENT.
        logarithm: holds a function without a value at zero, for which the gradient stands in.
        closed: all constants are numbers and the like, so that equal functions are equal objects.
        single: one operator.
    """

    __slots__ = ("_at_zero", "closed", "degree", "differentiable", "function", "logarithm", "root", "single", "token")

    def __init__(
        self, root: Kept, token: object, function: Callable[[Tensor], Tensor], closed: bool, degree: int,
        logarithm: bool, differentiable: bool, single: bool,
    ) -> None:  # fmt: skip
        self.root, self.token, self.function, self.closed = root, token, function, closed
        self.degree, self.logarithm, self.differentiable, self.single = degree, logarithm, differentiable, single
        self._at_zero: Expansion | None = None

    @property
    def bent(self) -> bool:
        return self.degree == BENT

    def at_zero(self) -> Expansion:
        """The function at zero; worked out once for each function where it has no tensors and no true derivatives."""
        if self._at_zero is None:
            found = _KNOWN.get(self.function) if self.closed and not self.differentiable else None
            if found is None:
                try:
                    found = self._expand(torch.zeros((), dtype=torch.float64))
                except RuntimeError:  # constants on another device
                    found = self._expand(self.root.value.new_zeros(()))
                if self.closed and not self.differentiable:
                    if len(_KNOWN) >= _MOST:
                        _KNOWN.clear()
                    _KNOWN[self.function] = found
            self._at_zero = found
        return self._at_zero

    def _expand(self, zero: Tensor) -> Expansion:
        with torch.enable_grad():
            z = zero.detach().requires_grad_()
            value = self.function(z)
            z = torch.zeros_like(value.detach(), dtype=zero.dtype).requires_grad_()
            value = self.function(z)
            slope = torch.autograd.grad(value.sum(), z, create_graph=True, allow_unused=True)[0]
            slope = torch.zeros_like(z) if slope is None else torch.where(slope.isfinite(), slope, 0.0)
            bend = None
            # Some kernels have no second derivative: those are of pieces that are straight.
            with contextlib.suppress(RuntimeError):
                if slope.requires_grad:
                    bend = torch.autograd.grad(slope.sum(), z, allow_unused=True, create_graph=self.differentiable)[0]
        bend = torch.zeros_like(z) if bend is None else torch.nan_to_num(bend, 0.0, 0.0, 0.0)
        if self.differentiable:
            return Expansion(value, slope, bend)
        return Expansion(value.detach(), slope.detach(), bend.detach())

    def is_gate(self) -> bool:
        """A function that is open at zero multiplies as a gate (sigmoid, ``relu6(x + 3) / 6``, a reciprocal root)."""
        return self.bent and not self.logarithm and self.at_zero().open

    def materialize(self, engine: Propagation, value: Tensor) -> Tensor:
        """The value of the chain with the secant as its backward; made once for each result."""
        tag = engine.tag(value)
        if tag.materialized is not None:
            return tag.materialized
        call = tag.call
        assert call is not None, "a chain ends at a call"
        # One operator of numbers is run again in the walk: that costs less than to hold its result beside the root till
        # then. A tensor among its constants might have changed by that time.
        again = self.single and self.closed and not engine.differentiable
        again = again and not torch.is_autocast_enabled(value.device.type)
        kept = None if again else engine.keeper.keep(value if engine.differentiable else value.detach())

        def walk(c: Tensor) -> list[Tensor]:
            z = self.root.value.detach()
            y = self.function(z) if kept is None else kept.value
            return [self._walk(engine, call, y, c, own=kept is None and y is not z)]

        out: Tensor = engine.reroute(call, value, [self.root.value], walk, alias=True)
        fresh = engine.tag(out)
        fresh.depth, fresh.first, fresh.nonneg = tag.depth, tag.first, tag.nonneg
        fresh.gate = "sigmoid" if self.is_gate() else None
        tag.materialized = out = filtered(engine, call, out) if engine.composite.has_filters else out
        return out

    def _walk(self, engine: Propagation, call: Call, y: Tensor, c: Tensor, own: bool) -> Tensor:
        z = self.root.value if engine.differentiable else self.root.value.detach()
        if self.logarithm:
            with torch.enable_grad():
                end = self.root.value.view_as(z) if engine.differentiable else z.requires_grad_()
                value = self.function(end)
            factor = torch.autograd.grad(value, end, c, create_graph=engine.differentiable)[0]
            if engine.ledger:
                call.book("gradient", product(y, c) - product(z, factor))
            return factor
        known = self.at_zero()
        if not known.finite:
            # A reciprocal: the divisor is constant, so nothing passes.
            if engine.ledger:
                call.book("divisor", product(y, c))
            return torch.zeros_like(z)
        if known.null and known.number is not None and not torch.is_grad_enabled() and not engine.ledger:
            return _secant(z, y, own, c, known.number)
        constant, slope = (t.to(z.device, z.dtype) for t in (known.value, known.slope))
        if engine.ledger:  # at minus infinity (masked places) the function is constant: nothing passes
            call.book("f(0)", product(torch.where(z.isinf(), y, constant), c))
        if known.null:
            still = z == 0
            return c * torch.where(still, slope, y / torch.where(still, torch.ones_like(z), z))
        bend = known.bend.to(z.device, z.dtype)
        # Near zero the difference cancels; the expansion's error there is of the order of the square of the radius.
        near = z.abs() < torch.finfo(z.dtype).eps ** (1 / 3)
        return c * torch.where(near, slope + bend / 2 * z, (y - constant) / torch.where(near, torch.ones_like(z), z))


def _secant(z: Tensor, y: Tensor, own: bool, c: Tensor, slope: float) -> Tensor:
    """``y / z * c`` of a function that is zero at zero, where 0 / 0 is its slope; ``y`` may be written to if ``own``.

    Where one ``y`` has overflowed the result is NaN, so that it is refused in the end.
    """
    mean = y.mean()
    ratio = (y.div_(z) if own else y / z).nan_to_num_(slope, torch.inf, -torch.inf)
    return torch.addcmul(mean - mean, ratio, c, out=ratio)


def elementwise(engine: Propagation, call: Call) -> Any:
    """Any elementwise operator: extend a chain, fold a bias, or treat it as a sum, a product or a quotient."""
    name = call.operator.name
    live = call.live
    if call.operator.degree == HOMOGENEOUS and len(call.args) == 1 and not call.kwargs and not live[0].is_complex():
        tag = engine.tag(live[0])
        return _begin(engine, call, tag) if tag.chain is None else _extend(engine, call)  # relu, abs, neg
    roots = {root_of(engine, t) for t in live}
    folded = _fold(engine, call) if name in ("add", "sub", "mul", "div") and len(live) == 1 else None
    if folded is not None:
        return folded
    if any(t.is_complex() for t in live):
        return _complex(engine, call)
    if len(roots) == 1 and _continues(engine, call):
        return _extend(engine, call)
    if name in ("mul", "div"):
        return engine.product(call, list(call.args[:2]), quotient=name == "div")
    engine.settle(call)
    joint = len(call.live) > 1 and call.operator.degree != BENT  # a sum or a choice among live tensors
    if joint or _result_degree(engine, call) != BENT:
        return engine.native(call)
    shape = torch.broadcast_shapes(*(a.shape for a in call.args if isinstance(a, Tensor)))
    if len(call.live) > 1 or call.live[0].shape == shape:
        return engine.gap(call)
    wide = engine.redo(torch.Tensor.expand, call.live[0], shape)
    return engine.redo(call.func, *[wide if a is call.live[0] else a for a in call.args], **call.kwargs)


def _complex(engine: Propagation, call: Call) -> Any:
    """Complex values are shared out by sums, products and magnitudes; they have no secant from zero."""
    if call.operator.name in ("mul", "div"):
        return engine.product(call, list(call.args[:2]), quotient=call.operator.name == "div")
    return engine.gap(call) if call.operator.degree == BENT else engine.native(call)


def root_of(engine: Propagation, t: Tensor) -> object:
    """A token that all functions of one root, and the root itself, share."""
    tag = engine.tag(t)
    if tag.chain is not None:
        return tag.chain.token
    if tag.token is None:
        tag.token = object()
    return tag.token


def _continues(engine: Propagation, call: Call) -> bool:
    """Whether the result is an elementwise function of the one root, worth following."""
    shape = call.live[0].shape
    bent = call.operator.degree == BENT or any(_degree(engine, t) == BENT for t in call.live)
    for value in (*call.args, *call.kwargs.values()):
        if isinstance(value, Tensor) and not is_live(value):
            if value.shape != shape and torch.broadcast_shapes(value.shape, shape) != shape:
                return False
            # A tensor added to a value that needs no secant is an offset (a bias, a position embedding).
            if value.dim() and not bent and call.operator.name in ("add", "sub", "rsub"):
                return False
    return all(t.shape == shape for t in call.live)


def _degree(engine: Propagation, t: Tensor) -> int:
    chain = engine.tag(t).chain
    return HOMOGENEOUS if chain is None else chain.degree


def _result_degree(engine: Propagation, call: Call) -> int:
    if call.operator.degree == BENT or call.bent:
        return BENT
    name, top = call.operator.name, max(_degree(engine, t) for t in call.live)
    if name in ("add", "sub", "rsub"):
        return top if len(call.live) > 1 and all(isinstance(a, Tensor) for a in call.args[:2]) else AFFINE
    if name in ("mul", "div"):
        return BENT if len(call.live) > 1 or (name == "div" and is_live(call.args[1])) else top
    if name in ("maximum", "minimum", "max", "min", "fmax", "fmin") and len(call.live) < 2:
        return BENT
    return top if name == "neg" or top == HOMOGENEOUS else BENT


def _begin(engine: Propagation, call: Call, tag: Tag) -> Any:
    """The first function of a chain, homogeneous, of nothing but its root; what :func:`_extend` makes of it too."""
    root = call.live[0]
    out = engine.native(call)
    if out is not root:
        if tag.token is None:
            tag.token = object()
        kept, new = engine.keeper.keep(root), engine.tag(out)
        new.chain = Chain(kept, tag.token, call.func, True, HOMOGENEOUS, False, engine.differentiable, True)
        new.call = call
    return out


def _extend(engine: Propagation, call: Call) -> Any:
    first = call.live[0]
    before = engine.tag(first).chain
    single = all(engine.tag(t).chain is None for t in call.live)
    degree = _result_degree(engine, call)
    # Nothing walks through the node of a bent result, since every user gets the secant instead; it keeps it live.
    out = engine.note(call, call.func(*call.args, **call.kwargs)) if degree == BENT else engine.native(call)
    for t in call.live:
        if out is t:
            return out
    function, closed, logarithm = _replay(engine, call)
    tag = engine.tag(out)
    root = before.root if before is not None else engine.keeper.keep(first)
    tag.chain = Chain(root, root_of(engine, first), function, closed, degree, logarithm, engine.differentiable, single)
    tag.call = call
    if degree == BENT:
        call.release()
    return out


@dataclass(frozen=True)
class _Applied:
    """A torch function of what other functions make of the root (callables among the operands) and of constants."""

    func: Callable[..., Tensor]
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]

    def __call__(self, z: Tensor) -> Tensor:
        return self.func(*(_at(a, z) for a in self.args), **{k: _at(v, z) for k, v in self.kwargs})


def _replay(engine: Propagation, call: Call) -> tuple[Callable[[Tensor], Tensor], bool, bool]:
    """The function from the root to this call's result, whether it is closed, and whether it holds a logarithm."""
    chains = {id(t): engine.tag(t).chain for t in call.live}
    logarithm = call.operator.name in _LOGARITHMS
    if len(call.args) == 1 and not call.kwargs and chains[id(call.args[0])] is None:
        return call.func, True, logarithm

    def operand(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) not in chains:
            return value if engine.differentiable else value.detach()
        chain = chains[id(value)]
        return _identity if chain is None else chain.function

    args, kwargs = tuple(map(operand, call.args)), tuple((k, operand(v)) for k, v in call.kwargs.items())
    known = [chain for chain in chains.values() if chain is not None]
    closed = all(chain.closed for chain in known)
    closed = closed and all(isinstance(v, _PLAIN) or callable(v) for v in (*args, *dict(kwargs).values()))
    return _Applied(call.func, args, kwargs), closed, logarithm or any(chain.logarithm for chain in known)


def _identity(z: Tensor) -> Tensor:
    return z


def _at(operand: Any, z: Tensor) -> Any:
    """An operand where the root is ``z``, in the precision of ``z``."""
    if isinstance(operand, Tensor):
        return operand.to(z.dtype) if operand.dtype.is_floating_point else operand
    return operand(z) if callable(operand) else operand


def _fold(engine: Propagation, call: Call) -> Tensor | None:
    """``x @ W + b``, ``conv(x) * s``: an offset or a scale of each channel joins the affine call before it."""
    args = call.args[:2]
    if len(args) != 2 or call.kwargs or not all(isinstance(a, Tensor) for a in args):
        return None
    x, constant = args if is_live(args[0]) else args[::-1]
    affine = engine.tag(x).affine
    vector = None if affine is None else affine.map.per_channel(x, constant)
    if vector is None or (x is not args[0] and call.operator.name in ("sub", "div")):
        return None
    if call.operator.name in ("add", "sub"):
        return fold(engine, call, x, None, vector if call.operator.name == "add" else -vector)
    return fold(engine, call, x, vector if call.operator.name == "mul" else 1 / vector, None)
