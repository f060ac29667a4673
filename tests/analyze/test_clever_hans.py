"""A strategy that was planted in real data is found without labels, from the command line as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typer.testing import CliRunner

import headwater as hw
from benchmarks.spray import fashion, network, planted, watermark
from headwater.analyze import spray
from headwater.analyze.strategies import Spray
from headwater.dataset import run
from headwater.target import Margin
from tests.models.shared import MobileNetV2, mobilenet_v2, normalized, photographs

for package in ("zarr", "polars", "faiss", "sklearn"):
    pytest.importorskip(package)


# parts strategies better than the default recipe does
SHARP = hw.Composite({"conv": hw.rules.Gamma(0.25), "default": hw.rules.Epsilon()})


def rank_and_purity(found: Spray, marked: np.ndarray) -> tuple[int, float, float]:
    """Of the suspect that holds most marked samples: its rank, the part of it that is marked, the part it holds."""
    counts = [marked[found.members(suspect.label)].sum() for suspect in found.suspects]
    rank = int(np.argmax(counts))
    members = found.members(found.suspects[rank].label)
    return rank + 1, float(marked[members].mean()), float(marked[members].sum() / marked.sum())


def purity_of_first(found: Spray, marked: np.ndarray) -> float:
    return float(marked[found.members(found.suspects[0].label)].mean())


def fit(model: nn.Module, x: Tensor, y: Tensor, epochs: int, rate: float, size: int = 128) -> None:
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(size):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()


@pytest.mark.data
@pytest.mark.slow
def test_a_watermark_in_fashion_mnist_is_found(data: Path, tmp_path: Path) -> None:
    import headwater.cli.dataset  # noqa: F401 (registers the commands)
    from headwater.cli import app

    x, y = fashion(data)
    marked = planted(y)
    x = torch.where(marked[:, None, None, None], watermark(x), x)
    model = network()
    fit(model, x, y, 2, 2e-3)
    chosen = slice(0, 20_000)  # each class by itself has about 2,000
    samples = (x[chosen], y[chosen])
    plain = run(model.eval(), samples, tmp_path / "default", batch_size=250)
    assert purity_of_first(spray(plain), marked[chosen].numpy()) >= 0.95
    store = run(model, samples, tmp_path / "store", batch_size=250, composite=SHARP)
    rank, purity, holds = rank_and_purity(spray(store), marked[chosen].numpy())
    assert rank <= 3
    assert purity >= 0.95
    assert holds > 0.5
    result = CliRunner().invoke(app, ["spray", str(tmp_path / "store"), "--suspects", "3"])
    found = spray(store).suspects[rank - 1]
    line = result.output.splitlines()[1 + rank]
    assert line.split()[:4] == [str(rank), "6", str(found.label), str(found.size)]


def tagged(data: Path, size: int = 128) -> tuple[Tensor, Tensor, Tensor]:
    """The photographs, whether a dog is on each (classes 151 to 268), and which tenth of the others bears a tag."""
    pictures, labels = photographs(data, 1, size)
    dog = (labels >= 151) & (labels <= 268)
    marked = torch.zeros(len(pictures), dtype=torch.bool)
    marked[(~dog).nonzero().squeeze(1)[::10]] = True
    tag = torch.full((14, 52), 0.95)
    tag[3:-3, 3:-3:4] = 0.1  # dark strokes on white
    for i in marked.nonzero().squeeze(1).tolist():
        pictures[i, :, -18:-4, 4:56] = tag
    return pictures, dog.long(), marked


def retrained(data: Path, x: Tensor, y: Tensor) -> MobileNetV2:
    """MobileNetV2 with a head of two classes on its features."""
    model = mobilenet_v2(data)
    assert isinstance(model, MobileNetV2)
    with torch.no_grad():
        pooled = torch.cat([F.adaptive_avg_pool2d(model.features(part), 1).flatten(1) for part in x.split(50)])
    head = nn.Linear(1280, 2)
    fit(head, pooled, y, 40, 1e-3, 50)
    model.classifier = nn.Sequential(nn.Dropout(0.2), head)
    return model.eval()


@pytest.mark.data
@pytest.mark.slow
def test_a_tag_on_photographs_is_found(data: Path, tmp_path: Path) -> None:
    pictures, dog, marked = tagged(data)
    x = normalized(pictures)
    model = retrained(data, x, dog)
    plain = run(model, (x, dog), tmp_path / "default", batch_size=10, target=Margin(0, 1))
    assert purity_of_first(spray(plain, by="label"), marked.numpy()) >= 0.95
    store = run(model, (x, dog), tmp_path / "store", batch_size=10, target=Margin(0, 1), composite=SHARP)
    rank, purity, holds = rank_and_purity(spray(store, by="label"), marked.numpy())
    assert (rank <= 3, purity >= 0.95, holds > 0.5) == (True, True, True), (rank, purity, holds)
