from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import headwater.cli.compare  # noqa: F401 (adds the command)
from headwater.cli import app


def tabular() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32))
    return path


def test_a_comparison_leaves_a_page_and_goes_on_from_what_is_there(table: Path, tmp_path: Path) -> None:
    arguments = (
        "tests.evaluate.test_cli:tabular", table, "--methods", "lrp,lrp:composite=epsilon,sensitivity", "--out",
        tmp_path / "out", "--repetitions", 0, "--imputer", 0.5, "--output", "probability",
    )  # fmt: skip
    first = run(*arguments)
    assert first.exit_code == 0, first.output
    assert "lrp:composite=epsilon" in first.output
    assert "This rests on 5 samples" in first.output
    assert (tmp_path / "out" / "index.html").exists()
    kept = sorted((tmp_path / "out" / "methods").iterdir())
    assert len(kept) == 4
    times = [path.stat().st_mtime_ns for path in kept]
    assert run(*arguments).output == first.output
    assert [path.stat().st_mtime_ns for path in kept] == times


@pytest.mark.slow
def test_the_board_of_known_answers() -> None:
    found = run("--ground-truth", "--methods", "lrp,sensitivity")
    assert found.exit_code == 0, found.output
    assert "watermark" in found.output
    assert found.output.index("lrp") < found.output.index("sensitivity")


def test_what_is_wrong_is_told_in_a_line(table: Path) -> None:
    model = "tests.evaluate.test_cli:tabular"
    for arguments, text in [
        ((), "needs a MODEL"), ((model,), "needs a MODEL"), ((model, table, "--ground-truth"), "leave MODEL"),
        ((model, table, "--methods", "lrp:composite"), "OPTION=VALUE"),
        ((model, table, "--methods", "tea"), "Unknown method"),
        ((model, table, "--features", "9,9,9"), "patches"), ((model, table, "--output", "loss"), "output must be"),
    ]:  # fmt: skip
        found = run(*arguments)
        assert found.exit_code == 1, found.output
        assert text in found.output
