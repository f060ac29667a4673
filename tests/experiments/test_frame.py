"""The frame of the experiments: steps that go on, figures, tables, verdicts, pages and the command."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import experiments
from experiments import report
from experiments.reproduction import Reproduction
from headwater.cli import app
from headwater.errors import InvalidInput
from headwater.show.figure import new_figure


def run_in(folder: Path, scale: Any = "quick", seed: int = 0) -> Reproduction:
    return Reproduction("toy", scale, folder, folder / "data", seed)


def values() -> dict[str, Any]:
    return {
        "tensor": torch.arange(6.0).reshape(2, 3).T,  # not contiguous
        "array": np.arange(4)[::2],
        "nested": {"list": [torch.ones(2, dtype=torch.bool), 1.5, "word", None]},
        "scalar": np.float64(2.5),
        "empty": torch.zeros(0, 3),
    }


def test_a_step_comes_back_as_it_was(tmp_path: Path) -> None:
    first = run_in(tmp_path).step("values", values)

    def again() -> dict[str, Any]:
        raise AssertionError("the step is there already")

    second = run_in(tmp_path).step("values", again)
    for found in (first, second):
        assert torch.equal(found["tensor"], values()["tensor"])
        assert isinstance(found["array"], np.ndarray)
        assert found["array"].tolist() == [0, 2]
        assert found["nested"]["list"][0].dtype == torch.bool
        assert found["nested"]["list"][1:] == [1.5, "word", None]
        assert found["scalar"] == 2.5
        assert found["empty"].shape == (0, 3)


def test_a_step_belongs_to_its_scale_and_seed(tmp_path: Path) -> None:
    draws = [run_in(tmp_path, scale, seed).step("draw", lambda: {"x": torch.rand(3)})["x"] for scale, seed in
             (("quick", 0), ("quick", 1), ("full", 1), ("quick", 0))]  # fmt: skip
    assert not torch.equal(draws[0], draws[1])
    assert torch.equal(draws[1], draws[2])  # computed anew, from the same seed
    assert torch.equal(draws[0], draws[3])


def test_a_step_draws_the_same_whatever_ran_before(tmp_path: Path) -> None:
    alone = run_in(tmp_path / "a").step("second", lambda: {"x": torch.rand(3), "y": np.random.rand()})
    run = run_in(tmp_path / "b")
    run.step("first", lambda: {"x": torch.rand(7)})
    after = run.step("second", lambda: {"x": torch.rand(3), "y": np.random.rand()})
    assert torch.equal(alone["x"], after["x"])
    assert alone["y"] == after["y"]


def test_an_interrupted_step_leaves_nothing(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    with pytest.raises(InvalidInput, match=r"bad\.inner is a set"):
        run.step("bad", lambda: {"inner": {1}})
    assert run.step("bad", lambda: {"inner": 1}) == {"inner": 1}


def test_missing_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="mnist"):
        run_in(tmp_path).path("mnist", "train")


def test_claims_are_checked(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    given: dict[str, Any] = {"source": "p. 1", "text": "t", "paper": "1", "ours": "2"}
    run.claim("a", **given, verdict="not reproduced")
    with pytest.raises(InvalidInput, match="made before"):
        run.claim("a", **given, verdict="reproduced")
    with pytest.raises(InvalidInput, match="verdict"):
        run.claim("b", **given, verdict="true")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="why"):
        run.claim("b", **given, verdict="not testable here")


@pytest.fixture
def toy() -> ModuleType:
    module = ModuleType("toy", "What was run\non what.\n\nAnd why.")
    module.TITLE, module.SOURCE = "A toy", "Nobody (2020)"  # type: ignore[attr-defined]
    return module


def fill(run: Reproduction) -> None:
    figure = new_figure(4, 3)
    figure.subplots().imshow(np.random.rand(60, 80))
    run.figure("noise", figure, {"x": np.arange(3.0)}, "Noise.")
    run.table("numbers", [{"name": "a|b", "value": 0.123456}, {"name": "c", "value": -2.0}], "Numbers.")
    run.claim("one", source="p. 1", text="It is so", paper="1", ours="1.0", verdict="reproduced")
    run.claim("two", source="p. 2", text="It is not", paper="1", ours="", verdict="not testable here", why="no data")


def test_the_report_holds_everything(tmp_path: Path, toy: ModuleType) -> None:
    run = run_in(tmp_path)
    fill(run)
    text = report.write(run, toy).read_text()
    assert "What was run on what.\n\nAnd why." in text
    assert "| 2 | 1 | 0 | 1 | `headwater reproduce toy --scale quick` |" in text
    assert "| It is so | p. 1 | 1 | 1.0 | **reproduced** |" in text
    assert "| a\\|b | 0.1235 |" in text
    assert "![noise](figures/noise.png)" in text
    assert (tmp_path / "figures" / "noise.png").exists()
    assert np.load(tmp_path / "figures" / "noise.npz")["x"].tolist() == [0, 1, 2]
    assert (tmp_path / "tables" / "numbers.csv").read_text().startswith("name,value\na|b,0.123456\n")
    assert (tmp_path / "claims.csv").read_text().startswith("key,source,text,paper,ours,verdict,why\none,p. 1,")


def test_published_pages_are_listed(tmp_path: Path, toy: ModuleType) -> None:
    run = run_in(tmp_path)
    fill(run)
    page = report.publish(run, toy, tmp_path)
    assert "(../images/papers/toy/noise.png)" in page.read_text()
    assert (tmp_path / "docs/images/papers/toy/noise.png").stat().st_size <= report.LARGEST
    index = (page.parent / "index.md").read_text()
    assert "| [toy](toy.md) | 2 | 1 | 0 | 1 |" in index
    assert index == report.index(page.parent)


def test_pictures_shrink_until_they_fit() -> None:
    figure = new_figure(5, 5)
    figure.subplots().imshow(np.random.rand(400, 400))
    from headwater.show.figure import png

    assert len(report.small_png(png(figure), 30_000)) <= 30_000


def test_progress_gives_the_items(tmp_path: Path) -> None:
    assert list(run_in(tmp_path).progress(range(3), "counting")) == [0, 1, 2]


def test_the_command_lists_and_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = CliRunner().invoke(app, ["reproduce"])
    assert listed.exit_code == 0
    assert all(name in listed.output for name in experiments.papers())
    refused = CliRunner().invoke(app, ["reproduce", "poem"])
    assert refused.exit_code == 1
    assert "is no paper" in refused.output


def test_the_command_runs_a_paper(tmp_path: Path, toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.reproduce = fill  # type: ignore[attr-defined]
    monkeypatch.setattr(experiments, "paper", lambda name: toy)
    done = CliRunner().invoke(app, ["reproduce", "toy", "--out", str(tmp_path), "--data", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "2 claims" in done.output
    assert (tmp_path / "report.md").exists()


def test_without_a_source_tree_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import headwater

    monkeypatch.setattr(headwater, "__file__", str(tmp_path / "lib" / "python" / "headwater" / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    done = CliRunner().invoke(app, ["reproduce"])
    assert done.exit_code == 1
    assert "clone the repository" in done.output
