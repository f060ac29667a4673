"""Exports hold what was selected, and say where they hold less."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.dataset import Store, open_store
from headwater.viewer import export as exporting
from headwater.viewer.export import FORMATS, export
from headwater.viewer.shown import Names
from headwater.viewer.viewed import Extra, Viewed
from tests.viewer.common import CLASSES, model, stored

for package in ("PIL", "matplotlib"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "store"
    stored(path, method=["lrp", "gradient_x_input"])
    return path


@pytest.fixture(scope="module")
def viewed(folder: Path) -> Viewed:
    return Viewed(folder, None, None, Extra(CLASSES, Names()), False)


@pytest.fixture
def store(folder: Path) -> Store:
    return open_store(folder)


def content(viewed: Viewed, rows: list[int], format: str, title: str = "two bags", note: str = "") -> bytes:
    return b"".join(export(viewed, np.array(rows), format, title, note).parts)


def test_the_table(viewed: Viewed, store: Store) -> None:
    table = list(csv.DictReader(io.StringIO(content(viewed, [9, 2], "csv").decode())))
    assert [row["row"] for row in table] == ["9", "2"]
    assert [row["label"] for row in table] == [CLASSES[store.labels[i]] for i in (9, 2)]
    assert [float(row["lrp.output"]) for row in table] == pytest.approx(store.outputs[[9, 2]].tolist(), rel=1e-6)
    assert [float(row["lrp.delta"]) for row in table] == pytest.approx(store.delta[[9, 2]].tolist(), rel=1e-5)


def test_ids_and_json(viewed: Viewed) -> None:
    assert content(viewed, [9, 2], "ids") == b"9\n2\n"
    kept = json.loads(content(viewed, [9, 2], "json", note="hm"))
    assert kept == {"two bags": {"ids": ["9", "2"], "rows": [9, 2], "note": "hm"}}


@pytest.mark.parametrize("format", ["png", "svg"])
def test_pictures(viewed: Viewed, format: str) -> None:
    archive = zipfile.ZipFile(io.BytesIO(content(viewed, [9, 2], format)))
    assert archive.testzip() is None
    assert archive.namelist() == ["selection.csv", f"0000009_9.{format}", f"0000002_2.{format}"]
    picture = archive.read(f"0000009_9.{format}")
    assert picture.startswith(b"\x89PNG" if format == "png" else b"<?xml")
    assert b"<script" not in picture


def test_the_page_holds_everything(viewed: Viewed, store: Store) -> None:
    page = content(viewed, [9, 2], "html", "A <b>bold</b> title", "note & more").decode()
    assert "A &lt;b&gt;bold&lt;/b&gt; title" in page
    assert "note &amp; more" in page
    assert page.count("data:image/png;base64,") == 4  # an input and an overlay each
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "<script" not in page
    assert CLASSES[store.labels[9]] in page


def test_a_series_fills_the_page(tmp_path: Path) -> None:
    stored(tmp_path / "store", "series")
    series = Viewed(tmp_path / "store", None, None, Extra((), Names()), False)
    page = content(series, [9, 2], "html").decode()
    assert page.count("data:image/png;base64,") == 2
    assert 'class="gallery"' not in page, "with axes and writing it cannot be read in a small cell"


def test_what_is_left_out_is_told(viewed: Viewed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_REPORTED", 3)
    monkeypatch.setattr(exporting, "_PICTURES", 2)
    rows = np.arange(10)
    found = export(viewed, rows, "html", "ten")
    assert found.headers == {"x-truncated": "3 of 10"}
    assert "the first 3 of 10 samples" in b"".join(found.parts).decode()
    archive = zipfile.ZipFile(io.BytesIO(content(viewed, rows.tolist(), "png")))
    assert len(archive.namelist()) == 3
    assert archive.read("selection.csv").count(b"\n") == 11
    assert export(viewed, rows, "csv", "ten").headers == {}


@pytest.mark.parametrize("format", FORMATS)
def test_files_have_plain_names(viewed: Viewed, format: str) -> None:
    for title in ("../../x", 'a"; filename="b', "ä\r\nSet-Cookie: a=1", "…", "con/aux\\nul", "a" * 300):
        assert re.fullmatch(
            r"[A-Za-z0-9_-]{1,60}\.(csv|txt|json|zip|html)", export(viewed, np.array([1]), format, title).name
        )


def test_wrong_formats_are_refused(viewed: Viewed) -> None:
    with pytest.raises(hw.InvalidInput, match="csv, ids"):
        export(viewed, np.array([1]), "pdf", "x")
    with pytest.raises(hw.HeadwaterError, match="no explanation"):
        export(viewed, np.array([1]), "csv", "x", name="nonsense")


def test_a_picture_with_odd_channels(tmp_path: Path) -> None:
    from headwater.dataset import run

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(5 * 20 * 20, 2)).eval()
    run(network, torch.rand(4, 5, 20, 20), tmp_path / "store", batch_size=2, keep_inputs=True, progress=False)
    viewed = Viewed(tmp_path / "store", None, None, Extra(), False)
    assert len(zipfile.ZipFile(io.BytesIO(content(viewed, [0, 1], "png"))).namelist()) == 3
    assert content(viewed, [0, 1], "html").count(b"data:image/png") == 4
    assert model() is not None
