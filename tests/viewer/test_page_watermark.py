"""A watermark that was planted in Fashion-MNIST is found, named and exported in fewer than ten actions."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.spray import Augmented, network, trained
from headwater.analyze import spray
from headwater.dataset import run
from headwater.viewer import view
from tests.viewer.common import Client
from tests.viewer.page import Person, person

SAMPLES = 10_000
CLASSES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


def red(someone: Person, nth: int) -> np.ndarray:
    """How red the pixels of the n-th mean heatmap on the page are, ``[28, 28]``, as a person sees them."""
    from PIL import Image

    address = someone.page.locator(".cluster .mean img").nth(nth).get_attribute("src")
    body = someone.page.request.get(f"{someone.url.rstrip('/')}{address}").body()
    pixels = np.asarray(Image.open(BytesIO(body)).convert("RGB"), float)
    return np.clip(pixels[..., 0] - pixels[..., 1:].mean(-1), 0, None)


@pytest.mark.data
@pytest.mark.slow
def test_found_in_under_ten_actions(browser: Any, data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(trained(data, 2).state_dict(), tmp_path / "network.pt")
    model = network().eval()
    model.load_state_dict(torch.load(tmp_path / "network.pt", weights_only=True))
    source = Augmented(data, SAMPLES)
    store = run(model, source, tmp_path / "store", batch_size=250, threads=1, keep_inputs=True)
    spray(store, map="tsne").save(tmp_path / "analysis")
    options: dict[str, Any] = {"classes": CLASSES, "port": 0, "block": False}
    with (
        view(tmp_path / "store", analysis=tmp_path / "analysis", **options) as viewing,
        person(browser, viewing.url) as someone,
    ):
        someone.open()
        someone.actions += 1
        someone.page.locator(".cluster").first.wait_for()
        corner = [red(someone, i)[20:, :8].sum() / red(someone, i).sum() for i in range(5)]
        suspect = int(np.argmax(corner))
        assert corner[suspect] > 0.3, "a mean heatmap whose red lies in the corner stands out"
        someone.click(f".cluster .mean >> nth={suspect}")
        someone.tab("Samples")
        assert set(someone.pictures(".sample img")) == {28}
        someone.tab("Saved")
        someone.write("[placeholder='Name of the selection']", "cross in the corner")
        someone.click(".current .primary")
        someone.page.locator(".saved li.in-front").wait_for()
        with someone.page.expect_download():
            someone.click(".saved li >> role=button[name=report]")
        assert someone.actions < 10, someone.actions
        rows = Client(viewing.url).json("/api/selection?name=cross%20in%20the%20corner")["rows"]
    marked = source.marked.numpy()
    assert marked[rows].mean() >= 0.95, "the selection is the planted samples"
    assert marked[rows].sum() > 0.5 * marked[:SAMPLES].sum()
