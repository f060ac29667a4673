"""Every kind of input is recognized, shown and explained live, and stores that are not whole are still of use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import headwater as hw
from headwater.analyze import spray
from headwater.dataset import run
from headwater.show.image import picture_rgb, to_rgb
from headwater.show.text import merge_pieces
from headwater.viewer import view
from headwater.viewer.shown import Names, Shown, kind_of
from tests.viewer.common import SAMPLES, SHAPES, Client, model, samples, stored

for package in ("PIL", "faiss", "sklearn"):
    pytest.importorskip(package)

WORDS = [f"{'##' if i % 3 == 2 else ''}piece{i}" for i in range(30)]


@pytest.mark.parametrize("kind", ["image", "spectrogram", "video", "series", "text", "table"])
def test_kinds(tmp_path: Path, kind: str) -> None:
    store = stored(tmp_path / "store", kind)
    options: dict[str, Any] = {"kind": "spectrogram"} if kind == "spectrogram" else {}
    options |= {"words": WORDS} if kind == "text" else {}
    with view(tmp_path / "store", model(kind), port=0, block=False, **options) as viewing:
        client = Client(viewing.url)
        facts = client.json("/api/store")
        assert facts["kind"] == kind
        relevance, given = store.relevance[4], store.inputs[4]
        if kind in ("image", "spectrogram", "video"):
            frame = 2 if kind == "video" else None
            drawn, query = _picture(kind, relevance, frame), "?frame=2" if frame else ""
            assert np.array_equal(client.get(f"/api/sample/4/heatmap.png{query}").picture(), to_rgb(drawn))
            shown = client.get(f"/api/sample/4/input.png{query}").picture()
            assert np.array_equal(shown, picture_rgb(_picture(kind, given, frame)))
            assert client.json("/api/sample/4/values")["total"] == pytest.approx(float(relevance.sum()), abs=1e-5)
        else:
            assert "no picture" in client.get("/api/sample/4/heatmap.png").error()
            _check_values(kind, client.json("/api/sample/4/values"), relevance, given)
        live = client.post("/api/explain", {"row": 4, "method": "gradient_x_input"})
        assert live.status == 200, live.body
        assert client.get(f"/api/live/{live.json()['key']}/values").status == 200
        assert client.post("/api/flipping", {"rows": [4, 5]}).status == 200
        assert client.json("/api/sample/4/ledger")["notice"] is None
        assert client.json("/api/scale?rows=1,2")["limit"] > 0
        for format in ("png", "html", "csv"):
            answer = client.post(f"/api/export?format={format}", {"rows": [4, 5], "title": kind})
            assert answer.status == 200, answer.body


def _picture(kind: str, values: np.ndarray, frame: int | None) -> np.ndarray:
    return values[:, frame] if kind == "video" else values[..., ::-1, :].copy() if kind == "spectrogram" else values


def _check_values(kind: str, values: dict[str, Any], relevance: np.ndarray, given: np.ndarray) -> None:
    assert values["kind"] == kind
    total = np.array(values["relevance"], float).sum()
    assert total == pytest.approx(float(relevance.sum()), abs=1e-5)
    if kind == "series":
        assert np.allclose(values["signal"], given)
        assert values["names"] == ["channel 0", "channel 1"]
    elif kind == "table":
        assert np.allclose(values["values"], given)
    else:
        expected = merge_pieces([WORDS[i] for i in given], relevance.sum(-1))
        assert values["tokens"] == expected[0]
        assert values["relevance"] == pytest.approx(expected[1].tolist(), abs=1e-6)


def test_several_inputs(tmp_path: Path) -> None:
    store = stored(tmp_path / "store", "two")
    with view(tmp_path / "store", model("two"), port=0, block=False) as viewing:
        client = Client(viewing.url)
        facts = client.json("/api/store")
        tables = [{"name": name, "kind": "table"} for name in ("left", "right")]
        assert facts["explanations"][0]["parts"] == tables
        assert [m["name"] for m in facts["maps"]] == ["principal"]
        assert np.isfinite(client.get("/api/map?name=principal").array("<f4")).all()  # of the first input
        values = client.json("/api/sample/3/values?part=right")
        assert values["relevance"] == pytest.approx(store.relevance["right"][3].tolist())
        assert values["values"] == pytest.approx(store.inputs["right"][3].tolist())
        assert client.get("/api/sample/3/values?part=middle").status == 404
        assert client.get("/api/sample/3/ledger").status == 200
        assert client.post("/api/flipping", {"rows": [1, 2]}).status == 200


def test_a_transformer_of_texts(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(**sizes, intermediate_size=32, num_labels=3)
    network = transformers.BertForSequenceClassification(config).eval()
    ids = torch.randint(5, 40, (12, 8))
    ids[:, 6:] = 0
    x = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    run(network, (x, torch.arange(12) % 3), tmp_path / "store", batch_size=4, keep_inputs=True, progress=False)
    with view(tmp_path / "store", network, words=[f"w{i}" for i in range(40)], port=0, block=False) as viewing:
        client = Client(viewing.url)
        facts = client.json("/api/store")
        assert (facts["kind"], facts["explanations"][0]["parts"]) == ("text", [{"name": "input_ids", "kind": "text"}])
        assert client.json("/api/sample/3/values")["tokens"] == [f"w{i}" for i in ids[3, :6].tolist()]
        assert client.json("/api/sample/3/ledger")["notice"] is None
        live = client.post("/api/explain", {"row": 3, "method": "gradient_x_input", "target": 1}).json()
        assert client.json(f"/api/live/{live['key']}/values")["tokens"][0] == f"w{int(ids[3, 0])}"
        assert len(live["prediction"]) == 3
        assert client.post("/api/flipping", {"rows": [3, 4]}).status == 200


def test_positional_inputs(tmp_path: Path) -> None:
    class Both(torch.nn.Module):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return torch.cat([left.sum(1, keepdim=True), right.sum(1, keepdim=True)], 1)

    torch.manual_seed(0)
    items = [((torch.rand(3), torch.rand(4)), i % 2) for i in range(12)]
    run(Both().eval(), items, tmp_path / "store", batch_size=4, keep_inputs=True, progress=False)
    with view(tmp_path / "store", Both().eval(), port=0, block=False) as viewing:
        client = Client(viewing.url)
        parts = client.json("/api/store")["explanations"][0]["parts"]
        assert parts == [{"name": "0", "kind": "table"}, {"name": "1", "kind": "table"}]
        assert client.get("/api/sample/3/ledger").status == 200
        assert client.json("/api/sample/3/values?part=1")["count"] == 4


def test_a_store_that_is_not_complete(tmp_path: Path) -> None:
    stored(tmp_path / "store")
    for name in ("complete.json", "commits/000000001.json", "samples/000000001.parquet"):
        (tmp_path / "store" / name).unlink()
    for array in ("lrp/relevance/c/1/0/0/0", "valid/c/1", "lrp/outputs/c/1", "ids/c/1", "labels/c/1"):
        (tmp_path / "store" / array).unlink()
    with view(tmp_path / "store", model(), port=0, block=False) as viewing:
        client = Client(viewing.url)
        facts = client.json("/api/store")
        assert facts["complete"] is False
        assert "2 of 3 chunks" in facts["notices"][0]
        assert client.rows("valid = no") == list(range(20, 40))
        assert client.rows("label is missing") == list(range(20, 40))
        missing = client.json("/api/sample/25")
        assert (missing["valid"], missing["label"], missing["error"]) == (False, None, "not explained yet")
        assert "not explained yet" in client.get("/api/sample/25/heatmap.png").error()
        assert client.get("/api/sample/5/heatmap.png").status == 200
        places = client.get("/api/map?name=principal").array("<f4").reshape(-1, 2)
        assert np.isnan(places[20:40]).all()
        assert np.isfinite(places[:20]).all()
        page = client.post("/api/export?format=html", {"rows": [5, 25]})
        assert b"not explained yet" in page.body


def test_bad_samples_say_why(tmp_path: Path) -> None:
    x, y = samples()
    x[7] = torch.nan
    with pytest.warns(hw.HeadwaterWarning, match="could not be explained"):
        run(model(), (x, y), tmp_path / "store", batch_size=10, chunk=20, skip_bad=True, progress=False)
    with view(tmp_path / "store", port=0, block=False) as viewing:
        client = Client(viewing.url)
        assert "1 of 60" in client.json("/api/store")["notices"][0]
        assert "NaN" in client.json("/api/sample/7")["error"]
        assert client.rows("error ~ nan") == [7]
        assert "NaN" in client.get("/api/sample/7/heatmap.png").error()
        assert client.json("/api/scale?rows=6,7,8")["limit"] > 0


def test_float64_and_one_sample(tmp_path: Path) -> None:
    x, y = samples()
    run(model().double(), (x[:1].double(), y[:1]), tmp_path / "one", dtype="float64", keep_inputs=True, progress=False)
    with view(tmp_path / "one", model().double(), port=0, block=False) as viewing:
        client = Client(viewing.url)
        assert client.json("/api/store")["n"] == 1
        assert client.json("/api/sample/0")["neighbours"] == []
        assert client.get("/api/map?name=principal").array("<f4").shape == (2,)
        assert client.post("/api/explain", {"row": 0, "method": "lrp"}).json()["output"] is not None


@pytest.mark.parametrize("known", [{}, {"targets": np.arange(30) % 3, "outputs": np.arange(30.0)}])
def test_relevance_that_was_imported(tmp_path: Path, known: dict[str, Any]) -> None:
    rows = np.random.default_rng(0).random((30, 8, 8)).astype(np.float32)
    hw.import_attributions(rows, tmp_path / "store", **known, progress=False)
    with view(tmp_path / "store", model(), kind="image", port=0, block=False) as viewing:
        client = Client(viewing.url)
        facts = client.json("/api/store")
        assert facts["explanations"][0]["target"] == "", "nobody said that it is the predicted class"
        columns = {column["name"] for column in facts["columns"]}
        assert columns == {"id"} | {f"imported.{key[:-1]}" for key in known}
        own = client.json("/api/sample/4")["explanations"]["imported"]
        assert own["output"] == (4.0 if known else None)
        assert own["delta"] is None
        assert own["target"] == ({"value": 1, "title": "1"} if known else None)
        assert client.rows("imported.output > 27") == [28, 29] if known else facts["filter_help"] == []
        assert "another program" in client.get("/api/sample/4/ledger").error()
        for format in ("png", "html", "csv"):
            answer = client.post(f"/api/export?format={format}", {"rows": [4, 5], "title": "imported"})
            assert answer.status == 200, answer.body


def test_pooled_alone(tmp_path: Path) -> None:
    stored(tmp_path / "store", keep_relevance=False, pooled={"rows": lambda r: r.sum((1, 3))})
    with view(tmp_path / "store", model(), port=0, block=False) as viewing:
        client = Client(viewing.url)
        facts = client.json("/api/store")
        assert (facts["maps"], facts["kind"]) == ([], None)
        assert "keep_relevance" in client.get("/api/sample/3/heatmap.png").error()
        assert client.get("/api/sample/3/input.png").status == 200
        assert client.rows("lrp.output > -1000") == list(range(SAMPLES))


@pytest.mark.parametrize(
    ("relevance", "given", "whole", "kind"),
    [
        ((3, 8, 8), (3, 8, 8), False, "image"), ((28, 28), (28, 28), False, "image"),
        ((3, 100), (3, 100), False, "series"),
        ((17, 69), None, False, "series"), ((17, 68), None, False, "image"), ((9, 6), (9,), True, "text"),
        ((9,), (9,), True, "text"), ((9,), (9,), False, "table"), ((9,), None, False, "table"),
        ((3, 4, 8, 8), None, False, "video"), ((1, 2, 3, 4, 5), None, False, "table"), ((), None, False, "table"),
    ],
)  # fmt: skip
def test_kind_of(relevance: tuple[int, ...], given: tuple[int, ...] | None, whole: bool, kind: str) -> None:
    assert kind_of(relevance, given, whole) == kind


def test_long_series_and_broad_tables_are_cut_honestly() -> None:
    relevance = np.zeros((1, 10_001))
    relevance[0, 7_777] = 5.0
    values = Shown("series", relevance, relevance + 1, Names()).values()
    assert values["step"] == 3
    assert len(values["relevance"][0]) == 3334
    assert values["relevance"].max() == 5.0
    assert values["signal"].max() == 6.0
    wide = np.random.default_rng(0).normal(size=2_000)
    values = Shown("table", wide, None, Names()).values()
    assert len(values["relevance"]) == 500
    assert values["relevance"].sum() + values["rest"] == pytest.approx(wide.sum())
    assert min(abs(values["relevance"])) >= np.sort(abs(wide))[-500]


def test_padding_is_not_shown() -> None:
    scores = np.array([0.5, 0.2, 0.0, 0.0, 0.0])
    shown = Shown("text", scores, np.array([4, 5, 0, 0, 0]), Names(lambda ids: [f"w{i}" for i in ids]))
    assert shown.values()["tokens"] == ["w4", "w5"]
    assert SHAPES["text"] == (9,)


def test_the_middle_frame_stands_for_a_video_and_all_share_a_scale(tmp_path: Path) -> None:
    store = stored(tmp_path / "store", "video", keep_inputs=True)
    with view(tmp_path / "store", model("video"), port=0, block=False) as viewing:
        client = Client(viewing.url)
        assert client.json("/api/store")["explanations"][0]["frames"] == 4
        for kind in ("heatmap", "input", "overlay"):
            frames = [client.get(f"/api/sample/4/{kind}.png?frame={t}").body for t in range(4)]
            assert client.get(f"/api/sample/4/{kind}.png").body == frames[2]
        limit = client.json("/api/scale?rows=4")["limit"]
        pixels = np.abs(store.relevance[4].sum(0))
        assert limit == pytest.approx(float(np.quantile(pixels, 0.995, method="higher")))
        key = client.post("/api/explain", {"row": 4, "method": "gradient"}).json()["key"]
        assert len({client.get(f"/api/live/{key}/heatmap.png?frame={t}").body for t in range(4)}) == 4
        assert "no frame 4" in client.get("/api/sample/4/heatmap.png?frame=4").error()


def test_the_mean_of_texts_is_relevance_over_their_places(tmp_path: Path) -> None:
    store = stored(tmp_path / "store", "text")
    spray(store, by=None, clusters=2, eigenvalues=4).save(tmp_path / "found")
    with view(tmp_path / "store", analysis=tmp_path / "found", port=0, block=False) as viewing:
        client = Client(viewing.url)
        values = client.json("/api/cluster/0/values")
        members = client.get("/api/cluster/0/rows").array("<i4")
        assert values["kind"] == "series"
        assert values["relevance"][0] == pytest.approx(store.relevance[members].sum(-1).mean(0).tolist(), abs=1e-6)
