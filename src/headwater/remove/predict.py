"""Models that are no networks: estimators, functions of arrays, and services at the other end of a line."""

from __future__ import annotations

import hashlib
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater.errors import InvalidInput, InvalidTarget, UnsupportedModel
from headwater.remove.imputers import optional

WAYS = ("predict_proba", "decision_function", "predict")


class BlackBox:
    """A model of which only answers can be had; see :func:`black_box`.

    Attributes:
        queries, hits: rows asked for, and those of them that the cache answered; ``calls`` of the function itself.
    """

    def __init__(
        self, predict: Callable[..., Any], *, numpy: bool, batch_size: int | None, rate: float | None, retries: int,
        cache: int,
    ) -> None:  # fmt: skip
        self.predict, self.numpy, self.batch_size, self.rate = predict, numpy, batch_size, rate
        self.retries, self.cache = retries, cache
        self.queries = self.hits = self.calls = 0
        self._known: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._next = 0.0
        self._lock = threading.RLock()
        self.__name__ = getattr(predict, "__qualname__", type(predict).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Scores ``[N]`` or ``[N, ...]`` of rows given as tensors, arrays or a list of strings.

        Raises:
            UnsupportedModel: where a gradient is asked for.
        """
        values = [*args, *kwargs.values()]
        first = next((v for v in values if isinstance(v, Tensor)), None)
        if torch.is_grad_enabled() and any(isinstance(v, Tensor) and v.requires_grad for v in values):
            raise UnsupportedModel(
                "A black box has no gradient to walk back: choose a method of the family remove, "
                "such as 'occlusion', 'shapley_sampling', 'kernel_shap' or 'lime'"
            )
        count = len(first) if first is not None else len(values[0])
        rows = [self._rows(v, count) for v in values]
        with self._lock:
            found = self._cached(rows, list(kwargs), count) if self.cache else self._fresh(rows, list(kwargs), count)
        return found if first is None else found.to(first.device)

    def __repr__(self) -> str:
        return f"black_box({self.__name__})"

    def _rows(self, value: Any, count: int) -> Any:
        """An argument as the function takes it."""
        if isinstance(value, Tensor):
            value = value.detach()
            return value.cpu().numpy() if self.numpy else value
        return value

    def _cached(self, rows: Sequence[Any], names: list[str], count: int) -> Tensor:
        """Answers from what is known, and from one call about all that is not."""
        keys = [tuple(_key(_row(v, i, count)) for v in rows) for i in range(count)]
        asked = {key: i for i, key in reversed(list(enumerate(keys))) if key not in self._known}
        self.queries += count
        self.hits += count - len(asked)
        answers = {key: self._known[key] for key in keys if key in self._known}
        if asked:
            order = list(asked)
            chosen = [_chosen(v, [asked[key] for key in order], count) for v in rows]
            fresh = self._fresh(chosen, names, len(order))
            answers |= dict(zip(order, fresh, strict=True))
            self._known |= {key: answers[key].clone() for key in order}
            while len(self._known) > self.cache:
                self._known.popitem(last=False)
        return torch.stack([answers[key] for key in keys])

    def _fresh(self, rows: Sequence[Any], names: list[str], count: int) -> Tensor:
        """Answers of the function itself, a batch at a time."""
        size = self.batch_size or count
        found = []
        for start in range(0, count, size):
            at = list(range(start, min(start + size, count)))
            parts = rows if len(at) == count else [_chosen(v, at, count) for v in rows]
            split = len(parts) - len(names)
            named = dict(zip(names, parts[split:], strict=True))
            found.append(as_scores(self._asked(*parts[:split], **named), len(at)))
        return torch.cat(found)

    def _asked(self, *args: Any, **kwargs: Any) -> Any:
        if not self.retries:
            return self._call(*args, **kwargs)
        tenacity = optional("tenacity", "tenacity")
        patient = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.retries + 1), reraise=True,
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=30),
        )  # fmt: skip
        return patient(self._call, *args, **kwargs)

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        if self.rate is not None:
            now = time.monotonic()
            time.sleep(max(0.0, self._next - now))
            self._next = max(now, self._next) + 1 / self.rate
        self.calls += 1
        return self.predict(*args, **kwargs)


def black_box(
    predict: Any, *, way: str | None = None, numpy: bool = True, batch_size: int | None = None,
    rate: float | None = None, retries: int = 0, cache: int = 1 << 16,
) -> BlackBox:  # fmt: skip
    """Make a model of anything that answers: a function of arrays, a fitted estimator, a service behind a function.

    Args:
        predict: a function of rows that returns scores ``[N]`` or ``[N, C]`` (tensor, array, frame or list), or a
            fitted estimator of scikit-learn's kind.
        way: which of the estimator's functions is asked; by default the first it has of ``predict_proba``,
            ``decision_function`` and ``predict`` (whose labels become one score a class, 0 or 1).
        numpy: hand over arrays; False hands over tensors. Strings stay as they are.
        batch_size: rows a call takes at most.
        rate: calls a second at most.
        retries: how often a call that fails is tried again, after random waits that double up to 30 s; needs
            ``headwater[remove]``.
        cache: how many answers are remembered, so that no row is asked twice; 0 for a model that answers differently
            each time.

    Returns:
        a function of tensors that every method of the family ``remove`` takes as its model.

    Raises:
        InvalidInput: for what cannot be asked, and settings out of range.
    """
    if batch_size is not None and batch_size < 1:
        raise InvalidInput(f"batch_size must be at least 1, not {batch_size}")
    if (rate is not None and rate <= 0) or retries < 0 or cache < 0:
        raise InvalidInput(f"rate must be positive, retries and cache not negative: {rate}, {retries}, {cache}")
    asked = _estimator(predict, way) if way is not None or any(hasattr(predict, w) for w in WAYS) else predict
    if not callable(asked):
        raise InvalidInput(f"a {type(predict).__name__} cannot be asked: pass a function or a fitted estimator")
    return BlackBox(asked, numpy=numpy, batch_size=batch_size, rate=rate, retries=retries, cache=cache)


def is_estimator(model: Any) -> bool:
    """Whether a model is of scikit-learn's kind: it predicts, but cannot be called."""
    return not callable(model) and any(hasattr(model, way) for way in WAYS)


def as_scores(answers: Any, count: int, device: torch.device | str = "cpu") -> Tensor:
    """What a model returned as a float tensor with ``count`` rows.

    Raises:
        InvalidTarget: where it is nothing of the kind.
    """
    found = answers
    if not isinstance(answers, Tensor):
        try:
            found = torch.as_tensor(np.asarray(answers))
        except (TypeError, ValueError, RuntimeError):
            raise InvalidTarget(f"The model returned {type(answers).__name__}, which holds no scores") from None
    if not found.dim() or len(found) != count:
        raise InvalidTarget(f"The model returned answers of shape {list(found.shape)} to {count} rows: one row each")
    found = found.detach().to(device)
    return found if found.is_floating_point() else found.to(torch.get_default_dtype())


def _estimator(estimator: Any, way: str | None) -> Callable[..., Any]:
    ways = [w for w in WAYS if hasattr(estimator, w)]
    chosen = way or ways[0]
    if chosen not in ways:
        raise InvalidInput(f"a {type(estimator).__name__} has no {chosen}; it has {', '.join(ways) or 'none'}")
    ask: Callable[..., Any] = getattr(estimator, chosen)
    if hasattr(estimator, "feature_names_in_"):
        ask = _nameless(ask)
    classes = getattr(estimator, "classes_", None)
    if chosen != "predict" or classes is None:
        return ask

    def one_hot(*args: Any, **kwargs: Any) -> Any:
        labels = np.asarray(ask(*args, **kwargs))
        return (labels[:, None] == np.asarray(classes)).astype(np.float64)

    return one_hot


def _nameless(ask: Callable[..., Any]) -> Callable[..., Any]:
    """An estimator that was fitted on named columns, asked rows of them in their order without its complaint."""

    def asked(*args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
            return ask(*args, **kwargs)

    return asked


def _is_rows(value: Any, count: int) -> bool:
    if isinstance(value, (Tensor, np.ndarray)) and not value.ndim:
        return False
    return isinstance(value, (Tensor, np.ndarray, list, tuple)) and len(value) == count


def _row(value: Any, i: int, count: int) -> Any:
    return value[i] if _is_rows(value, count) else value


def _chosen(value: Any, at: list[int], count: int) -> Any:
    if not _is_rows(value, count):
        return value
    return [value[i] for i in at] if isinstance(value, (list, tuple)) else value[at]


def _key(row: Any) -> Hashable:
    if isinstance(row, Tensor):
        row = row.cpu().numpy()
    if isinstance(row, np.ndarray):
        return hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest()
    return row if isinstance(row, Hashable) else repr(row)
