"""Training of the detector: stochastic gradient descent, stopped where validation no longer improves."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.earthquake.data import Source, Windows
from experiments.earthquake.networks import Detector

BATCH, RATE, MOMENTUM, PATIENCE = 512, 1e-2, 0.9, 50  # Section 2.3 of the paper


@dataclass(frozen=True)
class Size:
    """How much a training sees.

    Attributes:
        trainings: how many networks are trained.
        steps: batches an epoch.
        epochs: at most.
    """

    trainings: int
    steps: int
    epochs: int


def train(source: Source, size: Size, seed: int, channels: int = 32) -> dict[str, Any]:
    """Train one network from its own weights and order.

    Returns:
        Its ``state``, that of the epoch with the lowest validation loss; ``loss`` of each epoch on training and on
        validation windows ``[epochs, 2]``; the ``epoch`` kept.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model, held = Detector(channels), source.fixed("validation", per_event=10)
    optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM)
    best, kept, state, losses = float("inf"), 0, model.state_dict(), []
    for epoch in range(size.epochs):
        total = sum(step(model, optimizer, source.draw("train", BATCH, generator)) for _ in range(size.steps))
        validation = float(F.binary_cross_entropy_with_logits(scores(model, held.x), held.y.float()))
        losses.append((total / size.steps, validation))
        if validation < best:
            best, kept, state = validation, epoch, copy.deepcopy(model.state_dict())
        elif epoch - kept >= PATIENCE:
            break
    return {"state": dict(state), "loss": torch.tensor(losses), "epoch": kept}


def step(model: nn.Module, optimizer: torch.optim.Optimizer, windows: Windows) -> float:
    """One batch; its loss."""
    loss = F.binary_cross_entropy_with_logits(model(windows.x), windows.y.float())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def scores(model: nn.Module, x: Tensor, size: int = 256) -> Tensor:
    """The score of every window ``[N]``, without a graph."""
    with torch.no_grad():
        return torch.cat([model(part) for part in x.split(size)])


def accuracy(found: Tensor, y: Tensor) -> float:
    """The share of windows whose score lies on the right side of 0."""
    return float(((found > 0) == (y == 1)).double().mean())
