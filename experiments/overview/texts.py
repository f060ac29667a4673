"""Texts (Section 5.2): a convolutional network of topics and an LSTM of film reviews; words deleted, and their sign."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import headwater as hw
from experiments.overview.corpus import PAD, RARE, Corpus, log_odds, sentences, topics
from experiments.overview.wordmap import word_maps
from experiments.reproduction import Reproduction
from experiments.verdicts import below, verdict
from headwater.evaluate import bootstrap_interval, pixel_flipping
from headwater.evaluate.drawing import plot_curves
from headwater.evaluate.flipping import Flipping

METHODS: dict[str, dict[str, Any]] = {"lrp": {}, "sensitivity": {"squared": True}}
AGAINST = 5  # words with the most negative relevance, which are deleted together


class Convolved(nn.Module):
    """Embedded words, one convolution over pairs of them, the maximum over the text."""

    def __init__(self, vocabulary: int, classes: int, width: int, filters: int) -> None:
        super().__init__()
        self.words, self.dropout = nn.Embedding(vocabulary, width, padding_idx=PAD), nn.Dropout(0.3)
        self.convolution, self.out = nn.Conv1d(width, filters, 2), nn.Linear(filters, classes)

    def forward(self, ids: Tensor) -> Tensor:
        found = torch.relu(self.convolution(self.dropout(self.words(ids)).mT)).amax(2)
        scores: Tensor = self.out(self.dropout(found))
        return scores


class Read(nn.Module):
    """Embedded words, an LSTM, its last state."""

    def __init__(self, vocabulary: int, classes: int, width: int) -> None:
        super().__init__()
        self.words, self.dropout = nn.Embedding(vocabulary, width, padding_idx=PAD), nn.Dropout(0.5)
        self.memory, self.out = nn.LSTM(width, width, batch_first=True), nn.Linear(width, classes)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.memory(self.dropout(self.words(ids)))
        scores: Tensor = self.out(self.dropout(states[:, -1]))
        return scores


@dataclass(frozen=True)
class Task:
    """A corpus, what learns it, and how many words are deleted in how many steps.

    Attributes:
        key: for steps and claims; ``source``: where in the paper; ``told``: the network in words.
    """

    key: str
    source: str
    told: str
    corpus: Corpus
    build: Callable[[], nn.Module]
    epochs: int
    deleted: int
    steps: int
    explained: int


def report(run: Reproduction) -> None:
    """Both corpora: curves, heatmaps, and the claims on faithfulness and on signs."""
    tasks = _tasks(run)
    measured = {task.key: run.step(f"texts_{task.key}", partial(_measure, run, task)) for task in tasks}
    _draw(run, tasks, measured)
    for task in tasks:
        _claims(run, task, measured[task.key])
        _heatmap(run, task, measured[task.key])


def _tasks(run: Reproduction) -> list[Task]:
    news = topics(run, run.pick(quick=120, full=300))
    films = sentences(run, 30)
    width, filters = run.pick(quick=(48, 96), full=(64, 128))
    return [
        Task(
            "topics", "5.2, Fig. 2 B", f"a convolutional network on {news.name}", news,
            lambda: Convolved(len(news.vocabulary), len(news.classes), width, filters),
            epochs=run.pick(quick=5, full=8), deleted=50, steps=25, explained=run.pick(quick=100, full=4154),
        ),
        Task(
            "reviews", "3.2 and reference [4]", "an LSTM on sentences of film reviews", films,
            lambda: Read(len(films.vocabulary), len(films.classes), 64),
            epochs=run.pick(quick=2, full=5), deleted=10, steps=10, explained=run.pick(quick=200, full=2000),
        ),
    ]  # fmt: skip


def _train(run: Reproduction, task: Task) -> nn.Module:
    corpus, model = task.corpus, task.build()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in run.progress(range(task.epochs), f"training {task.key}", task.epochs):
        for rows in corpus.train[torch.randperm(len(corpus.train))].split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(corpus.ids[rows]), corpus.labels[rows]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


def relevances(model: nn.Module, ids: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Relevance of each word, ``[N, length]``: LRP, the squared norm of the gradient, and chance."""
    lrp, gradient = (
        hw.explain(model, ids, target, method=method, batch_size=50, progress=False, **options).relevance.sum(2)
        for method, options in METHODS.items()
    )
    return {"LRP": lrp, "sensitivity": gradient, "random": torch.rand(ids.shape) * (ids != PAD)}


