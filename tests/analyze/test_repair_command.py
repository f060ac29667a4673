"""``headwater repair``, as a user types it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import headwater.cli.repair  # noqa: F401 (registers the command)
from headwater.analyze import load_repaired
from headwater.cli import app
from tests.analyze.test_repair import marked, shapes, train

for package in ("zarr", "polars", "faiss", "sklearn", "matplotlib"):
    pytest.importorskip(package)

MODEL = "tests.analyze.test_repair_command:network"


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 12), nn.ReLU(), nn.Linear(12, 3)
    ).eval()


def call(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in folders by class, a model misled by the mark on a third of class 0, its store and strategies."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("command")
    x, y = shapes(360, 1)
    bears = (y == 0) & (torch.arange(360) % 9 == 0)
    x = torch.where(bears[:, None, None, None], marked(x), x)
    for i in range(360):
        (root / "data" / str(int(y[i]))).mkdir(parents=True, exist_ok=True)
        pixels = (255 * x[i, 0]).round().byte().numpy()
        Image.fromarray(pixels).convert("RGB").save(root / "data" / str(int(y[i])) / f"{i:03d}.png")
    save_file(train(network(), x.expand(-1, 3, -1, -1), y, 15).state_dict(), root / "model.safetensors")
    return root


def test_a_model_is_repaired_from_a_cluster(folder: Path) -> None:
    given = (MODEL, folder / "data", "--weights", folder / "model.safetensors", "--store", folder / "store")
    call("run", *given, "--batch-size", 60)
    call("spray", folder / "store", "--clusters", 2, "--out", folder / "found")
    with np.load(folder / "found" / "spray.npz") as arrays:
        labels = arrays["labels"]
    cluster = int(labels[0])  # 000.png bears the mark
    text = call(
        "repair", *given, "--strategies", folder / "found", "--cluster", cluster, "--method", "p_clarc",
        "--layer", "3:input", "--out", folder / "repaired",
    )  # fmt: skip
    assert "recovered" in text
    assert (folder / "repaired" / "repair.png").stat().st_size > 10_000
    state = torch.load(folder / "repaired" / "weights.pt", weights_only=True)
    assert load_repaired(network(), state)(torch.rand(2, 3, 8, 8)).shape == (2, 3)
    end = ("--out", folder / "nothing")
    assert "say which samples" in call("repair", *given, *end, status=1)
    assert "no cluster 77" in call("repair", *given, *end, "--strategies", folder / "found", "--cluster", 77, status=1)
    assert "no clusters" in call("repair", *given, *end, "--strategies", folder, "--cluster", 0, status=1)
    assert "no selection 'tag'" in call("repair", *given, *end, "--selection", "tag", status=1)
