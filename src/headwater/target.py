"""What scalar is explained: a logit, log-odds, a margin, a token, a hidden neuron, or any function of the output.

A target turns the model's output into one score per sample. ``None`` goes by the output's shape: ``[N]`` is the score
itself; ``[N, C]`` the largest class; ``[N, T, V]`` the likeliest token at the last unpadded position; ``[N, C, H, W]``
(or ``[N, C, D, H, W]``) the class that wins most pixels, summed over the pixels where it wins. A tuple of ints is one
place of the output: of scores over a series, ``[N, K, T]``, ``(class, step)``.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater.errors import InvalidTarget

CHOICES = (
    "an int, a list or LongTensor of N ints, a tuple of ints (one place of the output), a function of the output that "
    "returns [N] scores, or one of "
    "headwater.target.LogOdds(c), Margin(a, b), Neuron(layer, index), Token(position, id), Continuation(ids), Sum(), "
    "Contrast(c)"
)


@dataclass(frozen=True)
class LogOdds:
    """Class against the rest: ``z_c - log Σ_{k≠c} exp z_k`` of ``[N, C]`` logits, the log-odds of class ``c``.

    Args:
        c: the class, one for each sample, or None for the predicted one.
    """

    c: int | Sequence[int] | Tensor | None = None


@dataclass(frozen=True)
class Margin:
    """``z_a - z_b`` of ``[N, C]`` logits: why class ``a`` rather than class ``b``."""

    a: int
    b: int


@dataclass(frozen=True)
class Contrast:
    """``z_c`` minus the mean of the other classes' logits, of ``[N, C]``.

    Args:
        c: the class, one for each sample, or None for the predicted one.
    """

    c: int | Sequence[int] | Tensor | None = None


@dataclass(frozen=True)
class Neuron:
    """One activation inside the model.

    Args:
        layer: name of the module whose output holds it.
        index: position in that output after the sample axis.
    """

    layer: str
    index: int | tuple[int, ...]


@dataclass(frozen=True)
class Token:
    """The logit of one token, of ``[N, T, V]``.

    Args:
        position: along the second axis; negative counts from the end.
        id: the token (or one for each sample), or None for the likeliest one there.
    """

    position: int = -1
    id: int | Tensor | None = None


@dataclass(frozen=True)
class Continuation:
    """The logits of a whole continuation, summed over its tokens: of ``[N, T, V]``, where it ends the input.

    The logit of each token is read one position before it, where a causal language model predicts it; what is padded
    must be padded on the left.

    Args:
        ids: the tokens at the end of the input, ``[L]``, or ``[N, L]`` for each sample its own; ``L < T``.
    """

    ids: Sequence[int] | Tensor


@dataclass(frozen=True)
class Sum:
    """The sum of a sample's whole output."""


@dataclass(frozen=True)
class Pixels:
    """A class summed over chosen places, of ``[N, C, H, W]`` (or ``[N, C, D, H, W]``).

    Args:
        c: the class of each sample, ``[N]``.
        where: the places, ``[N, H, W]``, true where they count.
    """

    c: Tensor
    where: Tensor


