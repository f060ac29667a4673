"""Activation checkpoints inside a model: while an explanation runs on this thread, they just call their function."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import checkpoint

_STATE = threading.local()
_LOCK = threading.Lock()
_ACTIVE = 0
_ORIGINAL: dict[str, Any] = {}


def _reentrant(function: type[torch.autograd.Function]) -> type:
    class Apply:
        """Stands where ``CheckpointFunction`` is looked up; elsewhere than in an explanation it is that class."""

        @staticmethod
        def apply(run: Callable[..., Any], preserve: bool, *args: Any) -> Any:
            return run(*args) if getattr(_STATE, "explaining", 0) else function.apply(run, preserve, *args)

    return Apply


def _generator(function: Callable[..., Any]) -> Callable[..., Any]:
    def steps(*args: Any, **kwargs: Any) -> Iterator[Any]:
        if getattr(_STATE, "explaining", 0):
            yield  # before and after the checkpointed function nothing is to do
        else:
            yield from function(*args, **kwargs)

    return steps


_STAND_INS: dict[str, Callable[[Any], Any]] = {
    "CheckpointFunction": _reentrant,
    "_checkpoint_without_reentrant_generator": _generator,
}


@contextlib.contextmanager
def called_directly() -> Iterator[None]:
    """Within, checkpoints on this thread do not recompute: the mode cannot follow a second forward in the backward."""
    global _ACTIVE
    with _LOCK:
        if not _ACTIVE:
            _ORIGINAL.update({name: getattr(checkpoint, name) for name in _STAND_INS})
            for name, stand_in in _STAND_INS.items():
                setattr(checkpoint, name, stand_in(_ORIGINAL[name]))
        _ACTIVE += 1
    _STATE.explaining = getattr(_STATE, "explaining", 0) + 1
    try:
        yield
    finally:
        _STATE.explaining -= 1
        with _LOCK:
            _ACTIVE -= 1
            if not _ACTIVE:
                for name, value in _ORIGINAL.items():
                    setattr(checkpoint, name, value)
