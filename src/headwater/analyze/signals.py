"""Numbers that follow a model through its training: how spiky, how spread, how redundant its signals are."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headwater.analyze.maps import array_of
from headwater.errors import InvalidInput
from headwater.explain import explain
from headwater.explanation import Explanation

THRESHOLDS = (0.1, 0.5, 0.9)


def mean_power(relevance: Any, thresholds: Sequence[float] = THRESHOLDS) -> NDArray[np.float64]:
    """How spiky a layer's relevance is, ``[N, thresholds]``: larger where few units carry most of it.

    ``MP = (MP⁺ + MP⁻) / 2`` with ``MP± = mean{X : X ≥ t} / mean{X : X < t}`` of the positive part and of the negative
    part's magnitude ``X``, over all units of a sample.

    Args:
        relevance: of one layer, ``[N, ...]``. thresholds: shares of the sample's largest magnitude (the paper does not
            say which one it used).

    Returns:
        A side without any unit at or above the threshold is left out; NaN without either (a sample of zeros), and
        infinity where all units below the threshold are zero.

    Raises:
        InvalidInput: thresholds outside (0, 1].

    Source: Tjoa and Guan 2020, Section 4.1.
    """
    if not thresholds or not all(0 < t <= 1 for t in thresholds):
        raise InvalidInput(f"thresholds are shares in (0, 1] of the largest magnitude, not {list(thresholds)}")
    r = _flat(relevance)
    largest = np.abs(r).max(1, keepdims=True)
    sides = [[_power(np.maximum(sign * r, 0), t * largest) for t in thresholds] for sign in (1, -1)]
    found = np.array(sides)  # [sides, thresholds, N]
    defined = ~np.isnan(found)
    total = np.where(defined, found, 0.0).sum(0)
    count = defined.sum(0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0).T


def _power(x: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    above = (x >= t) & (t > 0)
    n, m = above.sum(1), (~above).sum(1)
    upper = np.where(above, x, 0.0).sum(1) / np.maximum(n, 1)
    lower = np.where(above, 0.0, x).sum(1) / np.maximum(m, 1)
    ratio = np.divide(upper, lower, out=np.full(len(x), np.inf), where=lower > 0)
    return np.where(n > 0, ratio, np.nan)


def spread(
    relevance: Any, axis: int = -1, part: Literal["positive", "negative", "absolute"] = "positive", rate: float = 1.0
) -> NDArray[np.float64]:
    """How wide relevance is spread along an axis, ``[N]``: the standard deviation of the steps, weighted by relevance.

    Args:
        relevance: ``[N, ...]``. axis: of time, say; the other axes are summed over. part: of the relevance that weighs.
        rate: steps a second, for a result in seconds.

    Returns:
        NaN for a sample without relevance of that sign.

    Raises:
        InvalidInput: no such axis or part, or the axis of samples.

    Source: Majstorović, Giffard-Roisin, Poli 2023, σ_LRP.
    """
    r = np.asarray(array_of(relevance), np.float64)
    if r.ndim < 2 or not -r.ndim < axis < r.ndim or axis % r.ndim == 0:
        raise InvalidInput(f"axis {axis} is none of the features of relevance of shape {r.shape}")
    if part not in ("positive", "negative", "absolute"):
        raise InvalidInput(f"part must be 'positive', 'negative' or 'absolute', not {part!r}")
    kept = {"positive": np.maximum(r, 0), "negative": np.maximum(-r, 0), "absolute": np.abs(r)}[part]
    weights = np.moveaxis(kept, axis, 1).reshape(r.shape[0], r.shape[axis], -1).sum(2)
    total = weights.sum(1)
    weights = np.divide(weights, total[:, None], out=np.full(weights.shape, np.nan), where=total[:, None] > 0)
    steps = np.arange(weights.shape[1]) / rate
    middle = weights @ steps
    return np.sqrt((weights * (steps - middle[:, None]) ** 2).sum(1))


@dataclass(frozen=True)
class Match:
    """How alike the channels of two layers are (or of one layer and itself).

    Attributes:
        correlation: Pearson's r of every pair, ``[C, D]``.
        best: of each channel of the first the largest r with one of the second (within one layer: another), ``[C]``.
        share: of the first's channels whose best r exceeds the threshold.
        pairs: the second's channel for each, one to one, with the largest sum of r; -1 for none.
    """

    correlation: NDArray[np.float64]
    best: NDArray[np.float64]
    share: float
    pairs: NDArray[np.int64]


def redundancy(maps: Any, threshold: float = 0.8) -> Match:
    """How many channels of a layer have a double among the others.

    Args:
        maps: activations or relevance ``[N, C, ...]``; two axes are the ``[C, T]`` of one sample.

    Source: Majstorović, Giffard-Roisin, Poli 2023: 49 % of 32 channels with r > 0.8.
    """
    r = _correlation(_channels(maps), _channels(maps))
    others = r.copy()
    np.fill_diagonal(others, -np.inf)
    return _match(r, others, threshold)


def match(first: Any, second: Any, threshold: float = 0.8) -> Match:
    """How many channels of one network's layer are found again in another's, whose channels come in another order.

    Args:
        first, second: ``[N, C, ...]`` and ``[N, D, ...]`` of the same samples; two axes are ``[C, T]`` of one.

    Raises:
        InvalidInput: shapes that differ in more than the number of channels.

    Source: Majstorović, Giffard-Roisin, Poli 2023: over 75 % of the channels with r > 0.8.
    """
    a, b = _channels(first), _channels(second)
    if a.shape[1] != b.shape[1]:
        raise InvalidInput(f"the maps differ in more than channels: {array_of(first).shape}, {array_of(second).shape}")
    r = _correlation(a, b)
    return _match(r, r, threshold)


def _match(r: NDArray[np.float64], candidates: NDArray[np.float64], threshold: float) -> Match:
    from scipy.optimize import linear_sum_assignment

    best = candidates.max(1)
    rows, columns = linear_sum_assignment(np.where(np.isfinite(candidates), -candidates, 2.0))
    pairs = np.full(len(r), -1)
    pairs[rows] = columns
    return Match(r, best, float((best > threshold).mean()), pairs)


def _channels(maps: Any) -> NDArray[np.float64]:
    """``[C, everything else]``."""
    x = np.asarray(array_of(maps), np.float64)
    if x.ndim < 2:
        raise InvalidInput(f"feature maps need an axis of channels and one more, not shape {x.shape}")
    x = x[None] if x.ndim == 2 else x
    return np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's r of all rows; 0 for a channel that is constant."""

    def unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
        x = x - x.mean(1, keepdims=True)
        length = np.linalg.norm(x, axis=1, keepdims=True)
        return np.divide(
            x, length, out=np.zeros_like(x), where=length > 1e-12 * max(1.0, float(np.abs(x).max(initial=0)))
        )

    return np.clip(unit(a) @ unit(b).T, -1.0, 1.0)


