"""A browser for the tests of the page, and a store with a planted strategy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.viewer.page import Planted

# software in place of a graphics card, for machines without one
_SOFTWARE = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-gpu-compositing"]
# in closed networks, requests of the browser's own would wait for answers that never come
_QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
_FLAGS = ["--no-sandbox", "--no-first-run", *_SOFTWARE, *_QUIET]
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; skips where there is none."""
    api = pytest.importorskip("playwright.sync_api")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no Chromium on this machine: install one, or let CHROMIUM name it")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A store of which a tenth of one class is told by a mark in the corner, with its analysis."""
    from tests.viewer.page import plant

    return plant(Path(tmp_path_factory.mktemp("planted")))
