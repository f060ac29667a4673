"""Training in steps of four digits, and Mean Power on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.filters.data import Digits, prepare
from experiments.filters.networks import LAYERS, Subject, lrp
from experiments.reproduction import Reproduction
from headwater.analyze import mean_power

BATCH = 4  # the paper's
RATE = 1e-4  # Adam's; the paper prints none
ITERATIONS = {"S1": 30_000, "S2": 6_000, "AL1": 3_000, "AL2": 3_000}  # at full scale; an epoch has 15,000
AGAIN = 6_000  # of a further initialization
THRESHOLDS = (0.1, 0.5, 0.9)  # of the largest magnitude; the paper's t is not given


@dataclass(frozen=True)
class History:
    """What was seen of one network in training.

    Attributes:
        subject: which network.
        iterations: of the evaluations, ``[S]``.
        accuracy: ``[S]``.
        power, middle: Mean Power, the mean over digits and the median, ``[S, layers, thresholds]``.
        snapshots: weights by iteration.
    """

    subject: Subject
    iterations: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    power: NDArray[np.float64]
    middle: NDArray[np.float64]
    snapshots: dict[int, dict[str, Tensor]]

    def model(self, iteration: int | None = None) -> nn.Module:
        """The network as it was at an iteration, by default at the end; frozen."""
        model = self.subject.network()
        model.load_state_dict(self.snapshots[max(self.snapshots) if iteration is None else iteration])
        return model.eval().requires_grad_(False)


def history(run: Reproduction, subject: Subject, data: Digits, *, again: int = 0) -> History:
    """Train a network, or read back how it went; ``again`` numbers further initializations."""
    name = f"training_{subject.name}" + (f"_again{again}" if again else "")
    found = run.step(name, lambda: _train(run, subject, data, again))
    return History(
        subject, found["iterations"], found["accuracy"], found["power"], found["middle"],
        {int(key): state for key, state in found["snapshots"].items()},
    )  # fmt: skip


def lengths(run: Reproduction, subject: Subject, again: int = 0) -> tuple[int, int]:
    """Iterations, and how many between two evaluations."""
    small = subject.name.startswith("S")
    last = AGAIN if again else ITERATIONS[subject.name]
    return run.pick(quick=(600 if small else 300, 100), full=(last, 1_000 if small else 500))


def kept(run: Reproduction, subject: Subject) -> int:
    """The iteration before the end of which the weights are kept: at a third, as in Figure 3 B."""
    return lengths(run, subject)[0] // 3


def _train(run: Reproduction, subject: Subject, data: Digits, again: int) -> dict[str, Any]:
    last, every = lengths(run, subject, again)
    model = subject.network()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    per_epoch = len(data.train) // BATCH
    seen: dict[str, list[Any]] = {"iterations": [], "accuracy": [], "power": [], "middle": []}
    snapshots = {}
    for i in run.progress(range(1, last + 1), f"training {subject.name}"):
        if (i - 1) % per_epoch == 0:
            order = torch.randperm(len(data.train)).view(-1, BATCH)
        rows = order[(i - 1) % per_epoch]
        optimizer.zero_grad()
        score = model(prepare(data.train[rows], subject.side))
        nn.functional.cross_entropy(score, data.train_labels[rows]).backward()
        optimizer.step()
        if i % every == 0:
            power, middle = powers(model, drawn(data, subject, run.pick(quick=40, full=240))[0])
            accuracy = _accuracy(model, subject, data, run.pick(quick=200, full=1000))
            for key, value in zip(seen, (i, accuracy, power, middle), strict=True):
                seen[key].append(value)
        if i in (kept(run, subject), last):
            snapshots[str(i)] = {key: value.clone() for key, value in model.state_dict().items()}
    return {**{key: np.stack(values) for key, values in seen.items()}, "snapshots": snapshots}


def drawn(data: Digits, subject: Subject, count: int) -> tuple[Tensor, Tensor]:
    """Test digits at random, as the network takes them, and their labels."""
    rows = torch.randperm(len(data.test))[:count]
    return prepare(data.test[rows], subject.side), data.test_labels[rows]


def _accuracy(model: nn.Module, subject: Subject, data: Digits, count: int) -> float:
    rows = torch.randperm(len(data.test))[:count]
    with torch.no_grad():
        said = torch.cat([model(prepare(data.test[part], subject.side)).argmax(1) for part in rows.split(250)])
    return float((said == data.test_labels[rows]).double().mean())


def powers(model: nn.Module, x: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean Power of the first four convolutions: mean and median over digits, ``[layers, thresholds]`` each.

    Digits without any (no relevance reaches the threshold, or all below it is zero) are left out.
    """
    e = lrp(model, x, layers=LAYERS, training=True)
    found = np.stack([mean_power(e.layers[name], THRESHOLDS) for name in LAYERS])  # [layers, N, thresholds]
    found = np.where(np.isfinite(found), found, np.nan)
    return np.nanmean(found, axis=1), np.nanmedian(found, axis=1)
