"""Elementwise operators: chains of them become one function with one secant, wherever they were written.

``0.5 * z * (1 + tanh(k * (z + a * z**3)))`` is one function of ``z``. Each elementwise call notes the function that
leads from a *root* to its result; when another operator uses the result, its factor goes to the root by the secant from
zero, ``(f(z) - f(0)) / z``, and ``f(0)`` is absorbed. Homogeneous and affine chains need no secant: their gradient is
right.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headwater.propagate.affine import fold
from headwater.propagate.filtering import filtered
from headwater.propagate.tags import Kept, is_live, product

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation

HOMOGENEOUS, AFFINE, BENT = 0, 1, 2
_LOGARITHMS = {"log", "log2", "log10", "logit", "erfinv", "special_logit"}
_Expansion = tuple[Tensor, Tensor, Tensor]


class Chain:
    """An elementwise function ``f`` of one live tensor, its root.

    Attributes:
        root: the live tensor; kept, since an in-place operator may change the model's own.
        function: ``f``, on any tensor that broadcasts against the constants within.
        degree: HOMOGENEOUS, AFFINE or BENT.
        logarithm: holds a function without a value at zero, for which the gradient stands in.
    """

    __slots__ = ("_at_zero", "degree", "differentiable", "function", "logarithm", "root", "token")

    def __init__(
        self, root: Kept, token: object, function: Callable[[Tensor], Tensor], degree: int, logarithm: bool,
        differentiable: bool,
    ) -> None:  # fmt: skip
        self.root, self.token, self.function = root, token, function
        self.degree, self.logarithm, self.differentiable = degree, logarithm, differentiable
        self._at_zero: _Expansion | None = None

    @property
    def bent(self) -> bool:
        return self.degree == BENT

    def at_zero(self) -> _Expansion:
        """``f(0)``, ``f'(0)`` and ``f''(0)`` in double precision, shaped like the constants of the chain."""
        if self._at_zero is None:
            try:
                self._at_zero = self._expand(torch.zeros((), dtype=torch.float64))
            except RuntimeError:  # constants on another device
                self._at_zero = self._expand(self.root.value.new_zeros(()))
        return self._at_zero

    def _expand(self, zero: Tensor) -> _Expansion:
        with torch.enable_grad():
            z = zero.detach().requires_grad_()
            value = self.function(z)
            z = torch.zeros_like(value.detach(), dtype=zero.dtype).requires_grad_()
            value = self.function(z)
            slope = torch.autograd.grad(value.sum(), z, create_graph=True, allow_unused=True)[0]
            slope = torch.zeros_like(z) if slope is None else slope
            bend = None
            # Some kernels have no second derivative: those are of pieces that are straight.
            with contextlib.suppress(RuntimeError):
                if slope.requires_grad:
                    bend = torch.autograd.grad(slope.sum(), z, allow_unused=True, create_graph=self.differentiable)[0]
        bend = torch.zeros_like(z) if bend is None else torch.nan_to_num(bend, 0.0, 0.0, 0.0)
        if self.differentiable:
            return value, slope, bend
        return value.detach(), slope.detach(), bend.detach()

    def is_gate(self) -> bool:
        """A function that is open at zero multiplies as a gate (sigmoid, ``relu6(x + 3) / 6``, a reciprocal root)."""
        return self.bent and not self.logarithm and bool((self.at_zero()[0] != 0).any())

    def materialize(self, engine: Propagation, value: Tensor) -> Tensor:
        """The value of the chain with the secant as its backward; made once for each result."""
        tag = engine.tag(value)
        if tag.materialized is not None:
            return tag.materialized
        call = tag.call
        assert call is not None, "a chain ends at a call"
        kept = engine.keeper.keep(value if engine.differentiable else value.detach())

        def walk(c: Tensor) -> list[Tensor]:
            return [self._walk(engine, call, kept.value, c)]

        out: Tensor = engine.reroute(call, value, [self.root.value], walk, alias=True)
        fresh = engine.tag(out)
        fresh.depth, fresh.first, fresh.nonneg = tag.depth, tag.first, tag.nonneg
        fresh.gate = "sigmoid" if self.is_gate() else None
        tag.materialized = out = filtered(engine, call, out) if engine.composite.has_filters else out
        return out

    def _walk(self, engine: Propagation, call: Call, y: Tensor, c: Tensor) -> Tensor:
        z = self.root.value if engine.differentiable else self.root.value.detach()
        if self.logarithm:
            with torch.enable_grad():
                end = self.root.value.view_as(z) if engine.differentiable else z.requires_grad_()
                value = self.function(end)
            factor = torch.autograd.grad(value, end, c, create_graph=engine.differentiable)[0]
            if engine.ledger:
                call.book("gradient", product(y, c) - product(z, factor))
            return factor
        constant, slope, bend = (t.to(z.device, z.dtype) for t in self.at_zero())
        if not bool(torch.isfinite(constant).all()):
            # A reciprocal: the divisor is constant, so nothing passes.
            if engine.ledger:
                call.book("divisor", product(y, c))
            return torch.zeros_like(z)
        if engine.ledger:  # at minus infinity (masked places) the function is constant: nothing passes
            call.book("f(0)", product(torch.where(z.isinf(), y, constant), c))
        slope = torch.where(slope.isfinite(), slope, torch.zeros_like(slope))
        if bool((constant == 0).all()):
            still = z == 0
            return c * torch.where(still, slope, y / torch.where(still, torch.ones_like(z), z))
        # Near zero the difference cancels; the expansion's error there is of the order of the square of the radius.
        near = z.abs() < torch.finfo(z.dtype).eps ** (1 / 3)
        return c * torch.where(near, slope + bend / 2 * z, (y - constant) / torch.where(near, torch.ones_like(z), z))


