"""What the page shows of one sample, wide and on a phone: every input, the ledger in its place, help from its start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headwater as hw
from headwater.viewer import view
from tests.viewer.common import model, stored
from tests.viewer.page import Person, person

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = Path(tmp_path_factory.mktemp("two"))
    stored(folder / "store", "two")
    with view(folder / "store", model("two"), port=0, block=False) as viewing:
        yield viewing.url


@pytest.fixture
def caller(browser: Any, url: str) -> Iterator[Person]:
    with person(browser, url, **PHONE) as found:
        yield found


def test_all_inputs_are_shown(browser: Any, url: str) -> None:
    with person(browser, url) as someone:
        page = someone.open("#r=3").page
        page.locator(".whole .features").nth(1).wait_for()
        captions = page.locator(".whole figcaption").all_inner_texts()
        assert [text.partition(":")[0] for text in captions] == ["left", "right"]
        rows = [table.locator("tr").count() for table in page.locator(".whole .features").all()]
        assert rows == [5, 4]


def test_imported_relevance_alone(browser: Any, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((30, 8, 8)).astype(np.float32)
    hw.import_attributions(rows, tmp_path / "store", progress=False)
    with (
        view(tmp_path / "store", kind="image", port=0, block=False) as viewing,
        person(browser, viewing.url) as someone,
    ):
        page = someone.open("#r=3").page
        page.locator(".whole img").wait_for()
        assert page.get_attribute("#filter", "placeholder") == "Filter: id", "there is no other column to filter by"
        assert "output" not in page.inner_text(".detail")
        assert page.locator(".choice").all_inner_texts() == ["Method\nimported"]


def test_the_ledger_fits_a_phone(caller: Person) -> None:
    page = caller.open("#r=3&d=ledger").page
    table = page.locator(".ledger")
    table.wait_for()
    box = table.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390


def test_help_is_read_from_its_start(caller: Person) -> None:
    page = caller.open().page
    caller.click("[aria-label=Help]")
    assert page.locator(".help").evaluate("(dialog) => dialog.scrollHeight - dialog.clientHeight") > 0
    assert page.locator(".help").evaluate("(dialog) => dialog.scrollTop") == 0
