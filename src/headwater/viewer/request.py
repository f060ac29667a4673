"""What a client asked for, checked: every number, name and list of rows that an endpoint reads comes through here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.errors import InvalidInput


@dataclass(frozen=True)
class Ask:
    """Parameters of a request.

    Attributes:
        path: what the route took from the path; ``query``: the query; ``body``: the JSON that was sent.
        gone: set when the client closes the connection before it is answered.
    """

    path: Mapping[str, Any]
    query: Mapping[str, str]
    body: Any = None
    gone: Event = field(default_factory=Event)

    @property
    def explanation(self) -> str | None:
        """The explanation that is meant; None for the first."""
        found = self.query.get("explanation") or (self.sent("explanation") if isinstance(self.body, dict) else None)
        if found is not None and not isinstance(found, str):
            raise InvalidInput("explanation must be a name")
        return found

    def text(self, name: str, default: str | None = None) -> str:
        """A parameter of the query.

        Raises:
            InvalidInput: it is missing and has no default.
        """
        found = self.query.get(name, default)
        if found is None:
            raise InvalidInput(f"the parameter {name!r} is missing")
        return found

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number of the query."""
        text = self.query.get(name)
        if text is None and default is not None:
            return default
        try:
            return int(text or "", 10)
        except ValueError:
            raise InvalidInput(f"the parameter {name!r} must be a whole number, not {text!r}") from None

    def frame(self) -> int | None:
        """A frame of a video; None for the one that stands for it."""
        return self.whole("frame") if "frame" in self.query else None

    def limit(self) -> float | None:
        """The end of a scale; None for the sample's own."""
        text = self.query.get("limit")
        if not text:
            return None
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not math.isfinite(found) or found < 0:
            raise InvalidInput(f"the parameter 'limit' must be a positive number, not {text!r}")
        return found or None

    def listed(self, most: int, samples: int) -> list[int]:
        """The rows that the query lists, divided by commas."""
        text = self.text("rows", "")
        if len(text) > 12 * most:
            raise InvalidInput(f"at most {most} rows can be asked for at once")
        try:
            found = [int(part, 10) for part in text.split(",")] if text else []
        except ValueError:
            raise InvalidInput("rows must be whole numbers, divided by commas") from None
        return rows_in(found, samples, most).tolist()

    def sent(self, name: str, default: Any = None) -> Any:
        """A field of the JSON that was sent."""
        if not isinstance(self.body, dict):
            raise InvalidInput("a JSON object must be sent")
        return self.body.get(name, default)

    def sent_rows(self, samples: int, most: int | None = None) -> NDArray[np.int64] | None:
        """The rows that were sent; None where there are none."""
        found = self.sent("rows")
        return None if found is None else rows_in(found, samples, most)

    def sent_text(self, name: str, default: str | None = None) -> str | None:
        """A text that was sent."""
        found = self.sent(name, default)
        if found is None:
            return None
        if not isinstance(found, str) or any("\ud800" <= letter <= "\udfff" for letter in found):  # halves of letters
            raise InvalidInput(f"{name!r} must be a text")
        return found

    def sent_whole(self, name: str) -> int | None:
        """A whole number that was sent."""
        found = self.sent(name)
        if found is not None and (not isinstance(found, int) or isinstance(found, bool)):
            raise InvalidInput(f"{name!r} must be a whole number")
        return found


def rows_in(value: Any, samples: int, most: int | None = None) -> NDArray[np.int64]:
    """Rows of the store, each once, in the order in which they were named.

    Raises:
        InvalidInput: they are no whole numbers from 0 to ``samples``, or more than ``most``.
    """
    if not isinstance(value, list) or not all(type(row) is int for row in value):
        raise InvalidInput("rows must be a list of whole numbers")
    if most is not None and len(value) > most:
        raise InvalidInput(f"at most {most} rows can be asked for at once, not {len(value)}")
    wrong = next((row for row in value if not 0 <= row < samples), None)
    if wrong is not None:
        raise InvalidInput(f"there is no sample {wrong}: the store has {samples}")
    return np.array(list(dict.fromkeys(value)), np.int64)


def decoded(body: bytes) -> Any:
    """JSON that was sent; None for nothing.

    Raises:
        InvalidInput: it is no JSON, or nested too deeply.
    """
    if not body:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("what was sent is no JSON") from error


def encoded(value: Any) -> bytes:
    """JSON of plain values and of numpy's; NaN and infinity are null."""
    return json.dumps(_plain(value), allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
