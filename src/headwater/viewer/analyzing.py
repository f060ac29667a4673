"""Spectral relevance analysis from within the viewer: one job at a time, in the background, with its progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.analyze.maps import BATCH, Maps
from headwater.analyze.normalize import Normalization
from headwater.analyze.spray import spray
from headwater.errors import HeadwaterError, InvalidInput
from headwater.viewer.analysis import Analysis
from headwater.viewer.refusals import Conflict, Forbidden
from headwater.viewer.viewed import Viewed


@dataclass(frozen=True)
class _Counted(Maps):
    """Maps that tell how many samples of a pass were read."""

    report: Callable[[int], None] = field(default=lambda done: None)

    def batches(self, size: int = BATCH) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        done = 0
        for numbers, batch in super().batches(size):
            yield numbers, batch
            done += len(numbers)
            self.report(done)
        self.report(0)


class Analyzing:
    """The job that clusters an explanation's heatmaps; see :func:`headwater.analyze.spray`."""

    def __init__(self, viewed: Viewed) -> None:
        self._viewed, self._lock = viewed, Lock()
        self._state: dict[str, Any] = {"state": "none"}
        self._started = 0.0

    def state(self) -> dict[str, Any]:
        """How far the job is: none, running, done or failed."""
        found = dict(self._state)
        if found["state"] == "running":
            found["seconds"] = time.monotonic() - self._started
        return found

    def start(self, name: str | None, settings: dict[str, Any]) -> dict[str, Any]:
        """Begin; the state says when it is done.

        Raises:
            Forbidden: in the read-only mode. Conflict: one runs already. InvalidInput: settings that spray refuses.
        """
        if self._viewed.read_only:
            raise Forbidden("the viewer was opened read-only: nothing is analyzed")
        store = self._viewed.explanation(name)
        chosen = _settings(settings)
        source = self._viewed.heatmaps(name)
        with self._lock:
            if self._state["state"] == "running":
                raise Conflict("an analysis is running already")
            self._started = time.monotonic()
            self._state = {"state": "running", "stage": "reading", "explanation": store.name}
            self._state |= {"done": 0, "total": len(source.valid)}
        counted = _Counted(source.rows, source.valid, source.store, self._report)
        Thread(target=self._run, args=(store.name, counted, chosen), daemon=True, name="analysis").start()
        return self.state()

    def run(self, name: str | None, **settings: Any) -> None:
        """The same, at once and without progress; errors are raised."""
        store = self._viewed.explanation(name)
        self._keep(store.name, self._viewed.heatmaps(name), _settings(settings))

    def _run(self, name: str, maps: Maps, settings: dict[str, Any]) -> None:
        try:
            self._keep(name, maps, settings)
            self._state = {"state": "done", "explanation": name, "seconds": time.monotonic() - self._started}
        except HeadwaterError as error:
            self._state = {"state": "failed", "explanation": name, "message": str(error)}
        except Exception as error:  # a thread's error is seen by nobody else
            self._state = {"state": "failed", "explanation": name, "message": f"{type(error).__name__}: {error}"}

    def _keep(self, name: str, maps: Maps, settings: dict[str, Any]) -> None:
        found = spray(maps, **settings)
        folder = self._viewed.analysis_folder(name)
        if folder is not None and not self._viewed.read_only:
            found.save(folder)
        self._viewed.add_analysis(name, Analysis(found, self._viewed.classes))

    def _report(self, done: int) -> None:
        state = dict(self._state)
        state |= {"stage": "reading" if done else "clustering", "done": done}
        self._state = state


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of spray among what was sent."""
    found: dict[str, Any] = {"by": "auto", "map": "tsne"}
    kinds: dict[str, tuple[type, ...]] = {
        "by": (str, type(None)), "map": (str, type(None)), "clustering": (str,), "clusters": (int, type(None)),
        "neighbours": (int, type(None)),
    }  # fmt: skip
    for name, allowed in kinds.items():
        if name in given:
            if not isinstance(given[name], allowed) or isinstance(given[name], bool):
                raise InvalidInput(f"{name} cannot be {given[name]!r}")
            found[name] = given[name]
    normalization = given.get("normalization")
    if normalization is not None:
        if not isinstance(normalization, dict) or not set(normalization) <= {"part", "size"}:
            raise InvalidInput("normalization is an object with part and size")
        found["normalization"] = Normalization(**normalization)
    if found["map"] not in ("umap", "tsne", None):
        raise InvalidInput(f"map must be 'umap', 'tsne' or null, not {found['map']!r}")
    return found
