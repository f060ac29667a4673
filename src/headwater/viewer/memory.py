"""What was read or drawn lately, in bounded memory; ten clients that ask for one thing have it made once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from threading import Lock
from typing import Any, TypeVar

from headwater.errors import MissingExtra

Value = TypeVar("Value")


class Memory:
    """The values used last, at most so many bytes of them."""

    def __init__(self, limit: int) -> None:
        try:
            from cachetools import LRUCache
        except ModuleNotFoundError as error:
            raise MissingExtra("viewer", "cachetools") from error
        self._kept: Any = LRUCache(limit, getsizeof=_size)
        self._guard = Lock()
        self._making: dict[Hashable, Lock] = {}

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value under a key, made now if it is not there; who asks meanwhile waits for the same."""
        with self._guard:
            if key in self._kept:
                return self._kept[key]
            making = self._making.setdefault(key, Lock())
        with making:
            with self._guard:
                if key in self._kept:
                    return self._kept[key]
            try:
                value = make()
                with self._guard, suppress(ValueError):  # larger than all that may be kept
                    self._kept[key] = value
            finally:
                with self._guard:
                    self._making.pop(key, None)
            return value

    def clear(self) -> None:
        """Forget everything."""
        with self._guard:
            self._kept.clear()


def _size(value: Any) -> int:
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, tuple):
        return sum(map(_size, value))
    return int(getattr(value, "nbytes", 1024))
