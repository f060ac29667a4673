"""``python -m benchmarks.viewer_pictures --out FOLDER``: the pictures of the viewer's page of the documentation.

10,000 samples of Fashion-MNIST with a cross in a twentieth of the shirts are explained and clustered in FOLDER (which
keeps the network, the store and the analysis for a next call), and the page is photographed in headless Chromium, each
view at 1280x800 and as on a phone, light and dark. Needs playwright, Chromium on the path (or where CHROMIUM says), and
the folder of real data that HEADWATER_DATA names.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import torch
from torch import nn

from benchmarks.spray import Augmented, network, trained
from headwater.analyze import spray
from headwater.dataset import run
from headwater.viewer import view

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLES = 10_000
CLASSES = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
FRONT = "light"  # the first page alone, as large as it is
SCHEMES = ("light", "dark")
SIZES: dict[str, dict[str, Any]] = {
    "wide": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}
SHOWN, GAP = 450, 8  # pixels: the height of a page in a picture of four, and what lies between them
# software in place of a graphics card, for machines without one; nothing is asked of the network
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
FLAGS += ["--disable-gpu-compositing", "--disable-background-networking", "--disable-component-update"]
PATIENCE = 300_000  # milliseconds
_NAME = "cross in the corner"


@dataclass(frozen=True)
class Shot:
    """A view of the page.

    Attributes:
        link: what stands after ``#`` in its address. before, do: what is done before it is opened and there, given
            playwright's page and the viewer's address. low: on a phone, leave the map in sight.
    """

    link: str
    do: Callable[[Any, str], object] = lambda seen, url: None
    before: Callable[[Any, str], object] = lambda seen, url: None
    low: bool = False


def shots(cluster: int, rows: Sequence[int]) -> dict[str, Shot]:
    """Every view, of the cluster with the cross and of its first sample."""
    selected = f"s=%2Bc~cluster~{cluster}"
    one = f"{selected}&t=samples&r={rows[0]}"
    live = quote(json.dumps([{"method": "integrated_gradients", "composite": None, "target": None}]))

    def save(seen: Any, url: str) -> None:
        note = {"rows": list(rows), "note": "A white cross in the lower left corner, in a twentieth of the shirts."}
        seen.request.put(f"{url}api/selection?name={quote(_NAME)}", data=note)

    def flip(seen: Any, url: str) -> None:
        seen.click(".panel-body .primary")
        seen.wait_for_selector(".chart .line")

    return {
        "clusters": Shot(""),
        "samples": Shot(f"{selected}&t=samples"),
        "tiles": Shot(f"{selected}&t=samples&w=tiles"),
        "sample": Shot(f"{one}&x={live}"),
        "ledger": Shot(f"{one}&d=ledger"),
        "flipping": Shot(f"{one}&d=flipping"),
        "facts": Shot(f"{one}&d=facts"),
        "spectrum": Shot("t=spectrum"),
        "curves": Shot(f"{selected}&t=flipping", flip),
        "saved": Shot(f"s=%2Bn~{quote(quote(_NAME))}&t=saved", before=save),
        "outlier": Shot("c=outlier", low=True),
        "help": Shot("", lambda seen, url: seen.click("[aria-label=Help]"), low=True),
    }


def prepared(data: Path, out: Path) -> tuple[Path, Path]:
    """The folders of the store and of its analysis, made where they are not there."""
    weights, store, analysis = out / "network.pt", out / "store", out / "analysis"
    if not weights.exists():
        torch.save(trained(data).state_dict(), weights)
    ways = ["lrp", "gradient_x_input"]
    options: dict[str, Any] = {"batch_size": 250, "threads": torch.get_num_threads(), "keep_inputs": True}
    done = run(_model(out), Augmented(data, SAMPLES), store, method=ways, **options)
    if not analysis.exists():
        spray(done, map="tsne").save(analysis)
    return store, analysis


def _model(out: Path) -> nn.Module:
    model = network().eval()
    model.load_state_dict(torch.load(out / "network.pt", weights_only=True))
    return model


def found(data: Path, analysis: Path) -> tuple[int, list[int]]:
    """The cluster that holds most of the marked samples, and its rows."""
    with np.load(analysis / "spray.npz", allow_pickle=False) as arrays:
        labels = arrays["labels"]
    marked = Augmented(data, SAMPLES).marked.numpy()[:SAMPLES]
    cluster = int(np.bincount(labels[marked & (labels >= 0)]).argmax())
    return cluster, np.flatnonzero(labels == cluster).tolist()


def photographed(data: Path, out: Path, wanted: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Name and PNG of each picture that is wanted."""
    from playwright.sync_api import sync_playwright

    store, analysis = prepared(data, out)
    cluster, rows = found(data, analysis)
    shutil.rmtree(f"{store}.viewer", ignore_errors=True)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    options: dict[str, Any] = {"analysis": analysis, "classes": CLASSES, "port": 0, "block": False}
    with view(store, _model(out), **options) as viewing, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for name, shot in shots(cluster, rows).items():
            if name in wanted:
                pages = [[page(browser, viewing.url, shot, size, scheme) for size in SIZES] for scheme in SCHEMES]
                yield name, small(composed(pages))
        if FRONT in wanted:
            yield FRONT, small(page(browser, viewing.url, Shot(""), "wide", "light"))
        browser.close()


