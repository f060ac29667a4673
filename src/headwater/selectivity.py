"""Class selectivity: relevance for one class against the others, by what is put in at the output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from inspect import isfunction
from typing import Any

import torch
from torch import Tensor

from headwater import target as targets
from headwater.answer import Answer
from headwater.errors import InvalidTarget
from headwater.method import Method
from headwater.propagate.rules import divide
from headwater.question import Question

_RULES = "epsilon_plus"


def contrastive_lrp(question: Question, *, rectify: bool = True) -> Answer:
    """CLRP: relevance of a class minus that of all others together, to which the same score is dealt out evenly.

    Gu, Yang, Tresp 2018, Eq. 3 to 5, with the dual "other classes" (CLRP1).

    Args:
        question: about classes of an output ``[N, C]``.
        rectify: keep only what speaks for the class (the paper's maximum with zero).

    Raises:
        InvalidTarget: where the target is no class.
    """

    def others(logits: Tensor, chosen: Tensor) -> Tensor:
        score = logits.gather(1, chosen[:, None])
        return (score / (logits.shape[1] - 1)).expand_as(logits).scatter(1, chosen[:, None], 0.0)

    def one(part: Question) -> Answer:
        own, dual = part.walk(_RULES), _seeded(part, others).walk(_RULES)
        pairs = zip(own.relevance, dual.relevance, strict=True)
        own.relevance = [None if a is None or b is None else _rest(a - b, rectify) for a, b in pairs]
        return own

    return _classes(question).each(one)


def softmax_gradient_lrp(question: Question) -> Answer:
    """SGLRP: the gradient of the class's softmax by the logits is the relevance at the output.

    It is ``p_t (1 - p_t)`` for the class and ``-p_t p_k`` for the others (Iwana, Kuroki, Uchida 2019), so that the
    answer weighs the class against its competitors and sums to about zero.

    Raises:
        InvalidTarget: where the target is no class.
    """

    def seeds(logits: Tensor, chosen: Tensor) -> Tensor:
        p = logits.softmax(1)
        own = p.gather(1, chosen[:, None])
        return -own * p + torch.zeros_like(p).scatter(1, chosen[:, None], own)

    def one(part: Question) -> Answer:
        answer = _seeded(part, seeds).walk(_RULES)
        answer.output, answer.target = part.scores(), part.target
        return answer

    return _classes(question).each(one)


def _rest(difference: Tensor, rectify: bool) -> Tensor:
    return difference.clamp(min=0) if rectify else difference


def _classes(question: Question) -> Question:
    """The question about classes, written down.

    Raises:
        InvalidTarget: where it is about anything else.
    """
    fixed = question.fixed()
    if not isinstance(fixed.target, Tensor) or fixed.target.dim() != 1:
        asked = question.target
        named = f"the function {asked.__name__}" if isfunction(asked) else repr(asked)
        raise InvalidTarget(
            f"Class selectivity needs a class of an output [N, C] as its target, not {named}: pass ints, or ask "
            "method='lrp' for target=headwater.target.LogOdds(c)"
        )
    return fixed


def _seeded(part: Question, seeds: Callable[[Tensor, Tensor], Tensor]) -> Question:
    """The question about a score whose relevance at the logits is ``seeds(logits, classes)``, both ``[N, C]``."""

    def score(raw: Any) -> Tensor:
        logits = targets.select_output(raw)
        if logits.dim() != 2 or logits.shape[1] < 2:
            raise InvalidTarget(
                f"Class selectivity needs logits [N, C] of two classes or more, not {tuple(logits.shape)}"
            )
        with torch._C.DisableTorchFunction():  # what enters is a constant, no part of the model
            value = logits.detach()
            weights = divide(seeds(value, part.target.to(value.device)).clone(), value.clone())
        return (logits * weights).sum(1)

    return replace(part, target=score)


ROWS = (
    Method(
        "contrastive_lrp", "CLRP", "propagate",
        "Gu, Yang, Tresp: Understanding Individual Decisions of CNNs via Contrastive Backpropagation, ACCV 2018",
        "class logits", "LRP of a class minus LRP of all others", contrastive_lrp, composite=_RULES,
        rules=True, takes=(),
    ),
    Method(
        "softmax_gradient_lrp", "SGLRP", "propagate",
        "Iwana, Kuroki, Uchida: Explaining CNNs using Softmax Gradient LRP, ICCV Workshops 2019",
        "class logits", "LRP from the gradient of the class's softmax", softmax_gradient_lrp, composite=_RULES,
        rules=True, takes=(),
    ),
)  # fmt: skip
