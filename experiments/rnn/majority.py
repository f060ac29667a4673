"""Experiments 2 and 3: which cells name the majority of three images, and lay the relevance on its two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from experiments.reproduction import Reproduction
from experiments.rnn import data
from experiments.rnn.cells import CELLS
from experiments.rnn.data import Examples, Images
from experiments.rnn.explaining import METHODS, MODERN_METHODS, Explain
from experiments.rnn.modern import MODERN, STEPS, WIDTH
from experiments.rnn.training import MINIMUM, Lesson, Size, network, train
from headwater.evaluate import block_cosine, block_percentage

DEPTH = ("Shallow", "Deep", "DeepV2", "ConvDeep")  # figure 4.12
FLOOR = 0.3  # beats chance clearly: what a cell's networks only hint at where none of them reaches Table 4.2
LABELS = (1, 3, 5, 8, 9)  # of the samples whose heatmaps are drawn


@dataclass(frozen=True)
class Subject:
    """A cell in the comparison.

    Attributes:
        name: of the cell.
        build: its network.
        methods: that explain it.
        cost: what one example costs: "plain", "convolution" or "literal".
        alone: its folds are trained one after the other: torch groups convolutions slowly and cannot group LSTMs.
    """

    name: str
    build: Callable[[], nn.Module]
    methods: Mapping[str, Explain]
    cost: str = "plain"
    alone: bool = False


@dataclass(frozen=True)
class Found:
    """What a cell did on a set, each row a fold.

    Attributes:
        accuracy: ``[F]``; ``kept``: bool ``[F]``, those that reach Table 4.2, or, where none does, that beat chance.
        enough: whether the kept ones reach Table 4.2.
        positive: share of samples whose true class has a positive score ``[F]``.
        cosine, percentage: for each method, over the samples of a fold, ``[F]`` (Eq. 4.1).
        error: for each method, the largest part of the score that its relevance misses.
        maps: for each method, relevance of the samples shown ``[S, 28, 84]``, of the first fold.
        seen: examples each was trained on.
    """

    accuracy: Tensor
    kept: Tensor
    enough: bool
    positive: Tensor
    cosine: dict[str, Tensor]
    percentage: dict[str, Tensor]
    error: dict[str, float]
    maps: dict[str, Tensor]
    seen: int


def subjects() -> list[Subject]:
    """The thesis's ten cells, those of figure 4.12 first, and the modern ones."""
    cost = {name: "literal" if "Conv+" in name else "convolution" if "Conv" in name else "plain" for name in CELLS}
    own = [
        Subject(cell.name, partial(cell.build, WIDTH, STEPS), METHODS, cost[cell.name], "Conv" in cell.name)
        for cell in CELLS.values()
    ]
    return own + [Subject(name, build, MODERN_METHODS, alone=True) for name, build in MODERN.items()]


def study(run: Reproduction) -> dict[str, dict[str, Found]]:
    """Train, judge and explain every cell: by set, then by cell."""
    found: dict[str, dict[str, Found]] = {}
    for name in data.sets(run):
        images = data.load(run, name)
        found[name] = {subject.name: _studied(run, subject, name, images) for subject in subjects()}
    return found


def shown(run: Reproduction, name: str) -> Examples:
    """The samples whose heatmaps are drawn, of the first fold."""
    return _first(_test(run, data.load(run, name), 0))


def _folds(run: Reproduction, subject: Subject) -> int:
    return run.pick(quick=2, full=data.FOLDS if subject.name in DEPTH else 3)


def _size(run: Reproduction, subject: Subject, name: str) -> Size:
    """At most so many examples: what an hour of one core allows for all cells, or two minutes."""
    longest = {
        "plain": run.pick(quick=10_000, full=240_000 if name == "mnist" else 80_000),
        "convolution": run.pick(quick=5_000, full=60_000 if name == "mnist" else 40_000),
        "literal": run.pick(quick=250, full=20_000),
    }[subject.cost]
    return Size(longest, check=max(longest // 16, 5000), rate=2e-3)


def _studied(run: Reproduction, subject: Subject, name: str, images: Images) -> Found:
    folds = _folds(run, subject)
    label = f"{name}-{subject.name.replace(' ', '')}"
    parts = [range(fold, fold + 1) for fold in range(folds)] if subject.alone else [range(folds)]
    trained = [
        run.step(f"train-{label}-{part.start}", lambda part=part: _train(run, subject, name, images, part))  # type: ignore[misc]
        for part in parts
    ]
    weights = {key: torch.cat([each["weights"][key] for each in trained]) for key in trained[0]["weights"]}
    told = run.step(f"explain-{label}", lambda: _explain(run, subject, images, weights, folds))
    accuracy = torch.cat([each["accuracy"] for each in trained])
    reach = accuracy >= MINIMUM[name]
    return Found(
        accuracy,
        reach if bool(reach.any()) else accuracy >= FLOOR,
        bool(reach.any()),
        told["positive"],
        told["cosine"],
        told["percentage"],
        told["error"],
        told["maps"],
        max(each["seen"] for each in trained),
    )


def _train(run: Reproduction, subject: Subject, name: str, images: Images, folds: range) -> dict[str, Any]:
    held = run.pick(quick=300, full=1500)
    lessons = []
    for fold in folds:
        rows, _ = data.split(images, fold, run.seed)
        examples = Examples.majority(images, rows, len(rows), run.seed + fold)
        lessons.append(Lesson(examples[held:], examples[:held], _test(run, images, fold)))
    size = _size(run, subject, name)
    return train(run, f"{subject.name} on {name}", subject.build, lessons, size, MINIMUM[name])


def _test(run: Reproduction, images: Images, fold: int) -> Examples:
    _, rows = data.split(images, fold, run.seed)
    return Examples.majority(images, rows, run.pick(quick=400, full=3000), run.seed + 100 + fold)


def _explain(
    run: Reproduction, subject: Subject, images: Images, weights: dict[str, Tensor], folds: int
) -> dict[str, Any]:
    count = run.pick(quick=40, full=200)
    cosine, percentage = ({method: torch.full((folds,), torch.nan) for method in subject.methods} for _ in range(2))
    error = dict.fromkeys(subject.methods, 0.0)
    positive = torch.zeros(folds)
    for fold in run.progress(range(folds), f"explaining {subject.name}"):
        model = network(subject.build, weights, fold)
        test = _test(run, images, fold)[:count]
        score = model(test.x()).gather(1, test.labels[:, None])[:, 0]
        told = score > 0  # where nothing speaks for the class, there is nothing to lay on pixels
        x, y, marks, score = test.x()[told], test.labels[told], test.marks[told], score[told]
        positive[fold] = told.float().mean()
        for method, explain in subject.methods.items() if bool(told.any()) else ():
            relevance = explain(model, x, y)
            cosine[method][fold] = block_cosine(relevance, marks).nanmean()
            percentage[method][fold] = block_percentage(relevance, marks).nanmean()
            missed = (relevance.sum((1, 2)) - score).abs() / score
            error[method] = max(error[method], float(missed.max()))
    model, some = network(subject.build, weights, 0), _first(_test(run, images, 0))
    maps = {method: explain(model, some.x(), some.labels) for method, explain in subject.methods.items()}
    return {"cosine": cosine, "percentage": percentage, "positive": positive, "error": error, "maps": maps}


def _first(test: Examples) -> Examples:
    """The first sample of each of a few classes."""
    return test[torch.tensor([int((test.labels == label).nonzero()[0]) for label in LABELS])]
