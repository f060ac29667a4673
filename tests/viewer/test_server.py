"""What the server says is what the store, the analysis and the model say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.analyze import spray
from headwater.dataset import Store, open_store
from headwater.show.image import overlay_rgb, picture_rgb, scale_of, to_rgb
from headwater.viewer import Viewing, view
from tests.viewer.common import CLASSES, SAMPLES, Client, model, samples, stored

for package in ("faiss", "sklearn", "PIL"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("viewer")
    store = stored(path / "store", method=["lrp", "gradient_x_input"])
    spray(store, by="label", clusters=2, eigenvalues=6, map="tsne").save(path / "strategies")
    return path


@pytest.fixture(scope="module")
def viewing(folder: Path) -> Iterator[Viewing]:
    with view(folder / "store", model(), analysis=folder / "strategies", classes=CLASSES, port=0, block=False) as found:
        yield found


@pytest.fixture
def client(viewing: Viewing) -> Client:
    return Client(viewing.url)


@pytest.fixture
def store(folder: Path) -> Store:
    return open_store(folder / "store")


def test_the_store_is_described(client: Client) -> None:
    facts = client.json("/api/store")
    assert (facts["title"], facts["n"], facts["complete"], facts["notices"]) == ("store", SAMPLES, True, [])
    assert [e["name"] for e in facts["explanations"]] == ["lrp", "gradient_x_input"]
    assert [e["analysis"] for e in facts["explanations"]] == [True, False]
    assert (facts["kind"], facts["inputs"], facts["classes"]) == ("image", True, CLASSES)
    types = {column["name"]: column["type"] for column in facts["columns"]}
    assert types["label"] == types["lrp.target"] == types["cluster"] == types["correct"] == "category"
    assert types["lrp.output"] == types["lrp.delta"] == types["outlier"] == "number"
    assert types["id"] == "text"
    assert facts["model"]["same"] is True
    assert {"lrp", "integrated_gradients"} <= {m["name"] for m in facts["model"]["methods"]}
    assert [m["name"] for m in facts["maps"]] == ["places", "principal"]
    assert [(t["title"], t["n"]) for t in facts["maps"][0]["tiles"]] == [(name, 20) for name in CLASSES]


def test_the_page_and_heads(client: Client) -> None:
    page = client.get("/")
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    assert client.get("/assets/nothing.js").status == 404
    head = client.send("HEAD", "/api/map?name=places")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(8 * SAMPLES))
    assert client.send("PATCH", "/api/store").status in (403, 405)
    assert client.send("DELETE", "/api/store").status == 405


def test_columns_are_the_stores(client: Client, store: Store, folder: Path) -> None:
    assert np.array_equal(client.get("/api/column?name=label").array("<i4"), store.labels)
    assert np.array_equal(client.get("/api/column?name=lrp.output").array("<f4"), store.outputs.astype(np.float32))
    assert np.array_equal(
        client.get("/api/column?name=lrp.target").array("<i4"), np.unique(store.targets, return_inverse=True)[1]
    )
    labels = np.load(folder / "strategies" / "spray.npz")["labels"]
    assert np.array_equal(client.get("/api/column?name=cluster").array("<i4"), labels)
    assert np.array_equal(client.get("/api/column?name=correct").array("<i4"), store.labels == store.targets)
    facts = client.json("/api/column/facts?name=label")
    assert (facts["categories"], facts["counts"], facts["missing"]) == (CLASSES, [20, 20, 20], 0)
    facts = client.json("/api/column/facts?name=lrp.output")
    assert facts["low"] == pytest.approx(store.outputs.min())
    assert facts["quantiles"][3] == pytest.approx(np.median(store.outputs))
    assert client.get("/api/column?name=id").status == 400
    assert "label" in client.get("/api/column?name=nonsense").error()


def test_places_lie_in_their_tiles(client: Client, store: Store) -> None:
    places = client.get("/api/map?name=places").array("<f4").reshape(-1, 2)
    assert np.isfinite(places).all()
    for label, tile in enumerate(client.json("/api/store")["maps"][0]["tiles"]):
        low = np.array([tile["x"], tile["y"]])
        own = places[store.labels == label]
        assert (own >= low).all()
        assert (own <= low + np.array([tile["width"], tile["height"]])).all()
        assert np.ptp(own, 0).max() > 0.8 * tile["width"]
    principal = client.get("/api/map?name=principal").array("<f4").reshape(-1, 2)
    assert np.abs(principal).max() == pytest.approx(1)
    assert client.get("/api/map?name=umap").status == 404


def test_clusters_and_spectrum(client: Client, store: Store) -> None:
    clusters = client.json("/api/clusters")["clusters"]
    assert len(clusters) == 6
    ranks = [c["suspect"] for c in clusters]
    suspects = [rank for rank in ranks if rank is not None]
    assert suspects == list(range(1, len(suspects) + 1)) == ranks[: len(suspects)]
    assert all(c["share"] < 0.5 for c in clusters[: len(suspects)])
    first = clusters[0]
    rows = client.get(f"/api/cluster/{first['label']}/rows").array("<i4")
    assert len(rows) == first["size"]
    assert set(first["representatives"]) <= set(rows.tolist())
    mean = store.relevance[:][rows].mean(0)
    drawn = client.get(f"/api/cluster/{first['label']}/heatmap.png").picture()
    assert np.array_equal(drawn, to_rgb(mean))
    assert client.get("/api/cluster/99/heatmap.png").status == 404
    groups = client.json("/api/spectrum")["groups"]
    assert {g["title"] for g in groups} == set(CLASSES)
    assert all(g["eigenvalues"] == sorted(g["eigenvalues"]) and g["gap"] >= 2 for g in groups)
    assert client.get("/api/clusters?explanation=gradient_x_input").status == 404


def test_samples_and_pictures(client: Client, store: Store) -> None:
    sample = client.json("/api/sample/17")
    assert (sample["row"], sample["id"], sample["valid"], sample["error"]) == (17, "17", True, None)
    assert sample["label"] == {"value": 2, "title": "bag"}
    assert sample["explanations"]["lrp"]["output"] == pytest.approx(store.outputs[17], rel=1e-6)
    assert sample["group_title"] == "bag"
    near = sample["neighbours"]
    assert len(near) == 12
    assert all(store.labels[n["row"]] == 2 and n["row"] != 17 for n in near)
    assert [n["distance"] for n in near] == sorted(n["distance"] for n in near)
    relevance, picture = store.relevance[17], store.inputs[17]
    assert np.array_equal(client.get("/api/sample/17/input.png").picture(), picture_rgb(picture))
    assert np.array_equal(client.get("/api/sample/17/heatmap.png").picture(), to_rgb(relevance))
    limit = client.json("/api/scale?rows=17,18,19")["limit"]
    assert limit == pytest.approx(scale_of(store.relevance[17:20]))
    drawn = client.get(f"/api/sample/17/overlay.png?limit={limit}").picture()
    assert np.array_equal(drawn, overlay_rgb(relevance, picture, limit))
    other = client.get("/api/sample/17/heatmap.png?explanation=gradient_x_input").picture()
    assert np.array_equal(other, to_rgb(store["gradient_x_input"].relevance[17]))
    assert [s["row"] for s in client.json("/api/samples?rows=5,3,3")["samples"]] == [5, 3]
    assert client.json("/api/samples?rows=")["samples"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/api/sample/60", "/api/sample/-1", "/api/sample/x", "/api/samples?rows=1,60", "/api/samples?rows=1;2",
        "/api/sample/1/heatmap.png?limit=nan", "/api/sample/1/heatmap.png?explanation=none", "/api/sample/1/thing.png",
        "/api/sample/1/heatmap.png?limit=-1", "/api/sample/99999999999999999999", "/api/live/none/heatmap.png",
        "/api/scale?rows=" + ",".join(["1"] * 1000),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status in (400, 404)
    assert len(answer.error()) > 10


def test_live_explanations_are_hw_explains(client: Client, store: Store) -> None:
    asked = {"row": 7, "method": "integrated_gradients", "target": {"kind": "log_odds", "c": 1}}
    facts = client.post("/api/explain", asked).json()
    x = torch.as_tensor(store.inputs[7:8])
    expected = hw.explain(model(), x, hw.target.LogOdds(1), "integrated_gradients")
    assert facts["output"] == pytest.approx(float(expected.output[0]), rel=1e-5)
    assert facts["target"] == {"value": 1, "title": "coat"}
    assert [p["title"] for p in facts["prediction"]] == [CLASSES[c] for c in model()(x)[0].argsort(descending=True)]
    drawn = client.get(f"/api/live/{facts['key']}/heatmap.png").picture()
    assert np.array_equal(drawn, to_rgb(expected.relevance[0]))
    assert client.get(f"/api/live/{facts['key']}/overlay.png").status == 200
    assert client.json(f"/api/live/{facts['key']}/values")["kind"] == "image"
    curves = client.post("/api/flipping", {"key": facts["key"]}).json()["curves"]
    assert [c["order"] for c in curves] == ["most", "least", "random"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"row": 1, "method": "nonsense"}, "nonsense"), ({"row": 1, "target": 77}, "77"), ({"row": 99}, "99"),
        ({"row": 1, "target": {"kind": "margin"}}, "margin"), ({"row": 1, "composite": "nonsense"}, "nonsense"),
        ({"row": 1, "method": "gradient", "composite": "epsilon"}, "composite"), ({}, "row"), ([], "object"),
        ({"row": "1"}, "whole"), ({"row": 1, "options": {"steps": [1]}}, "options"),
        ({"row": 1, "options": {"nonsense": 1}}, "nonsense"), ({"row": True}, "whole"),
    ],
)  # fmt: skip
def test_wrong_live_requests_are_refused(client: Client, body: Any, said: str) -> None:
    answer = client.post("/api/explain", body)
    assert answer.status in (400, 404)
    assert said in answer.error()


def test_the_ledger_is_that_of_the_stored_explanation(client: Client, store: Store) -> None:
    found = client.json("/api/sample/7/ledger")
    expected = hw.explain(model(), torch.as_tensor(store.inputs[7:8]), int(store.targets[7]), ledger=True)
    assert [row["operator"] for row in found["rows"]] == [row.operator for row in expected.ledger]
    assert found["rows"][0]["incoming"] == pytest.approx(found["output"])
    for booked, row in zip(found["rows"], expected.ledger, strict=True):
        assert booked["outgoing"] == pytest.approx(float(row.outgoing[0]), rel=1e-5)
        named = sum(booked["absorbed"].values())
        assert booked["incoming"] - booked["outgoing"] - named == pytest.approx(booked["unexplained"], abs=1e-6)
    assert found["notice"] is None
    assert found["unexplained"] < 1e-6


def test_flipping_is_evaluates(client: Client, store: Store) -> None:
    rows = [3, 4, 5]
    found = client.post("/api/flipping", {"rows": rows, "explanation": "lrp"}).json()
    x, relevance = torch.as_tensor(store.inputs[rows]), torch.as_tensor(store.relevance[rows])
    expected = hw.evaluate.pixel_flipping(model(), x, relevance, torch.as_tensor(store.targets[rows]))
    assert found["curves"][0]["curve"] == pytest.approx(expected.curve.tolist(), rel=1e-5)
    assert found["n"] == 3
    assert len(found["curves"][0]["low"]) == len(found["fractions"])
    assert client.post("/api/flipping", {"rows": []}).status == 400
    assert client.post("/api/flipping", {"rows": list(range(60)) + [0] * 10}).status == 400


def test_filters(client: Client, store: Store) -> None:
    assert client.rows("label = coat") == np.flatnonzero(store.labels == 1).tolist()
    assert client.rows("") == list(range(SAMPLES))
    assert (
        client.rows("lrp.output > 0.5 and not label in (coat, bag)")
        == np.flatnonzero((store.outputs.astype(np.float32) > 0.5) & (store.labels == 0)).tolist()
    )
    answer = client.post("/api/search", {"filter": "label = coat and and"})
    assert answer.status == 400
    assert answer.json()["error"]["at"] == 17


def test_selections_are_kept_beside_the_store(client: Client, folder: Path) -> None:
    name = "/api/selection?name=odd%20%3Cones%3E"
    made = client.send("PUT", name, {"rows": [5, 3, 5], "note": "look", "recipe": "{}", "revision": None}).json()
    assert (made["rows"], made["revision"], made["recipe"]) == ([5, 3], 1, "{}")
    kept = json.loads((folder / "store.viewer" / "selections.json").read_text())
    assert kept["odd <ones>"]["ids"] == ["5", "3"]
    clash = client.send("PUT", name, {"rows": [1], "note": "mine"})
    assert clash.status == 409
    assert clash.json()["error"]["current"]["note"] == "look"
    assert client.send("PUT", name, {"note": "changed", "revision": 1}).json()["rows"] == [5, 3]
    assert client.send("PUT", name, {"note": "late", "revision": 1}).status == 409
    assert [s["note"] for s in client.json("/api/selections")["selections"]] == ["changed"]
    assert client.send("DELETE", f"{name}&revision=1").status == 409
    assert client.send("DELETE", f"{name}&revision=2").status == 200
    assert client.json("/api/selections")["selections"] == []
    assert client.get(name).status == 404
    for body in ({"note": "no rows"}, {"rows": [60]}, {"rows": "all"}, {"rows": [1.5]}, {"rows": [True]}):
        assert client.send("PUT", "/api/selection?name=new", body).status == 400
    for wrong in ("", "%20", "a" * 101, "a%00b", "a%0Ab"):
        assert client.send("PUT", f"/api/selection?name={wrong}", {"rows": [1]}).status == 400


def test_many_writers_lose_nothing(client: Client, folder: Path) -> None:
    def write(number: int) -> int:
        return client.send("PUT", f"/api/selection?name=writer{number}", {"rows": [number]}).status

    with ThreadPoolExecutor(10) as pool:
        assert set(pool.map(write, range(20))) == {200}
    kept = json.loads((folder / "store.viewer" / "selections.json").read_text())
    assert {f"writer{n}" for n in range(20)} <= set(kept)
    for number in range(20):
        client.send("DELETE", f"/api/selection?name=writer{number}&revision=1")


def test_two_viewers_of_one_store_lose_nothing(folder: Path) -> None:
    """Each sees what the other saved, both write at once, and neither changes what it has not seen."""
    clients = []
    with ExitStack() as open_viewers:
        for _ in range(2):
            viewing = open_viewers.enter_context(view(folder / "store", port=0, block=False))
            clients.append(Client(viewing.url))

        def write(number: int) -> int:
            return clients[number % 2].send("PUT", f"/api/selection?name=both{number}", {"rows": [number]}).status

        with ThreadPoolExecutor(10) as pool:
            assert set(pool.map(write, range(40))) == {200}
        for client in clients:
            found = client.json("/api/selections")["selections"]
            assert {s["name"] for s in found} == {f"both{n}" for n in range(40)}
        name = "/api/selection?name=both0"
        assert clients[0].send("PUT", name, {"note": "first", "revision": 1}).status == 200
        late = clients[1].send("PUT", name, {"note": "second", "revision": 1})
        assert (late.status, late.json()["error"]["current"]["note"]) == (409, "first")
        assert "changed meanwhile" in late.error()
        for number in range(40):
            clients[0].send("DELETE", f"/api/selection?name=both{number}&revision={1 + (number == 0)}")
        assert clients[1].json("/api/selections")["selections"] == []


def test_a_store_that_another_process_holds_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    monkeypatch.setattr("headwater.dataset.files._PATIENCE", 0.05)
    with view(folder / "store", port=0, block=False) as viewing:
        client = Client(viewing.url)
        with FileLock(folder / "store.viewer" / ".selections.json.lock"):
            answer = client.send("PUT", "/api/selection?name=held", {"rows": [1]})
            assert answer.status == 409
            assert "another process" in answer.error()
        assert client.send("PUT", "/api/selection?name=held", {"rows": [1]}).status == 200
        assert client.send("DELETE", "/api/selection?name=held&revision=1").status == 200


def test_ten_clients_at_once(client: Client) -> None:
    paths = [
        "/api/store", "/api/map?name=places", "/api/column?name=cluster", "/api/sample/3", "/api/sample/3/overlay.png",
        "/api/clusters", "/api/sample/3/ledger", "/api/scale?rows=1,2,3",
    ]  # fmt: skip
    alone = {path: client.get(path).body for path in paths}

    def visit(number: int) -> bool:
        order = paths[number % len(paths) :] + paths[: number % len(paths)]
        return all(client.get(path).body == alone[path] for path in order)

    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(visit, range(10)))


def test_an_analysis_runs_from_the_page(tmp_path: Path) -> None:
    stored(tmp_path / "store")
    with view(tmp_path / "store", port=0, block=False) as viewing:
        client = Client(viewing.url)
        assert [m["name"] for m in client.json("/api/store")["maps"]] == ["principal"]
        assert client.get("/api/clusters").status == 404
        assert client.json("/api/analysis")["state"] == "none"
        wrong = ({"map": "pca"}, {"clusters": "x"}, {"by": 3}, {"normalization": {"blur": 1}}, {"explanation": 3})
        assert all(client.post("/api/analysis", body).status == 400 for body in wrong)
        asked = {"by": None, "clusters": 3, "map": None, "normalization": {"part": "positive", "size": 4}}
        assert client.post("/api/analysis", asked).status == 202
        state = client.json("/api/analysis")
        while state["state"] == "running":
            state = client.json("/api/analysis")
        assert state["state"] == "done", state
        assert len(client.json("/api/clusters")["clusters"]) == 3
        assert client.json("/api/store")["maps"][0]["name"] == "spectral"
        assert client.rows("cluster is not missing") == list(range(SAMPLES))
        assert client.post("/api/explain", {"row": 1}).status == 409  # there is no model
    with view(tmp_path / "store", port=0, block=False) as viewing:  # it was kept
        assert len(Client(viewing.url).json("/api/clusters")["clusters"]) == 3


def test_read_only_writes_nothing(tmp_path: Path) -> None:
    stored(tmp_path / "store")
    with view(tmp_path / "store", port=0, block=False, read_only=True) as viewing:
        client = Client(viewing.url)
        assert client.json("/api/store")["read_only"] is True
        assert client.send("PUT", "/api/selection?name=a", {"rows": [1]}).status == 403
        assert client.send("DELETE", "/api/selection?name=a&revision=1").status == 403
        assert client.post("/api/analysis", {}).status == 403
        assert client.post("/api/search", {"filter": "label = 1"}).status == 200
    assert not (tmp_path / "store.viewer").exists()


def test_wrong_arguments_are_refused_before_anything_is_served(tmp_path: Path) -> None:
    stored(tmp_path / "store")
    with pytest.raises(hw.InvalidInput, match="no store"):
        view(tmp_path / "none", block=False)
    with pytest.raises(hw.InvalidInput, match="no analysis"):
        view(tmp_path / "store", analysis=tmp_path, block=False)
    with pytest.raises(hw.InvalidInput, match="no explanation 'x'"):
        view(tmp_path / "store", analysis={"x": tmp_path}, block=False)
    with pytest.raises(hw.InvalidInput, match="kind"):
        view(tmp_path / "store", kind="thing", block=False)
    with pytest.raises(hw.InvalidInput, match="59 samples"):
        view(tmp_path / "store", data=samples(n=59), block=False)
    with pytest.raises(hw.InvalidInput, match="not what the store explains"):
        view(tmp_path / "store", data=(samples()[0] + 1, samples()[1]), block=False)
    with pytest.raises(hw.InvalidInput, match="cannot serve"):
        view(tmp_path / "store", host="192.0.2.1", port=0, block=False)
    other = stored(tmp_path / "other", keep_inputs=False)
    found = spray(other.relevance[:30], clusters=2, eigenvalues=4)
    found.save(tmp_path / "small")
    with pytest.raises(hw.InvalidInput, match="other samples"):
        view(tmp_path / "store", analysis=tmp_path / "small", block=False)


def test_inputs_come_from_the_data_where_the_store_has_none(tmp_path: Path) -> None:
    stored(tmp_path / "store", keep_inputs=False)
    with view(tmp_path / "store", port=0, block=False) as viewing:
        client = Client(viewing.url)
        assert client.json("/api/store")["inputs"] is False
        assert "inputs" in client.get("/api/sample/1/input.png").error()
        assert client.get("/api/sample/1/heatmap.png").status == 200
    with view(tmp_path / "store", model(), data=samples(), port=0, block=False) as viewing:
        client = Client(viewing.url)
        drawn = client.get("/api/sample/1/input.png").picture()
        assert np.array_equal(drawn, picture_rgb(samples()[0][1]))
        assert client.get("/api/sample/1/ledger").status == 200


def test_another_model_is_told(tmp_path: Path) -> None:
    stored(tmp_path / "store")
    other = model()
    with torch.no_grad():
        other[3].weight.mul_(2)
    with view(tmp_path / "store", other, port=0, block=False) as viewing:
        client = Client(viewing.url)
        assert client.json("/api/store")["model"]["same"] is False
        assert "not what made the store" in client.json("/api/sample/1/ledger")["notice"]


def test_the_store_itself_is_left_as_it_was(tmp_path: Path) -> None:
    stored(tmp_path / "store")
    before = {p: p.read_bytes() for p in (tmp_path / "store").rglob("*") if p.is_file()}
    shutil.copytree(tmp_path / "store", tmp_path / "again")
    with view(tmp_path / "store", model(), spray=True, port=0, block=False) as viewing:
        client = Client(viewing.url)
        client.send("PUT", "/api/selection?name=a", {"rows": [1]})
        assert client.json("/api/store")["explanations"][0]["analysis"] is True
    assert before == {p: p.read_bytes() for p in (tmp_path / "store").rglob("*") if p.is_file()}
