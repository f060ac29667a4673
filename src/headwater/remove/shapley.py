"""Shapley values: every feature's mean contribution over all orders in which features may be added."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from headwater.answer import Answer
from headwater.errors import InvalidInput
from headwater.question import Question
from headwater.remove.regression import constrained
from headwater.remove.removal import Removal, repeated, standard_error
from headwater.remove.sampling import check_count, orders, shapley_kernel

EXACT = 16  # features of which all coalitions are asked


def shapley_exact(
    question: Question, *, features: Any = None, imputer: Any = None, references: Any = None, argument: Any = None,
    layer: str | None = None,
) -> Answer:  # fmt: skip
    """Shapley values from all ``2^F`` coalitions: ``Σ_S |S|! (F - |S| - 1)! / F! (v(S + i) - v(S))``.

    The value ``v(S)`` of a coalition is the score with all other features removed; values sum to ``f(x) - v(nothing)``.

    Args:
        features, imputer, references, argument, layer: as for ``feature_ablation``; at most 16 features.

    Raises:
        InvalidInput: for more features.

    Source: Shapley 1953; Castro, Gómez, Tejada 2009, Eq. 1.
    """
    removal = Removal.of(question, features, imputer, references, argument, layer)
    n, most = removal.samples, removal.most
    if most > EXACT:
        raise InvalidInput(
            f"{most} features make 2^{most} coalitions: choose coarser features, at most {EXACT}, or 'shapley_sampling'"
        )
    size, bits = 1 << most, torch.arange(most)

    def removed(at: Tensor) -> Tensor:
        return ((at % size)[:, None] >> bits) & 1 == 0

    values = removal.without(removed, repeated(n, size)).mean(1).view(n, size)
    output = removal.output()
    values[:, -1] = output.double().cpu()
    scores = exact_values(values)
    return removal.answer(scores, output, values[:, 0], standard_error=torch.zeros_like(scores))


def exact_values(values: Tensor) -> Tensor:
    """Shapley values ``[N, F]`` of games ``[N, 2^F]``: bit i of a coalition's index says whether player i is in."""
    count = values.shape[1].bit_length() - 1
    members = sum(((torch.arange(values.shape[1]) >> i) & 1 for i in range(count)), torch.tensor(0))
    weight = torch.tensor([1 / (count * math.comb(count - 1, s)) for s in range(count)], dtype=torch.float64)
    found = []
    for i in range(count):
        joined = values.view(len(values), -1, 2, 1 << i)
        before = members.view(-1, 2, 1 << i)[:, 0]
        found.append(((joined[:, :, 1] - joined[:, :, 0]) * weight[before]).flatten(1).sum(1))
    return torch.stack(found, 1)


def shapley_sampling(
    question: Question, *, features: Any = None, permutations: int = 25, imputer: Any = None, references: Any = None,
    argument: Any = None, layer: str | None = None,
) -> Answer:  # fmt: skip
    """Shapley values from random orders: features are added one after the other, each is credited with what it adds.

    Every order's credits sum to ``f(x) - v(nothing)``, so the values do.

    Args:
        features, imputer, references, argument, layer: as for ``feature_ablation``.
        permutations: how many orders; the standard error falls with their root.

    Returns:
        ``details``: ``features`` ``[N, F]``, their ``standard_error``, ``masks``.

    Source: Castro, Gómez, Tejada: Polynomial Calculation of the Shapley Value Based on Sampling, 2009 (ApproShapley).
    """
    check_count("permutations", permutations, 2)  # one tells no error
    removal = Removal.of(question, features, imputer, references, argument, layer)
    n, most, counts = removal.samples, removal.most, removal.counts
    places = orders(removal.present, permutations, removal.generator)
    steps = counts - 1  # nothing and everything are asked once
    rows = torch.arange(n).repeat_interleave(permutations * steps)
    begin = (permutations * steps).cumsum(0) - permutations * steps

    def removed(at: Tensor) -> Tensor:
        own = rows[at]
        local = at - begin[own]
        order, step = local // steps[own], local % steps[own] + 1
        return places[own if len(places) > 1 else 0, order] >= step[:, None]

    answers = removal.without(removed, rows).mean(1)
    output, nothing = removal.output(), removal.nothing()
    chain = output.double().cpu()[:, None, None].expand(n, permutations, most + 1).clone()
    chain[:, :, 0] = nothing[:, None]
    inner = (torch.arange(most + 1) >= 1) & (torch.arange(most + 1) < counts[:, None])
    chain[inner[:, None].expand_as(chain)] = answers
    credits = chain.diff(dim=2).gather(2, places.expand(n, -1, -1))
    error = standard_error(credits, 1)
    return removal.answer(credits.mean(1), output, nothing, standard_error=error)


def kernel_shap(
    question: Question, *, features: Any = None, samples: int | None = None, imputer: Any = None,
    references: Any = None, argument: Any = None, layer: str | None = None,
) -> Answer:  # fmt: skip
    """Shapley values as the weighted linear regression of scores on coalitions, with their sum held to the gap.

    Args:
        features, imputer, references, argument, layer: as for ``feature_ablation``.
        samples: coalitions that are asked; None: ``2 F + 2048``. Where that suffices for all, the values are exact.

    Returns:
        ``details``: ``features`` ``[N, F]``, their ``standard_error`` (0 where all coalitions were asked), ``fit`` the
        weighted R² of the additive model, ``[N]``, ``masks``.

    Source: Lundberg, Lee: A Unified Approach to Interpreting Model Predictions, NeurIPS 2017, Theorem 2.
    """
    if samples is not None:
        check_count("samples", samples, 2)
    removal = Removal.of(question, features, imputer, references, argument, layer)
    output, nothing = removal.output(), removal.nothing()
    gap = output.double().cpu() - nothing
    scores = torch.zeros(removal.present.shape, dtype=torch.float64)
    error, fit = torch.zeros_like(scores), torch.ones(removal.samples, dtype=torch.float64)
    for count, own in removal.alike():
        if count == 1:
            scores[own, 0] = gap[own]
            continue
        wanted = 2 * count + 2048 if samples is None else samples
        kept, weights, drawn = shapley_kernel(count, wanted, removal.question.generator())
        values = removal.with_only(kept, own) - nothing[own, None]
        found = constrained(kept.double(), values.T, weights, gap[own], drawn)
        scores[own, :count], error[own, :count], fit[own] = found
    return removal.answer(scores, output, nothing, standard_error=error, fit=fit)
