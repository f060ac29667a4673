"""``hw.analyze.repair``: a copy of a model that no longer heeds an artefact."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from headwater.analyze.repair.artefact import Artefact
from headwater.analyze.repair.figures import assess
from headwater.analyze.repair.labelled import Labelled
from headwater.analyze.repair.methods import METHODS, Job, corrections, options_of
from headwater.analyze.repair.outcome import Repair
from headwater.errors import InvalidInput, UnsupportedModel
from headwater.explain import explain
from headwater.target import LogOdds

_HELD = 0.2  # of the data, where there is nothing else to judge by


def repair(
    model: nn.Module,
    data: Any,
    artefact: Artefact,
    method: str = "augment",
    *,
    test: Any = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool | None = None,
    explaining: Mapping[str, Any] | None = None,
    **options: Any,
) -> Repair:
    """Repair a copy of a model so that it no longer decides by an artefact, and measure what that changed.

    ================  ==================================================================================================
    ``augment``       fine-tune with the artefact pasted on ``share`` of all samples, so that it tells nothing
    ``relabel``       fine-tune with ``labels`` in place of the selected samples' own
    ``p_clarc``       project the artefact's direction out of ``layer`` (by default the best of some); no training
    ``a_clarc``       fine-tune with the artefact put into the activations of ``layer``, along its direction
    ``rrr``           fine-tune with a penalty (``strength``) on relevance in the artefact's region (right for the right
                      reasons)
    ================  ==================================================================================================

    Args:
        model: returns logits ``[N, C]``; it stays as it is. It is judged and fine-tuned in evaluation mode: no dropout,
            statistics of batch norm as they are.
        data: samples with classes to learn from, as for :func:`headwater.run`; for ``relabel`` those of the selection.
        artefact: what :func:`headwater.analyze.artefact` found.
        method: one of these.
        test: samples with classes to judge by, which the model does not learn from; by default a fifth of ``data`` is
            held out for it.
        batch_size, seed, progress: of fine-tuning and judging.
        explaining: how relevance is computed, as for :func:`headwater.explain` (``composite``, ``bounds``, ``method``).
        **options: the method's own: ``direction`` ("signal", "paste", "svm") and ``layer`` of the ClArC methods;
            ``share``, ``labels``, ``strength``, ``members``; and of those that train ``epochs``, ``rate`` (Adam's) and
            ``train``, a pattern of parameters' names.

    Returns:
        A :class:`Repair`, whose ``model`` is the copy.

    Raises:
        InvalidInput: an unknown method or option, or data without classes or of another shape than the artefact's.
        UnsupportedModel: it returns no logits ``[N, C]``.
        NonFinite: fine-tuning diverged.

    Source: Anders et al.: Finding and removing Clever Hans, Information Fusion 77, 2022 (ClArC); Pahde et al. 2022 (its
    direction); Ross, Hughes and Doshi-Velez: Right for the right reasons, IJCAI 2017; Samek et al. 2021 (review),
    Section VII.
    """
    if not isinstance(artefact, Artefact):
        raise InvalidInput(f"pass an artefact, as headwater.analyze.artefact finds it, not {type(artefact).__name__}")
    _check(method, options, batch_size)
    samples = Labelled.of(data, seed)
    if method == "relabel":  # those that are held out are judged by their right labels too
        samples = replace(samples, corrected=corrections(artefact, options.get("labels")))
    learned, held = samples.divided(_HELD) if test is None else (samples, Labelled.of(test, seed))
    explaining = dict(explaining or {})
    made = copy.deepcopy(model).eval()
    example = _example(made, learned, held, artefact)
    asked = {"batch_size": batch_size, "seed": seed, "progress": progress, **explaining}
    before = assess(made, held, artefact, **asked)
    shown = [_relevance(made, example, artefact, explaining)]
    job = Job(made, learned, artefact, batch_size, seed, progress, explaining)
    METHODS[method](job, **options)
    shown.append(_relevance(made, example, artefact, explaining))
    after = assess(made, held, artefact, **asked)
    for module, original in zip(made.modules(), model.modules(), strict=True):
        module.training = original.training
    return Repair(made, method, artefact, before, after, job.facts, (example.cpu(), shown[0], shown[1]))


def _check(method: str, options: Mapping[str, Any], batch_size: int) -> None:
    if method not in METHODS:
        raise InvalidInput(f"unknown method {method!r}: choose from {', '.join(METHODS)}")
    known = options_of(method)
    unknown = [name for name in options if name not in known]
    if unknown:
        own = ", ".join(f"{name}={value!r}" for name, value in known.items())
        raise InvalidInput(f"{method!r} has no option {unknown[0]!r}; its options: {own}")
    if batch_size < 1:
        raise InvalidInput(f"batch_size must be at least 1, not {batch_size}")


def _example(model: nn.Module, learned: Labelled, held: Labelled, artefact: Artefact) -> Tensor:
    """A sample of another class with the artefact pasted, after a look at data and model."""
    for part in (learned, held):
        if not len(part):
            raise InvalidInput("data holds too few samples to keep some out: pass more, or test=")
        x, _ = part.batch(model, torch.arange(1))
        if x.shape[1:] != artefact.members.shape[1:]:
            raise InvalidInput(
                f"samples of shape {list(x.shape[1:])}, the artefact's are of {list(artefact.members.shape[1:])}: pass "
                "data prepared in the same way as what was explained"
            )
    some = held.first(64)
    x, y = some.batch(model, torch.arange(len(some)))
    with torch.no_grad():
        logits = model(x)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[1] < 2:
        found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UnsupportedModel(f"repair works on models that return logits [N, C] of two classes at least, not {found}")
    top = max(int(y.max()), -1 if artefact.target is None else artefact.target)
    if top >= logits.shape[1]:
        raise InvalidInput(f"class {top} among the labels, but the model has {logits.shape[1]} outputs")
    pasted = artefact.paste(x, torch.Generator().manual_seed(0))
    with torch.no_grad():
        moved = (model(pasted) - logits)[:, artefact.target or 0].masked_fill(y == artefact.target, -torch.inf)
    return pasted[moved.argmax()][None]


def _relevance(model: nn.Module, x: Tensor, artefact: Artefact, explaining: Mapping[str, Any]) -> Tensor:
    found: Tensor = explain(model, x, target=LogOdds(artefact.target), progress=False, **explaining).relevance
    return found.cpu()
