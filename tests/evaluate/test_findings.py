"""What the papers found, on networks and photographs that are at hand: 20 photographs of the whole benchmark's 200."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from benchmarks import evaluation
from headwater.evaluate import bootstrap_interval, pixel_flipping

PHOTOGRAPHS = 20


def inputs(subject: evaluation.Subject, data: Path) -> tuple[nn.Module, Tensor]:
    model = subject.network(data)
    return model, subject.prepare(evaluation.photographs(data, PHOTOGRAPHS, subject.side))


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", evaluation.SUBJECTS)
def test_the_reviews_comparison(name: str, data: Path) -> None:
    subject = evaluation.SUBJECTS[name]
    model, x = inputs(subject, data)
    found = evaluation.joined([evaluation.review(subject, model, x, None, steps=10)])
    areas = {method: evaluation.areas_of(values["curves"], "review") for method, values in found.items()}
    for method in ("occlusion", "smooth IG", "LRP"):
        assert float(bootstrap_interval(areas[method] - areas["random"])[1]) < 0, f"{method} is no better than chance"
    sizes = {method: float(values["file_size"].mean()) for method, values in found.items() if "file_size" in values}
    assert sizes["occlusion"] < sizes["LRP"] < sizes["smooth IG"]
    # integrated gradients fall fastest at first
    early = {method: float(evaluation.fallen(values["curves"])[:, 1].mean()) for method, values in found.items()}
    assert early["smooth IG"] < early["random"]


@pytest.mark.slow
@pytest.mark.data
def test_the_overviews_perturbation_of_pictures(data: Path) -> None:
    subject = evaluation.SUBJECTS["SqueezeNet"]
    model, x = inputs(subject, data)
    found = evaluation.joined([evaluation.overview(subject, model, x, None, steps=10)])
    areas = {method: evaluation.areas_of(values["curves"], "overview") for method, values in found.items()}
    assert float(areas["LRP"].mean()) < float(areas["sensitivity"].mean())


class Convolved(nn.Module):
    """The overview's classifier of texts: embedded words, one convolution, the maximum over the text."""

    def __init__(self, vocabulary: int, classes: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, 48, padding_idx=0)
        self.convolution, self.out = nn.Conv1d(48, 96, 2), nn.Linear(96, classes)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(torch.relu(self.convolution(self.words(ids).mT)).amax(2))


def articles(data: Path, length: int = 120) -> tuple[Tensor, Tensor, int]:
    """BBC's articles as word ids ``[N, length]`` and topics ``[N]``; id 0 pads, 1 stands for rare words."""
    texts, topics = [], []
    with zipfile.ZipFile(next((data / "text_bbc").glob("*.zip"))) as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".txt") and n.count("/") >= 2)
        for name in names:
            letters = archive.read(name).decode("latin-1").lower()
            texts.append("".join(c if c.isalpha() else " " for c in letters).split())
            topics.append(name.split("/")[-2])
    counts = Counter(word for text in texts for word in text)
    kept = {word: i + 2 for i, (word, count) in enumerate(counts.most_common(8000)) if count > 2}
    ids = torch.zeros(len(texts), length, dtype=torch.long)
    for row, text in zip(ids, texts, strict=True):
        found = [kept.get(word, 1) for word in text[:length]]
        row[: len(found)] = torch.tensor(found, dtype=torch.long)
    kinds = sorted(set(topics))
    return ids, torch.tensor([kinds.index(t) for t in topics]), len(kept) + 2


@pytest.mark.slow
@pytest.mark.data
def test_the_overviews_deletion_of_words(data: Path) -> None:
    ids, topics, vocabulary = articles(data)
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))
    train, test = order[:1800], order[1800:1900]
    model = Convolved(vocabulary, int(topics.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(8):
        for batch in train.split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(ids[batch]), topics[batch]).backward()
            optimizer.step()
    model.eval().requires_grad_(False)
    right = test[model(ids[test]).argmax(1) == topics[test]]
    assert len(right) > 0.75 * len(test)  # a fifth by chance
    areas = {}
    for method in ("lrp", "sensitivity", "random"):
        kind = "lrp" if method == "random" else method
        explanation = hw.explain(model, ids[right], topics[right], method=kind, batch_size=50)
        areas[method] = pixel_flipping(
            model, ids[right], explanation, output="accuracy", imputer=0, until=0.5, steps=30,
            order="random" if method == "random" else "most",
        ).area  # fmt: skip
    assert areas["lrp"] < areas["sensitivity"] < areas["random"]
