"""For researchers: inside ``with hw.propagating(...)`` the gradient of anything is its factor."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from headwater.errors import InvalidInput
from headwater.propagate import ids as token_ids
from headwater.propagate.composites import Composite, preset
from headwater.propagate.engine import Propagation
from headwater.propagate.tags import product


class propagating:
    """A context in which models run under the rules of a composite.

    Float tensors that are passed to a module inside become explained inputs; :meth:`relevance` tells how a result
    depends on them, also under the rules that are no factor.

    Args:
        composite: a preset's name or a :class:`headwater.Composite`.
        differentiable: keep the graph of the relevance.
        bounds: ``(low, high)`` of the inputs, for rules with a box.

    Source: Samek et al. 2021 (review), Algorithm 8.
    """

    def __init__(
        self, composite: Composite | str = "default", *, differentiable: bool = False, bounds: Any = None
    ) -> None:
        self.composite = preset(composite) if isinstance(composite, str) else composite
        self.engine = Propagation(self.composite, differentiable=differentiable)
        self.bounds = (None, None) if bounds is None else tuple(torch.as_tensor(b) for b in bounds)
        self._entered: dict[int, tuple[Tensor, Tensor]] = {}
        self._thread = threading.get_ident()
        self._hook: Any = None

    def __enter__(self) -> propagating:
        self._hook = register_module_forward_pre_hook(self._enter_inputs)
        self._grad = torch.enable_grad()
        self._grad.__enter__()
        self.engine.__enter__()
        self.engine.walking = self.engine.retaining = True  # the gradient of anything is its factor
        return self

    def __exit__(self, *error: Any) -> None:
        self.engine.walking = self.engine.retaining = False
        self.engine.__exit__(*error)
        self._grad.__exit__(*error)
        self._hook.remove()

    def _enter_inputs(self, module: nn.Module, args: Any) -> Any:
        """The first module that a plain tensor meets makes it an explained input."""
        if threading.get_ident() != self._thread:
            return None
        with torch._C.DisableTorchFunction():
            return tuple(self._enter(a) for a in args)

    def _enter(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or isinstance(value, nn.Parameter) or value.dtype == torch.bool:
            return value
        if value.requires_grad and not value.is_leaf:
            return value
        if id(value) not in self._entered:
            # A leaf that requires grad stays the leaf, so that torch.autograd.grad finds its factor.
            own = value.requires_grad and not value.is_inference()
            live = self.engine.adopt(value, *self.bounds).live if own else self.engine.enter(value, *self.bounds)
            self._entered[id(value)] = (value, live)
        return self._entered[id(value)][1]

    def relevance(self, x: Tensor, of: Tensor) -> Tensor:
        """Relevance of ``x`` (an input, or any tensor on the way) for the sum of ``of``; shape of ``x``.

        For token ids ``[N, T]`` it is that of their embedding, ``[N, T, D]``.

        Raises:
            InvalidInput: where ``of`` does not depend on ``x``, or ``x`` never met a module in this context.
        """
        with torch._C.DisableTorchFunction(), torch.enable_grad():
            return self._relevance(x, of)

    def _relevance(self, x: Tensor, of: Tensor) -> Tensor:
        engine = self.engine
        if not engine.reaches(of):
            raise InvalidInput("relevance(x, of=...): 'of' does not depend on any explained input of this context")
        of = engine.materialize(of)
        engine.depth = engine.tag(of).depth
        live = self._entered[id(x)][1] if id(x) in self._entered else x
        embedded = engine.ids.get(id(live))
        entries = [e for e in engine.entries if e.live is live] if embedded is None else embedded[1]
        if not entries:
            return self._hidden(live, of)
        found = engine.arrived(engine.gradients(of.sum(), engine.ends(), retain=True))
        total = None
        for entry in entries:
            _, factor, extra = found[id(entry.live)]
            if factor is None and extra is None:
                continue
            part = torch.zeros_like(entry.leaf) if factor is None else product(entry.leaf, factor)
            part = part if extra is None else part + extra
            part = part if entry.positions is None else token_ids.gather([(part, entry.positions)], x)
            total = part if total is None else total + part
        if total is None:
            raise InvalidInput("relevance(x, of=...): 'of' does not depend on x")
        return total if engine.differentiable else total.detach()

    def _hidden(self, x: Tensor, of: Tensor) -> Tensor:
        if not x.requires_grad or not self.engine.reaches(x):
            raise InvalidInput(
                "relevance(x, ...): x is no input of a module in this context, nor made inside it from one"
            )
        place = self.engine.materialize(x)
        factor = self.engine.gradients(of.sum(), [place], retain=True)[0]
        if factor is None:
            raise InvalidInput("relevance(x, of=...): 'of' does not depend on x")
        total = product(place, factor)
        return total if self.engine.differentiable else total.detach()
