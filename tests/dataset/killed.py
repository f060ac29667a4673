"""Run a job in child processes that are killed, again and again, until it is done; prints how many were.

``python -m tests.dataset.killed STORE SEED points|times``: at a random point of the writing (in the middle of a write,
before or after a sync or a renaming), or at a random time, later and later.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import polars  # noqa: F401 (loaded once, before the children are split off)
import zarr  # noqa: F401

from tests.dataset.common import SAMPLES, job

LARGE = {"batch_size": 1, "chunk": 1}  # 45 chunks


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at(point: int) -> None:
    """Count what happens to files; die when the count is reached."""
    left = point

    def passed() -> bool:
        nonlocal left
        left -= 1
        return left <= 0

    def around(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if passed():
                _die()
            result = function(*args, **kwargs)
            if passed():
                _die()
            return result

        return call

    os.fsync, os.replace = around(os.fsync), around(os.replace)
    plain_open = Path.open

    def half_open(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = plain_open(path, mode, *args, **kwargs)
        if mode == "wb" and passed():
            file.write(b"only a part")
            file.flush()
            _die()
        return file

    Path.open = half_open  # type: ignore[method-assign]


def main() -> None:
    path, seed, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    draw, kills = random.Random(seed), 0
    while True:
        point, seconds = draw.randint(1, 120), draw.uniform(0.0, 0.25 * 1.02**kills)
        child = os.fork()
        if child == 0:
            if kind == "points":
                _die_at(point)
            job(path, **LARGE)
            os._exit(0)
        if kind == "times":
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        kills += 1
        if kills > 20 * SAMPLES:
            raise SystemExit("no progress")
    print(kills)


if __name__ == "__main__":
    main()
