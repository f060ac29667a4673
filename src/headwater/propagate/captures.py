"""Relevance of hidden layers: the outputs of named modules, noted as they pass."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from headwater.errors import InvalidInput, InvalidTarget
from headwater.propagate.conditions import mask, restrict
from headwater.propagate.layouts import Layouts
from headwater.propagate.nested import rebuild
from headwater.propagate.places import module_named
from headwater.propagate.tags import Kept, product

if TYPE_CHECKING:
    from headwater.propagate.engine import Propagation


INPUT = ":input"  # of a module's name: what the module is given, not what it returns


class Watcher(Layouts):
    """Watches a run of the model for outputs that no module returns."""

    def noted(self) -> dict[str, list[tuple[Any, Kept, Tensor | None]]]:
        """Outputs found, by a name for each, as :class:`Captures` keeps them."""
        return {}

    def left(self, name: str) -> None:
        """A module that is captured has returned its output."""


class Captures:
    """Notes the outputs of modules while a model runs on this thread, and leaves the modules as they were.

    Args:
        engine: the engine that treats the run.
        model: the model.
        names: modules, by their names in ``model.named_modules()``; ``NAME:input`` notes what the module is given.
        through: modules at whose outputs only a part of the relevance goes on; see
            :mod:`headwater.propagate.conditions`.

    Raises:
        InvalidInput: for a name that the model does not have.
    """

    def __init__(
        self, engine: Propagation, model: Any, names: tuple[str, ...], through: Mapping[str, Tensor] | None = None
    ) -> None:
        self.engine, self.through = engine, through or {}
        self.modules = {name: module_named(model, name.removesuffix(INPUT)) for name in (*names, *self.through)}
        engine.capturing = bool(self.modules)
        if self.through and engine.watch is None:
            engine.watch = Layouts()
        self.found: dict[str, list[tuple[Any, Kept, Tensor | None]]] = {name: [] for name in self.modules}
        self._hooks: list[Any] = []
        self._thread = threading.get_ident()

    def __enter__(self) -> Captures:
        for name, module in self.modules.items():
            if name.endswith(INPUT):
                self._hooks.append(module.register_forward_pre_hook(self._input_hook(name), with_kwargs=True))
            else:
                self._hooks.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    def _hook(self, name: str) -> Any:
        def note(module: nn.Module, args: Any, output: Any) -> Any:
            if threading.get_ident() != self._thread:
                return None
            with torch._C.DisableTorchFunction():
                return self._note(name, output)

        return note

    def _input_hook(self, name: str) -> Any:
        def note(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            if threading.get_ident() != self._thread:
                return None
            with torch._C.DisableTorchFunction():
                if self._first(args) is not None:
                    return self._note(name, args) or args, kwargs
                return args, self._note(name, dict(kwargs)) or kwargs

        return note

    def _note(self, name: str, output: Any) -> Any:
        found = self._first(output)
        if found is None:
            return None
        key, original = found
        if not original.requires_grad:
            self.found[name].append((None, self.engine.keeper.keep(original.detach()), None))
            return None
        value = self.engine.materialize(original)
        kept = self.engine.keeper.keep(value if self.engine.differentiable else value.detach())
        self.found[name].append((get_gradient_edge(value), kept, value))
        if isinstance(self.engine.watch, Watcher):
            self.engine.watch.left(name)
        if name in self.through:
            assert isinstance(self.engine.watch, Layouts), "a condition needs to know where channels lie"
            passing = mask(name, self.through[name], value, self.engine.watch)
            value = restrict(self.engine, name, value, passing)
            kept.passing = passing
        if value is original:
            return None
        if isinstance(output, Tensor):
            return value
        if isinstance(output, (tuple, list)):
            return rebuild(output, [value if t is original else t for t in output])
        output[key] = value  # a dictionary of the model's own making
        return output

    @staticmethod
    def _first(output: Any) -> tuple[Any, Tensor] | None:
        """The first float tensor of what a module returned, and where it stands."""
        items = (
            output.items()
            if isinstance(output, Mapping)
            else enumerate(output if isinstance(output, (tuple, list)) else [output])
        )
        return next(((k, t) for k, t in items if isinstance(t, Tensor) and t.is_floating_point()), None)

    def neuron(self, target: Any) -> Tensor:
        """The activation ``[N]`` that a :class:`headwater.target.Neuron` names.

        Raises:
            InvalidTarget: where the layer did not run, or its output has no such index.
        """
        runs = self.found[target.layer]
        if not runs or runs[-1][2] is None:
            raise InvalidTarget(f"Layer {target.layer!r} did not run, or its output does not depend on x")
        return activation(runs[-1][2], target)

    def _edges(self) -> list[list[tuple[Any, Kept]]]:
        """For each noted output, the places that carry its relevance: itself, and calls that it was folded into."""
        places = []
        for runs in self.found.values():
            for edge, kept, tensor in runs:
                ends = [(edge, kept)] if edge is not None else []
                affine = self.engine.tag(tensor).affine if tensor is not None else None
                while affine is not None and affine.folded is not None:
                    affine, folded = affine.folded
                    ends.append(folded)
                places.append(ends)
        return places

    def check(self) -> None:
        """Refuse conditions at layers that have not run.

        Raises:
            InvalidInput: where there is one.
        """
        for name in self.through:
            if not any(edge is not None for edge, *_ in self.found[name]):
                raise InvalidInput(f"Layer {name!r} of through= did not run, or its output does not depend on x")

    def ends(self) -> list[Any]:
        """Gradient edges whose factors :meth:`relevance` needs, in order."""
        return [edge for ends in self._edges() for edge, _ in ends]

    def relevance(self, factors: list[Tensor | None]) -> dict[str, list[Tensor]]:
        """Relevance of each module's outputs, a list with one for each time it ran."""
        return {
            name: [sum((product(v, c) for v, c in run[1:]), product(*run[0])) for run in runs]
            for name, runs in self._arrived(factors).items()
        }

    def parts(self, factors: list[Tensor | None]) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """Value and factor of each module's outputs, a list with one pair for each time it ran."""
        return {name: [run[0] for run in runs] for name, runs in self._arrived(factors).items()}

    def _arrived(self, factors: list[Tensor | None]) -> dict[str, list[list[tuple[Tensor, Tensor]]]]:
        """For each run of each module the pairs of value and factor that carry its relevance; the first is its own."""
        rest, result = iter(factors), iter(self._edges())
        arrived: dict[str, list[list[tuple[Tensor, Tensor]]]] = {}
        for name, runs in self.found.items():
            arrived[name] = []
            for _, kept, _ in runs:
                found = [_placed(value, next(rest), kept) for _, value in next(result)] or [(kept.value, None)]
                whole = 1.0 if kept.passing is None else kept.passing
                arrived[name].append([(v, torch.zeros_like(v) if c is None else c * whole) for v, c in found])
        return arrived


def _placed(value: Kept, factor: Tensor | None, own: Kept) -> tuple[Tensor, Tensor | None]:
    """A value and its factor, shaped like the output that is asked for where only a part of that was folded."""
    if value.widened is None or value.value.shape == own.value.shape:
        return value.value, factor
    return value.widened(value.value), None if factor is None else value.widened(factor)


def activation(value: Tensor, target: Any) -> Tensor:
    """The activation ``[N]`` of a layer's output that a :class:`headwater.target.Neuron` names.

    Raises:
        InvalidTarget: where the output has no such index, or the index names several values.
    """
    index = target.index if isinstance(target.index, tuple) else (target.index,)
    try:
        picked = value[(slice(None), *index)]
    except IndexError:
        raise InvalidTarget(f"{target!r} is out of range for a layer output of shape {tuple(value.shape)}") from None
    if picked.dim() != 1:
        one = (*index, *(0 for _ in picked.shape[1:]))
        raise InvalidTarget(
            f"{target!r} names {math.prod(picked.shape[1:])} values of a layer output of shape {tuple(value.shape)}: "
            f"name one a sample by an index for every axis after the first, such as {one}"
        )
    return picked
