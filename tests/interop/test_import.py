"""Relevance from elsewhere in a store: every form of file, what does not fit, and what a store is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import headwater as hw
from headwater.analyze import spray
from headwater.dataset import import_attributions

N, SHAPE = 300, (1, 6, 5)


def made(n: int = N) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "relevance": random.normal(size=(n, *SHAPE)).astype(np.float32),
        "inputs": random.random((n, *SHAPE)).astype(np.float32),
        "labels": random.integers(0, 3, n),
        "targets": random.integers(0, 4, n),
        "outputs": random.normal(size=(n, 4)),
    }


def check(store: Any, arrays: dict[str, np.ndarray]) -> None:
    assert np.array_equal(store.relevance[:], arrays["relevance"])
    assert np.array_equal(store.inputs[:], arrays["inputs"])
    assert np.array_equal(store.labels, arrays["labels"])
    assert np.array_equal(store.targets, arrays["targets"])
    assert np.allclose(store.outputs, arrays["outputs"][np.arange(len(arrays["targets"])), arrays["targets"]])
    assert store.valid.all()
    assert store.delta is None


def write_npz(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(folder / "all.npz", **arrays)
    return folder / "all.npz"


def write_zarr(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    group = zarr.open_group(str(folder / "all.zarr"), mode="w")
    for key, values in arrays.items():
        group.create_array(key, data=values, chunks=(64, *values.shape[1:]))
    return folder / "all.zarr"


def write_hdf5(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(folder / "all.h5", "w") as file:
        for key, values in arrays.items():
            file[key] = values
    return folder / "all.h5"


@pytest.mark.parametrize("write", [write_npz, write_zarr, write_hdf5])
def test_one_file_with_every_array(tmp_path: Path, write: Any) -> None:
    arrays = made()
    check(import_attributions(write(tmp_path, arrays), tmp_path / "store"), arrays)


def test_arrays_and_files_of_one_array(tmp_path: Path) -> None:
    arrays = made()
    check(import_attributions(store=tmp_path / "arrays", **arrays), arrays)
    check(import_attributions(store=tmp_path / "tensors", **{k: torch.as_tensor(v) for k, v in arrays.items()}), arrays)
    for key, values in arrays.items():
        np.save(tmp_path / f"{key}.npy", values)
    check(import_attributions(store=tmp_path / "files", **{k: tmp_path / f"{k}.npy" for k in arrays}), arrays)


def test_corelay_files(tmp_path: Path) -> None:
    """The classes that were explained, and the inputs by index, shuffled and with some left out."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    arrays = made()
    index = np.random.default_rng(1).permutation(N + 50)[:N].astype(np.uint32)
    data, label = np.zeros((N + 50, *SHAPE), np.float32), np.full(N + 50, 9)
    data[index], label[index] = arrays["inputs"], arrays["labels"]
    with h5py.File(tmp_path / "x.input.h5", "w") as file:
        file["data"], file["label"] = data, label
    with h5py.File(tmp_path / "x.attribution.h5", "w") as file:
        file["attribution"], file["prediction"] = arrays["relevance"], arrays["outputs"]
        file["index"], file["label"] = index, np.eye(4)[arrays["targets"]].astype(bool)
    store = import_attributions(tmp_path / "x.attribution.h5", tmp_path / "store", tmp_path / "x.input.h5")
    check(store, arrays)
    assert store.ids.tolist() == [str(i) for i in index]


