"""The propagation engine: the model's own forward runs, and every operator's backward becomes a rule.

The relevance of a tensor is ``R = a * c``, activation times factor (review, Eq. 3 and Algorithm 8). The engine sees
each torch call while the model runs, gives it the treatment of its class, and lets autograd walk the factors back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from headwater.errors import UnsupportedOperator
from headwater.propagate import booking, constants, filtering, inplace, places, products, soundness, sources
from headwater.propagate.calls import Call, Causes, Reroute, Walk
from headwater.propagate.checkpoints import call_as_ever, call_directly
from headwater.propagate.composites import Composite
from headwater.propagate.live import Live
from headwater.propagate.nested import carries, flat, rebuild, replace, unique
from headwater.propagate.operators import classify
from headwater.propagate.tags import Tag, attach


class Propagation(Live, TorchFunctionMode):
    """Treats every torch call on live tensors (those that depend on the explained input) while it is active.

    Args:
        composite: which rule serves which operator.
        model: names the layers; None where there is no module.
        ledger: book what every operator receives, passes on and absorbs.
        differentiable: keep the true derivatives beside the rules.
        allow_training: let dropout act as in training.
        planning: collect every call, and note gaps instead of raising.
        isolate: copy what operators share, for models whose in-place operators overwrite what gradients need.
        seed: for what is random in the model; None leaves the generators alone.

    Raises:
        UnsupportedOperator: at a call without a treatment, unless planning.
    """

    def __init__(
        self,
        composite: Composite,
        model: Any = None,
        *,
        ledger: bool = False,
        differentiable: bool = False,
        allow_training: bool = False,
        planning: bool = False,
        isolate: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__(composite, model, differentiable)
        self.ledger, self.planning = ledger, planning
        self.allow_training, self.isolate, self.copying = allow_training, isolate or ledger, isolate
        self._seed = seed
        self._randomness: AbstractContextManager[None] | None = None
        self.walking = False
        self.retaining = False  # the graph will be walked again
        self.unfolding = 0  # how many forwards of custom Functions run as plain code
        self.capturing = False  # relevance of hidden layers is asked for
        self.watch: Callable[[Call, Tensor], None] | None = None  # is shown every call's results
        self.depth = 0  # affine operators on the longest path, known after the forward
        self.samples = 0  # along the first axis of the input
        self.regrouped = False  # samples may lie elsewhere by now
        self.calls: list[Call] = []
        self.folded: list[Any] = []
        self.names = places.layer_names(model) if ledger or planning or composite.needs_layers else None

    # ------------------------------------------------------------------ one call

    def __enter__(self) -> Propagation:
        call_directly()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        call_as_ever()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = classify(func)
        kwargs = kwargs or {}
        if operator.metadata:
            if self.unfolding and func is torch._C._set_grad_enabled:
                return None  # see :mod:`headwater.propagate.functions`
            return func(*args, **kwargs)
        if operator.idle is not None and self.names is None and operator.idle(*args, **kwargs):
            return args[0]
        live: list[Tensor] = []
        args = [self.admit(a, live) for a in args]
        kwargs = {k: self.admit(v, live) for k, v in kwargs.items()}
        if operator.random:
            self.seed_now()
        if not live:
            return constants.run(self, operator, func, args, kwargs)
        if not torch.is_grad_enabled():  # the model's own no_grad, or the forward of a custom autograd.Function
            return func(*args, **kwargs)
        if operator.short is not None and not any(args[1:]) and not any(kwargs.values()):
            func, operator, args, kwargs = operator.short, classify(operator.short), args[:1], {}
        if kwargs.get("out") is not None:
            return inplace.run_into(self, func, args, kwargs)
        if operator.body is not None:
            return self.inside(operator.body, *args, **kwargs)
        call = Call(self, operator, func, args, kwargs, live)
        for affine in call.follows:
            affine.used_by(operator)
        if not operator.elementwise and not operator.inplace:
            self.settle(call)
        if self.names is not None:
            call.layer = places.layer_here(self.names)
            if self.planning or not operator.view:
                self.calls.append(call)
        if operator.inplace:
            return inplace.run_in_place(self, call)
        return self.treat(call)

    def seed_now(self) -> None:
        """Seed the generators at the first random call; :meth:`close` gives them back as they were."""
        if self._seed is None or self._randomness is not None:
            return
        self._randomness = soundness.repeatable(self._seed)
        self._randomness.__enter__()

    def inside(self, body: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a Python function under the engine again, from inside a call."""
        super().__enter__()
        try:
            return body(*args, **kwargs)
        finally:
            super().__exit__(None, None, None)

    def redo(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """A torch call made inside a treatment, treated like a call of the model's."""
        return self.__torch_function__(func, (), args, kwargs)

    def treat(self, call: Call) -> Any:
        if self.composite.plain:
            rule = self.composite.row(call)
            if rule is not None:
                return rule.local(self, call)
            return call.operator.handler(self, call) if call.operator.checked else self.native(call)
        if call.operator.kind == "unknown":
            return self.gap(call)
        out = call.operator.handler(self, call)
        if self.sourced:
            sources.move(self, call, out)
        if self.composite.has_filters and not call.operator.affine and isinstance(out, Tensor):
            out = filtering.filtered(self, call, out)
        return out

    def gap(self, call: Call) -> Any:
        """A call without a treatment: an error where relevance reaches it, or a row of the plan."""
        if self.planning:
            call.status = "gap"
            return self.native(call)
        error = UnsupportedOperator(
            f"No treatment for operator {call.operator.name!r} {places.describe_here(self.model)}. Use an operator "
            "that hw.plan(model, x) lists as ok, or register one with headwater.propagate.register."
        )

        def refuse(*cs: Tensor | None) -> list[Tensor | None]:
            raise error

        try:
            return self.reroute(call, call.func(*call.args, **call.kwargs), unique(call.live), refuse)
        except RuntimeError:  # some run only where no gradients are asked for, or return nested tensors
            raise error from None

    def _materialize(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            if not value.requires_grad or self.own_tag(value) is None:
                return value
            value = self.current(value)
            chain = self.tag(value).chain
            return chain.materialize(self, value) if chain is not None and chain.bent else value
        if isinstance(value, (list, tuple)) and type(value) is not torch.Size:
            return rebuild(value, [self._materialize(v) for v in value])
        return value

    def bent(self, tensor: Tensor) -> bool:
        """Whether a live tensor is an activation's result that has no secant yet."""
        chain = self.tag(tensor).chain
        return chain is not None and chain.bent

    def materialize(self, tensor: Tensor) -> Tensor:
        """A live tensor, with the secant of its elementwise chain set where it has one."""
        return self._materialize(tensor)

    def settle(self, call: Call) -> None:
        """Set the secants of the elementwise chains that end at this call."""
        if not call.bent:
            return
        call.args, call.kwargs = (
            self._materialize(list(call.args)),
            {k: self._materialize(v) for k, v in call.kwargs.items()},
        )
        call.live = [self.materialize(t) for t in call.live]
        call.bent = False

    # ------------------------------------------------------------------ building blocks of treatments

    def product(self, call: Call, operands: Sequence[Any], quotient: bool = False) -> Any:
        """Treat a product (or quotient) of operands, some of them live; see :mod:`headwater.propagate.products`."""
        return products.product(self, call, operands, quotient)

    def note(self, call: Call, out: Any, nonneg: bool | None = None) -> Any:
        """Tag the results of a call with its depth and, by the operator's policy, as non-negative."""
        known = nonneg if nonneg is not None else self._nonneg(call)
        if self.composite.per_sample and not self.regrouped:
            self.regrouped = self._regroups(call, out)
        moved = call.args[0] if call.operator.view and call.args else None
        gate = self.tag(moved).gate if isinstance(moved, Tensor) and moved.requires_grad else None
        for t in (out,) if isinstance(out, Tensor) else flat([out]):
            if t.requires_grad and not any(t is known for known in call.live):
                tag = Tag(self, t._version, call.depth, first=call.first, nonneg=known)
                tag.gate = gate  # a view of a gate is a gate
                attach(t, tag)
                if self.watch is not None:
                    self.watch(call, t)
        if self.planning:
            first = next(iter(flat([out])), None)
            call.shape = tuple(first.shape) if first is not None else ()
        return out

    def _regroups(self, call: Call, out: Any) -> bool:
        """Whether samples may no longer lie along the first axis; a rule that looks at whole samples must know."""
        kept = all(t.dim() and t.shape[0] == self.samples for t in flat([out]))
        index = call.args[1] if call.operator.name == "getitem" else None
        whole = isinstance(index, tuple) and index[:1] == (slice(None),)
        return not kept or (call.operator.moves_axes and not whole)

    def _nonneg(self, call: Call) -> bool:
        """Whether the result is known to hold no negative value: by the operator, and by all that goes into it."""
        policy = call.operator.nonneg
        if policy == "join" and call.nonneg:
            live = {id(t) for t in call.live}
            values = (
                [*call.args[:2], *call.kwargs.values()] if call.operator.name in ("add", "mul", "div") else call.args
            )
            constants = [t for t in flat([values]) if id(t) not in live and carries(t)]
            return not constants and not any(
                isinstance(v, (int, float)) and v < 0 for v in (*call.args, *call.kwargs.values())
            )
        return policy == "always" or (policy == "keep" and call.nonneg)

    def native(self, call: Call, causes: Causes | None = None, nonneg: bool | None = None) -> Any:
        """Treat a call by its ordinary gradient, which is right for homogeneous operators (Euler's theorem)."""
        if call.operator.view:
            for t in call.live:
                self.tag(t).viewed = True
        elif self.isolate:
            return self.local(call, causes=causes or booking.constant_share(self, call), nonneg=nonneg)
        return self.note(call, call.func(*call.args, **call.kwargs), nonneg)

    def local(
        self,
        call: Call,
        scales: float | Sequence[float] = 1.0,
        causes: Causes | None = None,
        nonneg: bool | None = None,
        func: Any = None,
        gradient: Callable[[Callable[..., Sequence[Tensor | None]], Sequence[Tensor | None]], Any] | None = None,
    ) -> Any:
        """Treat a call by the gradient of this operator alone, scaled for each live input.

        Args:
            call: the call.
            scales: one factor, or one for each live tensor in order.
            causes: books what is absorbed, given the factors of outputs and of inputs.
            nonneg: overrides the operator's policy.
            func: stands in for the call's function.
            gradient: changes the walk: called with the gradient function and the factors of the outputs.
        """
        inputs = unique(call.live)
        values = [t.clone() if self.copying else t for t in inputs]
        aliases = [v.view_as(v) if self.differentiable else v.detach().requires_grad_() for v in values]
        swap = {id(t): alias for t, alias in zip(inputs, aliases, strict=True)}
        run = func or call.func
        with torch.enable_grad():
            out = run(*replace(call.args, swap), **{k: replace(v, swap) for k, v in call.kwargs.items()})
        ends = [t for t in flat([out]) if carries(t)]
        shares = scales if isinstance(scales, Sequence) else [scales] * len(inputs)

        def pull(*cs: Tensor | None) -> list[Tensor | None]:
            known = [(y, c) for y, c in zip(ends, cs, strict=True) if c is not None and y.requires_grad]
            grads = torch.autograd.grad(
                [y for y, _ in known], aliases, [c for _, c in known], allow_unused=True,
                retain_graph=True, create_graph=self.differentiable,
            )  # fmt: skip
            return [g if g is None or s == 1.0 else g * s for g, s in zip(grads, shares, strict=True)]

        def walk(*cs: Tensor | None) -> Sequence[Tensor | None]:
            factors = pull(*cs) if gradient is None else gradient(pull, cs)
            if self.ledger and causes is not None:
                causes(cs, factors)
            return factors

        return self.reroute(call, out, inputs, walk, nonneg)

    def stand_in(self, call: Call, part: Tensor, value: Tensor) -> Tensor:
        """``value``, computed by other means, with the backward of ``part``."""
        tag = self.tag(part)
        out: Tensor = self.reroute(call, value, [part], lambda c: [c], tag.nonneg)
        fresh = self.tag(out)
        fresh.depth, fresh.first = tag.depth, tag.first
        return out

    def reroute(
        self,
        call: Call,
        out: Any,
        inputs: Sequence[Tensor],
        walk: Walk,
        nonneg: bool | None = None,
        dummy: Tensor | None = None,
        alias: bool = False,
    ) -> Any:
        """Give the outputs of a call a backward of our own.

        Args:
            call: the call.
            out: its result, a tensor or a tuple of tensors.
            inputs: the live tensors that get factors.
            walk: maps the factors of the outputs to those of ``inputs`` and, last, the relevance of ``dummy``.
            nonneg: overrides the operator's policy.
            dummy: takes relevance instead of a factor.
            alias: the result must share the memory of ``out``, since it stands for it.
        """
        ends = [t for t in ((out,) if isinstance(out, Tensor) else flat([out])) if carries(t)]
        if not ends:
            return out  # an index: nothing that could carry relevance
        if not self.differentiable:
            ends = [t.detach() for t in ends]
        if self.copying and not alias:
            ends = [t.clone() for t in ends]
        if self.ledger:
            walk = booking.booked(self, call, walk, ends, inputs)
        receivers = inputs if dummy is None else [*inputs, dummy]
        results = Reroute.apply(self, walk, len(ends), *ends, *receivers)
        results = results if isinstance(results, tuple) else (results,)
        if isinstance(out, Tensor):
            return self.note(call, results[0], nonneg)
        fresh = iter(results)
        moved = [next(fresh) if isinstance(t, Tensor) and carries(t) else t for t in out]
        return self.note(call, rebuild(out, moved), nonneg)

    # ------------------------------------------------------------------ the walk back

    def gradients(self, scalar: Tensor, inputs: Sequence[Tensor], retain: bool = False) -> list[Tensor | None]:
        """Factors of ``inputs`` (or relevance, for dummies) for a scalar of the model's output.

        Args:
            scalar: what is explained, summed over samples; shape ``()``.
            inputs: tensors of the graph.
            retain: keep the graph for another walk.
        """
        before = self.walking, self.retaining
        self.walking, self.retaining = True, retain or self.differentiable
        try:
            with torch.autograd.set_grad_enabled(self.differentiable):
                found = torch.autograd.grad(
                    scalar, list(inputs), allow_unused=True, retain_graph=self.retaining,
                    create_graph=self.differentiable,
                )  # fmt: skip
            return list(found)
        finally:
            self.walking, self.retaining = before

    @property
    def unwatched(self) -> bool:
        """Whether nobody asks what happens at an operator, so that torch's own nodes may do the walk."""
        table = self.composite
        audited = self.ledger or self.planning or self.differentiable or self.watch is not None
        return not (audited or self.isolate or table.per_sample or table.has_filters)

    @property
    def bare(self) -> bool:
        """Whether nothing but factors is asked for."""
        return self.unwatched and not self.sourced

    def settled(self, tensor: Tensor) -> Tensor:
        """A result of the model, ready for the walk back; may be called while the mode is active."""
        with torch._C.DisableTorchFunction():
            return self.materialize(tensor)

    def close(self) -> None:
        """Release every tensor this engine holds, and the random generators."""
        if self._randomness is not None:
            self._randomness.__exit__(None, None, None)
            self._randomness = None
        self.watch = None
        for call in self.calls:
            call.release()
        self.calls.clear()
        for affine in self.folded:
            affine.folded = None
        self.folded.clear()
        self.forget()
