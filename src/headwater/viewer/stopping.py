"""Work of the model that ends when nobody waits for it any more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, get_ident
from typing import Any

from torch.nn.modules.module import register_module_forward_pre_hook

from headwater.viewer.refusals import Stopped

_PATIENCE = 0.05  # seconds between two looks whether the client is still there


@contextmanager
def stoppable(gone: Event) -> Iterator[None]:
    """Within, the next module that this thread enters ends the work once ``gone`` is set.

    A thread cannot be ended from outside; but whatever a method does, it does it by asking the model, again and again.
    The hook is torch's own for all modules: the model is not touched, and other threads are let through.

    Raises:
        Stopped: ``gone`` was set.
    """
    own = get_ident()

    def look(module: Any, inputs: Any) -> None:
        if get_ident() == own:
            check(gone)

    hook = register_module_forward_pre_hook(look)
    try:
        check(gone)
        yield
    except Exception as error:
        check(gone, error)  # whatever the methods made of it
        raise
    finally:
        hook.remove()


@contextmanager
def waiting(lock: Lock, gone: Event) -> Iterator[None]:
    """Hold a lock, once it is free.

    Raises:
        Stopped: ``gone`` was set before it was.
    """
    while not lock.acquire(timeout=_PATIENCE):
        check(gone)
    try:
        yield
    finally:
        lock.release()


def check(gone: Event, cause: Exception | None = None) -> None:
    """Raises Stopped where ``gone`` is set."""
    if gone.is_set():
        raise Stopped("nobody waits for this explanation any more: it was stopped") from cause
