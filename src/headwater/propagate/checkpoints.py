"""Checkpoints, maps, custom and scripted functions: while an explanation runs here, they just call their function.

``torch.func.grad`` and its kin, whose inside no walk back passes, refuse meanwhile.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._functorch import eager_transforms, vmap
from torch.utils import checkpoint

from headwater.errors import UnsupportedModel
from headwater.propagate.functions import explained_apply
from headwater.propagate.vectorized import explained_vmap

DIFFERENTIATES = (
    "The model takes a gradient within its forward (torch.autograd.grad, torch.func.grad, vjp or jvp), which relevance "
    "cannot be walked back through: explain the network that it differentiates, or write the gradient out as operators."
)
_STATE = threading.local()
_LOCK = threading.Lock()
_ACTIVE = 0
_ORIGINAL: dict[str, Any] = {}


def _explaining() -> bool:
    return bool(getattr(_STATE, "explaining", 0))


@functools.cache
def _reentrant(function: type[torch.autograd.Function]) -> type:
    class Apply:
        """Stands where ``CheckpointFunction`` is looked up; elsewhere than in an explanation it is that class."""

        @staticmethod
        def apply(run: Callable[..., Any], preserve: bool, *args: Any) -> Any:
            return run(*args) if _explaining() else function.apply(run, preserve, *args)

    return Apply


@functools.cache
def _generator(function: Callable[..., Any]) -> Callable[..., Any]:
    def steps(*args: Any, **kwargs: Any) -> Iterator[Any]:
        if _explaining():
            yield  # before and after the checkpointed function nothing is to do
        else:
            yield from function(*args, **kwargs)

    return steps


@functools.cache
def _apply(original: Any) -> Any:
    return explained_apply(original, _explaining)


def _vmap(original: Callable[..., Any]) -> Callable[..., Any]:
    return explained_vmap(original, _explaining)


def _refusing(nesting: Callable[[], Any]) -> Callable[[], Any]:
    def enter() -> Any:
        if _explaining():
            raise UnsupportedModel(DIFFERENTIATES)
        return nesting()

    return enter


def _together(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(parallel: torch.nn.DataParallel[Any], *args: Any, **kwargs: Any) -> Any:
        # Replicas run on threads of their own, which no mode follows; one of them can take the whole batch.
        return parallel.module(*args, **kwargs) if _explaining() else forward(parallel, *args, **kwargs)

    return run


def _scripted(call: Callable[..., Any]) -> Callable[..., Any]:
    def run(function: torch.jit.ScriptFunction[Any, Any], *args: Any, **kwargs: Any) -> Any:
        # What it was compiled from, or traced through: torch keeps that for its own compiler.
        written = getattr(function, "_torchdynamo_inline", None) if _explaining() else None
        return call(function, *args, **kwargs) if written is None else written(*args, **kwargs)

    return run


_STAND_INS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "CheckpointFunction": (checkpoint, _reentrant),
    "_checkpoint_without_reentrant_generator": (checkpoint, _generator),
    "apply": (torch.autograd.Function, _apply),
    "__call__": (torch.jit.ScriptFunction, _scripted),
    "_flat_vmap": (vmap, _vmap),
    "forward": (torch.nn.DataParallel, _together),
    "grad_increment_nesting": (eager_transforms, _refusing),
    "jvp_increment_nesting": (eager_transforms, _refusing),
}


def call_directly() -> None:
    """From here on, on this thread, checkpoints do not recompute, custom and scripted functions show what they do.

    The mode cannot follow a second forward in the backward, nor look into them. :func:`call_as_ever` ends it.
    """
    global _ACTIVE
    with _LOCK:
        if not _ACTIVE:
            for name, (owner, stand_in) in _STAND_INS.items():
                _ORIGINAL[name] = vars(owner)[name]
                setattr(owner, name, stand_in(_ORIGINAL[name]))
        _ACTIVE += 1
    _STATE.explaining = getattr(_STATE, "explaining", 0) + 1


def call_as_ever() -> None:
    """The end of what :func:`call_directly` began."""
    global _ACTIVE
    _STATE.explaining -= 1
    with _LOCK:
        _ACTIVE -= 1
        if not _ACTIVE:
            for name, (owner, _) in _STAND_INS.items():
                setattr(owner, name, _ORIGINAL[name])
