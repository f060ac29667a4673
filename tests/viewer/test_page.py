"""The page in a browser, used as a person uses it: look, select, name, export, and open the link again."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.viewer import view
from tests.viewer.common import Client
from tests.viewer.page import PATIENCE, SAMPLES, Person, Planted, person, places


@pytest.fixture(scope="module")
def url(planted: Planted) -> Iterator[str]:
    with view(planted.store, planted.model, **planted.options()) as viewing:
        yield viewing.url


@pytest.fixture
def someone(browser: Any, url: str) -> Iterator[Person]:
    with person(browser, url) as found:
        yield found


def test_lasso_look_name_export_and_reload(someone: Person, browser: Any, planted: Planted, tmp_path: Path) -> None:
    client, page = Client(someone.url), someone.page
    someone.open()
    someone.lasso(places(client)[planted.marked])
    someone.says(f"{planted.marked.size} samples selected")
    assert set(someone.pictures(".sample img")) == {12}, "input, heatmap and overlay of each, in their own pixels"
    assert page.locator(".sample img").count() == 3 * planted.marked.size

    someone.tab("Saved")
    someone.write("[placeholder='Name of the selection']", "corner mark")
    someone.write("[aria-label=Note]", "the model looks at <b>the corner</b>")
    someone.click(".current .primary")
    page.locator(".saved li.in-front b").filter(has_text="corner mark").wait_for()
    assert client.json("/api/selection?name=corner%20mark")["rows"] == planted.marked.tolist()

    with page.expect_download() as download:
        someone.click(".saved li >> role=button[name=CSV]")
    download.value.save_as(tmp_path / "export.csv")
    with (tmp_path / "export.csv").open(newline="") as file:
        assert [int(line["id"]) for line in csv.DictReader(file)] == planted.marked.tolist()
    for kind in ("ids", "PNG", "report"):
        with page.expect_download() as download:
            someone.click(f".saved li >> role=button[name={kind}]")
        assert Path(download.value.path()).stat().st_size > 0

    link = someone.link("n~corner")
    with person(browser, someone.url) as friend:
        friend.open(link)
        friend.says(f"{planted.marked.size} samples selected")
        note = friend.page.locator(".saved textarea")
        note.wait_for()
        assert note.input_value() == "the model looks at <b>the corner</b>"
        friend.click(".saved li >> text=Delete")
        friend.click("text=Delete for good?")
        friend.page.locator(".saved li").wait_for(state="detached")
    assert client.json("/api/selections") == {"selections": []}


def test_a_lasso_adds_and_takes_away(someone: Person, planted: Planted) -> None:
    xy = places(Client(someone.url))
    others = np.flatnonzero(np.arange(SAMPLES) % 3 == 0)
    someone.open()
    someone.lasso(xy[planted.marked])
    someone.says(f"{planted.marked.size} samples selected")
    someone.lasso(xy[others], holding="Shift")
    someone.says(f"{planted.marked.size + others.size} samples selected")
    someone.lasso(xy[planted.marked], holding="Alt")
    someone.says(f"{others.size} samples selected")
    someone.page.reload()
    someone.says(f"{others.size} samples selected")
    someone.press("Escape")
    someone.says(f"{SAMPLES} samples")


def test_a_link_holds_all_of_the_view(someone: Person, browser: Any) -> None:
    page = someone.open().page
    page.select_option(".choice >> nth=0 >> select", label="gradient, gradient")
    page.select_option(".choice >> nth=1 >> select", label="each sample's label")
    page.select_option(".choice:has-text('Map') select", "principal")
    page.select_option(".choice:has-text('Colour') select", "outlier")
    someone.write("#filter", "label = coat and outlier > 1")
    someone.press("Enter")
    someone.tab("Samples")
    page.select_option(".bar-of-list select", "-outlier")
    someone.click("role=button[name=Tiles]")
    someone.click(".tiles button >> nth=2")
    someone.click("role=tab[name=Facts]")
    someone.click("role=button[name='Zoom in']")
    link = someone.link("v=")
    seen = [page.inner_text(".detail h2"), someone.in_front()]
    with person(browser, someone.url) as friend:
        again = friend.open(link).page
        friend.says(seen[1])
        again.locator(".detail h2").filter(has_text=seen[0]).wait_for()
        assert again.get_attribute("role=tab[name=Facts]", "aria-selected") == "true"
        assert again.input_value("#filter") == "label = coat and outlier > 1"
        chosen = again.locator(".choice select").evaluate_all("all => all.map(s => s.value)")
        assert chosen == ["gradient, gradient", "each sample's label", "principal", "outlier"]
        friend.press("Escape")
        assert again.locator(".tiles").is_visible()
        assert again.input_value(".bar-of-list select") == "-outlier"
        closed = "&".join(part for part in link.split("&") if not part.startswith("r="))
        assert friend.link("v=") == closed, "the link is the same again"


def test_back_undoes(someone: Person) -> None:
    page = someone.open().page
    someone.click(".cluster .mean >> nth=0")
    someone.says("selected")
    someone.tab("Samples")
    someone.click(".sample .open >> nth=0")
    page.wait_for_selector(".detail")
    page.go_back()
    page.locator(".detail").wait_for(state="detached")
    page.go_back()
    page.go_back()
    someone.says(f"{SAMPLES} samples")


def test_the_map(someone: Person) -> None:
    xy, page = places(Client(someone.url)), someone.open().page
    box = page.locator(".map canvas").bounding_box()
    alone = int(
        np.argmax(((xy[:, None] - xy[None]) ** 2).sum(2)[~np.eye(SAMPLES, dtype=bool)].reshape(SAMPLES, -1).min(1))
    )
    at = someone.pixels(xy)[alone]
    page.mouse.move(*at)
    page.locator(".tip b").filter(has_text=str(alone)).wait_for()
    page.mouse.click(*at)
    page.locator(".detail h2").filter(has_text=str(alone)).wait_for()
    page.mouse.wheel(0, -600)
    page.mouse.move(box["x"] + 40, box["y"] + box["height"] - 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + box["height"] - 60, steps=4)
    page.mouse.up()
    page.wait_for_timeout(400)
    x, y, zoom = map(float, someone.link("v=").split("v=")[1].split(","))
    assert zoom > 1.5
    assert (x, y) != (0.0, 0.0)
    someone.press("0")
    page.wait_for_timeout(400)
    assert "v=" not in page.evaluate("location.hash")
    someone.open(someone.link("r="))
    page.locator(".legend").wait_for()
    with page.expect_download() as download:
        someone.click("role=button[name='Save the map as PNG']")
    from PIL import Image

    with Image.open(download.value.path()) as picture:
        assert len(np.unique(np.asarray(picture.convert("RGBA")).reshape(-1, 4), axis=0)) > 10, (
            "the picture shows the points"
        )


def test_the_legend_selects(someone: Person) -> None:
    page = someone.open().page
    page.select_option(".choice:has-text('Colour') select", "label")
    page.locator(".legend summary").filter(has_text="label").wait_for()
    someone.click(".legend li button:has-text('bag')")
    someone.says(f"{SAMPLES // 3} samples selected")
    someone.click(".legend li button:has-text('shirt')", modifiers=["Shift"])
    someone.says(f"{2 * SAMPLES // 3} samples selected")


def test_keys(someone: Person) -> None:
    page = someone.open().page
    for key, name in zip("12345", ("Clusters", "Samples", "Spectrum", "Flipping", "Saved"), strict=True):
        someone.press(key)
        page.locator(f"role=tab[name={name}][selected]").wait_for()
    someone.press("2")
    someone.press("Enter")
    page.locator(".detail h2").filter(has_text="0").wait_for()
    for key, row in (("ArrowRight", "1"), ("ArrowDown", "2"), ("ArrowLeft", "1")):
        someone.press(key)
        page.locator(f".detail[aria-label='Sample {row}']").wait_for()
    someone.press("Escape")
    someone.press("/")
    page.keyboard.type("label = bag")
    someone.press("Enter")
    someone.says(f"{SAMPLES // 3} of {SAMPLES} samples")
    someone.press("Escape")  # leaves the field
    someone.press("Escape")  # clears the filter
    someone.says(f"{SAMPLES} samples")
    someone.press("?")
    page.locator("dialog[open] kbd").first.wait_for()
    someone.press("Escape")
    page.locator("dialog[open]").wait_for(state="detached")
    before = page.evaluate("document.documentElement.dataset.theme")
    someone.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") != before
    someone.press("m")
    page.locator(".meter").filter(has_text=f"{SAMPLES} points").wait_for()


def test_a_wrong_filter_is_told(someone: Person) -> None:
    page = someone.open("#t=samples").page
    someone.write("#filter", "label = and")
    page.locator(".search .error").wait_for()
    assert len(page.inner_text(".search .error")) > 10
    someone.says(f"{SAMPLES} samples")
    assert page.get_attribute("#filter", "aria-invalid") == "true"
    someone.write("#filter", "nothing has this id")
    someone.write("#filter", "id = nobody")
    someone.says(f"0 of {SAMPLES} samples")
    page.locator(".empty").wait_for()
    someone.troubles.clear()  # the browser notes the refusal (400) too


def test_clusters_and_spectrum(someone: Person, planted: Planted) -> None:
    page = someone.open().page
    first = page.locator(".cluster").first
    first.wait_for()
    assert "coat" in first.inner_text()
    assert "suspect 1" in first.inner_text()
    assert someone.pictures(".cluster .mean img")[0] == 12
    someone.click(".cluster .mean >> nth=0")
    someone.says(f"{planted.marked.size} samples selected")
    someone.tab("Spectrum")
    page.locator(".spectra figure").nth(2).wait_for()
    assert page.locator(".spectra figure .dot").count() > 30
    assert page.locator(".spectra .gap").count() == 3


def test_one_sample(someone: Person, planted: Planted) -> None:
    page = someone.open(f"#e=lrp-predicted&r={planted.marked[0]}").page
    assert set(someone.pictures(".whole img")) == {12}
    page.locator(".card figcaption").nth(2).wait_for()
    page.select_option(".live select >> nth=0", "gradient_x_input")
    page.select_option(".live label:has-text('Explain') select", "log_odds")
    someone.click(".live .primary")
    now = page.locator(".card:has(.badge)")
    now.locator("img").wait_for()
    someone.link("x=")
    assert "gradient_x_input" in now.inner_text()
    assert "output" in now.inner_text()
    page.reload()  # the question is part of the link
    now.locator("img").wait_for()
    someone.click(".detail .strip button >> nth=0")  # a neighbour is asked the same
    page.locator(f".detail[aria-label='Sample {planted.marked[0]}']").wait_for(state="detached")
    now.locator("img").wait_for()
    someone.click("role=tab[name=Ledger]")
    page.locator(".ledger tbody tr").first.wait_for()
    someone.click(".detail >> role=tab[name=Flipping]")
    page.locator(".detail .chart .line").nth(2).wait_for()
    someone.click("role=tab[name=Facts]")
    assert "outlier score" in page.inner_text(".listed >> nth=0")


def test_flipping_of_the_selection(someone: Person) -> None:
    page = someone.open("#q=label = bag").page
    someone.tab("Flipping")
    someone.click(".panel .primary")
    page.locator(".panel .chart .line").nth(2).wait_for()
    assert "area" in page.inner_text(".keys")


def test_on_a_phone(browser: Any, url: str, planted: Planted) -> None:
    size = {"width": 390, "height": 844}
    with person(browser, url, viewport=size, has_touch=True, is_mobile=True) as someone:
        page = someone.open().page
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        height = page.locator(".panel").bounding_box()["height"]
        page.locator(".handle").tap()
        page.wait_for_timeout(400)
        assert page.locator(".panel").bounding_box()["height"] > height
        page.locator(".handle").tap()
        page.wait_for_timeout(400)
        page.locator("role=button[name='What is shown']").tap()
        page.locator(".choices.open").wait_for()
        page.locator("role=button[name='What is shown']").tap()
        page.locator(".tool:has-text('Lasso')").tap()
        someone.lasso_by_touch(places(Client(url))[planted.marked])
        someone.says(f"{planted.marked.size} samples selected")
        assert page.locator(".sample").count() == planted.marked.size


def test_of_two_notes_the_reader_chooses(browser: Any, planted: Planted) -> None:
    """Another viewer of the same store saves a note while one is written here."""
    with (
        view(planted.store, **planted.options()) as viewing,
        view(planted.store, **planted.options()) as other,
        person(browser, viewing.url, expected="409") as someone,
    ):
        theirs, name = Client(other.url), "/api/selection?name=shared"

        def note() -> str:
            return str(theirs.json(name)["note"])

        assert theirs.send("PUT", name, {"rows": [1, 2], "note": ""}).status == 200
        page = someone.open("#t=saved").page
        field = page.locator("role=textbox[name='Note on shared']")
        field.fill("ours")
        assert theirs.send("PUT", name, {"note": "theirs", "revision": 1}).status == 200
        field.blur()
        page.locator(".saved [role=alert]").filter(has_text="theirs").wait_for()
        assert note() == "theirs"
        field.focus()
        field.blur()  # leaving again overwrites nothing
        someone.click("text=Save mine")
        page.locator(".saved [role=alert]").wait_for(state="detached")
        assert note() == "ours"
        field.fill("ours, later")
        field.blur()
        for _ in range(PATIENCE // 50):  # nothing on the page tells that a note was saved
            if note() == "ours, later":
                break
            page.wait_for_timeout(50)
        assert note() == "ours, later"
        facts = theirs.json(name)
        assert theirs.send("DELETE", f"{name}&revision={facts['revision']}").status == 200


def test_read_only_and_without_a_model(browser: Any, planted: Planted) -> None:
    with (
        view(planted.store, read_only=True, **planted.options()) as viewing,
        person(browser, viewing.url) as someone,
    ):
        page = someone.open("#t=saved").page
        page.locator("text=read-only").wait_for()
        assert page.locator("form input[required]").count() == 0
        someone.tab("Flipping")
        page.locator("text=needs the model").wait_for()


def test_the_analysis_runs_from_the_page(browser: Any, planted: Planted) -> None:
    options = {key: value for key, value in planted.options().items() if key != "analysis"}
    with view(planted.store, **options) as viewing, person(browser, viewing.url) as someone:
        page = someone.open("#t=clusters").page
        page.select_option(".analyze select >> nth=1", "")
        someone.click(".analyze .primary")
        page.locator(".cluster").first.wait_for()
        assert "suspect 1" in page.locator(".cluster").first.inner_text()
        page.locator(".caption").nth(2).wait_for(state="attached")


def test_what_the_page_asks_for_is_all_its_own(someone: Person) -> None:
    asked: list[str] = []
    someone.page.on("request", lambda request: asked.append(request.url))
    someone.open()
    assert all(found.startswith((someone.url, "blob:")) for found in asked), json.dumps(asked)