def _measure(run: Reproduction, task: Task) -> dict[str, Any]:
    corpus, model = task.corpus, _train(run, task)
    rows = corpus.test[: task.explained]
    right = torch.cat([model(corpus.ids[part]).argmax(1) for part in rows.split(200)]) == corpus.labels[rows]
    ids, labels = corpus.ids[rows[right]], corpus.labels[rows[right]]
    found_ = relevances(model, ids, labels)
    curves = {name: _deleted(model, task, ids, relevance, labels) for name, relevance in found_.items()}
    mistaken, truth = corpus.ids[rows[~right]], corpus.labels[rows[~right]]
    for name, relevance in relevances(model, mistaken, truth).items():  # least first: what speaks against the truth
        curves[f"mistaken {name}"] = _deleted(
            model, task, mistaken, relevance, truth, "least" if name == "LRP" else "most"
        )
    removed = {name: _without(model, ids, labels, relevance) for name, relevance in found_.items()}
    return {
        "accuracy": float(right.double().mean()), "rows": rows[right], "curves": curves, "removed": removed,
        "relevance": {name: values for name, values in found_.items() if name != "random"},
        "agreement": {name: _agreement(corpus, ids, labels, values) for name, values in found_.items()},
    }  # fmt: skip


def _deleted(
    model: nn.Module, task: Task, ids: Tensor, relevance: Tensor, target: Tensor, order: Any = "most"
) -> Tensor:
    """Accuracy while words are deleted, ``[N, steps + 1]``."""
    return pixel_flipping(
        model, ids, relevance, target, output="accuracy", imputer=PAD, steps=task.steps,
        until=task.deleted / ids.shape[1], order=order, batch_size=200, progress=False,
    ).curves  # fmt: skip


def _without(model: nn.Module, ids: Tensor, labels: Tensor, relevance: Tensor) -> Tensor:
    """How much the true class's score rises where the few words of the least relevance are deleted, ``[N]``."""
    ranked = relevance.masked_fill(ids == PAD, torch.inf)
    rows = ranked.argsort(dim=1)[:, :AGAINST]
    shorter = ids.scatter(1, rows, PAD)
    score = [torch.cat([model(part) for part in x.split(200)]).gather(1, labels[:, None])[:, 0] for x in (ids, shorter)]
    return score[1] - score[0]


def _agreement(corpus: Corpus, ids: Tensor, labels: Tensor, relevance: Tensor) -> Tensor:
    """Rank correlation, text by text, of words' relevance with how typical they are of the class, ``[N]``."""
    typical = log_odds(corpus)
    scores = []
    for row, label, values in zip(ids, labels, relevance, strict=True):
        words = row > RARE
        if int(words.sum()) > 4:
            scores.append(spearmanr(values[words], typical[label, row[words]]).statistic)
    return torch.tensor(np.nan_to_num(scores), dtype=torch.float64)


def _draw(run: Reproduction, tasks: list[Task], measured: dict[str, dict[str, Any]]) -> None:
    from headwater.show.figure import new_figure

    figure = new_figure(8.4, 3.3)
    data = {}
    for ax, task in zip(figure.subplots(1, len(tasks)), tasks, strict=True):
        curves = {name: measured[task.key]["curves"][name] for name in ("LRP", "sensitivity", "random")}
        words = torch.linspace(0, task.deleted, task.steps + 1) / 100  # the axis is in per cent
        plot_curves(
            {n: Flipping(c, words, {"output": "accuracy"}) for n, c in curves.items()}, title=task.corpus.name, ax=ax
        )
        ax.set_xlabel("words deleted")
        ax.set_ylabel("accuracy")
        data.update({f"{task.key}_{name}": values.numpy() for name, values in curves.items()})
    run.figure(
        "deletion", figure, data,
        "Accuracy on rightly classified texts while their most relevant words are set to zero (the paper's Figure 2 "
        f"B, below): {tasks[0].told}, and {tasks[1].told}.",
    )  # fmt: skip


