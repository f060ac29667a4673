"""Whatever happens to a job, what it leaves is whole, and what it ends with is the same to the last bit."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import headwater as hw
from headwater.dataset import files as files_module
from headwater.dataset import open_store, run
from headwater.dataset.fingerprint import describe
from tests.dataset.common import SAMPLES, content, job, network, samples
from tests.dataset.killed import LARGE

pytest.importorskip("zarr")
pytest.importorskip("polars")

ROOT = Path(__file__).parents[2]
SLOW = pytest.mark.slow


def python(*arguments: str) -> str:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    found = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.parametrize(
    ("kind", "least"), [("points", 10), pytest.param("points", 100, marks=SLOW), pytest.param("times", 50, marks=SLOW)]
)
def test_kills_change_nothing(tmp_path: Path, kind: str, least: int) -> None:
    job(tmp_path / "whole", **LARGE)
    expected, kills, seed = content(tmp_path / "whole"), 0, 0
    while kills < least:
        killed = tmp_path / f"killed-{seed}"
        kills += int(python("-m", "tests.dataset.killed", str(killed), str(seed), kind))
        assert content(killed) == expected
        seed += 1


def test_what_is_committed_is_whole_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before every renaming, each chunk with a commit passes its checksums."""
    from headwater.dataset.store import committed, damage

    store, replace, seen = tmp_path / "store", os.replace, []

    def checked(source: Any, target: Any) -> None:
        files = files_module.open_files(store)
        found = committed(files)
        assert all(damage(files, chunk) is None for chunk in found)
        seen.append(len(found))
        replace(source, target)

    monkeypatch.setattr(files_module.os, "replace", checked)
    job(store)
    assert max(seen) == 6


class Full:
    """A disk that is full after some bytes."""

    def __init__(self, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room, self.fsync = room, os.fsync
        monkeypatch.setattr(files_module.os, "fsync", self)

    def __call__(self, handle: int) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.fsync(handle)


@pytest.mark.parametrize("room", [0, 7, 40, 90, 150])
def test_a_full_disk_is_told_of_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    job(tmp_path / "whole")
    with monkeypatch.context() as patch:
        Full(room, patch)
        with pytest.raises(hw.HeadwaterError, match="full: free some space"):
            job(tmp_path / "store")
    job(tmp_path / "store")
    assert content(tmp_path / "store") == content(tmp_path / "whole")


def test_a_small_file_system_that_fills_up(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a small file system")
    try:
        with pytest.raises(hw.HeadwaterError, match="full: free some space"):
            job(small / "store")
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        job(small / "store")
        job(tmp_path / "whole")
        assert content(small / "store") == content(tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_finished_job_explains_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job(tmp_path / "store")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file()}
    job(tmp_path / "store")
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file()}


@pytest.mark.parametrize("victim", ["lrp/relevance/c/2/0/0/0", "labels/c/2", "samples/000000002.parquet"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_damaged_chunks_are_detected_and_mended(tmp_path: Path, victim: str, harm: str) -> None:
    job(tmp_path / "store")
    expected = content(tmp_path / "store")
    path = tmp_path / "store" / victim
    data = bytearray(path.read_bytes())
    if harm == "remove":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data if harm == "flip" else data[:-3]))
    assert open_store(tmp_path / "store").damaged() == [victim]
    with pytest.warns(hw.HeadwaterWarning, match="1 damaged chunks"):
        job(tmp_path / "store")
    assert content(tmp_path / "store") == expected


def test_a_damaged_chunk_is_no_silent_number(tmp_path: Path) -> None:
    store = job(tmp_path / "store")
    path = tmp_path / "store" / "lrp/relevance/c/2/0/0/0"
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(hw.HeadwaterError, match="damaged"):
        store.relevance[16:24]


@pytest.mark.parametrize("harm", ["gone", "empty"])
@pytest.mark.parametrize(("array", "index"), [("lrp/relevance", "2/0/0/0"), ("labels", "2")])
def test_a_file_that_is_gone_is_no_missing_value(tmp_path: Path, harm: str, array: str, index: str) -> None:
    """Zarr reads absent files as the fill value: NaN, or the class -1."""
    store = job(tmp_path / "store")
    path = tmp_path / "store" / array / "c" / index
    path.unlink() if harm == "gone" else path.write_bytes(b"")
    if array == "labels":
        with pytest.raises(hw.HeadwaterError, match="labels/c/2 is missing"):
            _ = store.labels
        return
    rows = store.relevance
    for place in (np.s_[:], 16, np.int64(-22), [3, 23], np.s_[10:20, 0], np.arange(SAMPLES) == 17):
        with pytest.raises(hw.HeadwaterError, match=r"is damaged.*is missing: run the same job again"):
            rows[place]
    assert np.isfinite(rows[:16]).all()
    assert np.isfinite(rows[[3, 24]]).all()
    with pytest.raises(hw.HeadwaterError, match="is missing"):
        hw.analyze.pool(store, "label")


def test_a_damaged_table_is_told_of(tmp_path: Path) -> None:
    store = job(tmp_path / "store")
    (tmp_path / "store/samples/000000002.parquet").write_bytes(b"PAR1")
    with pytest.raises(hw.HeadwaterError, match=r"the table of .* is damaged"):
        hw.analyze.pool(store, "lrp.output")


def test_a_folder_that_cannot_be_written_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files_module, "_make_folder", refuse)
    with pytest.raises(hw.HeadwaterError, match=r"store cannot be written to \(Permission denied\)"):
        job(tmp_path / "store")


