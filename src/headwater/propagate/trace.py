"""A function of tensors recorded as a plain graph of operators, together with every value that it looked at.

``make_fx`` writes down the operators of one run, those of custom backwards among them. What a run decides by looking
at values (``if bool(x.isfinite().all())``, the length of ``x[mask]``) is frozen in the graph; so each value looked at
becomes a *guard*: the graph computes it again and compares, and where it differs the recording does not hold.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from headwater.errors import HeadwaterError
from headwater.propagate.trace_passes import (
    fold_constants,
    forget_aliases,
    index_by_numbers,
    join_guards,
    lift_tensors,
)

_LOCK = threading.RLock()  # a tracer patches nn.Module while it records
_ATEN = torch.ops.aten
_LEAVING = {Tensor.tolist, Tensor.numpy, Tensor.__array__}  # values leave torch unseen by any dispatch
Guard = tuple[Tensor, Any]


class Untraceable(HeadwaterError):
    """A function that no graph of operators can stand for."""


class _Watch(TorchDispatchMode):
    """Notes what a run looks at, as pairs of a 0-dimensional tensor and the value that it had."""

    def __init__(self) -> None:
        super().__init__()
        self.guards: list[Guard] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _ATEN._local_scalar_dense.default:
            with disable_proxy_modes_tracing():
                value = func(*args)
            self.guards.append((args[0].reshape(()), value))
            return value
        if func is _ATEN.equal.default:
            return self._equal(*args)
        if torch.Tag.data_dependent_output in func.tags:
            raise Untraceable(f"{func} decides by values in a way that a graph cannot check")
        if torch.Tag.nondeterministic_seeded in func.tags and not _without_dropout(func, args, kwargs):
            raise Untraceable(f"{func} draws random numbers, which a graph would draw anew at every call")
        if torch.Tag.dynamic_output_shape in func.tags:
            self._count(func, args)
        return func(*args, **kwargs)

    def _equal(self, a: Tensor, b: Tensor) -> bool:
        if a.shape != b.shape:
            return False
        self.guards.append(((same := a.eq(b).all()), value := _value(same)))
        return bool(value)

    def _count(self, func: Any, args: Any) -> None:
        """Guard the length of a result that depends on values."""
        if func is _ATEN.index.Tensor:
            masks = [t for t in args[1] if t is not None and t.dtype in (torch.bool, torch.uint8)]
            totals = [mask.ne(0).sum() for mask in masks]
        elif func in (_ATEN.nonzero.default, _ATEN.masked_select.default):
            totals = [args[-1].ne(0).sum()]
        elif func is _ATEN.repeat_interleave.Tensor:
            totals = [args[0].sum()]
        else:
            raise Untraceable(f"{func} has a result whose shape depends on values")
        self.guards.extend((total, _value(total)) for total in totals)


class _Leaks(TorchFunctionMode):
    """Freezes tensors whose values leave torch: as lists, as arrays."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _LEAVING and args[0].numel():
            with disable_proxy_modes_tracing():
                known = args[0].detach().clone()
            self.watch.guards.append((args[0].detach().eq(known).all(), True))
        return func(*args, **(kwargs or {}))


def _value(t: Tensor) -> Any:
    with disable_proxy_modes_tracing():
        return _ATEN._local_scalar_dense.default(t)


def _without_dropout(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether a kernel that may drop values at random (attention, a recurrent layer) was asked not to."""
    names = [argument.name for argument in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    return any(name in names and not given.get(name) for name in ("dropout_p", "dropout"))


class Recording:
    """A function recorded for inputs of certain shapes; holds by reference what it takes from outside.

    Attributes:
        state: parameters and other tensors that the function took from elsewhere; their values are read at each call.
        graph: a function of a list of inputs and ``state``; returns ``[guard, *results]``.
    """

    def __init__(self, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> None:
        """Record one run.

        Args:
            function: of the tensors in ``inputs``; returns tensors.

        Raises:
            Untraceable: where it draws random numbers or takes the shape of its results from values.
        """
        from torch import _dynamo

        guards: list[Guard] = []

        def run(*tensors: Tensor) -> list[Tensor]:
            with _Watch() as watch, _Leaks(watch):
                results = list(function(*tensors))
            guards.extend(watch.guards)
            return [*(t for t, _ in guards), *results]

        # What the user compiled with Dynamo is called as it is.
        eager = _dynamo.config.patch(error_on_nested_fx_trace=False)
        with _LOCK, eager, torch.autograd.set_multithreading_enabled(False):
            module = make_fx(run, tracing_mode="real")(*inputs)
        forget_aliases(module)
        join_guards(module, [value for _, value in guards])
        self.state = lift_tensors(module)
        fold_constants(module)
        index_by_numbers(module)
        module.recompile()
        self.module = module
        self.graph: Callable[..., Any] = module

    def compile(self, inputs: Sequence[Tensor]) -> None:
        """Let inductor fuse the graph, for inputs like these.

        Raises:
            Exception: whatever inductor raises, where there is no compiler or an operator is not known to it.
        """
        from torch import _inductor

        with _LOCK, torch.no_grad():
            example: list[Any] = [*inputs, *(t.detach() for t in self.state)]
            compiled = _inductor.compile(self.module, example)
            compiled(*example)
        self.graph = compiled

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor] | None:
        """Results for new inputs of the same shapes, types, strides and devices; None where the recording fails."""
        with torch.no_grad():
            holds, *results = self.graph(*(t.detach() for t in inputs), *self.state)
            return results if bool(holds) else None
