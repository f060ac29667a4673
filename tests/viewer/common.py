"""Small stores of every kind, and a client that sends exactly what it is told to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headwater.dataset import Store, run

for package in ("starlette", "uvicorn", "cachetools", "zarr", "polars"):
    pytest.importorskip(package)

SAMPLES = 60
CLASSES = ["shirt", "coat", "bag"]


class Tagger(nn.Module):
    """A small model of token ids."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(30, 6), nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids).mean(1))


class TwoInputs(nn.Module):
    """A model of two tensors by name."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 3), nn.Linear(4, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.left(left) + self.right(right).relu()


def _network(*shape: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 8), nn.ReLU(), nn.Linear(8, 3))


SHAPES = {
    "image": (3, 10, 12), "gray": (1, 8, 8), "spectrogram": (1, 20, 30), "video": (3, 4, 6, 6),
    "series": (2, 50), "table": (7,), "text": (9,), "two": (5,),
}  # fmt: skip


def model(kind: str = "gray") -> nn.Module:
    torch.manual_seed(1)
    made: nn.Module = Tagger() if kind == "text" else TwoInputs() if kind == "two" else _network(*SHAPES[kind])
    return made.eval()


def samples(kind: str = "gray", n: int = SAMPLES) -> tuple[Any, Tensor]:
    generator = torch.Generator().manual_seed(2)
    y = torch.arange(n) % 3
    if kind == "text":
        return torch.randint(0, 30, (n, 9), generator=generator), y
    if kind == "two":
        x = {"left": torch.randn(n, 5, generator=generator), "right": torch.randn(n, 4, generator=generator)}
        return x, y
    return torch.rand(n, *SHAPES[kind], generator=generator), y


def stored(path: Path, kind: str = "gray", **options: Any) -> Store:
    settings = {"batch_size": 10, "chunk": 20, "threads": 1, "progress": False, "keep_inputs": True}
    return run(model(kind), samples(kind), path, **{**settings, **options})


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json", self.headers
        return json.loads(self.body)

    def array(self, dtype: str) -> NDArray[Any]:
        assert self.headers["content-type"] == "application/octet-stream"
        assert int(self.headers["content-length"]) == len(self.body)
        return np.frombuffer(self.body, dtype)

    def picture(self) -> NDArray[np.uint8]:
        from PIL import Image

        assert self.headers["content-type"] == "image/png"
        return np.asarray(Image.open(BytesIO(self.body)).convert("RGB"))

    def error(self) -> str:
        found: str = self.json()["error"]["message"]
        return found


class Client:
    """Sends requests to a viewer; no header is added that was not asked for."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = str(parts.hostname), int(parts.port or 80)
        self.query = parts.query

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        given = {"Host": f"{self.host}:{self.port}", **(headers or {})}
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        if data is not None:
            given.setdefault("Content-Type", "application/json")
            given["Content-Length"] = str(len(data))
        connection = HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in given.items():
                connection.putheader(name, value)
            connection.endheaders(data)
            answer = connection.getresponse()
            content = answer.read()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, content)
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, headers=headers)

    def json(self, path: str) -> Any:
        answer = self.get(path)
        assert answer.status == 200, answer.body
        return answer.json()

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.send("POST", path, body, headers)

    def rows(self, expression: str) -> list[int]:
        """The rows that a filter finds."""
        answer = self.post("/api/search", {"filter": expression})
        assert answer.status == 200, answer.body
        bits = np.unpackbits(np.frombuffer(answer.body, np.uint8), bitorder="little")
        found = np.flatnonzero(bits).tolist()
        assert answer.headers["x-count"] == str(len(found))
        return found
