"""Prediction difference analysis against its formula in plain loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater.remove.references import Marginal


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3)).double().eval()


def log_odds(p: Tensor, examples: int, classes: int) -> Tensor:
    p = (p * examples + 1) / (examples + classes)
    return torch.log2(p / (1 - p))


@pytest.mark.parametrize("measure", ["weight_of_evidence", "information", "probability", "score"])
def test_marginal_against_a_loop(measure: Any) -> None:
    model, x, reference = network(), torch.randn(2, 6).double(), torch.randn(7, 6).double()
    found = hw.explain(
        model,
        x,
        target=2,
        method="prediction_difference",
        measure=measure,
        examples=500,
        imputer=Marginal(reference, None),
    )

    def said(rows: Tensor) -> Tensor:
        with torch.no_grad():
            return model(rows)[:, 2] if measure == "score" else model(rows).softmax(1)[:, 2]

    def read(p: Tensor) -> Tensor:
        if measure == "weight_of_evidence":
            return log_odds(p, 500, 3)
        return p.log2() if measure == "information" else p

    for n in range(2):
        for i in range(6):
            unknown = x[n].repeat(7, 1)
            unknown[:, i] = reference[:, i]
            expected = read(said(x[n : n + 1]))[0] - read(said(unknown).mean())
            torch.testing.assert_close(found.relevance[n, i], expected)
    torch.testing.assert_close(found.output, read(said(x)))


def test_conditional_takes_the_nearest() -> None:
    model, x, reference = network(), torch.randn(2, 6).double(), torch.randn(40, 6).double()
    found = hw.explain(model, x, target=0, method="conditional_prediction_difference", references=reference, k=3)
    scale = reference.std(0, correction=0)
    with torch.no_grad():
        for i in range(6):
            others = [j for j in range(6) if j != i]
            distance = ((x[1] - reference) / scale)[:, others].square().sum(1)
            unknown = x[1].repeat(3, 1)
            unknown[:, i] = reference[distance.argsort()[:3], i]
            p, q = model(x[1:2]).softmax(1)[0, 0], model(unknown).softmax(1)[:, 0].mean()
            torch.testing.assert_close(found.relevance[1, i], log_odds(p, 10**6, 3) - log_odds(q, 10**6, 3))


def test_what_correlates_is_judged_by_what_is_around() -> None:
    """A copy of a column tells what the column was: conditionally, a model of one of them loses nothing."""
    column = torch.randn(400, 1).double()
    reference = torch.cat([column, column + 0.01 * torch.randn(400, 1)], 1)
    x = torch.tensor([[1.5, 1.5]]).double()

    def model(rows: Tensor) -> Tensor:
        return torch.stack([4 * rows[:, 0], torch.zeros(len(rows)).to(rows)], 1)

    marginal = hw.explain(model, x, target=0, method="prediction_difference", references=reference)
    conditional = hw.explain(model, x, target=0, method="conditional_prediction_difference", references=reference, k=5)
    assert marginal.relevance[0, 0] > 2
    assert conditional.relevance[0, 0].abs() < 0.3


def test_contexts_show_what_saturation_hides() -> None:
    """Either of two words suffices: removing one alone changes nothing, in random contexts it does."""

    def model(rows: Tensor) -> Tensor:
        found = 12 * rows[:, :2].amax(1) - 6
        return torch.stack([found, -found], 1)

    x = torch.ones(1, 4).double()
    plain = hw.explain(model, x, target=0, method="prediction_difference", imputer=0)
    context = hw.explain(model, x, target=0, method="contextual_prediction_difference", imputer=0)
    assert plain.relevance.abs().max() < 1e-9
    assert (context.relevance[0, :2] > 5).all()
    error = context.details["standard_error"][0, 2:]
    assert (context.relevance[0, 2:].abs() < 5 * error).all()


def test_probabilities_are_taken_as_they_are() -> None:
    model, x = network(), torch.randn(2, 6).double()
    logits = hw.explain(model, x, target=1, method="prediction_difference")
    probabilities = hw.explain(lambda v: model(v).softmax(1), x, target=1, method="prediction_difference")
    torch.testing.assert_close(logits.relevance, probabilities.relevance)


def test_refusals() -> None:
    model, x = network(), torch.randn(2, 6).double()
    with pytest.raises(hw.InvalidInput, match="references="):
        hw.explain(model, x, method="conditional_prediction_difference")
    with pytest.raises(hw.InvalidInput, match="measure"):
        hw.explain(model, x, method="prediction_difference", measure="odds")
    with pytest.raises(hw.InvalidTarget, match="measure='score'"):
        hw.explain(lambda v: v.sum(1), x, method="prediction_difference")
    with pytest.raises(hw.InvalidInput, match="samples"):
        hw.explain(model, x, method="contextual_prediction_difference", samples=2)