def _claims(run: Reproduction, task: Task, measured: dict[str, Any]) -> None:
    areas = {name: values.double().mean(1) for name, values in measured["curves"].items()}
    for name, other in (("sensitivity", "sensitivity"), ("random", "a random order")):
        less, told = below(areas[name], areas["LRP"])
        run.claim(
            f"deletion-{task.key}-{name}",
            source=task.source,
            text=f"accuracy falls faster when words go in the order of LRP than of {other} ({task.told})",
            paper="larger decrease (4,154 documents of 20 Newsgroups)" if task.key == "topics" else "as for topics",
            ours=f"mean accuracy {float(areas['LRP'].mean()):.3f} against {float(areas[name].mean()):.3f} ({told}); "
            f"{len(areas['LRP'])} of accuracy {measured['accuracy']:.1%}",
            verdict=verdict(less),
        )
    _signs(run, task, measured)


def _signs(run: Reproduction, task: Task, measured: dict[str, Any]) -> None:
    share = {
        name: float((-values.clamp(max=0)).sum() / values.abs().sum()) for name, values in measured["relevance"].items()
    }
    gain = {name: measured["removed"][name].double() for name in ("LRP", "sensitivity")}
    low, _ = bootstrap_interval(gain["LRP"] - gain["sensitivity"])
    run.claim(
        f"signs-{task.key}",
        source=task.source,
        text=f"LRP tells words for the class from words against it, sensitivity does not ({task.corpus.name})",
        paper="seen",
        ours=f"negative share of |R| {share['LRP']:.0%} and {share['sensitivity']:.0%}; without the {AGAINST} lowest "
        f"words the score rises by {float(gain['LRP'].mean()):+.2f} (LRP) and {float(gain['sensitivity'].mean()):+.2f}",
        verdict=verdict(share["LRP"] > 0 and float(low) > 0 and float(gain["LRP"].mean()) > 0),
    )
    saved = {name: measured["curves"][f"mistaken {name}"][:, -1].double() for name in ("LRP", "sensitivity")}
    run.claim(
        f"mistakes-{task.key}",
        source=f"{task.source}, after references [3, 4]",
        text=f"deleting what LRP says speaks against the true class mends mistakes ({task.corpus.name})",
        paper="in [3, 4]",
        ours=f"of {len(saved['LRP'])} mistaken texts right after {task.deleted} words: "
        f"{float(saved['LRP'].mean()):.0%} (LRP, least first), {float(saved['sensitivity'].mean()):.0%} (sensitivity)",
        verdict=verdict(float(saved["LRP"].mean()) > float(saved["sensitivity"].mean())),
    )
    agreement = measured["agreement"]
    better, told = below(agreement["LRP"], agreement["sensitivity"])
    run.claim(
        f"typical-{task.key}",
        source=task.source,
        text=f"words that speak for a class are those that are typical of it ({task.corpus.name})",
        paper="sickness, body, discomfort for sci.med; ride, astronaut, Shuttle against it",
        ours=f"rank correlation with the words' log-odds: LRP {float(agreement['LRP'].mean()):.2f}, sensitivity "
        f"{float(agreement['sensitivity'].mean()):.2f} ({told})",
        verdict=verdict(better),
    )


def _heatmap(run: Reproduction, task: Task, measured: dict[str, Any]) -> None:
    """The text with the largest share of evidence against its class, of those that are neither short nor endless."""
    corpus = task.corpus
    lrp, rows = measured["relevance"]["LRP"], measured["rows"]
    share = -lrp.clamp(max=0).sum(1) / lrp.abs().sum(1)
    counts = (corpus.ids[rows] != PAD).sum(1)
    fits = (counts >= min(15, int(counts.max()))) & (corpus.ids[rows] != RARE).all(1)
    at = int(share.masked_fill(~fits if bool(fits.any()) else counts < 1, -1).argmax())
    row = int(rows[at])
    ids = corpus.ids[row]
    shown = (ids != PAD).nonzero().flatten()[:150]
    words = [corpus.vocabulary[i] if i > RARE else "?" for i in ids[shown]]
    kind = corpus.classes[int(corpus.labels[row])]
    maps = {name: measured["relevance"][name][at, shown].numpy() for name in ("sensitivity", "LRP")}
    run.figure(
        f"words_{task.key}", word_maps(words, {f"{name}: {kind}": values for name, values in maps.items()}),
        {**maps, "words": np.array(words)},
        f"Words of a text that {task.told} rightly takes for {kind!r}, by sensitivity and by LRP: of all such texts "
        "the one with the most evidence against it. Red speaks for the class, blue against it, each map on its own "
        "scale; ? is a word too rare to be known.",
    )  # fmt: skip
