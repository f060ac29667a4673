"""The propagation engine: the model's own forward runs, and every operator's backward becomes a rule.

The relevance of a tensor is ``R = a * c``, activation times factor (review, Eq. 3 and Algorithm 8). The engine sees each
torch call while the model runs, gives it the treatment of its class, and lets autograd walk the factors back.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from headwater.errors import HeadwaterWarning, UnsupportedOperator
from headwater.propagate import ids as token_ids
from headwater.propagate import inplace, places, products, sources
from headwater.propagate.calls import Call, Causes, Entry, Reroute, Walk
from headwater.propagate.checkpoints import called_directly
from headwater.propagate.composites import Composite
from headwater.propagate.nested import carries, flat, rebuild, replace, unique
from headwater.propagate.operators import Operator, classify
from headwater.propagate.tags import Keeper, Source, Tag, attach, is_weight, product, raw_tag


class Propagation(TorchFunctionMode):
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
        super().__init__()
        self.composite, self.model = composite, model
        self.ledger, self.differentiable, self.planning = ledger, differentiable, planning
        self.allow_training, self.isolate, self.copying = allow_training, isolate or ledger, isolate
        self._seed, self._randomness = seed, None
        self.walking = False
        self.retaining = False  # the graph will be walked again
        self.capturing = False  # relevance of hidden layers is asked for
        self.depth = 0  # affine operators on the longest path, known after the forward
        self.samples = 0  # along the first axis of the input
        self.regrouped = False  # samples may lie elsewhere by now
        self.calls: list[Call] = []
        self.folded: list[Any] = []
        self.keeper = Keeper()
        self.entries: list[Entry] = []
        self.ids: dict[int, tuple[Tensor, list[Entry]]] = {}
        self._detached: dict[int, tuple[Tensor, Tensor]] = {}
        self.names = places.layer_names(model) if ledger or planning or composite.needs_layers else None

    # ------------------------------------------------------------------ inputs and what is live

    def enter(self, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        """Make ``x`` an explained input and return what to hand to the model in its place."""
        x = x.clone() if x.is_inference() else x
        if not x.is_floating_point():
            alias = x.view_as(x)
            tag = Tag(self, alias._version)
            tag.ids = id(alias)
            tag.positions = torch.arange(x.numel(), device=x.device).view(x.shape)
            attach(alias, tag)
            self.ids[id(alias)] = (alias, [])
            return alias
        return self.adopt(x if self.differentiable and x.requires_grad else x.detach().requires_grad_(), low, high).live

    def adopt(self, leaf: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Entry:
        """Count a tensor that requires grad as explained input."""
        live = leaf.clone()  # the model may write to it
        tag = Tag(self, live._version)
        dummy = None
        if self.composite.has_input_rules:
            # A zero of stride zero costs no memory; its gradient is relevance, for rules that are no factor.
            dummy = leaf.detach().new_zeros(()).expand(leaf.shape).requires_grad_()
            self.mark(dummy)
            tag.source = Source(dummy, low, high, None)
        attach(live, tag)
        entry = Entry(leaf, live, dummy)
        self.entries.append(entry)
        return entry

    def tag(self, tensor: Tensor) -> Tag:
        """The valid tag of a live tensor; what an in-place operator has made stale is forgotten."""
        tag = self.own_tag(tensor)
        if tag is None or tag.version != tensor._version:
            tag = Tag(self, tensor._version, tag.depth if tag else 0, first=tag.first if tag else True)
            attach(tensor, tag)
        return tag

    def own_tag(self, tensor: Tensor) -> Tag | None:
        """The tag of a tensor, however old, if it is of this explanation."""
        tag = raw_tag(tensor)
        if tag is None and tensor._base is not None:  # a view regenerated by autograd after an in-place operator
            tag = raw_tag(tensor._base)
        return tag if tag is not None and tag.engine is self else None

    def _current(self, tensor: Tensor) -> Tensor:
        """An activation's result written to through a view of what stands for it: that one has the history."""
        tag = self.own_tag(tensor)
        if tag is not None and tag.materialized is not None and tag.version != tensor._version:
            return tag.materialized
        return tensor

    def _is_live(self, tensor: Tensor) -> bool:
        """Whether a tensor that requires grad is ours; raises where an operator that cannot be seen made it."""
        tag = self.own_tag(tensor)
        if tag is not None:
            return not tag.weight
        if tensor.is_leaf or is_weight(tensor) or not places.leads_to(tensor, [e.leaf for e in self.entries]):
            return False
        if not self.composite.plain:
            raise UnsupportedOperator(places.unseen(tensor, self.model))
        attach(tensor, Tag(self, tensor._version))
        return True

    def detached(self, constant: Tensor) -> Tensor:
        """The same values without grad, so that requiring grad means live; made once per explanation."""
        entry = self._detached.get(id(constant))
        if entry is None:
            alias = constant.detach().clone() if constant.is_inference() else constant.detach()
            tag = Tag(self, alias._version)
            tag.weight = is_weight(constant) or constant.requires_grad
            attach(alias, tag)
            entry = self._detached[id(constant)] = self._detached[id(alias)] = (constant, alias)
        return entry[1]

    def original(self, value: Any) -> Any:
        """The model's own parameter behind a detached alias: some kernels choose their path by ``requires_grad``."""
        entry = self._detached.get(id(value))
        return value if entry is None else entry[0]

    def hold(self, tensor: Tensor) -> Tensor:
        """A constant while relevance walks (a gate, a divisor), its true derivative kept if that is asked for."""
        if not self.differentiable:
            return tensor.detach()
        held: Tensor = Reroute.apply(self, lambda *cs: (), 1, tensor)
        attach(held, Tag(self, held._version, self.tag(tensor).depth))
        return held

    def _admit(self, value: Any, live: list[Tensor]) -> Any:
        """Collect live tensors of an argument; parameters enter detached unless derivatives are asked for."""
        if isinstance(value, Tensor):
            if value.requires_grad:
                if self._is_live(value):
                    value = self._current(value)
                    live.append(value)
                elif not self.differentiable:
                    return self.detached(value)
            elif value.is_inference():
                return self.detached(value)
            return value
        if isinstance(value, (list, tuple)) and type(value) is not torch.Size:
            items = [self._admit(v, live) for v in value]
            return items if type(value) is list else rebuild(value, items)  # the model may add to its list later
        return value

    # ------------------------------------------------------------------ one call

    def __enter__(self) -> Propagation:
        self._direct = called_directly()
        self._direct.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._direct.__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = classify(func)
        if operator.metadata:
            return func(*args, **(kwargs or {}))
        live: list[Tensor] = []
        args = [self._admit(a, live) for a in args]
        kwargs = {k: self._admit(v, live) for k, v in kwargs.items()} if kwargs else {}
        if operator.random:
            self.seed_now()
        if not live:
            return self._constant(operator, func, args, kwargs)
        if not torch.is_grad_enabled():  # the model's own no_grad, or the forward of a custom autograd.Function
            return func(*args, **kwargs)
        if operator.body is not None:
            return self.inside(operator.body, *args, **kwargs)
        call = Call(self, operator, func, args, kwargs, live)
        if not operator.elementwise and not operator.inplace and self.bent(live):
            self.settle(call)
        self._mark_uses(call)
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
        cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        self._randomness = torch.random.fork_rng(devices=cuda)
        self._randomness.__enter__()
        torch.manual_seed(self._seed)

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
            return call.operator.handler(self, call) if call.operator.checked else self.native(call)  # type: ignore[misc]
        if call.operator.handler is None:
            return self.gap(call)
        out = call.operator.handler(self, call)
        if self.composite.has_input_rules:
            sources.move(self, call, out)
        if self.composite.has_filters and not call.operator.affine and isinstance(out, Tensor):
            out = self._filtered(call, out)
        return out

    def gap(self, call: Call) -> Any:
        """A call without a treatment: an error, or a row of the plan."""
        name = call.operator.name
        if not self.planning:
            raise UnsupportedOperator(
                f"No treatment for operator {name!r} {places.describe_here(self.model)}. Use an operator that "
                "hw.plan(model, x) lists as ok, or register one with headwater.propagate.register."
            )
        call.status = "gap"
        return self.native(call)

    def _constant(self, operator: Operator, func: Any, args: Any, kwargs: Any) -> Any:
        """A call without a live tensor: run as it is; results of weights are weights, moved ids stay ids."""
        tags = [tag for a in flat([args, list(kwargs.values())]) if (tag := raw_tag(a)) is not None or is_weight(a)]
        if operator.inplace and args and isinstance(args[0], Tensor) and not args[0].is_inference():
            self.keeper.preserve(args[0])
        ids = next((t.ids for t in tags if t is not None and t.ids and t.engine is self), 0) if self.ids else 0
        indexes_table = operator.name in ("getitem", "index_select") and args and is_weight(args[0])
        if ids and (indexes_table or operator.name in ("embedding", "embedding_bag")):
            if operator.body is not None:
                return self.inside(operator.body, *args, **kwargs)
            return self._embed(operator, ids, func, args, kwargs)
        out = func(*args, **kwargs)
        if not tags:
            return out
        target = args[0] if operator.inplace and args else out
        for i, t in enumerate(flat([target])):
            if t.is_inference():
                continue
            tag = Tag(self, t._version)
            if ids and operator.moves_ids and not t.dtype.is_floating_point and t.dtype != torch.bool:
                tag.ids, tag.positions = ids, token_ids.moved(operator, func, args, kwargs, t, i)
            tag.weight = any(u is None or u.weight for u in tags) and not operator.inplace
            if tag.ids or tag.weight:
                attach(t, tag)
        return out

    def _embed(self, operator: Operator, ids: int, func: Any, args: Any, kwargs: Any) -> Any:
        """Token ids are explained at their embedding: its output becomes an explained leaf."""
        if operator.name == "embedding_bag":
            return operator.handler(self, SimpleNamespace(args=args, kwargs=kwargs))
        out = func(*args, **kwargs)  # F.embedding(ids, weight), torch.embedding(weight, ids)
        looked_up = next(
            t for t in flat([args, list(kwargs.values())]) if (tag := raw_tag(t)) is not None and tag.ids == ids
        )
        entry = self.adopt(out if out.requires_grad else out.detach().requires_grad_())
        entry.positions = token_ids.positions_of(looked_up)
        if operator.name == "getitem" and entry.positions.shape != out.shape[:-1]:
            entry.positions = torch.full(out.shape[:-1], -1, device=out.device)
        self.ids[ids][1].append(entry)
        return entry.live

    def _materialize(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            if not value.requires_grad or self.own_tag(value) is None:
                return value
            value = self._current(value)
            chain = self.tag(value).chain
            return chain.materialize(self, value) if chain is not None and chain.bent else value
        if isinstance(value, (list, tuple)) and type(value) is not torch.Size:
            return rebuild(value, [self._materialize(v) for v in value])
        return value

    def bent(self, live: Sequence[Tensor]) -> bool:
        return any((chain := self.tag(t).chain) is not None and chain.bent for t in live)

    def materialize(self, tensor: Tensor) -> Tensor:
        """A live tensor, with the secant of its elementwise chain set where it has one."""
        return self._materialize(tensor)  # type: ignore[no-any-return]

    def settle(self, call: Call) -> None:
        """Set the secants of the elementwise chains that end at this call."""
        call.args, call.kwargs = (
            self._materialize(list(call.args)),
            {k: self._materialize(v) for k, v in call.kwargs.items()},
        )
        call.live = [self.materialize(t) for t in call.live]

    def _mark_uses(self, call: Call) -> None:
        """Tell affine calls who uses their output: with ReLU alone, negative outputs have factor zero."""
        for t in call.live:
            affine = self.tag(t).affine
            if affine is not None:
                if call.operator.name == "relu":
                    affine.relu = True
                else:
                    affine.other = True

    # ------------------------------------------------------------------ building blocks of treatments

    def product(self, call: Call, operands: Sequence[Any], quotient: bool = False) -> Any:
        """Treat a product (or quotient) of operands, some of them live; see :mod:`headwater.propagate.products`."""
        return products.product(self, call, operands, quotient)

    def note(self, call: Call, out: Any, nonneg: bool | None = None) -> Any:
        """Tag the results of a call with its depth and, by the operator's policy, as non-negative."""
        known = nonneg if nonneg is not None else self._nonneg(call)
        if self.composite.per_sample and not self.regrouped:
            self.regrouped = self._regroups(call, out)
        for t in flat([out]):
            if t.requires_grad and not any(t is x for x in call.live):
                attach(t, Tag(self, t._version, call.depth, first=call.first, nonneg=known))
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
            return self.local(call, causes=causes or self._constants(call), nonneg=nonneg)
        return self.note(call, call.func(*call.args, **call.kwargs), nonneg)

    def _constants(self, call: Call) -> Causes | None:
        """What constants and parameters contribute to a sum or a join: its value with all live operands zero."""
        if not call.operator.joins or not self.ledger:
            return None

        swap = {id(t): torch.zeros_like(t) for t in call.live}
        share = call.func(*replace(call.args, swap), **{k: replace(v, swap) for k, v in call.kwargs.items()})
        weights = any(is_weight(t) for t in flat([call.args]))
        cause = "padding" if "pad" in call.operator.name else "parameter" if weights else "constant"

        def causes(cs: Sequence[Tensor | None], factors: Sequence[Tensor | None]) -> None:
            if cs[0] is not None:
                call.book(cause, product(share, cs[0]))

        return causes

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

    def mark(self, tensor: Tensor) -> None:
        """Count a helper tensor (a dummy of the input) as ours."""
        attach(tensor, Tag(self, tensor._version))

    def reroute(
        self,
        call: Call,
        out: Any,
        inputs: Sequence[Tensor],
        walk: Walk,
        nonneg: bool | None = None,
        dummy: Tensor | None = None,
    ) -> Any:
        """Give the outputs of a call a backward of our own.

        Args:
            call: the call.
            out: its result, a tensor or a tuple of tensors.
            inputs: the live tensors that get factors.
            walk: maps the factors of the outputs to those of ``inputs`` and, last, the relevance of ``dummy``.
            nonneg: overrides the operator's policy.
            dummy: takes relevance instead of a factor.
        """
        ends = [t for t in flat([out]) if carries(t)]
        if not self.differentiable:
            ends = [t.detach() for t in ends]
        if self.copying:
            ends = [t.clone() for t in ends]
        if self.ledger:
            walk = self._booked(call, walk, ends, inputs)
        receivers = inputs if dummy is None else [*inputs, dummy]
        results = Reroute.apply(self, walk, len(ends), *ends, *receivers)
        results = results if isinstance(results, tuple) else (results,)
        if isinstance(out, Tensor):
            return self.note(call, results[0], nonneg)
        fresh = iter(results)
        moved = [next(fresh) if isinstance(t, Tensor) and carries(t) else t for t in out]
        return self.note(call, rebuild(out, moved), nonneg)

    def _booked(self, call: Call, walk: Walk, ends: Sequence[Tensor], inputs: Sequence[Tensor]) -> Walk:
        values = [self.keeper.keep(t.detach()) for t in inputs]
        results = [self.keeper.keep(t.detach()) for t in ends]

        def booked(*cs: Tensor | None) -> Sequence[Tensor | None]:
            call.reached = True
            for y, c in zip(results, cs, strict=True):
                if c is not None:
                    call.incoming[-1] += float(product(y.value, c).double().sum())
            factors = walk(*cs)
            for x, c in zip(values, factors, strict=False):
                if c is not None:
                    call.outgoing[-1] += float(product(x.value, c.detach()).double().sum())
            for relevance in factors[len(values) :]:
                if relevance is not None:
                    call.outgoing[-1] += float(relevance.detach().double().sum())
            return factors

        return booked

    def _filtered(self, call: Call, out: Tensor) -> Tensor:
        """Apply the filter of a composite's row to the relevance at this operator's output."""
        filter_ = self.composite.filter_at(call)
        if filter_ is None or call.operator.view or not out.requires_grad or self.tag(out).chain is not None:
            return out
        value = self.keeper.keep(out.detach())

        def walk(c: Tensor) -> list[Tensor]:
            passed = c * filter_.multiplier(product(value.value, c))
            if self.ledger:
                call.book("filter", product(value.value, c - passed))
                call.incoming[-1] += float(product(value.value, c - passed).double().sum())
            return [passed]

        result: Tensor = Reroute.apply(self, walk, 1, out, out)
        attach(result, self.tag(out))
        return result

    def warn_detached(self, call: Call) -> None:
        """Warn that the model itself ends the relevance of a live tensor here."""
        warnings.warn(
            f"{call.operator.name} {places.describe_here(self.model)} ends the relevance of what it is called on.",
            HeadwaterWarning,
            stacklevel=2,
        )

    # ------------------------------------------------------------------ the walk back

    def gradients(self, scalar: Tensor, inputs: Sequence[Tensor], retain: bool = False) -> list[Tensor | None]:
        """Factors of ``inputs`` (or relevance, for dummies) for a scalar of the model's output.

        Args:
            scalar: what is explained, summed over samples; shape ``()``.
            inputs: tensors of the graph.
            retain: keep the graph for another walk.
        """
        self.walking, self.retaining = True, retain or self.differentiable
        try:
            with torch.autograd.set_grad_enabled(self.differentiable):
                return list(
                    torch.autograd.grad(
                        scalar,
                        list(inputs),
                        allow_unused=True,
                        retain_graph=retain or self.differentiable,
                        create_graph=self.differentiable,
                    )  # fmt: skip
                )
        finally:
            self.walking = False

    def settled(self, tensor: Tensor) -> Tensor:
        """A result of the model, ready for the walk back; may be called while the mode is active."""
        with torch._C.DisableTorchFunction():
            return self.materialize(tensor)

    def reaches(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on an explained input."""
        return tensor.requires_grad and self._is_live(tensor)

    def ends(self) -> list[Tensor]:
        """What a walk back must reach: the explained leaves, then their dummies."""
        return [e.leaf for e in self.entries] + [e.dummy for e in self.entries if e.dummy is not None]

    def arrived(self, found: Sequence[Tensor | None]) -> dict[int, tuple[Entry, Tensor | None, Tensor | None]]:
        """What a walk brought for :meth:`ends`: by the id of what the model got, the entry, its factor and relevance."""
        n = len(self.entries)
        extras = iter(found[n:])
        return {
            id(e.live): (e, factor, next(extras) if e.dummy is not None else None)
            for e, factor in zip(self.entries, found[:n], strict=True)
        }

    def close(self) -> None:
        """Release every tensor this engine holds, and the random generators."""
        if self._randomness is not None:
            self._randomness.__exit__(None, None, None)
            self._randomness = None
        for call in self.calls:
            call.release()
        self.calls.clear()
        for affine in self.folded:
            affine.folded = None
        self.folded.clear()
        self.keeper.clear()
        self.entries.clear()
        self.ids.clear()
        self._detached.clear()
