"""All methods on tasks of which the right answer is known, ranked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwater.batches import in_batches
from headwater.errors import HeadwaterError, HeadwaterWarning
from headwater.evaluate import truth
from headwater.evaluate.agreement import correlation
from headwater.evaluate.board import Board, number
from headwater.evaluate.drawing import CHANCE
from headwater.evaluate.explainer import Explainer, Method, random_relevance
from headwater.evaluate.localization import block_cosine, mass_accuracy
from headwater.methods import methods as register

SAMPLES, TRAINING = 32, 512  # that are explained, and that a task's model learns from
Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """A model, samples, and how near a map comes to the known answer.

    Attributes:
        name: a word; ``measure``: what the score is, at most 1.
        model, x, target: what is explained.
        score: of relevance ``[N, ...]``, ``[N]``.
        accuracy: of the model on these samples; 1 where it was not trained but built.
    """

    name: str
    measure: str
    model: nn.Module
    x: Tensor
    target: Any
    score: Score
    accuracy: float = 1.0


def ground_truth(
    methods: Sequence[Method] | Mapping[str, Method] | None = None, *, seed: int = 0, progress: bool | None = None
) -> Board:
    """Rank methods by how near they come to known answers.

    Six small tasks: a linear model and a network of logic gates, whose relevance is known in closed form (score:
    correlation with it); the thesis's majority sequences through an LSTM (cosine per block); and networks trained on
    planted watermarks, tones and keywords (share of the positive relevance that lies on them). Each is made anew from
    the seed within seconds. The score of a task is the mean over its samples; the rank of a method is the mean of its
    ranks in the tasks it serves.

    Args:
        methods: as for :func:`~headwater.evaluate.compare`; by default every one in ``hw.methods()`` that runs without
            options of the user's.
        seed: of data, training and everything else random.
        progress: as for ``hw.explain``.

    Returns:
        a board whose records hold ``method``, ``rank``, ``tasks`` (how many it serves) and a score for each task (None
        where it does not serve).

    Source: Chormai 2018 (thesis), Section 4.3; Arras, Osman, Samek: CLEVR-XAI, 2022.
    """
    if methods is None:
        methods = [row.name for row in register() if row.run is not None]
    named = list(methods.items()) if isinstance(methods, Mapping) else [(None, method) for method in methods]
    explainers = [Explainer.of(method, name, seed=seed, progress=False) for name, method in named]
    tasks = in_batches(lambda at: TASKS[at.start](seed), len(TASKS), 1, progress, "making tasks")

    def work(at: slice) -> dict[str, float | None]:
        return {task.name: _score(explainers[at.start], task) for task in tasks}

    scores = in_batches(work, len(explainers), 1, progress, "explaining")
    scores.append({t.name: float(t.score(random_relevance(t.x, seed)).nanmean()) for t in tasks})
    return _board([*(e.name for e in explainers), CHANCE], scores, tasks)


def _score(explainer: Explainer, task: Task) -> float | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HeadwaterWarning)  # bounds that were not given
            maps = explainer.maps(task.model, task.x, task.target)
    except (HeadwaterError, RuntimeError, TypeError):  # options of the user's own that are missing, say
        return None
    if maps.dim() == task.x.dim() + 1 and not task.x.is_floating_point():
        maps = maps.sum(-1)
    return float(task.score(maps).nan_to_num(0.0).mean())


def _board(names: Sequence[str], scores: Sequence[Mapping[str, float | None]], tasks: Sequence[Task]) -> Board:
    ranks: dict[str, list[float]] = {name: [] for name in names}
    for task in tasks:
        served = [(n, v) for n, s in zip(names, scores, strict=True) if (v := s[task.name]) is not None]
        for name, value in served:
            above = sum(other > value for _, other in served)
            equal = sum(other == value for _, other in served)
            ranks[name].append(1 + above + (equal - 1) / 2)
    records = [
        {"method": name, "rank": sum(ranks[name]) / len(ranks[name]), "tasks": len(ranks[name]), **found}
        for name, found in zip(names, scores, strict=True)
        if ranks[name]
    ]
    records.sort(key=lambda r: (-r["tasks"], r["rank"]))  # type: ignore[operator]
    columns = ["rank", "tasks", *(task.name for task in tasks)]
    rows = [(str(r["method"]), *(number(r[c]) for c in columns)) for r in records]
    notes = ["rank: mean over the tasks served; methods that serve fewer stand below, as fewer ranks tell less"]
    notes += [f"{t.name}: {t.measure}; the model is right on {t.accuracy:.0%} of the {len(t.x)} samples" for t in tasks]
    none = [name for name in names if not ranks[name]]
    notes += [f"serve no task without options of yours: {', '.join(none)}"] if none else []
    return Board(("method", *columns), tuple(rows), tuple(records), tuple(notes))


def _linear(seed: int) -> Task:
    made = truth.linear(SAMPLES, seed=seed)
    return Task("linear", "correlation with w ⊙ x", made.model, made.x, None, lambda r: correlation(r, made.relevance))


def _logic(seed: int) -> Task:
    made = truth.logic(SAMPLES, seed=seed)
    some = made.relevance.std(1) > 0  # of a constant answer nothing can be told

    def score(relevance: Tensor) -> Tensor:
        return correlation(relevance[some], made.relevance[some])

    return Task("logic", "correlation with Shapley values", made.model, made.x, None, score)


class _Majority(nn.Module):
    """Columns in steps of four through an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(32, 48, batch_first=True), nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.unflatten(2, (-1, 4)).movedim(2, 1).flatten(2)
        return self.out(self.lstm(steps)[0].mean(1))


