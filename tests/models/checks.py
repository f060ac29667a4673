"""What an explanation with no other argument must hold on a whole model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

import headwater as hw
from headwater.explanation import leaves
from tests.reference.audit import assert_balanced, assert_unchanged, fingerprint, mapped


def explained(e: hw.Explanation) -> hw.Explanation:
    """The same with a plain tuple of relevance: what was only passed on to the model (a mask) has none."""
    return dataclasses.replace(e, relevance=tuple(leaves(e.relevance)))


def own_scores(model: nn.Module, x: Any) -> tuple[Tensor, Tensor]:
    """The model's own scores to the last bit, with free and with frozen weights.

    Torch chooses kernels, and so rounding, by which tensors require grad; the input does here, as in an explanation.
    """
    x = mapped(lambda t: t.detach().clone().requires_grad_(t.is_floating_point()), x)
    args, named = ((), x) if isinstance(x, dict) else (x, None)

    def run(weights: dict[str, Tensor]) -> Tensor:
        output = functional_call(model, weights, args, named)
        return (output if isinstance(output, Tensor) else output.logits).detach()

    return run({}), run({k: p.detach() for k, p in model.named_parameters()})


def assert_own(output: Tensor, wanted: Iterable[Tensor]) -> None:
    """The explained output is one of those wanted, bit for bit."""
    wanted = list(wanted)
    said = [own.tolist() for own in wanted]
    assert any(torch.equal(output, own) for own in wanted), f"explained {output.tolist()}, the model says {said}"


def default_output(scores: Tensor) -> Tensor:
    """What is explained by default, by the shape of the scores; shape ``[N]``."""
    if scores.dim() == 4:  # the class that wins most pixels, over those pixels
        winners = scores.argmax(1)
        most = winners.flatten(1).mode(1).values
        own = winners == most[:, None, None]
        return (scores[torch.arange(len(scores)), most] * own).flatten(1).sum(1)
    last = scores[:, -1] if scores.dim() == 3 else scores
    return last.amax(1)


def assert_explains(model: nn.Module, x: Any, tolerance: float) -> hw.Explanation:
    """Explain with no other argument; see that everything about the explanation holds, and return it.

    Args:
        tolerance: what the ledger may leave unexplained at an operator, relative to ``|f| + sum |R|``.
    """
    before, own = fingerprint(model), own_scores(model, x)
    e = explained(hw.explain(model, x, ledger=True))
    shapes = [tuple(t.shape) for t in leaves(x)]
    for relevance in leaves(e.relevance):
        assert torch.isfinite(relevance).all(), "the relevance is not finite"
        assert relevance.is_floating_point()
        assert not relevance.requires_grad
        # The shape of one of the inputs; token ids have an axis more, the embedding's.
        assert any(relevance.shape in (shape, (*shape, relevance.shape[-1])) for shape in shapes)
    assert any(r.abs().sum() > 0 for r in leaves(e.relevance)), "all relevance is zero"
    assert_own(e.output, map(default_output, own))
    assert_balanced(e, tolerance)
    assert_unchanged(before, model)
    return e
