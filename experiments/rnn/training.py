"""Several networks of one kind trained at once, each on a fold of its own, until they are as accurate as asked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from experiments.reproduction import Reproduction
from experiments.rnn.data import Examples

BATCH = 50  # Table 4.1
MINIMUM = {"mnist": 0.98, "fashion_mnist": 0.85}  # Table 4.2
MARGIN = 0.002  # above the minimum where training stops, as validation and test differ


@dataclass(frozen=True)
class Lesson:
    """What one network of several learns from, when it stops, and on what it is judged."""

    training: Examples
    validation: Examples
    test: Examples


@dataclass(frozen=True)
class Size:
    """How long a training may take.

    Attributes:
        examples: at most so many, repetitions counted.
        check: after how many examples validation is looked at.
        rate: of Adam, falling to a tenth of it.
    """

    examples: int
    check: int
    rate: float = 1e-3


def train(
    run: Reproduction, what: str, build: Callable[[], nn.Module], lessons: Sequence[Lesson], size: Size, minimum: float
) -> dict[str, Any]:
    """Train a network for each lesson, all in one program, until each is accurate enough.

    The matrix products run in bfloat16, whatever accumulates in float32. A constant logit of zero stands beside the
    ten, so that a class can only win with a positive one (Section 4.1).

    Returns:
        ``weights``, by name with one row a lesson; ``accuracy`` on test ``[F]``; ``seen`` examples; ``history``, rows
        of seen and the validation accuracy of each.
    """
    stacked = stack_module_state([build() for _ in lessons])[0]
    weights = {name: value.detach().requires_grad_() for name, value in stacked.items()}
    blank = build()
    optimizer = torch.optim.Adam(weights.values(), lr=size.rate, fused=True)
    steps = size.examples // BATCH
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, steps)
    history = []
    for step in run.progress(range(1, steps + 1), what):
        rows = [torch.randint(len(lesson.training), (BATCH,)) for lesson in lessons]
        x = torch.stack([lesson.training.x(at) for lesson, at in zip(lessons, rows, strict=True)])
        y = torch.stack([lesson.training.labels[at] for lesson, at in zip(lessons, rows, strict=True)])
        optimizer.zero_grad()
        loss(together(blank.train(), weights, x), y).backward()
        optimizer.step()
        schedule.step()
        if step * BATCH % size.check < BATCH or step == steps:
            found = accuracy(blank, weights, [lesson.validation for lesson in lessons])
            history.append(torch.cat([torch.tensor([float(step * BATCH)]), found]))
            if bool((found >= minimum + MARGIN).all()):
                break
    frozen = {name: value.detach() for name, value in weights.items()}
    tested = accuracy(blank, frozen, [lesson.test for lesson in lessons])
    return {"weights": frozen, "accuracy": tested, "seen": step * BATCH, "history": torch.stack(history)}


def together(model: nn.Module, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """Logits ``[F, N, 10]`` of several networks, each on inputs of its own ``[F, N, ...]``."""

    def one(own: dict[str, Tensor], values: Tensor) -> Tensor:
        out: Tensor = functional_call(model, own, (values,))
        return out

    with torch.autocast("cpu", torch.bfloat16):
        if len(x) == 1:  # grouped convolutions, which vmap makes, are slow
            only = {name: value[0] for name, value in weights.items()}
            return one(only, x[0]).float().unsqueeze(0)
        return vmap(one, randomness="different")(weights, x).float()


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy with the constant logit, the mean over samples, summed over networks."""
    flat = logits.flatten(0, 1)
    with_zero = torch.cat([flat, flat.new_zeros(len(flat), 1)], 1)
    return F.cross_entropy(with_zero, labels.flatten()) * len(logits)


@torch.no_grad()
def accuracy(model: nn.Module, weights: dict[str, Tensor], examples: Sequence[Examples], batch: int = 250) -> Tensor:
    """The share of each network's examples that it names right, ``[F]``; as many for each."""
    model.eval()
    right = torch.zeros(len(examples))
    for start in range(0, len(examples[0]), batch):
        part = slice(start, start + batch)
        logits = together(model, weights, torch.stack([some.x(part) for some in examples]))
        right += (logits.argmax(2) == torch.stack([some.labels[part] for some in examples])).sum(1)
    return right / len(examples[0])


def network(build: Callable[[], nn.Module], weights: dict[str, Tensor], which: int) -> nn.Module:
    """One of the networks that were trained together, frozen."""
    model = build()
    model.load_state_dict({name: value[which] for name, value in weights.items()})
    return copy.deepcopy(model).eval().requires_grad_(False)
