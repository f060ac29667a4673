"""Live explanations end when nobody waits for them: in the server, and from the page."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

import headwater as hw
from headwater.viewer import Viewing, view
from headwater.viewer.refusals import Stopped
from headwater.viewer.stopping import stoppable
from tests.viewer.common import Client, model, samples, stored
from tests.viewer.page import Planted, person


class Slow(nn.Module):
    """Counts its passes, each of which takes its time."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.passes, self.begun = inner, 0, Event()

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        if self.passes % 3 == 0:
            self.begun.set()
        time.sleep(0.03)
        found: Tensor = self.inner(x)
        return found


@pytest.fixture
def slow() -> Slow:
    return Slow(model()).eval()


@pytest.fixture
def viewing(tmp_path: Path, slow: Slow) -> Iterator[Viewing]:
    stored(tmp_path / "store")
    with view(tmp_path / "store", slow, port=0, block=False) as found:
        yield found


def ask(client: Client, path: str, body: Any) -> socket.socket:
    """Send a question and do not wait for the answer."""
    connection = socket.create_connection((client.host, client.port))
    content = json.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nHost: {client.host}:{client.port}\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n{content}".encode())
    return connection


@pytest.mark.parametrize(
    ("path", "body", "passes"),
    [
        ("explain", {"row": 1, "method": "smoothgrad", "options": {"draws": 300, "batch_size": 1}}, 300),
        ("explain", {"row": 1, "method": "rise", "options": {"batch_size": 8}}, 500),
        ("flipping", {"rows": list(range(60))}, 40),
    ],
)
def test_who_goes_away_ends_the_work(viewing: Viewing, slow: Slow, path: str, body: Any, passes: int) -> None:
    """``passes``: of the model that the question needs at the least, each of which is cut short here."""
    path = f"/api/{path}"
    client = Client(viewing.url)
    running = ask(client, path, body)
    assert slow.begun.wait(60)
    waiting = [ask(client, path, body) for _ in range(7)]  # as many as are let in
    for connection in [running, *waiting]:
        connection.close()
    end = time.monotonic() + 60
    while (answer := client.post("/api/explain", {"row": 1, "method": "gradient"})).status == 429:
        assert time.monotonic() < end
    assert answer.status == 200, answer.body  # and so the lock is free
    assert slow.passes < passes // 2
    assert not torch_module._global_forward_pre_hooks
    x = torch.as_tensor(samples()[0][1:2])
    again = client.post("/api/explain", {"row": 1, "method": "lrp"}).json()
    assert again["output"] == pytest.approx(float(hw.explain(model(), x).output[0]), rel=1e-6)


def test_only_who_has_gone_is_stopped() -> None:
    gone, network, x = Event(), model(), torch.zeros(1, 1, 8, 8)
    with pytest.raises(ZeroDivisionError), stoppable(gone):
        _ = 1 / 0
    with stoppable(gone):
        network(x)
        gone.set()
        with pytest.raises(Stopped):
            network(x)
        gone.clear()
    assert not torch_module._global_forward_pre_hooks


def test_stop_and_ask_anew_from_the_page(browser: Any, planted: Planted) -> None:
    slow = Slow(planted.model).eval()
    with view(planted.store, slow, **planted.options()) as viewing, person(browser, viewing.url) as someone:
        page = someone.open("#r=0").page
        card = page.locator(".card:has(.badge)")

        def ask_for(method: str) -> None:
            page.select_option(".live select >> nth=0", method)
            someone.click(".live .primary")

        ask_for("rise")
        card.filter(has_text="Explaining").wait_for()
        assert slow.begun.wait(60)
        someone.click("role=button[name='Stop rise']")
        card.wait_for(state="detached")
        ask_for("rise")
        card.filter(has_text="Explaining").wait_for()
        ask_for("gradient")  # takes the place of what is on its way
        card.locator("img").wait_for()
        assert card.count() == 1
        assert "gradient" in card.inner_text()
        ask_for("lrp")  # and stands beside what was answered
        card.nth(1).locator("img").wait_for()
        assert card.count() == 2
        assert slow.passes < 250  # of twice 500


def test_that_a_request_was_open_at_the_end_is_not_told(viewing: Viewing) -> None:
    ended = (asyncio.CancelledError, asyncio.CancelledError(), None)
    broken = (ValueError, ValueError("a fault"), None)
    log = logging.getLogger("uvicorn.error")
    told = [
        log.filter(log.makeRecord(log.name, logging.ERROR, "", 0, "failed", (), found)) for found in (ended, broken)
    ]
    assert [bool(one) for one in told] == [False, True]
