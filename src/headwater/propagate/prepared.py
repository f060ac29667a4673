"""Weights as rules ask for them (folded, damped, without their sign), kept while a model is walked through repeatedly.

For one sample the preparation of the weights of a deep convolutional network costs as much as a sixth of its forward
and backward pass. What is kept is asked for its place and version each time, so that a changed weight is prepared anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

Make = Callable[[], Tensor]


class Prepared:
    """What was made of a model's parameters and buffers.

    Args:
        model: a module; of a function nothing is kept, since nobody knows how long its weights live.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        own = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
        self._own: dict[int, Tensor] = {id(t): t for t in own}  # they live as long as this, so that ids stay theirs
        self._made: dict[tuple[Hashable, ...], tuple[list[tuple[int, int]], Tensor]] = {}
        self._lock = threading.RLock()  # what is made may be made of what is made

    def made(self, how: Hashable, sources: Sequence[Tensor], make: Make) -> Tensor:
        """What ``make`` returns; from the last time where that was made of the same values.

        Args:
            how: tells it from what else is made of these.
            sources: what it is made of: parameters and buffers, or what was made of such; of others nothing is kept,
                nor of such that were made in an inference mode.
            make: makes it. Nobody may write to the result.
        """
        if any(id(t) not in self._own or t.is_inference() for t in sources):  # the latter do not count their versions
            return make()
        key = (how, *map(id, sources))
        state = [(t.data_ptr(), t._version) for t in sources]
        with self._lock:
            if key in self._made:
                before, result = self._made[key]
                if before == state:
                    return result
                self._forget(key)
            result = make()
            self._made[key], self._own[id(result)] = (state, result), result
        return result

    def _forget(self, key: tuple[Hashable, ...]) -> None:
        """Let go what was made, and all that was made of it, before another tensor can take its place in memory."""
        _, result = self._made.pop(key)
        for other in list(self._made):
            if id(result) in other[1:] and other in self._made:
                self._forget(other)
        del self._own[id(result)]


_KEPT: ContextVar[Prepared | None] = ContextVar("prepared weights", default=None)


@contextmanager
def keeping(model: Any, prepared: Prepared | None = None) -> Iterator[None]:
    """Keep what is made of this model's weights to the end of the block, or in ``prepared`` for longer."""
    current = _KEPT.get()
    if current is not None and current.model is model:
        yield
        return
    token = _KEPT.set(prepared or Prepared(model))
    try:
        yield
    finally:
        _KEPT.reset(token)


def prepared_of(model: Any) -> Prepared | None:
    """What is kept of this model, where something is."""
    current = _KEPT.get()
    return current if current is not None and current.model is model else None
