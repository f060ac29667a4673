"""One operator call, one explained tensor, and the autograd node that reroutes factors."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from headwater.propagate.affine import Affine
    from headwater.propagate.engine import Propagation
    from headwater.propagate.kinds import Operator

Walk = Callable[..., Sequence[Tensor | None]]
Causes = Callable[[Sequence[Tensor | None], Sequence[Tensor | None]], None]


class Call:
    """One operator call with at least one live tensor among its arguments.

    Attributes:
        operator: its treatment; ``func``, ``args``, ``kwargs``: the call itself; ``live``: the live tensors in it.
        layer: name of the innermost module on the stack (known only where names are needed).
        depth: affine operators on the longest path from the input to here.
        first: reached from the input without an affine operator between; a sum is where all of its operands are.
        nonneg: no live tensor holds a negative value; ``bent``: one is an activation's result that has no secant yet.
    """

    layer, rule_name, status = "", "", "ok"
    place = ""  # of an affine call: its layer, and which of that layer's weights it has
    shape: tuple[int, ...] = ()
    reached = False
    at_input = False  # an affine call that the explained input reaches first
    folded_into: Call | None = None  # the affine call that this one became a part of
    is_affine = False  # weights were found in it, so that a rule applies
    follows: tuple[Affine, ...] = ()  # affine calls whose outputs it takes

    def __init__(self, engine: Propagation, operator: Operator, func: Any, args: Any, kwargs: Any, live: list[Tensor]):
        self.engine, self.operator, self.func, self.args, self.kwargs = engine, operator, func, args, kwargs
        self.live = live
        if engine.names is not None:  # else nobody reads its books
            self.absorbed: dict[str, list[float]] = {}
            self.incoming: list[float] = []
            self.outgoing: list[float] = []
        depth, some, each, nonneg, bent = 0, False, True, True, False
        for t in live:
            tag = engine.tag(t)
            depth, nonneg = max(depth, tag.depth), nonneg and tag.nonneg
            some, each = some or tag.first, each and tag.first
            bent = bent or (tag.chain is not None and tag.chain.bent)
            if tag.affine is not None:
                self.follows = (*self.follows, tag.affine)
        # What is moved is as it was; what is added up holds nothing of the input alone.
        self.depth, self.first, self.nonneg, self.bent = depth, each if operator.elementwise else some, nonneg, bent

    def book(self, cause: str, amount: Tensor) -> None:
        """Book relevance that this operator absorbs by a named cause; ``amount`` of any shape is summed."""
        self.absorbed.setdefault(cause, [0.0] * len(self.incoming))[-1] += float(amount.detach().double().sum())

    def open_books(self) -> None:
        """Begin the entries of the next sample."""
        for amounts in (self.incoming, self.outgoing, *self.absorbed.values()):
            amounts.append(0.0)

    def release(self) -> None:
        """Drop every tensor: graph nodes, calls and engine would else form cycles that no collector sees."""
        self.args, self.kwargs, self.live, self.follows = (), {}, [], ()


def node_of(out: Tensor) -> Any:
    """The autograd node that made the output of a call.

    Rows of vectors are a view of a product, whose node goes where the model writes to the view: the product's is meant.
    """
    made = out if out._base is None else out._base
    assert made.grad_fn is not None, "the output of a live tensor has a history"
    return made.grad_fn


def on_walk(engine: Propagation, change: Callable[..., Any]) -> Callable[..., Any]:
    """A hook of a node that acts while relevance walks, and at no other time; it does not hold the engine.

    ``change`` is called with the engine and what torch gives such a hook.
    """
    known = weakref.ref(engine)

    def hook(*given: Any) -> Any:
        walker = known()
        return None if walker is None or not walker.walking else change(walker, *given)

    return hook


def bind(call: Call, names: str, *defaults: Any) -> list[Any]:
    """The values of named parameters of a call, however they were passed."""
    values = [*call.args, *defaults[len(call.args) :]]
    if not call.kwargs:
        return values
    for i, name in enumerate(names.split()):
        if name in call.kwargs:
            values[i] = call.kwargs[name]
    return values


@dataclass
class Entry:
    """One explained tensor: the leaf, what the model got for it, and the dummy that takes relevance directly.

    The multiplier stands in for the leaf in ``R = a * c`` where the model runs at another point than the one explained.
    """

    leaf: Tensor
    live: Tensor
    dummy: Tensor | None
    multiplier: Tensor | None = None
    positions: Tensor | None = None  # for an embedding: where in the explained ids its rows came from


class Reroute(torch.autograd.Function):
    """The identity on outputs; while relevance walks, their factors go to the inputs as a walk says.

    At any other time (the derivative of a differentiable explanation) gradients pass to the outputs as computed.
    """

    apply = vars(torch.autograd.Function)["apply"]  # not what stands in for it while an explanation runs

    @staticmethod
    def forward(ctx: Any, engine: Propagation, walk: Walk, count: int, *tensors: Tensor) -> Any:
        ctx.engine, ctx.walk, ctx.count, ctx.inputs = weakref.ref(engine), walk, count, len(tensors) - count
        ctx.set_materialize_grads(False)
        outputs = tuple(t.detach() for t in tensors[:count])
        return outputs if count > 1 else outputs[0]

    @staticmethod
    def backward(ctx: Any, *cs: Tensor | None) -> Any:
        engine = ctx.engine()
        if engine is None or not engine.walking:
            return (None, None, None, *cs, *[None] * ctx.inputs)
        walk = ctx.walk
        if not engine.retaining:
            ctx.walk = None  # what this call kept is let go as soon as it has been walked
        factors = [None] * ctx.inputs if all(c is None for c in cs) else walk(*cs)
        return (None, None, None, *[None] * ctx.count, *factors)