def select_output(output: Any) -> Tensor:
    """The tensor to explain in what a model returned: ``logits`` where there are some, else the first float tensor.

    An array, of a model that is no network, is taken as a tensor.

    Raises:
        InvalidTarget: where there is none, and for a list of dictionaries, of which none is chosen.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, np.ndarray) and output.dtype.kind == "f":
        return torch.from_numpy(output)
    if isinstance(output, Mapping):
        named: Any = output
    elif dataclasses.is_dataclass(output):
        named = {f.name: getattr(output, f.name) for f in dataclasses.fields(output)}
    else:
        named = getattr(output, "_asdict", dict)() or {}
    logits = named.get("logits", getattr(output, "logits", None))
    if isinstance(logits, Tensor):
        return logits
    items = named.values() if named else output if isinstance(output, (tuple, list)) else ()
    if not named and items and all(isinstance(item, Mapping) for item in items):
        known = next((f"{key!r}" for key in ("scores", *items[0]) if key in items[0]), "...")
        raise InvalidTarget(
            f"The model returned {len(items)} dictionaries, as detectors do: say by a function which of the values is "
            f"explained, as target=lambda found: found[0][{known}][:1]"
        )
    for item in items:
        if isinstance(item, Tensor) and item.is_floating_point():
            return item
        if isinstance(item, (tuple, list, Mapping)):
            try:
                return select_output(item)
            except InvalidTarget:
                continue
    raise InvalidTarget(f"The model returned {type(output).__name__} without a float tensor: nothing to explain in it")


def score(output: Tensor, target: Any, mask: Tensor | None = None) -> tuple[Tensor, Any]:
    """One score per sample, and the target as resolved.

    Args:
        output: ``[N, ...]``.
        target: see the module's text.
        mask: ``[N, T]`` attention mask, for the last unpadded token.

    Returns:
        scores ``[N]``, and the resolved target (a LongTensor of classes where a class was chosen).

    Raises:
        InvalidTarget: for a target that the output does not have; the text lists the choices.
    """
    if isinstance(target, Sum):
        return output.flatten(1).sum(1) if output.dim() > 1 else output, target
    if isinstance(target, Margin):
        _want(output, 2, target)
        return _class(output, target.a) - _class(output, target.b), target
    if isinstance(target, (LogOdds, Contrast)):
        _want(output, 2, target)
        return _against(output, target)
    if isinstance(target, Token):
        return _token(output, target)
    if isinstance(target, Continuation):
        ids = _continuation(output, target)
        before = output[:, output.shape[1] - ids.shape[1] - 1 : output.shape[1] - 1]
        return before.gather(2, ids[:, :, None]).sum((1, 2)), Continuation(ids)
    if isinstance(target, Pixels):
        return _summed(output, target.c, target.where), target.c
    return _index(output, target, mask)


def _shape(output: Tensor) -> str:
    return f"[{', '.join(map(str, output.shape))}]"


def _want(output: Tensor, dim: int, target: Any) -> None:
    if output.dim() != dim:
        raise InvalidTarget(f"{target!r} needs an output of {dim} axes, not {_shape(output)}; choose {CHOICES}")


def _classes(output: Tensor, target: Any) -> Tensor:
    """Class indices ``[N]`` within axis 1 of the output."""
    n, c = output.shape[:2]
    if isinstance(target, int):
        index = torch.full((n,), target, dtype=torch.long)
    else:
        try:
            index = torch.as_tensor(target)
        except (TypeError, ValueError, RuntimeError):
            raise InvalidTarget(f"A target {target!r} is not known: choose {CHOICES}") from None
        if index.dtype.is_floating_point or index.dtype == torch.bool or index.dim() > 1:
            raise InvalidTarget(f"A target of type {index.dtype} and shape {tuple(index.shape)}: choose {CHOICES}")
        index = index.reshape(-1).long()
        index = index.expand(n) if index.numel() == 1 else index
    if index.numel() != n:
        raise InvalidTarget(f"{index.numel()} targets for {n} samples: pass one, or one for each")
    wrong = index[(index < -c) | (index >= c)]
    if wrong.numel():
        raise InvalidTarget(
            f"Target {int(wrong[0])} is out of range for an output of shape {_shape(output)}: 0 to {c - 1}"
        )
    return (index % c).to(output.device)


def _class(output: Tensor, target: Any) -> Tensor:
    index = _classes(output, target)
    return output.gather(1, index.unsqueeze(1)).squeeze(1)


def _predicted(output: Tensor) -> Tensor:
    return output.argmax(1)


def _against(output: Tensor, target: LogOdds | Contrast) -> tuple[Tensor, Any]:
    index = _predicted(output) if target.c is None else _classes(output, target.c)
    chosen = output.gather(1, index.unsqueeze(1)).squeeze(1)
    others = torch.arange(output.shape[1], device=output.device) != index[:, None]
    if output.shape[1] < 2:
        raise InvalidTarget(f"{target!r} needs at least two classes, not an output of shape {_shape(output)}")
    rest = output[others].view(output.shape[0], -1)
    against = torch.logsumexp(rest, 1) if isinstance(target, LogOdds) else rest.mean(1)
    return chosen - against, dataclasses.replace(target, c=index)


def _token(output: Tensor, target: Token) -> tuple[Tensor, Any]:
    _want(output, 3, target)
    length = output.shape[1]
    if not -length <= target.position < length:
        raise InvalidTarget(f"{target!r}: the output {_shape(output)} has positions 0 to {length - 1}")
    at = output[:, target.position]
    if target.id is not None:
        ids = torch.as_tensor(target.id)
        if bool(((ids < 0) | (ids >= output.shape[2])).any()):
            raise InvalidTarget(f"{target!r}: the output {_shape(output)} has tokens 0 to {output.shape[2] - 1}")
    index = _predicted(at) if target.id is None else _classes(at, target.id)
    return at.gather(1, index[:, None]).squeeze(1), index


def _continuation(output: Tensor, target: Continuation) -> Tensor:
    """The continuation's token ids for each sample, ``[N, L]``."""
    _want(output, 3, target)
    n, length, vocabulary = output.shape
    ids = torch.as_tensor(target.ids, device=output.device)
    ids = ids.expand(n, -1) if ids.dim() == 1 else ids
    if ids.dim() != 2 or len(ids) != n or not 0 < ids.shape[1] < length or ids.dtype.is_floating_point:
        raise InvalidTarget(
            f"Continuation(ids) of shape {tuple(ids.shape)} for an output {_shape(output)}: pass [L] or [{n}, L] token "
            f"ids, 1 to {length - 1} of them"
        )
    if bool(((ids < 0) | (ids >= vocabulary)).any()):
        raise InvalidTarget(f"Continuation(ids): the output {_shape(output)} has tokens 0 to {vocabulary - 1}")
    return ids.long()


