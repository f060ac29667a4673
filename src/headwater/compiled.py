"""Explanations recorded once and replayed: ``hw.explain(..., compile=True)`` and ``hw.Explainer``.

The first explanation of inputs of some shape is recorded as a plain graph of operators, forward and modified backward,
and handed to inductor where a C++ compiler (on GPUs: Triton) is found. Later ones of the same shapes run that graph.
Weights are read at each call, the target's class is an input, and everything that the recorded run decided by looking
at values is checked: where an input leads elsewhere, it is explained the ordinary way. What a model decides by anything
but tensors (attributes that are numbers, hooks, files) stays as it was recorded.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import operator
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from headwater import target as targets
from headwater.errors import HeadwaterWarning, InvalidInput, InvalidTarget
from headwater.explain import explain
from headwater.explanation import Explanation
from headwater.propagate.prepared import Prepared, keeping
from headwater.propagate.trace import Recording

LIMIT = 32  # recordings kept for each model and set of options
_EAGER_ONLY = {
    "ledger": "its entries are numbers, not tensors",
    "differentiable": "a recorded graph has no derivative",
    "checkpoint": "a recorded graph keeps what it needs",
    "allow_training": "a recorded graph draws no random numbers",
}


class Explainer:
    """A model and the way to explain it, for many inputs.

    Args:
        model: as for :func:`headwater.explain`.
        compile: record an explanation for each shape of input, and replay it. Without, weights that rules change (γ,
            z⁺, αβ) or that a batch norm is folded into are kept: a sixth of the time of one picture through ResNet-50.
            They are made again where a weight has changed, except through ``.data``, which torch does not count.
        **options: those of :func:`headwater.explain`, the method's own among them, but for ``x`` and ``target``.

    Attributes:
        recorded: how many recordings it holds.
        fallbacks: how many calls were explained the ordinary way although their shapes were known: what was recorded
            did not hold for them, or nothing could be.

    Raises:
        InvalidInput: for ``ledger``, ``differentiable``, ``checkpoint``, ``allow_training``: they cannot be recorded.

    Example:
        explainer = hw.Explainer(model, composite="epsilon")
        for x in loader: e = explainer(x)
    """

    def __init__(self, model: Callable[..., Any], *, compile: bool = True, **options: Any) -> None:
        _refuse(options if compile else {})
        self.model, self.options = model, options
        self._recordings = _Recordings() if compile else None
        self._prepared = None if compile else Prepared(model)

    def __call__(self, x: Any, target: Any = None) -> Explanation:
        """Explain ``x``; as :func:`headwater.explain`, which see for what is returned and raised."""
        if self._recordings is not None:
            return self._recordings.explain(self.model, x, target, self.options)
        with keeping(self.model, self._prepared):
            return explain(self.model, x, target, **self.options)

    @property
    def recorded(self) -> int:
        """How many recordings it holds."""
        return 0 if self._recordings is None else sum(e is not None for e in self._recordings.entries.values())

    @property
    def fallbacks(self) -> int:
        """How many calls were explained the ordinary way although their shapes were known."""
        return 0 if self._recordings is None else self._recordings.fallbacks


def explain_recorded(model: Callable[..., Any], x: Any, target: Any, options: Mapping[str, Any]) -> Explanation:
    """``hw.explain(..., compile=True)``: by the recordings of this model and these options, made as they are needed.

    Raises:
        InvalidInput: for options that cannot be recorded, or a model that cannot be remembered.
    """
    _refuse(options)
    try:
        known = _KNOWN.setdefault(model, {})
    except TypeError:
        raise InvalidInput(f"compile=True needs a module or a function, not a {type(model).__name__}") from None
    recordings = known.setdefault(_static(options), _Recordings())
    return recordings.explain(model, x, target, options)


_KNOWN: weakref.WeakKeyDictionary[Any, dict[Any, _Recordings]] = weakref.WeakKeyDictionary()


def _refuse(options: Mapping[str, Any]) -> None:
    for name, why in _EAGER_ONLY.items():
        if options.get(name):
            raise InvalidInput(f"{name}=True and compile=True do not go together: {why}")


class _Recordings:
    """Recordings of one model under one set of options, by the shapes of their inputs."""

    def __init__(self) -> None:
        self.entries: dict[Any, _Entry | None] = {}  # None where an explanation could not be recorded
        self.fallbacks = 0
        self._lock = threading.Lock()

    def explain(self, model: Any, x: Any, target: Any, options: Mapping[str, Any]) -> Explanation:
        """Replay, or explain the ordinary way and record."""
        with torch.inference_mode(False):
            return self._explain(model, x, target, options)

    def _explain(self, model: Any, x: Any, target: Any, options: Mapping[str, Any]) -> Explanation:
        tensors: list[Tensor] = []
        asked = _take(x, tensors), _take(_as_tensor(target), tensors)
        if not tensors or not _plain(asked[0]) or any(torch.is_autocast_enabled(t.device.type) for t in tensors):
            return explain(model, x, target, **options)
        tensors = [t.clone() if t.is_inference() else t for t in tensors]
        key = (_static(asked), tuple(map(_layout, tensors)), torch.get_default_dtype())
        entry = self.entries.get(key)
        if key not in self.entries or (entry is not None and entry.changed(_standing(model))):
            found = explain(model, x, target, **options)  # every refusal comes from here
            with self._lock:
                while len(self.entries) >= LIMIT:
                    del self.entries[next(iter(self.entries))]
                self.entries[key] = _Entry.of(model, asked, tensors, options, found)
            return found
        results = None if entry is None else entry.replay(tensors)
        if results is not None:
            return results
        self.fallbacks += 1
        found = explain(model, x, target, **options)
        if entry is not None and not entry.warned:
            entry.warned = True
            _warn(
                "An input leads elsewhere than the recorded one did, so it is explained the ordinary way, as others "
                "like it will be without another word.",
                3,
            )
        return found


@dataclass(frozen=True)
class _Slot:
    """The place of a tensor within nested values."""

    index: int


@dataclass
class _Entry:
    """One recording, and how its results make an explanation.

    Attributes:
        recording: of a function of the tensors in input and target.
        shape: the explanation with slots for its tensors.
        standing: the modules and parameters of the model, to see when one is exchanged.
        layouts: shapes and types of the tensors that the recording reads; ``pointers``: where they lay last.
    """

    recording: Recording
    shape: Explanation
    standing: list[Any]
    layouts: list[Any]
    pointers: list[int]
    warned: bool = False

    def __post_init__(self) -> None:
        self.moving = [
            f.name for f in fields(self.shape) if not isinstance(getattr(self.shape, f.name), (str, bool, type(None)))
        ]

    @staticmethod
    def of(model: Any, asked: Any, tensors: list[Tensor], options: Mapping[str, Any], found: Explanation) -> Any:
        """Record; None (with a warning) where that cannot be done or does not give what the explanation gave."""
        shapes: list[Any] = []

        def run(*tensors: Tensor) -> list[Tensor]:
            results: list[Tensor] = []
            x, target = _put(asked, tensors)
            shapes.append(_take(_explained(model, x, target, options), results))
            return results

        wanted: list[Tensor] = []
        _take(found, wanted)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the explanation itself has warned
                recording = Recording(run, tensors)
        except Exception as error:  # a tracer may fail in ways that torch does not name
            _warn(f"compile=True has no effect here: {error}", 4)
            return None
        if not _same(recording(tensors), wanted):
            _warn("compile=True has no effect here: what was recorded gives other values than the explanation.", 4)
            return None
        with contextlib.suppress(Exception):  # no compiler, or an operator unknown to it: the plain graph serves
            recording.compile(tensors)
        if not _same(recording(tensors), wanted):
            recording.graph = recording.module
        state = recording.state
        return _Entry(recording, shapes[-1], _standing(model), list(map(_layout, state)), _pointers(state))

    def changed(self, standing: list[Any]) -> bool:
        """Whether modules or parameters were exchanged, or moved to other types or devices."""
        if standing != self.standing:
            return True
        pointers = _pointers(self.recording.state)
        if pointers == self.pointers:
            return False
        self.pointers = pointers
        return list(map(_layout, self.recording.state)) != self.layouts

    def replay(self, tensors: list[Tensor]) -> Explanation | None:
        """The explanation of new inputs; None where the recording does not hold for them."""
        try:
            results = self.recording(tensors)
        except (RuntimeError, IndexError):  # values that lead to other shapes
            return None
        if results is None:
            return None
        found = copy.copy(self.shape)
        for name in self.moving:
            setattr(found, name, _put(getattr(found, name), results))
        return found


def _explained(model: Any, x: Any, target: Any, options: Mapping[str, Any]) -> Explanation:
    """An explanation whose class may be a tensor; where there is no choice of classes, it is read (and checked)."""
    try:
        return explain(model, x, target, **options)
    except InvalidTarget:
        if not isinstance(target, Tensor) or target.dim():
            raise
    return explain(model, x, target.item(), **options)


def _as_tensor(target: Any) -> Any:
    """A target whose classes are a tensor, an input of the graph; other targets are frozen in it."""
    if isinstance(target, (targets.LogOdds, targets.Contrast)):
        return dataclasses.replace(target, c=_as_tensor(target.c))
    if isinstance(target, list) and all(isinstance(c, int) for c in target):
        return torch.tensor(target)
    if hasattr(target, "__array__") and not isinstance(target, Tensor):
        return torch.as_tensor(target)
    if hasattr(target, "__index__") and not isinstance(target, (bool, Tensor)):
        return torch.tensor(operator.index(target))
    return target


def _take(value: Any, tensors: list[Tensor]) -> Any:
    """Nested values with slots for their tensors, which are appended to ``tensors``."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return _Slot(len(tensors) - 1)
    if isinstance(value, Mapping):
        return {k: _take(v, tensors) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_take(v, tensors) for v in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{f.name: _take(getattr(value, f.name), tensors) for f in fields(value)})
    return value


