"""Named selections with notes, in one file beside the store; clients and viewers do not overwrite each other unseen."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.dataset.files import Files, Unwritable
from headwater.errors import HeadwaterError, InvalidInput
from headwater.viewer.refusals import Conflict, Forbidden, NotThere

NAME = "selections.json"
_FACTS = ("note", "recipe", "saved", "revision")
_LONGEST_NAME, _LONGEST_TEXT, _MOST = 100, 20_000, 1_000


class Changed(Conflict):
    """Someone else saved meanwhile.

    Attributes:
        current: what is saved now.
    """

    def __init__(self, message: str, current: dict[str, Any] | None) -> None:
        super().__init__(message)
        self.current = current


class Selections:
    """Rows of the store under names; ``{name: {"ids", "rows", "note", "saved", "revision"}}`` in ``selections.json``.

    Args:
        files: of the folder beside the store. samples: how many it has.
        read_only: refuse every change.
    """

    def __init__(self, files: Files, samples: int, read_only: bool) -> None:
        self._files, self._samples, self._read_only = files, samples, read_only
        self._lock = Lock()

    def all(self) -> list[dict[str, Any]]:
        """All selections without their rows, by name."""
        return [
            {"name": name, "n": len(kept["rows"]), **{key: kept[key] for key in _FACTS}}
            for name, kept in sorted(self._read().items())
        ]

    def one(self, name: str) -> dict[str, Any]:
        """A selection with its rows.

        Raises:
            NotThere: there is none of this name.
        """
        kept = self._read().get(name)
        if kept is None:
            raise NotThere(f"there is no selection {name!r}")
        return {"name": name, "rows": kept["rows"], **{key: kept[key] for key in _FACTS}}

    def put(
        self, name: str, rows: NDArray[np.int64] | None, ids: list[str] | None, note: str | None, recipe: str | None,
        revision: int | None,
    ) -> dict[str, Any]:  # fmt: skip
        """Save a selection.

        Args:
            rows, ids: the samples, or None to leave them; ``note``, ``recipe``: likewise.
            revision: the one that the client saw last; None for a new name.

        Raises:
            InvalidInput: a name or a note that is too long, or rows that are missing in a new selection.
            Changed: it was saved or removed by someone else since.
            Forbidden: in the read-only mode.
        """
        _check(name, note, recipe)
        with self._writing() as kept:
            before = _expected(kept, name, revision)
            if before is None and rows is None:
                raise InvalidInput("a new selection needs rows")
            if before is None and len(kept) >= _MOST:
                raise Conflict(f"there are {_MOST} selections already: remove one first")
            entry = dict(before or {"note": "", "recipe": ""})
            if rows is not None:
                entry |= {"rows": rows.tolist(), "ids": ids}
            entry |= {key: text for key, text in (("note", note), ("recipe", recipe)) if text is not None}
            entry |= {"saved": _now(), "revision": (before or {"revision": 0})["revision"] + 1}
            kept[name] = entry
        return {"name": name, "rows": entry["rows"], **{key: entry[key] for key in _FACTS}}

    def remove(self, name: str, revision: int | None) -> None:
        """Remove a selection; arguments and errors are those of :meth:`put`."""
        with self._writing() as kept:
            if name not in kept:
                raise NotThere(f"there is no selection {name!r}")
            _expected(kept, name, revision)
            del kept[name]

    @contextmanager
    def _writing(self) -> Iterator[dict[str, Any]]:
        """Read, change and write as one step: other clients, and other viewers of the same store, wait."""
        if self._read_only:
            raise Forbidden("the viewer was opened read-only: selections cannot be changed")
        try:
            with self._lock, self._files.alone(NAME):
                kept = self._read()
                yield kept
                self._files.write(NAME, json.dumps(kept).encode())
        except Unwritable as error:
            raise Conflict(f"nothing was saved: {error}") from error

    def _read(self) -> dict[str, Any]:
        try:
            kept = json.loads(self._files.read(NAME))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise HeadwaterError(f"{self._files.url}/{NAME} is damaged: mend or remove it") from error
        if not isinstance(kept, dict):
            raise HeadwaterError(f"{self._files.url}/{NAME} holds no selections: mend or remove it")
        return {name: self._completed(name, entry) for name, entry in kept.items()}

    def _completed(self, name: str, entry: Any) -> dict[str, Any]:
        """An entry, which other programs or hands may have written, with all its fields."""
        rows = entry.get("rows") if isinstance(entry, dict) else None
        if not isinstance(rows, list) or not all(type(row) is int and 0 <= row < self._samples for row in rows):
            raise HeadwaterError(f"the selection {name!r} in {self._files.url}/{NAME} names no rows of the store")
        return {
            "ids": entry.get("ids"),
            "rows": rows,
            **{key: str(entry.get(key, "")) for key in ("note", "recipe", "saved")},
            "revision": entry["revision"] if isinstance(entry.get("revision"), int) else 0,
        }


def _expected(kept: dict[str, Any], name: str, revision: int | None) -> dict[str, Any] | None:
    before: dict[str, Any] | None = kept.get(name)
    if (before or {}).get("revision") != revision:
        if before is None:
            raise Changed(f"the selection {name!r} was removed meanwhile", None)
        current = {"name": name, "n": len(before["rows"]), "note": before["note"], "revision": before["revision"]}
        word = "exists already" if revision is None else "was changed meanwhile"
        raise Changed(f"the selection {name!r} {word}: look at it before you save yours", current)
    return before


def _check(name: str, *texts: str | None) -> None:
    if not 1 <= len(name.strip()) <= len(name) <= _LONGEST_NAME:
        raise InvalidInput(f"a selection's name has 1 to {_LONGEST_NAME} characters")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise InvalidInput("a selection's name holds no control characters")
    if any(text is not None and len(text) > _LONGEST_TEXT for text in texts):
        raise InvalidInput(f"a note has at most {_LONGEST_TEXT} characters")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
