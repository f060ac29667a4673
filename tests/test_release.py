"""What is released: one version, a light wheel and a source archive that install and run where nothing else is."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path
from statistics import median

import pytest

import headwater as hw

ROOT = Path(__file__).parents[1]
ALONE = ("captum", "zennit", "quantus", "matplotlib", "sklearn", "zarr", "transformers", "torchvision")


def run(*command: object, cwd: Path = ROOT, **variables: str) -> str:
    """The output of a command that must succeed, in an environment without this checkout's settings."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")} | variables
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=kept, capture_output=True, text=True)
    assert not done.returncode, f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive."""
    pytest.importorskip("build", reason="build is not installed")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def python(built: Path) -> Path:
    """The interpreter of a fresh environment that holds the wheel and what it depends on, no extras."""
    folder = built / "environment"
    venv.create(folder, with_pip=True)
    found = folder / "bin" / "python"
    wheel = next(built.glob("*.whl"))
    run(found, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints-dev.txt", wheel, cwd=built)
    return found


def test_the_version_has_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "src/headwater/__init__.py"
    assert (ROOT / "src/headwater/__init__.py").read_text().count(hw.__version__) == 1
    entries = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(entry for entry in entries if entry != "Unreleased") == hw.__version__


@pytest.mark.slow
def test_the_wheel_holds_what_it_needs_and_is_light(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert f"-{hw.__version__}-" in wheel.name
    assert wheel.stat().st_size < 5e6
    names = set(zipfile.ZipFile(wheel).namelist())
    kept = {p for p in (ROOT / "src").rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    tracked = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "src").split("\n")
    assert {p.relative_to(ROOT / "src").as_posix() for p in kept if p.relative_to(ROOT).as_posix() in tracked} <= names
    assert not any(name.startswith(("tests", "benchmarks")) for name in names)
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        paths = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/conftest.py", "docs/start.md"} <= paths


@pytest.mark.slow
def test_the_wheel_runs_alone(python: Path, tmp_path: Path) -> None:
    listed = run(python, "-m", "pip", "list", "--format=freeze").lower()
    assert not any(f"\n{name}==" in f"\n{listed}" for name in ALONE)
    code = (
        "import torch, headwater as hw; from torch import nn;"
        "model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval();"
        "e = hw.explain(model, torch.rand(2, 4), ledger=True);"
        "print(hw.__version__, hw.__file__, float(e.ledger.unexplained().abs().max()) < 1e-5)"
    )
    version, file, balanced = run(python, "-c", code, cwd=tmp_path).split()
    assert (version, balanced) == (hw.__version__, "True")
    assert "site-packages" in file
    assert run(python, "-m", "headwater", "--version", cwd=tmp_path).strip() == f"headwater {hw.__version__}"
    command = python.parent / "headwater"
    assert run(command, "--version", cwd=tmp_path).strip() == f"headwater {hw.__version__}"
    assert "lrp (LRP): propagate" in run(command, "methods", cwd=tmp_path)
    assert "Usage" in run(command, "--help", cwd=tmp_path)
    pressed_tab = {"_HEADWATER_COMPLETE": "complete_bash", "COMP_WORDS": "headwater exp", "COMP_CWORD": "1"}
    assert run(command, cwd=tmp_path, **pressed_tab).split() == ["explain"]
    run(python, "-m", "pip", "check", cwd=tmp_path)


@pytest.mark.slow
def test_the_source_archive_installs_as_the_wheel(python: Path, built: Path, tmp_path: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", archive, cwd=tmp_path)
    assert run(python, "-m", "headwater", "--version", cwd=tmp_path).strip() == f"headwater {hw.__version__}"


def cost(code: str, **variables: str) -> float:
    """Seconds of the processor that a new process takes, which other processes disturb little."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **variables}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


@pytest.mark.slow
def test_importing_costs_little_beside_torch() -> None:
    ours = "import headwater; headwater.explain"
    cost(ours)  # compiles the modules
    # each pair under the same load of the machine
    assert median(cost(ours) / cost("import torch") for _ in range(7)) < 1.15


def test_completion_costs_little_beside_typer() -> None:
    ours = "from headwater.cli import app; app(prog_name='headwater')"
    pressed_tab = {"_HEADWATER_COMPLETE": "complete_bash", "COMP_WORDS": "headwater exp", "COMP_CWORD": "1"}
    cost(ours, **pressed_tab)
    runs = [(cost("import typer"), cost(ours, **pressed_tab)) for _ in range(5)]
    typer_alone, whole = (min(times) for times in zip(*runs, strict=True))
    assert whole < 5 * typer_alone, f"{whole:.3f} s against {typer_alone:.3f} s"