def _put(value: Any, tensors: Sequence[Tensor]) -> Any:
    """The inverse of :func:`_take`."""
    if isinstance(value, _Slot):
        return tensors[value.index]
    if isinstance(value, dict):
        return {k: _put(v, tensors) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_put(v, tensors) for v in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{f.name: _put(getattr(value, f.name), tensors) for f in fields(value)})
    return value


def _plain(value: Any) -> bool:
    """Whether nested values hold tensors and simple constants alone, which tell when they have changed."""
    if isinstance(value, dict):
        return all(map(_plain, value.values()))
    if type(value) in (list, tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, (_Slot, bool, int, float, str))


def _static(value: Any) -> Any:
    """A key for nested values: equal where the constants in it are, the same object for all else."""
    if isinstance(value, Mapping):
        return tuple((k, _static(v)) for k, v in value.items())
    if type(value) in (list, tuple):
        return type(value), *map(_static, value)
    if isinstance(value, Tensor) or type(value).__hash__ is None:
        return _Identity(value)
    return type(value), value


class _Identity:
    """Equal to itself alone; keeps what it stands for."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.value is self.value


def _layout(t: Tensor) -> Any:
    return t.shape, t.stride(), t.dtype, t.device


def _pointers(tensors: Sequence[Tensor]) -> list[int]:
    return [t.data_ptr() for t in tensors]


def _standing(model: Any) -> list[Any]:
    """Which modules, parameters and buffers a model consists of, and which modules are in training."""
    found: list[Any] = []
    rest = [model] if isinstance(model, nn.Module) else []
    while rest:
        module = rest.pop()
        found += (id(module), type(module), module.training)
        found.extend(map(id, (*module._parameters.values(), *module._buffers.values())))
        rest.extend(child for child in module._modules.values() if child is not None)
    return found


def _same(found: Sequence[Tensor] | None, wanted: Sequence[Tensor]) -> bool:
    """Whether a recording's results are those of the explanation, but for rounding."""
    if found is None or len(found) != len(wanted):
        return False
    return all(a.shape == b.shape and a.dtype == b.dtype and _close(a, b) for a, b in zip(found, wanted, strict=True))


def _close(a: Tensor, b: Tensor) -> bool:
    if not b.is_floating_point() or not b.numel():
        return torch.equal(a, b)
    rounding = torch.finfo(b.dtype).eps ** 0.5
    return bool((a - b).abs().max() <= rounding * b.abs().max())


def _warn(text: str, callers: int) -> None:
    """Warn at the line of the user's that is this many calls above."""
    warnings.warn(text, HeadwaterWarning, stacklevel=callers + 2)
