"""Remove and retrain: is what a map points to needed to learn the task at all?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headwater.errors import InvalidInput
from headwater.evaluate.explainer import Explainer, Method, random_relevance
from headwater.evaluate.flipping import ranking
from headwater.evaluate.statistics import bootstrap_interval
from headwater.remove.features import Pool, features_of
from headwater.remove.imputers import Imputer, Mean
from headwater.target import select_output

Train = Callable[[Tensor, Tensor, int], Any]
Set = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Retrained:
    """Test accuracy of models that were trained without the most relevant features.

    Attributes:
        fractions: of the features that were removed, ``[S]``; the first is 0.
        accuracies: ``[S, repeats]``, 0 to 1; with ``random``: the same without as many features drawn at random.
        random: ``[S, repeats]``.
        settings: how it was done.
    """

    fractions: Tensor
    accuracies: Tensor
    random: Tensor
    settings: dict[str, Any]

    @property
    def gap(self) -> float:
        """By how much the method's removal hurts more than a random one, on average over the fractions above 0."""
        return float((self.random - self.accuracies)[1:].mean())

    def interval(self, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
        """Bootstrap interval of the mean accuracy over repeats: low and high, ``[S]`` each."""
        return bootstrap_interval(self.accuracies.T, confidence=confidence)


def remove_and_retrain(
    train: Train, training: Set, test: Set, method: Method = "lrp", *,
    fractions: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9), features: Any = None, imputer: Imputer | None = None,
    pool: Pool = "sum", repeats: int = 1, seed: int = 0,
) -> Retrained:  # fmt: skip
    """Train, explain, remove the most relevant features of every training and test sample, train anew, test.

    Args:
        train: the user's training: called with samples, labels and a seed, it returns a model in evaluation mode.
        training, test: samples ``[M, ...]`` and labels ``[M]``. Labels are the explained classes, as in the paper.
        method: a name, a dict of options of ``hw.explain``, or a function ``(model, x, target) -> relevance``.
        fractions: of the features to remove, each above 0 up to 1, rising.
        features, pool: as for :func:`~headwater.evaluate.pixel_flipping`.
        imputer: what takes the place of what is removed; by default each sample's mean, as in the paper.
        repeats: trainings at each fraction, with the seeds ``seed``, ``seed + 1``, ...
        seed: of trainings, random features and imputers.

    Raises:
        InvalidInput: fractions or repeats that do not fit.

    Source: Hooker et al.: A Benchmark for Interpretability Methods in Deep Neural Networks (ROAR), NeurIPS 2019.
    """
    steps = list(fractions)
    if not steps or sorted(set(steps)) != steps or steps[0] <= 0 or steps[-1] > 1 or repeats < 1:
        raise InvalidInput(
            f"fractions must rise from above 0 to at most 1 and repeats be at least 1, not {steps}, {repeats}"
        )
    explainer, imputer = Explainer.of(method), Mean() if imputer is None else imputer
    models = [train(*training, seed + i) for i in range(repeats)]
    start = [_accuracy(model, test) for model in models]
    maps = [explainer.maps(models[0], *part) for part in (training, test)]
    chance = [random_relevance(part[0], seed + i) for i, part in enumerate((training, test))]
    rows: list[list[list[float]]] = [[start], [start]]
    for fraction in steps:
        for row, relevances in zip(rows, (maps, chance), strict=True):
            without = [
                (_without(x, r, fraction, features, imputer, pool, seed), y)
                for (x, y), r in zip((training, test), relevances, strict=True)
            ]
            row.append([_accuracy(train(*without[0], seed + i), without[1]) for i in range(repeats)])
    settings = {"method": explainer.name, "imputer": repr(imputer), "pool": pool, "repeats": repeats, "seed": seed}
    return Retrained(torch.tensor([0.0, *steps]), torch.tensor(rows[0]), torch.tensor(rows[1]), settings)


def _without(
    x: Tensor, relevance: Tensor, fraction: float, features: Any, imputer: Imputer, pool: Pool, seed: int
) -> Tensor:
    """The samples without this fraction of their most relevant features."""
    parts = features_of(x, features)
    removed = ranking(parts.pooled(relevance, pool), "most") < (fraction * parts.counts[:, None]).round()
    fill = imputer.prepare(x, torch.Generator().manual_seed(seed))
    return fill(x, parts.placed(removed).to(x.device), torch.arange(len(x)))


def _accuracy(model: Any, test: Set, batch: int = 256) -> float:
    with torch.no_grad():
        found = torch.cat([select_output(model(part.clone())).argmax(1) for part in test[0].split(batch)])
    return float((found == test[1].to(found.device)).double().mean())