def probability(output: Tensor, classes: Any) -> Tensor:
    """The probability of each sample's class, ``[N]``: of logits ``[N, C]`` the softmax, probabilities as they are.

    Args:
        output: what the model returned, C > 1; rows that are not negative and sum to 1 are probabilities.
        classes: LongTensor ``[N]``.

    Raises:
        InvalidTarget: another output or target.
    """
    if output.dim() != 2 or output.shape[1] < 2 or not isinstance(classes, Tensor):
        kind = "a class" if isinstance(classes, Tensor) else type(classes).__name__
        raise InvalidTarget(
            f"a probability needs a class of an output [N, C] with C > 1 as its target, not {kind} of "
            f"{_shape(output)}: ask for the score instead (measure='score', output='score')"
        )
    known = bool((output >= 0).all()) and bool(((output.double().sum(1) - 1).abs() < 1e-3).all())
    found = output if known else output.softmax(1)
    return found.gather(1, classes.to(output.device)[:, None]).squeeze(1)


def is_class(output: Tensor, target: Any) -> bool:
    """Whether a target picks one class of ``[N, C]`` scores for each sample."""
    return output.dim() == 2 and (target is None or isinstance(target, (int, list, Tensor)))


def is_function(target: Any) -> bool:
    """Whether a target is the user's own function of the output."""
    return callable(target) and not isinstance(target, Tensor)


def call(raw: Any, target: Callable[[Any], Any], n: int) -> Tensor:
    """Scores ``[N]`` from a user's function of what the model returned.

    Raises:
        InvalidTarget: where it returns anything else.
    """
    scores = target(raw)
    if not isinstance(scores, Tensor) or scores.dim() != 1 or len(scores) not in {n, _rows(raw)}:
        got = _shape(scores) if isinstance(scores, Tensor) else type(scores).__name__
        raise InvalidTarget(f"The target function must return scores [{n}], one a sample, not {got}")
    return scores


def _rows(raw: Any) -> int | None:
    """How many rows a model returned, which of graphs are not as many as it was given; None where it cannot be told."""
    try:
        output = select_output(raw)
    except InvalidTarget:
        return None
    return len(output) if output.dim() else None


