"""What tests of the page share: a store with a planted strategy, and the page as a person uses it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headwater.analyze import spray
from headwater.dataset import run
from tests.viewer.common import CLASSES, Client

for package in ("sklearn", "scipy", "faiss", "PIL"):
    pytest.importorskip(package)

SAMPLES = 240
PATIENCE = 120_000  # milliseconds: machines are noisy


@dataclass(frozen=True)
class Planted:
    """A store, its analysis, its model, and the rows that bear the mark."""

    store: Path
    analysis: Path
    model: nn.Module
    marked: NDArray[np.int64]

    def options(self) -> dict[str, Any]:
        """For ``view``: no window, any port."""
        return {"analysis": self.analysis, "classes": CLASSES, "port": 0, "block": False}


def plant(folder: Path) -> Planted:
    """Pictures of three classes, each with a bright square in a corner of its own; coats are told by a mark too."""
    x, y, marked = _pictures()
    weight = torch.zeros(3, 12, 12)
    for c, square in enumerate(_SQUARES):
        weight[c][square] = 1.0
    weight[1][_MARK] = 2.0
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3, bias=False)).eval()
    model[1].weight.data = weight.flatten(1)
    store = run(
        model,
        (x, y),
        folder / "store",
        method=["gradient_x_input", "gradient", "lrp"],
        target={"predicted": None, "label": "label"},
        batch_size=40,
        threads=1,
        progress=False,
        keep_inputs=True,
    )
    found = spray(store, by="target", map="tsne")
    return Planted(folder / "store", found.save(folder / "analysis"), model, np.flatnonzero(marked.numpy()))


_SQUARES = (np.s_[1:5, 1:5], np.s_[1:5, 7:11], np.s_[4:8, 4:8])
_MARK = np.s_[9:12, 0:3]


def _pictures() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(SAMPLES) % 3
    marked = torch.arange(SAMPLES) % 21 == 1
    x = 0.1 * torch.rand(SAMPLES, 1, 12, 12, generator=generator)
    for i in range(SAMPLES):
        square = x[i, 0][_SQUARES[int(y[i])]]
        square += 0.5 * torch.rand(square.shape, generator=generator) + 0.2
        if marked[i]:
            x[i, 0][_MARK] = 1.0
    return x, y, marked


class Person:
    """Someone at the page, who counts what they do.

    Attributes:
        page: playwright's. troubles: what the browser complained of.
    """

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url
        self.actions = 0
        self.troubles: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("console", lambda m: self.troubles.append(m.text) if m.type == "error" else None)
        page.on("dialog", lambda dialog: self.troubles.append(f"dialog {dialog.message}"))

    def open(self, link: str = "") -> Person:
        """Open the page, or a link into it, and wait for the map."""
        self.page.goto(f"{self.url}{link}")
        self.page.wait_for_selector(".panel")
        self.page.wait_for_selector(".map .loading", state="detached")
        return self

    def click(self, selector: str, **options: Any) -> None:
        self.actions += 1
        self.page.click(selector, **options)

    def press(self, key: str) -> None:
        self.actions += 1
        self.page.keyboard.press(key)

    def tab(self, name: str) -> None:
        self.click(f"role=tab[name={name}]")

    def write(self, selector: str, text: str) -> None:
        self.actions += 1
        self.page.fill(selector, text)

    def in_front(self) -> str:
        """What the panel says is selected."""
        return str(self.page.inner_text(".in-front-of b"))

    def says(self, text: str, selector: str = ".in-front-of b") -> None:
        """Wait until the page says so."""
        self.page.locator(selector).filter(has_text=text).first.wait_for()

    def link(self, part: str) -> str:
        """The address after #, once it holds a part."""
        for _ in range(PATIENCE // 50):
            found = str(self.page.evaluate("location.hash"))
            if part in found:
                return found
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{part} is not in {found}")

    def pictures(self, selector: str) -> list[int]:
        """The widths of pictures in the page, once they are all there."""
        shown = self.page.locator(selector)
        shown.first.wait_for()
        self.page.locator(".panel [aria-busy=true]").first.wait_for(state="detached")
        return [int(shown.nth(i).evaluate(_WIDTH)) for i in range(shown.count())]

    def pixels(self, places: NDArray[np.float32]) -> NDArray[np.float64]:
        """Where places of the map ``[N, 2]`` lie on the screen, when the whole map is seen."""
        box = self.page.locator(".map canvas").bounding_box()
        unit = 0.94 * min(box["width"], box["height"]) / 2
        middle = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
        return middle + places * np.array([unit, -unit])

    def lasso(self, places: NDArray[np.float32], holding: str | None = None, margin: float = 6.0) -> None:
        """Press L and draw around places of the map ``[N, 2]``, perhaps while a key is held."""
        self.press("l")
        if holding:
            self.page.keyboard.down(holding)
        line = around(self.pixels(places), margin)
        self.actions += 1
        mouse = self.page.mouse
        mouse.move(*line[0])
        mouse.down()
        for point in [*line[1:], line[0]]:
            mouse.move(*point)
        mouse.up()
        if holding:
            self.page.keyboard.up(holding)

    def lasso_by_touch(self, places: NDArray[np.float32], margin: float = 2.5) -> None:
        """With the lasso in hand, draw around places of the map ``[N, 2]`` with a finger."""
        line = around(self.pixels(places), margin)
        lowest = max(range(len(line)), key=lambda i: line[i][1])  # there are no tools below
        line = line[lowest:] + line[:lowest]
        finger = self.page.context.new_cdp_session(self.page)
        self.actions += 1
        for kind, (x, y) in zip(["touchStart", *["touchMove"] * len(line)], [*line, line[0]], strict=True):
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


# pictures far below what is seen are loaded when they are scrolled to, and not every browser's decoding brings them
_WIDTH = "(img) => { img.loading = 'eager'; return img.decode().then(() => img.naturalWidth); }"


def around(points: NDArray[np.float64], margin: float) -> list[tuple[float, float]]:
    """The convex hull of points, so much wider."""
    from scipy.spatial import ConvexHull

    corners = margin * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    cloud = (points[:, None] + corners).reshape(-1, 2)
    return [(float(x), float(y)) for x, y in cloud[ConvexHull(cloud).vertices]]


def places(client: Client, name: str = "places") -> NDArray[np.float32]:
    """The map ``[N, 2]``."""
    return client.get(f"/api/map?name={name}").array("<f4").reshape(-1, 2)


@contextmanager
def person(browser: Any, url: str, expected: str | None = None, **options: Any) -> Iterator[Person]:
    """Someone with a browser of their own; nothing may have gone wrong in it at the end, but what is ``expected``."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    try:
        found = Person(context.new_page(), url)
        yield found
        found.troubles = [text for text in found.troubles if expected is None or expected not in text]
        assert not found.troubles, json.dumps(found.troubles[:5])
    finally:
        context.close()
