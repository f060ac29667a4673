"""What a job stores is what ``explain`` returns, however samples come and whatever is asked."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater.dataset import open_store, run
from tests.dataset.common import SAMPLES, content, job, network, samples

pytest.importorskip("zarr")
pytest.importorskip("polars")


def test_a_store_holds_what_explain_returns(tmp_path: Path) -> None:
    store = job(tmp_path / "store")
    x, y = samples()
    e = hw.explain(network(), x)
    np.testing.assert_allclose(store.relevance[:], e.relevance.numpy(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(store.outputs, e.output.double().numpy(), rtol=1e-6)
    np.testing.assert_array_equal(store.targets, e.target.numpy())
    np.testing.assert_array_equal(store.labels, y.numpy())
    np.testing.assert_allclose(store.delta, e.delta.double().numpy(), rtol=1e-3, atol=1e-5)
    assert store.ids.tolist() == [str(i) for i in range(SAMPLES)]
    assert store.valid.all()
    assert store.complete
    assert store.damaged() == []
    assert len(store) == SAMPLES


def test_the_table_can_be_queried(tmp_path: Path) -> None:
    import polars

    store = job(tmp_path / "store")
    found = store.table.group_by("label").agg(polars.len()).sort("label").collect()
    assert found["len"].to_list() == [15, 15, 15]
    columns = store.table.collect_schema().names()
    assert columns == ["id", "valid", "error", "label", "lrp.output", "lrp.target", "lrp.delta"]


def test_zarr_reads_the_store_by_itself(tmp_path: Path) -> None:
    import zarr

    store = job(tmp_path / "store")
    group = zarr.open_group(tmp_path / "store", mode="r")
    assert group.metadata.zarr_format == 3
    np.testing.assert_array_equal(group["lrp/relevance"][:], store.relevance[:])
    assert group["lrp/relevance"].shards == (8, 1, 6, 6)


def test_rows_behave_like_an_array(tmp_path: Path) -> None:
    rows = job(tmp_path / "store").relevance
    whole = rows[:]
    assert rows.shape == whole.shape
    assert rows.ndim == 4
    np.testing.assert_array_equal(rows[-1], whole[-1])
    np.testing.assert_array_equal(rows[3:20:5, 0, 2], whole[3:20:5, 0, 2])
    np.testing.assert_array_equal(rows[[7, 1, 30]], whole[[7, 1, 30]])
    np.testing.assert_array_equal(np.asarray(rows), whole)
    np.testing.assert_array_equal(np.concatenate([batch for _, batch in rows.batches(7)]), whole)
    np.testing.assert_array_equal(np.stack(list(rows)), whole)
    with pytest.raises(hw.InvalidInput, match="has no"):
        rows[SAMPLES]


class Items:
    """A data set with random augmentation and one sample that cannot be read."""

    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        self.x, self.y = samples()
        self.bad = bad

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index in self.bad:
            raise OSError("cannot be read")
        return self.x[index] + 0.1 * torch.randn(1, 6, 6) + np.random.rand(), int(self.y[index])


def test_random_loading_repeats_and_leaves_the_generators_alone(tmp_path: Path) -> None:
    model, items = network(), Items()
    state = torch.get_rng_state()
    for name in ("a", "b"):
        run(model, items, tmp_path / name, batch_size=4, chunk=8, threads=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    other = run(network(), Items(), tmp_path / "c", batch_size=4, chunk=8, threads=1, seed=5)
    assert not np.array_equal(other.relevance[:], open_store(tmp_path / "a").relevance[:])


def test_bad_samples_are_told_of_or_recorded(tmp_path: Path) -> None:
    with pytest.raises(hw.HeadwaterError, match="sample 9 cannot be explained: OSError: cannot be read"):
        run(network(), Items((9,)), tmp_path / "strict", batch_size=4, chunk=8)
    with pytest.warns(hw.HeadwaterWarning, match="2 of 45 samples could not be explained"):
        store = run(network(), Items((9, 21)), tmp_path / "store", batch_size=4, chunk=8, skip_bad=True)
    assert np.flatnonzero(~store.valid).tolist() == [9, 21]
    assert np.isnan(store.relevance[9]).all()
    assert np.isfinite(store.relevance[10]).all()
    table = store.table.collect()
    assert table["error"][9] == "OSError: cannot be read"
    assert table["error"].null_count() == SAMPLES - 2


def test_samples_that_cannot_be_explained_are_found_within_their_batch(tmp_path: Path) -> None:
    x, y = samples()
    x[13, 0, 2, 2] = torch.nan
    with pytest.raises(hw.HeadwaterError, match="NaN"):
        run(network(), (x, y), tmp_path / "strict", batch_size=4)
    with pytest.warns(hw.HeadwaterWarning, match="1 of 45"):
        store = run(network(), (x, y), tmp_path / "store", batch_size=4, skip_bad=True)
    assert np.flatnonzero(~store.valid).tolist() == [13]
    clean = job(tmp_path / "clean")
    np.testing.assert_allclose(store.relevance[14], clean.relevance[14], rtol=1e-5, atol=1e-7)


def test_a_bad_first_sample_does_not_stop_the_job(tmp_path: Path) -> None:
    with pytest.warns(hw.HeadwaterWarning, match="1 of 45"):
        store = run(network(), Items((0,)), tmp_path / "store", batch_size=4, skip_bad=True)
    assert not store.valid[0]


def test_a_first_sample_that_is_nan_does_not_stop_the_job(tmp_path: Path) -> None:
    x, y = samples()
    x[0] = torch.nan
    with pytest.warns(hw.HeadwaterWarning, match="1 of 45"):
        store = run(network(), (x, y), tmp_path / "store", batch_size=4, skip_bad=True)
    assert np.flatnonzero(~store.valid).tolist() == [0]


def test_several_methods_and_targets(tmp_path: Path) -> None:
    x, y = samples()
    store = job(
        tmp_path / "store", method=["lrp", "gradient"], target={"first": 0, "own": "label", "odds": hw.target.LogOdds()}
    )
    assert store.names == ["lrp-first", "lrp-own", "lrp-odds", "gradient-first", "gradient-own", "gradient-odds"]
    for name, target in (("first", 0), ("own", y), ("odds", hw.target.LogOdds())):
        for method in ("lrp", "gradient"):
            e = hw.explain(network(), x, target=target, method=method)
            found = store[f"{method}-{name}"]
            np.testing.assert_allclose(found.relevance[:], e.relevance.numpy(), rtol=1e-4, atol=1e-6)
            assert (found.delta is None) == (method == "gradient")
    with pytest.raises(hw.InvalidInput, match="holds no explanation"):
        store["shap"]


def test_a_negative_label_is_no_class(tmp_path: Path) -> None:
    """-1 often stands for unknown; as a target it would count from the last class."""
    x, y = samples()
    y = torch.where(torch.arange(len(y)) == 9, -1, y)
    settings: dict[str, Any] = {"target": "label", "batch_size": 4, "threads": 1, "progress": False}
    with pytest.raises(hw.HeadwaterError, match=r"its label is -1, which is no class\. skip_bad"):
        run(network(), (x, y), tmp_path / "refused", **settings)
    with pytest.warns(hw.HeadwaterWarning, match="1 of 45"):
        store = run(network(), (x, y), tmp_path / "store", skip_bad=True, **settings)
    assert np.flatnonzero(~store.valid).tolist() == [9]


def test_one_target_a_sample(tmp_path: Path) -> None:
    targets = torch.arange(SAMPLES) % 4
    np.testing.assert_array_equal(job(tmp_path / "a", target=targets).targets, targets.numpy())
    np.testing.assert_array_equal(job(tmp_path / "b", target=targets.tolist()).targets, targets.numpy())


def test_pooled_layers_inputs_and_half_precision(tmp_path: Path) -> None:
    store = job(
        tmp_path / "store", layers=["0"], keep_inputs=True, dtype="float16", pooled={"rows": lambda r: r.sum((1, 3))}
    )
    e = hw.explain(network(), samples()[0], layers=["0"])
    assert store.relevance.dtype == np.float16
    np.testing.assert_allclose(store.pooled["rows"][:], e.relevance.sum((1, 3)).numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(store.layers["0"][:], e.layers["0"].numpy(), rtol=2e-3, atol=1e-5)
    np.testing.assert_array_equal(store.inputs[:], samples()[0].numpy())


def test_relevance_need_not_be_kept(tmp_path: Path) -> None:
    store = job(tmp_path / "store", keep_relevance=False, pooled={"sum": lambda r: r.flatten(1).sum(1)})
    assert store.pooled["sum"].shape == (SAMPLES,)
    with pytest.raises(hw.InvalidInput, match="keep_relevance=False"):
        _ = store.relevance
    with pytest.raises(hw.InvalidInput, match="stores nothing"):
        job(tmp_path / "none", keep_relevance=False)


def test_relevance_beyond_float16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(hw.HeadwaterError, match="65504"):
        run(network(), samples()[0] * 1e6, tmp_path / "store", dtype="float16")


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.inner(a) + self.inner(b)


def test_models_of_several_inputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(10, 5), torch.randn(10, 5)
    model = TwoInputs().eval()
    store = run(model, {"a": a, "b": b, "label": torch.arange(10)}, tmp_path / "dict", batch_size=4)
    e = hw.explain(model, {"a": a, "b": b})
    np.testing.assert_allclose(store.relevance["b"][:], e.relevance["b"].numpy(), rtol=1e-5, atol=1e-7)
    assert store.labels.tolist() == list(range(10))
    pairs = [((x, y), 0) for x, y in zip(a, b, strict=True)]
    store = run(model, pairs, tmp_path / "tuple", batch_size=4)
    np.testing.assert_allclose(store.relevance["0"][:], e.relevance["a"].numpy(), rtol=1e-5, atol=1e-7)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 4), nn.Linear(4, 2)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.embedding(input_ids).mean(1))


def test_token_ids(tmp_path: Path) -> None:
    ids = torch.arange(24).reshape(4, 6) % 11
    store = run(Tokens().eval(), ids, tmp_path / "store")
    assert store.relevance.shape == (4, 6, 4)


@pytest.mark.parametrize("kind", ["numpy", "double", "list", "strided", "torch", "one"])
def test_samples_come_as_they_may(tmp_path: Path, kind: str) -> None:
    x, y = samples()
    given: Any = {
        "numpy": (x.numpy(), y.numpy()),
        "double": x.numpy().astype(np.float64),
        "list": [(row.numpy(), int(label)) for row, label in zip(x, y, strict=True)],
        "strided": x.movedim(-1, -2).contiguous().movedim(-1, -2),
        "torch": torch.utils.data.TensorDataset(x, y),
        "one": x[:1],
    }[kind]
    store = run(network(), given, tmp_path / "store", batch_size=7)
    e = hw.explain(network(), x[: len(store)])
    np.testing.assert_allclose(store.relevance[:], e.relevance.numpy(), rtol=1e-5, atol=1e-7)


def test_double_precision_models(tmp_path: Path) -> None:
    model = network().double()
    store = run(model, samples()[0], tmp_path / "store", dtype="float64")
    e = hw.explain(model, samples()[0].double())
    np.testing.assert_allclose(store.relevance[:], e.relevance.numpy(), rtol=1e-12, atol=1e-14)


def test_folders_of_pictures_and_arrays(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    generator = np.random.default_rng(0)
    for name in ("cat/a.png", "cat/b.png", "dog/c.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(generator.integers(0, 255, (6, 6, 3), np.uint8)).save(tmp_path / "in" / name)
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2)).eval()
    store = run(model, tmp_path / "in", tmp_path / "store")
    assert store.ids.tolist() == ["cat/a.png", "cat/b.png", "dog/c.png"]
    assert store.labels.tolist() == [0, 0, 1]
    assert store.manifest.classes == ("cat", "dog")
    for i, row in enumerate(samples(3)[0]):
        (tmp_path / "arrays").mkdir(exist_ok=True)
        np.save(tmp_path / "arrays" / f"{i}.npy", row.numpy())
    flat = run(network(), tmp_path / "arrays", tmp_path / "flat")
    assert flat.labels is None
    np.testing.assert_allclose(flat.relevance[:], hw.explain(network(), samples(3)[0]).relevance.numpy(), atol=1e-6)


def test_items_of_a_dict_with_a_fingerprint(tmp_path: Path) -> None:
    """As a Hugging Face data set has them."""

    class Dataset(list[Any]):
        _fingerprint = "abc"

    x, y = samples()
    items = Dataset({"image": row, "label": int(label)} for row, label in zip(x, y, strict=True))
    store = run(network(), items, tmp_path / "store")
    assert store.labels.tolist() == y.tolist()
    prepared = run(network(), items, tmp_path / "prepared", prepare=lambda item: (item["image"] * 2, "odd"))
    assert prepared.labels.tolist() == ["odd"] * SAMPLES


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 0}, "batch_size"),
    ({"chunk": 6}, "multiple"),
    ({"dtype": "int8"}, "dtype"),
    ({"workers": 0}, "workers"),
    ({"engine": "spark"}, "engine"),
    ({"method": "nonsense"}, "Unknown method"),
    ({"method": []}, "method"),
    ({"method": ["lrp", "LRP"]}, "once each"),
    ({"target": {}}, "empty"),
    ({"target": "cat"}, "label"),
    ({"target": [0, 1]}, "2 targets for 45"),
    ({"ids": ["a"]}, "1 ids for 45"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(hw.InvalidInput, match=message):
        job(tmp_path / "store", **options)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(0, 1, 6, 6), "empty"),
        (iter([1]), "stream"),
        (3, "stream"),
        ((torch.zeros(3, 1, 6, 6), torch.zeros(2)), "different lengths"),
        (torch.tensor(1.0), "scalar"),
        ("/nowhere/at/all", "no folder"),
    ],
)
def test_data_sets_that_are_none(tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(hw.InvalidInput, match=message):
        run(network(), given, tmp_path / "store")


def test_samples_of_several_shapes_are_told_of(tmp_path: Path) -> None:
    items = [torch.randn(1, 6, 6), torch.randn(1, 6, 7)]
    with pytest.raises(hw.HeadwaterError, match="shapes differ"):
        run(network(), items, tmp_path / "store")


def test_a_store_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(hw.InvalidInput, match="no store"):
        open_store(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(hw.InvalidInput, match="holds other files"):
        job(tmp_path)
    with pytest.raises(hw.InvalidInput, match="is a file"):
        open_store(tmp_path / "notes.txt")


def test_newer_stores_are_refused_with_a_sentence(tmp_path: Path) -> None:
    job(tmp_path / "store")
    path = tmp_path / "store" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(hw.InvalidInput, match=r"format 99.*update"):
        open_store(tmp_path / "store")


def test_a_store_in_an_object_store(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    store = job("memory://bucket/store")  # type: ignore[arg-type]
    local = job(tmp_path / "store")
    np.testing.assert_array_equal(open_store("memory://bucket/store").outputs, local.outputs)
    np.testing.assert_array_equal(store.relevance[:], local.relevance[:])


def test_the_package_is_imported_only_when_needed() -> None:
    import subprocess

    heavy = ("zarr", "polars", "ray", "sklearn", "faiss")
    code = f"import sys, headwater.dataset, headwater.analyze; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_manifest_survives_its_text(tmp_path: Path) -> None:
    from headwater.dataset.manifest import Manifest

    manifest = job(tmp_path / "store").manifest
    assert Manifest.from_json(manifest.to_json(), "here") == manifest
    assert manifest.differences(replace(manifest, seed=7)) == ["seed was 7 then, is 0 now"]