def test_a_lost_commit_or_end_is_written_again(tmp_path: Path) -> None:
    job(tmp_path / "store")
    expected = content(tmp_path / "store")
    for name in ("commits/000000003.json", "complete.json", "lrp/relevance/zarr.json"):
        (tmp_path / "store" / name).unlink()
    with pytest.raises(hw.InvalidInput, match=r"not complete \(5 of 6 chunks\)"):
        open_store(tmp_path / "store")
    job(tmp_path / "store")
    assert content(tmp_path / "store") == expected


def test_another_model_data_set_or_setting_is_refused(tmp_path: Path) -> None:
    job(tmp_path / "store")
    x, y = samples()
    changed = network()
    with torch.no_grad():
        changed[0].weight[0, 0, 0, 0] += 1e-6
    other = x.clone()
    other[40, 0, 0, 0] += 1e-3
    settings: dict[str, Any] = {"batch_size": 4, "chunk": 8, "threads": 1}
    cases: list[tuple[nn.Module, Any, dict[str, Any], str]] = [
        (changed, (x, y), {}, "the model is another"),
        (network(), (other, y), {}, "the data set is another"),
        (network(), (x, y.flip(0)), {}, "the data set is another"),
        (network(), (x, y), {"seed": 1}, "seed was 0 then, is 1 now"),
        (network(), (x, y), {"batch_size": 8}, "batch was 4 then, is 8 now"),
        (network(), (x, y), {"composite": "epsilon"}, "composite and options|options and composite|differ in"),
        (network(), (x, y), {"target": 2}, "differ in target"),
        (network(), (x, y), {"method": "gradient"}, "were lrp then, are gradient now"),
        (network(), (x, y), {"dtype": "float16"}, "differ in arrays"),
    ]
    for model, given, options, message in cases:
        with pytest.raises(hw.InvalidInput, match=message):
            run(model, given, tmp_path / "store", **{**settings, **options})


def scaled(by: float) -> Any:
    network_ = network()
    return lambda x: network_(x) * by


class Scaled:
    def __init__(self, by: float) -> None:
        self.by, self.network = by, network()

    def __call__(self, x: torch.Tensor) -> Any:
        return self.network(x) * self.by


def twice(x: torch.Tensor, by: float) -> Any:
    return network()(x) * by


