"""Hidden activations as the input: a model that begins at the output of one of its layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from headwater.arguments import Inputs
from headwater.errors import InvalidInput
from headwater.propagate.nested import rebuild
from headwater.propagate.places import module_named
from headwater.question import Question


@dataclass(frozen=True)
class Grafted:
    """The model as a function of one layer's output too, its first argument, in the place of what the layer returns.

    Args:
        model, layer: the model and the layer's name.
        names: of the model's own arguments, or None.
    """

    model: Callable[..., Any]
    layer: str
    names: list[str] | None

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        hidden, *values = [*arguments, *named.values()]

        def exchange(module: Any, args: Any, output: Any) -> Any:
            return _with(output, hidden)

        handle = module_named(self.model, self.layer).register_forward_hook(exchange)
        try:
            return Inputs(list(values), self.names, False).call(self.model, values)
        finally:
            handle.remove()


def grafted(question: Question, layer: str) -> Question:
    """The question with a layer's output as its first argument, and the model's own behind it.

    Raises:
        InvalidInput: for a layer that the model does not have, that does not run exactly once, or whose output has no
            float tensor with one row for each sample.
    """
    module = module_named(question.model, layer)

    def work(rows: slice) -> Tensor:
        part = question.select(torch.arange(rows.start, rows.stop))
        found: list[Any] = []
        handle = module.register_forward_hook(lambda module, args, output: found.append(output))
        try:
            with torch.no_grad():
                part.inputs.call(part.model, part.inputs.values)
        finally:
            handle.remove()
        if len(found) != 1:
            raise InvalidInput(f"Layer {layer!r} runs {len(found)} times in a forward: its output is no one tensor")
        hidden = _tensor(found[0])
        if hidden is None or not hidden.dim() or len(hidden) != part.inputs.samples:
            raise InvalidInput(f"Layer {layer!r} returns no float tensor with one row for each sample")
        return hidden.detach().clone()

    hidden = torch.cat(question.in_batches(work, question.inputs.samples, question.rows_at_a_time))
    names = question.inputs.names
    inputs = Inputs([hidden, *question.inputs.values], None if names is None else ["hidden output", *names], False)
    return replace(question, model=Grafted(question.model, layer, names), inputs=inputs)


def _tensor(output: Any) -> Tensor | None:
    items = output if isinstance(output, (tuple, list)) else [output]
    return next((t for t in items if isinstance(t, Tensor) and t.is_floating_point()), None)


def _with(output: Any, hidden: Tensor) -> Any:
    """What a layer returned, with another tensor in the place of its first."""
    first = _tensor(output)
    if isinstance(output, Tensor):
        return hidden
    return rebuild(output, [hidden if t is first else t for t in output])
