"""The commands for data sets, as a user types them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import headwater.cli.dataset  # noqa: F401 (registers the commands)
from headwater.cli import app
from headwater.dataset import open_store
from tests.dataset.common import network, samples

for package in ("zarr", "polars", "faiss", "sklearn"):
    pytest.importorskip(package)

MODEL = "tests.dataset.common:network"


def call(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", samples()[0].numpy())
    call("run", MODEL, tmp_path / "x.npy", "--store", tmp_path / "store", "--batch-size", 8)
    return tmp_path / "store"


def test_run_spray_pool(stored: Path, tmp_path: Path) -> None:
    assert len(open_store(stored)) == 45
    assert "45 samples" in call("run", MODEL, tmp_path / "x.npy", "--store", stored, "--batch-size", 8)
    assert "suspect" in call("spray", stored, "--by", "all", "--clusters", 3, "--out", tmp_path / "found")
    assert (tmp_path / "found" / "spray.png").stat().st_size > 10_000
    text = call("pool", stored, "--samples", "target", "--box", "corner:0,0,3,3", "--out", tmp_path / "bars.png")
    assert "corner" in text
    assert "rest" in text
    assert "0-2" in call("pool", stored, "--samples", "all", "--edges", "0,2,6")


def test_diff_ends_with_a_status(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", samples()[0].numpy())
    other = network()
    with torch.no_grad():
        other[3].weight.neg_()
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    same = call("diff", MODEL, MODEL, tmp_path / "x.npy", "--threshold", 0.01)
    assert "0.000" in same
    weights = ("--other-weights", tmp_path / "other.safetensors", "--box", "left:0,0,6,3")
    assert "past 0.01" in call("diff", MODEL, MODEL, tmp_path / "x.npy", *weights, "--threshold", 0.01, status=3)
    call("diff", MODEL, MODEL, tmp_path / "x.npy", *weights)


def test_diff_of_stores(stored: Path) -> None:
    assert "0.000" in call("diff", stored, stored, "--threshold", 0.01)


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        image.fromarray(np.full((9, 9, 3), 100, np.uint8)).save(tmp_path / "in" / name)
    call(
        "run", "tests.dataset.test_cli_dataset:colour", tmp_path / "in", "--store", tmp_path / "s", "--size", 6,
        "--target", "label", "--method", "lrp", "--method", "gradient", "--composite", "epsilon", status=1,
    )  # fmt: skip
    call(
        "run", "tests.dataset.test_cli_dataset:colour", tmp_path / "in", "--store", tmp_path / "s", "--size", 6,
        "--target", "label", "--method", "lrp", "--method", "gradient",
    )  # fmt: skip
    store = open_store(tmp_path / "s")
    assert store.targets is not None
    assert store.targets.tolist() == [0, 1]
    assert store.relevance.shape == (2, 3, 6, 6)


def colour() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(32, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("spray", "nowhere"), "no store"),
        (("spray", "{store}", "--by", "colour"), "no column"),
        (("spray", "{store}", "--clustering", "magic"), "clustering"),
        (("pool", "{store}", "--box", "1,2,3,4"), "NAME:TOP"),
        (("pool", "{store}", "--box", "a:0,0,9,9"), "does not lie"),
        (("pool", "{store}", "--edges", "0,9"), "edges must rise"),
        (("pool", "{store}", "--explanation", "shap"), "no explanation"),
    ],
)
def test_refusals_are_sentences(stored: Path, arguments: tuple[str, ...], message: str) -> None:
    found = call(*[argument.format(store=stored) for argument in arguments], status=1)
    assert message in found.replace("\n", " ")
