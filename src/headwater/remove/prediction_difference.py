"""Prediction difference analysis: what the model would say if it did not know a feature."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from headwater import target as targets
from headwater.answer import Answer
from headwater.errors import InvalidInput
from headwater.question import Question
from headwater.remove.imputers import Noise
from headwater.remove.occlusion import slide
from headwater.remove.references import Conditional
from headwater.remove.removal import Removal
from headwater.remove.sampling import check_count, subsets

Measure = Literal["weight_of_evidence", "information", "probability", "score"]
MEASURES = ("weight_of_evidence", "information", "probability", "score")
UNKNOWN = 10  # draws of what might have stood in the place of a feature


def prediction_difference(
    question: Question, *, window: Any = None, stride: Any = None, measure: Measure = "weight_of_evidence",
    examples: int = 1_000_000, imputer: Any = None, references: Any = None, argument: Any = None,
    layer: str | None = None,
) -> Answer:  # fmt: skip
    """How much the class's log-odds fall where a feature is not known: averaged over what it might have been.

    ``p(c | x without i) ≈ mean_d p(c | x with draw d in the place of i)``; ``R_i = log2 odds(c | x) - log2 odds(c | x
    without i)``, with probabilities corrected to ``(p n + 1) / (n + C)`` by Laplace's rule.

    Args:
        window, stride, argument, layer: as for ``occlusion``; each entry gets the mean of the windows that cover it.
        measure: "weight_of_evidence" (above), "information" (``log2 p``), "probability", or "score": the difference
            of the target's own scores, for models that are no classifiers.
        examples: n of Laplace's rule, the size of the training set.
        imputer: what draws; by default "marginal" with a reference set, and without one Gaussian noise with each
            sample's own mean and deviation per channel. ``references``: examples ``[M, ...]``.

    Returns:
        ``output`` is the measure at ``x``; ``details`` as for ``occlusion``.

    Raises:
        InvalidInput: an unknown measure; InvalidTarget: a target that is no class, for all but "score".

    Source: Zintgraf, Cohen, Adel, Welling: Visualizing Deep Neural Network Decisions, ICLR 2017; Robnik-Šikonja,
    Kononenko: Explaining Classifications for Individual Instances, IEEE TKDE 20(5), 2008.
    """
    removal = _removal(question, measure, imputer, references, argument, layer)
    read = _Reading(measure, examples, _classes(removal) if measure == "weight_of_evidence" else 0)
    return slide(removal, window, stride, read)


def conditional_prediction_difference(
    question: Question, *, references: Any = None, k: int = UNKNOWN, margin: int | None = None, window: Any = None,
    stride: Any = None, measure: Measure = "weight_of_evidence", examples: int = 1_000_000, argument: Any = None,
    layer: str | None = None,
) -> Answer:  # fmt: skip
    """Prediction difference where what a feature might have been depends on what is around it.

    Args:
        references: examples ``[M, ...]``; the ``k`` that are nearest in what is left of the input fill the hole.
        margin: judge near by so many pixels or steps around the hole alone.
        window, stride, measure, examples, argument, layer: as for :func:`prediction_difference`.

    Raises:
        InvalidInput: without a reference set.

    Source: Zintgraf et al. 2017, Section 3.1; with neighbours in the place of its Gaussian.
    """
    if references is None:
        raise InvalidInput("conditional prediction difference needs examples: pass references=, [M, ...] like x")
    return prediction_difference(
        question, window=window, stride=stride, measure=measure, examples=examples,
        imputer=Conditional(references, k, margin), argument=argument, layer=layer,
    )  # fmt: skip


def contextual_prediction_difference(
    question: Question, *, features: Any = None, samples: int = 1000, measure: Measure = "weight_of_evidence",
    examples: int = 1_000_000, imputer: Any = None, references: Any = None, argument: Any = None,
    layer: str | None = None,
) -> Answer:  # fmt: skip
    """Prediction difference in random contexts, of which the model knows half: no class is sure in all of them.

    A sure prediction does not change when one feature goes. So every feature is left out with probability 1/2,
    ``R_i = E[m(x_S) | i in S] - E[m(x_S) | i not in S]`` for the measure m, and all features share the same answers.

    Args:
        features: as for ``feature_ablation``. samples: random contexts.
        measure, examples, imputer, referencess, argument, layer: as for :func:`prediction_difference`.

    Returns:
        ``details``: ``features`` ``[N, F]``, their ``standard_error``, ``masks``.

    Source: Gu, Tresp: Contextual Prediction Difference Analysis, 2019, for its aim (saturated classifiers, far fewer
    calls); the contexts and their average, a Banzhaf value, are ours.
    """
    check_count("samples", samples, 4)
    removal = _removal(question, measure, imputer, references, argument, layer, features)
    read = _Reading(measure, examples, _classes(removal) if measure == "weight_of_evidence" else 0)
    scores = torch.zeros(removal.present.shape, dtype=torch.float64)
    error = torch.zeros_like(scores)
    for count, own in removal.alike():
        kept = subsets(count, samples, removal.question.generator())
        values = read(removal.with_only(kept, own))
        with_it, error_with = _mean(values, kept)
        without, error_without = _mean(values, ~kept)
        scores[own, :count] = with_it - without
        error[own, :count] = (error_with + error_without).sqrt()
    return removal.answer(scores, read(removal.output()), standard_error=error)


class _Reading:
    """A measure of what the model said."""

    def __init__(self, measure: Measure, examples: int, classes: int) -> None:
        self.measure, self.examples, self.classes = measure, examples, classes

    def __call__(self, p: Tensor) -> Tensor:
        if self.measure in ("score", "probability"):
            return p
        p = p.double()
        if self.measure == "information":
            return p.clamp(min=torch.finfo(p.dtype).tiny).log2()
        p = (p * self.examples + 1) / (self.examples + self.classes)
        return p.log2() - (1 - p).log2()


def _removal(
    question: Question,
    measure: Any,
    imputer: Any,
    references: Any,
    argument: Any,
    layer: str | None,
    features: Any = None,
) -> Removal:
    if measure not in MEASURES:
        raise InvalidInput(f"measure must be one of {', '.join(MEASURES)}, not {measure!r}")
    removal = Removal.of(question, features, imputer, references, argument, layer, default=Noise(draws=UNKNOWN))
    return removal if measure == "score" else removal.asking_probability()


def _classes(removal: Removal) -> int:
    """C, how many classes the model tells apart."""
    question = removal.question.select(torch.tensor([0]))
    found: list[int] = []

    def count(raw: Any) -> Tensor:
        output = targets.select_output(raw)
        found.append(output.shape[1] if output.dim() == 2 else 2)
        return output.flatten(1)[:, 0] if output.dim() > 1 else output

    replace(question, target=count).scores()
    return found[0]


def _mean(values: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Means ``[n, c]`` of values ``[n, M]`` over the chosen ``[M, c]``, and the squared errors of these means."""
    chosen = chosen.to(values.dtype)
    count = chosen.sum(0).clamp(min=2)
    mean = values @ chosen / count
    variance = (values.square() @ chosen / count - mean.square()).clamp(min=0)
    return mean, variance / (count - 1)
