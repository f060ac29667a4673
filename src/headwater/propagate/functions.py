"""Custom ``autograd.Function``s: while relevance is propagated, what their forward computes is seen and treated.

Relevance is a matter of what a function computes, not of the gradient that its author chose for it. So the forward
runs as plain code under the engine. Where that would miss something (compiled code of an extension within it), the
function runs as ever, and the engine refuses it by name where its result is used. A forward never records gradients,
so ``no_grad`` and ``detach`` within it (reversible layers) say nothing of what its result depends on, and are passed
over.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.modules._functions import CrossMapLRN2d

from headwater.propagate.nested import flat
from headwater.propagate.tags import raw_tag

# Packages whose compiled functions the engine sees, or which make no tensors.
_SEEN = {*sys.stdlib_module_names, "torch", "numpy"}


class Context:
    """What a forward may ask of its ``ctx``; nothing is kept for a backward that will not run."""

    materialize_grads = True

    def __init__(self, count: int) -> None:
        self.needs_input_grad = (True,) * count
        self.saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors

    save_for_forward = save_for_backward

    def mark_dirty(self, *tensors: Any) -> None:
        pass

    mark_non_differentiable = mark_dirty

    def set_materialize_grads(self, value: bool) -> None:
        pass


def explained_apply(original: classmethod[Any, Any, Any], explaining: Callable[[], bool]) -> Any:
    """A stand-in for ``Function.apply``, which runs the forward as plain code where an explanation asks for it."""

    def apply(function: type[Function], *args: Any, **kwargs: Any) -> Any:
        usual = original.__get__(None, function)
        if not explaining() or function.__module__.startswith("headwater.") or not torch.is_grad_enabled():
            return usual(*args, **kwargs)
        engine = _propagating(args)
        if engine is None:
            return usual(*args, **kwargs)
        if function in _PLAIN:
            return _PLAIN[function](*args, **kwargs)
        with _unfolded(engine):
            out, hidden = _watched(function, args, kwargs)
        live = any(t.requires_grad for t in flat([out]))
        return usual(*args, **kwargs) if hidden or not live else out

    return classmethod(apply)


def _propagating(args: Sequence[Any]) -> Any:
    """The engine under whose rules an argument is live; None where none is (plain gradients keep the author's)."""
    tags = [raw_tag(t) for t in flat(list(args)) if t.requires_grad]
    live = (tag.engine for tag in tags if tag is not None and not tag.weight and tag.engine.composite.unfolds)
    return next(live, None)


@contextlib.contextmanager
def _unfolded(engine: Any) -> Iterator[None]:
    """While the forward of a Function runs as plain code."""
    engine.unfolding += 1
    try:
        yield
    finally:
        engine.unfolding -= 1


def _watched(function: type[Function], args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, bool]:
    """The result of a forward run as plain code, and whether it called compiled code that the engine cannot see."""
    hidden = False

    def watch(frame: Any, event: str, called: Any) -> None:
        nonlocal hidden
        if event == "c_call":
            owner = getattr(called, "__module__", None) or type(getattr(called, "__self__", None)).__module__
            hidden = hidden or owner.partition(".")[0] not in _SEEN

    before, own_setup = sys.getprofile(), function.setup_context is not Function.setup_context
    sys.setprofile(watch)
    try:
        inputs = args if own_setup else (Context(len(args)), *args)
        out = function.forward(*inputs, **kwargs)
    finally:
        sys.setprofile(before)
    if own_setup or not any(out is a for a in args):
        return out, hidden
    return (out.view_as(out) if isinstance(out, Tensor) else out), hidden


def _across_channels(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1) -> Tensor:
    """Local response norm across channels, which torch writes into buffers that the engine cannot follow.

    The sums over neighbouring channels are torch's own: the square of the first one, once in, stays in the sums of all
    channels from ``reach`` on, since it is never taken out again.
    """
    channels, reach = x.shape[1], int((size - 1) / 2 + 1)
    i, j = torch.meshgrid(torch.arange(channels), torch.arange(channels), indexing="ij")  # of the result, of the input
    near = (j - i < reach) & (i - j < reach) | ((j == 0) & (i >= reach))
    squares = torch.tensordot(near.to(x.device, x.dtype), x.square(), ([1], [1])).movedim(0, 1)
    return x / (squares * (alpha / size) + k).pow(beta)


_PLAIN: dict[type[Function], Callable[..., Tensor]] = {CrossMapLRN2d: _across_channels}