def _index(output: Tensor, target: Any, mask: Tensor | None) -> tuple[Tensor, Any]:
    dim = output.dim()
    if isinstance(target, (bool, np.bool_)):
        raise InvalidTarget(f"A target {target!r} is no class: choose {CHOICES}")
    if isinstance(target, tuple) and dim == len(target) + 1 and all(isinstance(i, int) for i in target):
        for i, n in zip(target, output.shape[1:], strict=True):
            if not -n <= i < n:
                raise InvalidTarget(f"Target {target} is out of range for an output of shape {_shape(output)}")
        return output[(slice(None), *target)], target
    if hasattr(target, "__index__") and not getattr(target, "ndim", 0) and not isinstance(target, Tensor):
        target = operator.index(target)  # an integer of numpy's, say
    if target is not None and not isinstance(target, (int, Tensor, list, tuple)) and not hasattr(target, "__array__"):
        raise InvalidTarget(f"A target of type {type(target).__name__} is not known: choose {CHOICES}")
    if dim == 1:
        if target is not None and not (isinstance(target, int) and target == 0):
            raise InvalidTarget(f"An output of shape {_shape(output)} is one score a sample: leave the target out")
        return output, None
    if dim == 2:
        index = _predicted(output) if target is None else _classes(output, target)
        return output.gather(1, index.unsqueeze(1)).squeeze(1), index
    if dim == 3:
        return _last_token(output, target, mask)
    if dim in (4, 5):
        return _pixels(output, target)
    raise InvalidTarget(f"No default target for an output of shape {_shape(output)}: choose {CHOICES}")


def _last_token(output: Tensor, target: Any, mask: Tensor | None) -> tuple[Tensor, Any]:
    n, length, _ = output.shape
    last = torch.full((n,), length - 1, device=output.device)
    if mask is not None and mask.shape == output.shape[:2]:
        last = (mask.to(output.device) != 0).long().mul(torch.arange(length, device=output.device)).argmax(1)
    at = output[torch.arange(n, device=output.device), last]
    index = _predicted(at) if target is None else _classes(at, target)
    return at.gather(1, index.unsqueeze(1)).squeeze(1), index


def _pixels(output: Tensor, target: Any) -> tuple[Tensor, Any]:
    index = _winner(output) if target is None else _classes(output, target)
    return _summed(output, index, _won(output, index)), index


def _winner(output: Tensor) -> Tensor:
    """The class that wins most places of each sample, ``[N]``."""
    winners = _predicted(output)
    return torch.stack([(winners == k).flatten(1).sum(1) for k in range(output.shape[1])], 1).argmax(1)


def _won(output: Tensor, index: Tensor) -> Tensor:
    """Where the class wins; everywhere, if it wins nowhere."""
    shape = (-1, *[1] * (output.dim() - 2))
    own = _predicted(output) == index.view(shape)
    return own | (own.flatten(1).sum(1) == 0).view(shape)


def _summed(output: Tensor, index: Tensor, where: Tensor) -> Tensor:
    chosen = output[torch.arange(len(output), device=output.device), index]
    return (chosen * where.to(output.dtype)).flatten(1).sum(1)


def fixed(output: Tensor, target: Any, resolved: Any) -> Any:
    """A target that asks the same of every other input: what the output itself had chosen is written down.

    Args:
        output: of the explained input, ``[N, ...]``.
        target: as the user gave it; ``resolved``: as :func:`score` returned it.
    """
    if isinstance(target, Token):
        return dataclasses.replace(target, id=resolved)
    if output.dim() in (4, 5) and isinstance(resolved, Tensor) and not isinstance(target, Pixels):
        return Pixels(resolved, _won(output, resolved))
    return target if isinstance(target, Pixels) else resolved


def select(target: Any, rows: Tensor, n: int) -> Any:
    """The target of the samples at these indices, where there is one for each of ``n`` samples."""
    if isinstance(target, Continuation):
        each = torch.as_tensor(target.ids)
        return Continuation(each[rows.to(each.device)]) if each.dim() == 2 else target
    if isinstance(target, (LogOdds, Contrast, Token, Pixels)):
        parts = {f.name: select(getattr(target, f.name), rows, n) for f in dataclasses.fields(target)}
        return dataclasses.replace(target, **parts)
    if isinstance(target, Tensor):
        return target[rows.to(target.device)] if target.dim() and len(target) == n else target
    if isinstance(target, (list, tuple)) and len(target) == n:
        return type(target)(target[i] for i in rows.tolist())
    return target


def join(targets: Sequence[Any]) -> Any:
    """One resolved target for several batches."""
    first = targets[0]
    if isinstance(first, Tensor):
        return torch.cat(list(targets))
    if isinstance(first, (LogOdds, Contrast, Token, Continuation, Pixels)):
        fields = [f.name for f in dataclasses.fields(first)]
        return dataclasses.replace(first, **{k: join([getattr(t, k) for t in targets]) for k in fields})
    return first
