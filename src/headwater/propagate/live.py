"""What is live: the tensors that depend on the explained input, their tags, and the model's weights beside them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from headwater.errors import UnsupportedOperator
from headwater.propagate import ids as token_ids
from headwater.propagate import places
from headwater.propagate.calls import Entry, Reroute
from headwater.propagate.composites import Composite
from headwater.propagate.nested import rebuild
from headwater.propagate.prepared import prepared_of
from headwater.propagate.tags import Keeper, Source, Tag, attach, is_weight, raw_tag


class Live:
    """Knows which tensors are live, and what the engine noted of them.

    Args:
        composite: says whether some rule needs the explained input itself.
        model: names the layers in errors.
        differentiable: keep the true derivatives beside the rules.
    """

    def __init__(self, composite: Composite, model: Any, differentiable: bool) -> None:
        super().__init__()
        self.composite, self.model, self.differentiable = composite, model, differentiable
        # Some rules, and some modules (those that measure distances), give relevance to inputs that are zero.
        self.sourced = composite.has_input_rules or _speaks_of_zeros(model)
        self.prepared = None if differentiable else prepared_of(model)
        self.keeper = Keeper()
        self.entries: list[Entry] = []
        self.ids: dict[int, tuple[Tensor, list[Entry]]] = {}  # explained token ids, and where they were embedded
        self.move: Callable[[int, int, Tensor], tuple[Tensor, Tensor | None]] | None = None  # to other points
        self._arguments: dict[int, int] = {}  # which argument of the model explained token ids are
        self._detached: dict[int, tuple[Tensor, Tensor]] = {}
        self._places: dict[tuple[str, int, tuple[int, ...]], str] = {}

    def enter(self, x: Tensor, low: Tensor | None = None, high: Tensor | None = None, argument: int = 0) -> Tensor:
        """Make ``x``, one of the model's arguments, an explained input; what to hand to the model in its place."""
        x = x.clone() if x.is_inference() else x
        if not x.is_floating_point():
            alias = x.view_as(x)
            tag = Tag(self, alias._version)
            tag.ids = id(alias)
            tag.positions = torch.arange(x.numel(), device=x.device).view(x.shape)
            attach(alias, tag)
            self.ids[id(alias)] = (alias, [])
            self._arguments[id(alias)] = argument
            return alias
        point, multiplier = (x, None) if self.move is None else self.move(argument, 0, x.detach())
        leaf = point if self.differentiable and point.requires_grad else point.detach().requires_grad_()
        return self.adopt(leaf, low, high, multiplier).live

    def embedded(self, ids: int, value: Tensor, positions: Tensor) -> Entry:
        """Count the embedding of explained token ids, which came from these positions of them, as explained input."""
        point, multiplier = value, None
        if self.move is not None:
            known, earlier = self.ids[ids]
            move = partial(self.move, self._arguments[ids], len(earlier))
            point, multiplier = token_ids.moved_in_place(move, value.detach(), positions, known)
        leaf = point if point.requires_grad else point.detach().requires_grad_()
        entry = self.adopt(leaf, multiplier=multiplier)
        entry.positions = positions
        return entry

    def adopt(
        self, leaf: Tensor, low: Tensor | None = None, high: Tensor | None = None, multiplier: Tensor | None = None
    ) -> Entry:
        """Count a tensor that requires grad as explained input."""
        live = leaf.clone()  # the model may write to it
        tag = Tag(self, live._version)
        dummy = None
        if self.sourced:
            # A zero of stride zero costs no memory; its gradient is relevance, for rules that are no factor.
            dummy = leaf.detach().new_zeros(()).expand(leaf.shape).requires_grad_()
            self.mark(dummy)
            tag.source = Source(dummy, low, high, None)
        attach(live, tag)
        entry = Entry(leaf, live, dummy, multiplier)
        self.entries.append(entry)
        return entry

    def follow(self, tensor: Tensor, source: Tensor) -> None:
        """Count a tensor that was made of a live one outside the mode as live."""
        known = self.tag(source)
        attach(tensor, Tag(self, tensor._version, known.depth, first=known.first))

    def mark(self, tensor: Tensor) -> None:
        """Count a helper tensor (a dummy of the input) as ours."""
        attach(tensor, Tag(self, tensor._version))

    def tag(self, tensor: Tensor) -> Tag:
        """The valid tag of a live tensor; what an in-place operator has made stale is forgotten."""
        tag = raw_tag(tensor)
        if tag is not None and tag.engine is self and tag.version == tensor._version:
            return tag
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

    def current(self, tensor: Tensor) -> Tensor:
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
            # What the model makes in an inference mode of its own has no versions.
            tag = Tag(self, 0 if alias.is_inference() else alias._version)
            tag.weight = is_weight(constant) or constant.requires_grad
            attach(alias, tag)
            entry = self._detached[id(constant)] = self._detached[id(alias)] = (constant, alias)
        return entry[1]

    def place(self, layer: str, weight: Tensor) -> str:
        """A name for a weight that is the same in every run: its layer, and a number where that has several.

        The weight must live until the end of the run.
        """
        key = (layer, weight.data_ptr(), tuple(weight.shape))
        if key not in self._places:
            number = sum(known[0] == layer for known in self._places)
            self._places[key] = f"{layer}#{number}" if number else layer
        return self._places[key]

    def original(self, value: Any) -> Any:
        """The model's own parameter behind a detached alias: some kernels choose their path by ``requires_grad``."""
        entry = self._detached.get(id(value))
        return value if entry is None else entry[0]

    def prepare(self, how: Hashable, sources: Sequence[Tensor | None], make: Callable[[], Tensor]) -> Tensor:
        """What ``make`` makes of weights (None: there is no such one), kept where the model is walked repeatedly."""
        if self.prepared is None:
            return make()
        return self.prepared.made(how, [self.original(t) for t in sources if t is not None], make)

    def hold(self, tensor: Tensor) -> Tensor:
        """A constant while relevance walks (a gate, a divisor), its true derivative kept if that is asked for."""
        if not self.differentiable:
            return tensor.detach()
        held: Tensor = Reroute.apply(self, lambda *cs: (), 1, tensor)
        attach(held, Tag(self, held._version, self.tag(tensor).depth))
        return held

    def admit(self, value: Any, live: list[Tensor]) -> Any:
        """Collect live tensors of an argument; parameters enter detached unless derivatives are asked for."""
        if isinstance(value, Tensor):
            if value.requires_grad:
                tag = raw_tag(value)
                if tag is not None and tag.engine is self and not tag.weight and tag.materialized is None:
                    live.append(value)
                elif self._is_live(value):
                    value = self.current(value)
                    live.append(value)
                elif not self.differentiable:
                    return self.detached(value)
            elif value.is_inference():
                return self.detached(value)
            return value
        if isinstance(value, (list, tuple)) and type(value) is not torch.Size:
            items = [self.admit(v, live) for v in value]
            return items if type(value) is list else rebuild(value, items)  # the model may add to its list later
        return value

    def reaches(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on an explained input."""
        return tensor.requires_grad and self._is_live(tensor)

    def ends(self) -> list[Tensor]:
        """What a walk back must reach: the explained leaves, then their dummies."""
        return [e.leaf for e in self.entries] + [e.dummy for e in self.entries if e.dummy is not None]

    def arrived(self, found: Sequence[Tensor | None]) -> dict[int, tuple[Entry, Tensor | None, Tensor | None]]:
        """What a walk brought for :meth:`ends`: entry, factor and relevance, by the id of what the model got."""
        n = len(self.entries)
        extras = iter(found[n:])
        return {
            id(e.live): (e, factor, next(extras) if e.dummy is not None else None)
            for e, factor in zip(self.entries, found[:n], strict=True)
        }

    def forget(self) -> None:
        """Release every tensor."""
        self.keeper.clear()
        self.entries.clear()
        self.ids.clear()
        self._detached.clear()
        self.move = None


def _speaks_of_zeros(model: Any) -> bool:
    """Whether a module or its type says that what it gives its input is relevance: ``relevance_without_factor``."""
    name = "relevance_without_factor"
    # Not asked of the module itself: for what is not there, torch searches in Python.
    return any(module.__dict__.get(name, getattr(type(module), name, False)) for module in places.modules(model))
