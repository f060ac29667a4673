"""What the census asks: an architecture and its builder, and how a built model is made fit to be explained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headwater.target import select_output

SINGLE = 1e-4  # what may stay unexplained at an operator, of |f| + sum |R|, in float32
DOUBLE = 1e-8  # the same in float64


@dataclass(frozen=True)
class Built:
    """A model, what it is called with (a tensor, tuple or dict), how it was made small, and what of it is explained.

    Without a ``target`` that is the default of :func:`headwater.explain`, or the sum of the output.
    """

    model: nn.Module
    inputs: Any
    note: str = ""
    target: Callable[[Any], Tensor] | None = None

    def output(self, raw: Any) -> Tensor:
        """What of an answer of the model's is explained: what the target makes of it, else its first output."""
        return select_output(raw) if self.target is None else self.target(raw)


class NotBuilt(Exception):
    """An architecture that cannot be made small or run here; the text says why."""


@dataclass(frozen=True)
class Subject:
    """One architecture: the library it comes from, its name there, and its builder."""

    source: str
    name: str
    build: Callable[[], Built]

    @property
    def key(self) -> str:
        return f"{self.source}:{self.name}"


def runs(model: nn.Module, inputs: Any) -> Any:
    """The model's own output, without gradients."""
    with torch.no_grad():
        if isinstance(inputs, dict):
            return model(**inputs)
        return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def enliven(model: nn.Module) -> nn.Module:
    """Draw what is constant or faint at initialization, so that no term of a formula is there only as zero or one.

    Biases, norms, layer scales and statistics of batch norm are moved; matrices whose spread is below
    ``1 / sqrt(inputs)`` are widened to it, so that a narrow model does not fade out.
    """
    generator = torch.Generator().manual_seed(0)

    def noise(t: Tensor) -> Tensor:
        return torch.randn(t.shape, generator=generator).to(t.dtype)

    with torch.no_grad():
        for p in model.parameters():
            if not p.is_floating_point() or not p.numel() or (p.numel() == 1 and p.item() != 0):
                continue  # a single number, unless it is zero, is a temperature or a scale that has its sense
            if p.min() == p.max():
                p.add_(0.1 * noise(p))
            elif p.dim() > 1 and 0 < (spread := float(p.std())) < (wanted := p[0].numel() ** -0.5):
                p.mul_(wanted / spread)
        for key, buffer in model.named_buffers():
            if key.endswith("running_mean"):
                buffer.copy_(0.1 * noise(buffer))
            elif key.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator).to(buffer.dtype))
    return model.eval()


def first_that_runs(candidates: Iterable[Built]) -> Built:
    """The first candidate whose forward runs.

    Raises:
        NotBuilt: where none does; the text is the first failure's.
    """
    reason = ""
    for built in candidates:
        try:
            runs(built.model, built.inputs)
        except Exception as error:  # whatever a model raises on an input that is not for it
            reason = reason or f"{type(error).__name__}: {error}"
        else:
            return built
    raise NotBuilt(reason or "nothing to try")


def converted(value: Any, dtype: torch.dtype) -> Any:
    """The same inputs with floating-point tensors in another dtype."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {k: converted(v, dtype) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(converted(v, dtype) for v in value)
    return value