@pytest.mark.parametrize("made", [scaled, Scaled, lambda by: partial(twice, by=by), lambda by: Scaled(by).__call__])
def test_a_function_is_another_model_when_what_it_holds_is(tmp_path: Path, made: Any) -> None:
    """The same code with other weights or numbers around it."""
    settings: dict[str, Any] = {"batch_size": 4, "threads": 1, "method": "gradient", "progress": False}
    run(made(1.0), samples(), tmp_path / "store", **settings)
    run(made(1.0), samples(), tmp_path / "store", **settings)
    with pytest.raises(hw.InvalidInput, match="the model is another"):
        run(made(2.0), samples(), tmp_path / "store", **settings)


def test_fingerprints_hold_no_address() -> None:
    assert describe({"a": object()}) == describe({"a": object()})


def test_another_pooling_is_another_job(tmp_path: Path) -> None:
    def rows(relevance: torch.Tensor) -> torch.Tensor:
        return relevance.sum(-1)

    def columns(relevance: torch.Tensor) -> torch.Tensor:
        return relevance.sum(-2)

    job(tmp_path / "store", pooled={"sums": rows})
    job(tmp_path / "store", pooled={"sums": rows})
    with pytest.raises(hw.InvalidInput, match="differ in options"):
        job(tmp_path / "store", pooled={"sums": columns})


def test_another_version_is_warned_of(tmp_path: Path) -> None:
    job(tmp_path / "store")
    path = tmp_path / "store" / "manifest.json"
    facts = json.loads(path.read_text())
    facts["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(facts))
    with pytest.warns(hw.HeadwaterWarning, match="another version of torch"):
        job(tmp_path / "store")


def test_a_job_that_has_not_ended_is_opened_only_when_asked(tmp_path: Path) -> None:
    job(tmp_path / "store")
    (tmp_path / "store" / "complete.json").unlink()
    (tmp_path / "store" / "commits/000000001.json").unlink()
    (tmp_path / "store" / "lrp/relevance/c/1/0/0/0").unlink()
    store = open_store(tmp_path / "store", partial=True)
    assert not store.complete
    assert np.isnan(store.relevance[8:16]).all()
    assert np.isfinite(store.relevance[:8]).all()


def test_processes_write_what_one_writes(tmp_path: Path) -> None:
    job(tmp_path / "one")
    job(tmp_path / "two", workers=2)
    assert content(tmp_path / "two") == content(tmp_path / "one")


def test_two_writers_write_what_one_writes(tmp_path: Path) -> None:
    job(tmp_path / "one", **LARGE)
    code = "import sys, pathlib; from tests.dataset import common; "
    code += "common.job(pathlib.Path(sys.argv[1]), batch_size=1, chunk=1)"
    two = str(tmp_path / "two")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: python("-c", code, two), range(2)))
    assert content(tmp_path / "two") == content(tmp_path / "one")


class Deadly(nn.Module):
    """Kills its process once."""

    def __init__(self, mark: str, inner: nn.Module) -> None:
        super().__init__()
        self.mark, self.inner = mark, inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:  # the job's own first look at one sample is spared
            try:
                os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os._exit(9)
        return self.inner(x)

    def extra_repr(self) -> str:
        return "deadly"


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_lost_worker_is_replaced(tmp_path: Path, engine: str) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    (tmp_path / "spared").touch()
    options: dict[str, Any] = {"batch_size": 4, "chunk": 8, "threads": 1, "progress": False}
    model = Deadly(str(tmp_path / "spared"), network()).eval()
    run(model, samples(), tmp_path / "one", **options)
    model.mark = str(tmp_path / "mark")
    run(model, samples(), tmp_path / "store", **options, engine=engine, workers=4 if engine == "ray" else 2)
    assert (tmp_path / "mark").exists()
    assert content(tmp_path / "store") == content(tmp_path / "one")


def test_an_error_in_a_worker_comes_through(tmp_path: Path) -> None:
    x, y = samples()
    x[SAMPLES - 1] = torch.nan
    with pytest.raises(hw.HeadwaterError, match="sample 44 cannot be explained"):
        run(network(), (x, y), tmp_path / "store", batch_size=4, chunk=8, threads=1, workers=2)
    assert json.loads((tmp_path / "store" / "manifest.json").read_text())["samples"] == SAMPLES