def feature_maps(model: nn.Module, x: Any, layer: str) -> Tensor:
    """The output of a module on an input, detached: ``[N, C, ...]``.

    Raises:
        InvalidInput: no such module, or one that was not called.
    """
    try:
        module = model.get_submodule(layer)
    except AttributeError:
        raise InvalidInput(
            f"the model has no module {layer!r}; it has {', '.join(n for n, _ in model.named_modules() if n)}"
        ) from None
    caught: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: caught.append(output.detach().clone()))
    try:
        with torch.no_grad():
            model(*x) if isinstance(x, tuple) else model(**x) if isinstance(x, Mapping) else model(x)
    finally:
        handle.remove()
    if not caught:
        raise InvalidInput(f"the model did not call {layer!r} on this input")
    return caught[-1]


def over_training(
    model: nn.Module,
    checkpoints: Mapping[Any, Mapping[str, Tensor] | str | os.PathLike[str]],
    x: Any,
    measures: Mapping[str, Callable[[Explanation], Any]],
    **options: Any,
) -> dict[str, NDArray[Any]]:
    """Explain the same samples at every checkpoint, and measure each explanation.

    Mean Power of a layer over iterations is ``{"conv1": lambda e: mean_power(e.layers["conv1"])}`` with
    ``layers=["conv1"]``; relevance on objects is a :class:`FeatureGroups` of the relevance.

    Args:
        model: a module; its own weights are not touched.
        checkpoints: iterations (any names) with state dicts, or with files of them (safetensors, or what torch loads
            with ``weights_only=True``).
        x: the samples. measures: names and functions of an explanation. options: for :func:`headwater.explain`.

    Returns:
        ``"step"``: the names ``[S]``, and each measure's results ``[S, ...]``.

    Raises:
        InvalidInput: no checkpoint or measure, or weights that do not fit.

    Source: Tjoa and Guan 2020 (Mean Power); Samek et al. 2021 (review), Fig. 17 (objects).
    """
    if not checkpoints or not measures:
        raise InvalidInput("no checkpoint or no measure: name one of each at least")
    model = copy.deepcopy(model)
    found: dict[str, list[Any]] = {name: [] for name in measures}
    for step, checkpoint in checkpoints.items():
        try:
            model.load_state_dict(checkpoint if isinstance(checkpoint, Mapping) else _read(Path(checkpoint)))
        except RuntimeError as error:
            raise InvalidInput(f"the weights of checkpoint {step!r} do not fit the model: {error}") from error
        e = explain(model, x, progress=False, **options)
        for name, measure in measures.items():
            found[name].append(array_of(measure(e)))
    return {"step": np.array(list(checkpoints)), **{name: np.stack(values) for name, values in found.items()}}


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _flat(relevance: Any) -> NDArray[np.float64]:
    r = np.asarray(array_of(relevance), np.float64)
    if r.ndim < 2 or not r.size:
        raise InvalidInput(f"relevance must be [N, ...] with units in each sample, not of shape {r.shape}")
    return r.reshape(len(r), -1)