def _majority(seed: int) -> Task:
    generator = torch.Generator().manual_seed(seed)
    glyphs = (torch.rand(4, 8, 8, generator=generator) < 0.5).float()
    labels = torch.arange(4).repeat(TRAINING // 4)
    images = (glyphs[labels] + 0.2 * torch.randn(TRAINING, 8, 8, generator=generator)).clamp(0, 1)
    made = truth.majority_sequences(images, labels, count=4 * TRAINING, seed=seed)
    return _trained(
        "majority", "cosine per block", _Majority, made, seed, lambda r, marks: block_cosine(r, marks), steps=300
    )


def _watermark(seed: int) -> Task:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(TRAINING + SAMPLES) % 2
    images = torch.rand(len(labels), 1, 24, 24, generator=generator)
    made = truth.watermarked(images, labels, 1, seed=seed)

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
            nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 2),
        )  # fmt: skip

    return _trained("watermark", "share of relevance on the watermark", model, made, seed, mass_accuracy)


def _tones(seed: int) -> Task:
    made = truth.tones(TRAINING + SAMPLES, seed=seed)

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv1d(1, 12, 9, padding=4), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(12, 16, 9, padding=4), nn.ReLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 3),
        )  # fmt: skip

    return _trained("tones", "share of relevance on the tone", model, made, seed, mass_accuracy)


class _Bag(nn.Module):
    """Words embedded, each through a hidden layer, and averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden, self.out = nn.Embedding(50, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(self.words(ids))).mean(1))


def _words(seed: int) -> Task:
    made = truth.words(TRAINING + SAMPLES, seed=seed)
    return _trained("words", "share of relevance on the keyword", _Bag, made, seed, mass_accuracy)


def _trained(
    name: str, measure: str, build: Callable[[], nn.Module], made: truth.Planted, seed: int,
    score: Callable[[Tensor, Tensor], Tensor], steps: int = 200,
) -> Task:  # fmt: skip
    """A network that learnt the task from all but the last samples; these are explained where they have evidence."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(made.y) - SAMPLES, (64,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(made.x[rows]), made.y[rows]).backward()
        optimizer.step()
    model.eval().requires_grad_(False)
    x, y, marks = made.x[-SAMPLES:], made.y[-SAMPLES:], made.truth[-SAMPLES:]
    some = marks.flatten(1).any(1)
    x, y, marks = x[some], y[some], marks[some]
    accuracy = float((model(x).argmax(1) == y).double().mean())
    return Task(name, measure, model, x, y, lambda relevance: score(relevance, marks), accuracy)


TASKS: list[Callable[[int], Task]] = [_linear, _logic, _majority, _watermark, _tones, _words]