def test_corelay_groups(tmp_path: Path) -> None:
    """One data set a sample, in the natural order of their names."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    arrays = made(12)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for i in range(12):
            file[f"attribution/sample-{i}"] = arrays["relevance"][i]
            file[f"prediction/sample-{i}"] = arrays["outputs"][i]
            file[f"label/sample-{i}"] = arrays["targets"][i]
    store = import_attributions(tmp_path / "x.h5", tmp_path / "store", arrays["inputs"], arrays["labels"])
    check(store, arrays)


def test_labels_of_every_kind(tmp_path: Path) -> None:
    relevance = made(6)["relevance"]
    texts = import_attributions(relevance, tmp_path / "texts", labels=["a", "b", "b", "a", "a", "b"])
    assert texts.labels.tolist() == ["a", "b", "b", "a", "a", "b"]
    several = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]], bool)
    assert import_attributions(relevance, tmp_path / "several", labels=several).labels.tolist() == [
        "0,2", "", "1", "0,1,2", "2", "0",
    ]  # fmt: skip


def test_scores_without_targets_and_neither(tmp_path: Path) -> None:
    arrays = made()
    scored = import_attributions(arrays["relevance"], tmp_path / "scored", outputs=arrays["outputs"])
    assert np.array_equal(scored.targets, arrays["outputs"].argmax(1))
    assert np.array_equal(scored.outputs, arrays["outputs"].max(1))
    bare = import_attributions(arrays["relevance"], tmp_path / "bare")
    assert bare.outputs is None
    assert bare.targets is None
    assert bare.inputs is None


def test_numbers_of_every_kind(tmp_path: Path) -> None:
    relevance = made(5)["relevance"]
    for i, kind in enumerate([">f4", "f2", "f8", "i2", np.longdouble]):
        values = (relevance * 10).astype(kind)
        store = import_attributions(values, tmp_path / str(i), dtype="float64")
        assert np.array_equal(store.relevance[:], values.astype(np.float64))
    strided = np.ascontiguousarray(relevance.T).T
    assert np.array_equal(import_attributions(strided, tmp_path / "strided").relevance[:], relevance)
    one = import_attributions(relevance[:1], tmp_path / "one")
    assert one.relevance.shape == (1, *SHAPE)


def test_the_store_serves_and_the_call_goes_on(tmp_path: Path) -> None:
    arrays = made()
    store = import_attributions(store=tmp_path / "store", name="captum-ig", **arrays)
    assert store.names == ["captum-ig"]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file()}
    import_attributions(store=tmp_path / "store", name="captum-ig", **arrays)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file()} == before
    with pytest.raises(hw.InvalidInput, match="another job"):
        import_attributions(arrays["relevance"] + 1, tmp_path / "store", name="captum-ig")
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    assert len(spray(store, "label", clusters=2).labels) == N


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    arrays = made(20)
    relevance = arrays["relevance"]
    (tmp_path / "broken.npy").write_bytes(b"no array")
    (tmp_path / "x.txt").write_text("1 2 3")
    cases: list[tuple[str, dict[str, Any]]] = [
        ("19 labels", {"labels": arrays["labels"][:19]}),
        ("there is no file", {"inputs": tmp_path / "missing.npy"}),
        ("cannot be read", {"inputs": tmp_path / "broken.npy"}),
        ("of no known kind", {"inputs": tmp_path / "x.txt"}),
        ("one of them must be called", {"inputs": {"a": relevance, "b": relevance}}),
        ("out of range", {"outputs": arrays["outputs"], "targets": arrays["targets"] + 4}),
        ("dtype must be", {"dtype": "int8"}),
        ("no slash", {"name": "a/b"}),
        ("20 samples", {"ids": ["a"]}),
    ]
    for text, options in cases:
        with pytest.raises(hw.HeadwaterError, match=text):
            import_attributions(relevance, tmp_path / "refused", **options)
    with pytest.raises(hw.InvalidInput, match="empty"):
        import_attributions(relevance[:0], tmp_path / "refused")
    with pytest.raises(hw.InvalidInput, match="real numbers"):
        import_attributions(relevance.astype(complex), tmp_path / "refused")
    assert not (tmp_path / "refused").exists() or not list((tmp_path / "refused").iterdir())


def test_a_bad_sample_is_named_or_passed_over(tmp_path: Path) -> None:
    relevance = made()["relevance"]
    relevance[[7, 290]] = np.nan
    with pytest.raises(hw.HeadwaterError, match="NaN"):
        import_attributions(relevance, tmp_path / "refused")
    with pytest.warns(hw.HeadwaterWarning, match="2 of 300"):
        store = import_attributions(relevance, tmp_path / "store", skip_bad=True)
    assert np.flatnonzero(~store.valid).tolist() == [7, 290]
    assert np.array_equal(store.relevance[:], relevance, equal_nan=True)


def test_command_line(tmp_path: Path) -> None:
    from headwater.cli import app

    arrays = made(10)
    path = write_npz(tmp_path, arrays)
    found = CliRunner().invoke(app, ["import", str(path), str(tmp_path / "store"), "--name", "shap"])
    assert found.exit_code == 0, found.output
    check(hw.open_store(tmp_path / "store"), arrays)
    found = CliRunner().invoke(app, ["import", str(tmp_path / "none.npy"), str(tmp_path / "other")])
    assert found.exit_code == 1
    assert "there is no file" in found.output
