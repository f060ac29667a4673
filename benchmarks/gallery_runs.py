"""Every method on one subject: the maps of those that apply, and why the others do not."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import headwater as hw
from benchmarks.gallery_subjects import Subject
from headwater.explanation import leaves

# small budgets: the gallery shows what methods look like, not their last digit
BUDGETS: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 16},
    "smoothgrad": {"draws": 10},
    "smoothgrad_squared": {"draws": 10},
    "vargrad": {"draws": 10},
    "smooth_ig": {"starts": 2},
    "deeplift_shap": {"draws": 3},
    "expected_gradients": {"draws": 3, "steps": 4},
    "gradient_shap": {"draws": 3, "steps": 4},
    "internal_influence": {"steps": 8},
    "layer_conductance": {"steps": 8},
    "total_conductance": {"steps": 8},
    "neuron_conductance": {"steps": 8},
    "neuron_integrated_gradients": {"steps": 8},
    "monte_carlo_dropout": {"draws": 6},
    "taylor": {"steps": 30},
}
_HIDDEN = {"internal_influence", "layer_conductance", "total_conductance"}
_NEURONS = {"neuron_conductance", "neuron_integrated_gradients", "neuron_guided_backprop"}
_OWN_TARGET = {"neuron_integrated_gradients", "neuron_guided_backprop"}  # what they explain is the neuron
_REFERRING = {
    *("deeplift_shap", "expected_gradients", "gradient_shap"),
    *("conditional_prediction_difference", "feature_permutation"),
}


@dataclass
class Exhibit:
    """What is shown of one subject.

    Attributes:
        maps: relevance by method; ``[H, W]`` of a picture, ``[C, T]`` or ``[1, T]`` of a series, else ``[F]``.
        refusals: by method, what it said.
    """

    subject: Subject
    maps: dict[str, Tensor] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)


def exhibit(subject: Subject, say: Callable[[str], None] = lambda line: None) -> Exhibit:
    """Run every method of the register that is a single explanation.

    Args:
        subject: what is explained.
        say: told of each method when it is done.
    """
    shown, given = Exhibit(subject), options(subject)
    for row in hw.methods():
        if row.run is None:
            continue
        target = None if row.name in _OWN_TARGET else subject.target
        # only its rule at the input has use for them, and noise would leave them
        bounds = subject.bounds if row.name == "deep_taylor" else None
        began = time.perf_counter()
        try:
            chosen = {k: v for k, v in given.get(row.name, {}).items() if k in row.options}
            e = hw.explain(subject.model, subject.x, target, row.name, bounds=bounds, progress=False, **chosen)
            shown.maps[row.name] = map_of(e, subject)
        except hw.HeadwaterError as error:
            shown.refusals[row.name] = str(error)
        outcome = "refused" if row.name in shown.refusals else "shown"
        say(f"{subject.name}: {row.name} {outcome} ({time.perf_counter() - began:.1f} s)")
    return shown


def options(subject: Subject) -> dict[str, dict[str, Any]]:
    """The options of each method: small budgets, then what comes from the data, then the subject's own."""
    found = {name: dict(chosen) for name, chosen in BUDGETS.items()}

    def add(names: set[str], **chosen: Any) -> None:
        for name in names:
            found[name] = found.get(name, {}) | chosen

    add(_REFERRING, references=subject.references)
    add(_HIDDEN | _NEURONS, layer=subject.layer)
    add(_NEURONS, neuron=strongest(subject))
    if subject.others:
        add({"ensemble"}, models=subject.others)
    # a model without patterns is told so by the methods themselves
    patterns = _patterns(subject)
    if patterns is not None:
        add({"pattern_net", "pattern_attribution"}, patterns=patterns)
    for name, chosen in subject.options.items():
        add({name}, **chosen)
    return found


def _patterns(subject: Subject) -> hw.Patterns | None:
    try:
        return hw.patterns(subject.model, subject.references)
    except hw.HeadwaterError:
        return None


def strongest(subject: Subject) -> tuple[int, ...]:
    """The place of the largest activation in the output of the subject's layer."""
    kept: list[Tensor] = []
    handle = subject.model.get_submodule(subject.layer).register_forward_hook(lambda _m, _x, y: kept.append(y))
    with handle, torch.no_grad():
        subject.model(subject.x)
    hidden = kept[-1][0]
    return tuple(int(i) for i in torch.unravel_index(hidden.argmax(), hidden.shape))


def map_of(e: hw.Explanation, subject: Subject) -> Tensor:
    """What is drawn of an explanation: see :class:`Exhibit`.

    Raises:
        InvalidInput: what is explained has no places that are the input's.
        NonFinite: NaN or infinity in the relevance.
    """
    if e.method in _HIDDEN:
        return _of_layer(leaves(e.layers)[0][0], subject)
    relevance = (e.tokens() if subject.kind == "text" else e.relevance)[0].detach().double()
    if not relevance.isfinite().all():
        raise hw.errors.NonFinite(f"{int((~relevance.isfinite()).sum())} of its values are not finite")
    return relevance.sum(0) if subject.kind in ("picture", "sound") else relevance


def _of_layer(hidden: Tensor, subject: Subject) -> Tensor:
    """Relevance of a hidden layer, summed over its channels, at the places of the input."""
    places = tuple(subject.x.shape[1 if subject.kind == "text" else 2 :])
    if not places or hidden.dim() != len(places) + 1:
        raise hw.errors.InvalidInput(
            f"it explains the {math.prod(hidden.shape)} units of layer '{subject.layer}', which are no columns"
        )
    summed = hidden.detach().double().sum(0)[None, None]
    spread = F.interpolate(summed, places)[0, 0]
    return spread[None] if subject.kind == "series" else spread