def elementwise(engine: Propagation, call: Call) -> Any:
    """Any elementwise operator: extend a chain, fold a bias, or treat it as a sum, a product or a quotient."""
    name = call.operator.name
    live = call.live
    if call.operator.degree == HOMOGENEOUS and len(call.args) == 1 and not call.kwargs and not live[0].is_complex():
        return _extend(engine, call)  # relu, abs, neg
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
            if torch.broadcast_shapes(value.shape, shape) != shape:
                return False
            # A tensor added to a value that needs no secant is an offset (a bias, a position embedding).
            if value.dim() and not bent and call.operator.name in ("add", "sub", "rsub"):
                return False
    return all(t.shape == shape for t in call.live)


def _degree(engine: Propagation, t: Tensor) -> int:
    chain = engine.tag(t).chain
    return HOMOGENEOUS if chain is None else chain.degree


def _result_degree(engine: Propagation, call: Call) -> int:
    degrees = [_degree(engine, t) for t in call.live]
    name, top = call.operator.name, max(degrees)
    if call.operator.degree == BENT or top == BENT:
        return BENT
    if name in ("add", "sub", "rsub"):
        return top if len(call.live) > 1 and all(isinstance(a, Tensor) for a in call.args[:2]) else AFFINE
    if name in ("mul", "div"):
        return BENT if len(call.live) > 1 or (name == "div" and is_live(call.args[1])) else top
    if name in ("maximum", "minimum", "max", "min", "fmax", "fmin") and len(call.live) < 2:
        return BENT
    return top if name == "neg" or top == HOMOGENEOUS else BENT


def _extend(engine: Propagation, call: Call) -> Any:
    first = call.live[0]
    degree = _result_degree(engine, call)
    # Nothing walks through the node of a bent result, since every user gets the secant instead; it keeps it live.
    out = engine.note(call, call.func(*call.args, **call.kwargs)) if degree == BENT else engine.native(call)
    if any(out is t for t in call.live):
        return out
    logarithm = call.operator.name in _LOGARITHMS or any(
        (chain := engine.tag(t).chain) is not None and chain.logarithm for t in call.live
    )
    tag = engine.tag(out)
    before = engine.tag(first).chain
    root = before.root if before is not None else engine.keeper.keep(first)
    function = _replay(engine, call)
    tag.chain = Chain(root, root_of(engine, first), function, degree, logarithm, engine.differentiable)
    tag.call = call
    if degree == BENT:
        call.release()
    return out


def _replay(engine: Propagation, call: Call) -> Callable[[Tensor], Tensor]:
    """The function from the root to this call's result."""
    inner = {id(t): chain.function if (chain := engine.tag(t).chain) is not None else _identity for t in call.live}
    func = call.func
    constants = {
        id(a): a if engine.differentiable else a.detach()
        for a in (*call.args, *call.kwargs.values())
        if isinstance(a, Tensor)
    }
    kwargs = {k: constants[id(v)] if isinstance(v, Tensor) else v for k, v in call.kwargs.items()}
    args = [inner.get(id(a), constants[id(a)]) if isinstance(a, Tensor) else a for a in call.args]

    def function(z: Tensor) -> Tensor:
        values = [a(z) if callable(a) and not isinstance(a, Tensor) else _like(a, z) for a in args]
        return func(*values, **{k: _like(v, z) for k, v in kwargs.items()})

    return function


def _identity(z: Tensor) -> Tensor:
    return z


def _like(value: Any, z: Tensor) -> Any:
    if isinstance(value, Tensor) and value.dtype.is_floating_point:
        return value.to(z.dtype)
    return value


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