def page(browser: Any, url: str, shot: Shot, size: str, scheme: str) -> Image:
    """A view as a browser of this size shows it in this colour scheme."""
    from PIL import Image

    context = browser.new_context(color_scheme=scheme, **SIZES[size])
    seen = context.new_page()
    seen.set_default_timeout(PATIENCE)
    shot.before(seen, url)
    seen.goto(f"{url}#{shot.link}")
    seen.wait_for_selector(".panel")
    seen.wait_for_selector(".map .loading", state="detached")
    shot.do(seen, url)
    if size == "phone" and not shot.low:
        seen.click(".handle")
    for _ in range(2):  # what is there at last may ask for more
        seen.wait_for_timeout(400)
        seen.locator("[aria-busy=true]").first.wait_for(state="detached")
        seen.wait_for_load_state("networkidle")
    found = Image.open(BytesIO(seen.screenshot()))
    context.close()
    return found


def composed(rows: Sequence[Sequence[Image]]) -> Image:
    """Pages side by side and in rows, all of one height."""
    from PIL import Image

    scaled = [
        [one.convert("RGB").resize((one.width * SHOWN // one.height, SHOWN), Image.Resampling.LANCZOS) for one in row]
        for row in rows
    ]
    width = sum(one.width for one in scaled[0]) + GAP * (len(scaled[0]) - 1)
    whole = Image.new("RGB", (width, (SHOWN + GAP) * len(scaled) - GAP), "white")
    for down, row in enumerate(scaled):
        left = 0
        for one in row:
            whole.paste(one, (left, down * (SHOWN + GAP)))
            left += one.width + GAP
    return whole


def small(picture: Image) -> bytes:
    """A PNG of 256 colours, chosen so that none is far from what it stands for."""
    from PIL import Image

    buffer = BytesIO()
    few = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    few.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the pictures that the command line asks for."""
    names = [*shots(0, [0]), FRONT]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.viewer_pictures", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a folder for the network, the store and the analysis")
    parser.add_argument("--pictures", type=Path, default=Path("docs/images/viewer"), help="default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    chosen.pictures.mkdir(parents=True, exist_ok=True)
    for name, content in photographed(Path(os.environ["HEADWATER_DATA"]), chosen.out, chosen.only):
        path = chosen.pictures / f"{name}.png"
        path.write_bytes(content)
        print(path, f"{len(content) / 1024:.0f} KiB", flush=True)


if __name__ == "__main__":
    main()
