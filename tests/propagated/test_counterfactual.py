"""Counterfactual tokens by brute force on texts whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater.counterfactual import counterfactual_tokens
from tests.reference.audit import assert_unchanged as unchanged
from tests.reference.audit import fingerprint
from tests.reference.nets import double, draw


class Votes(nn.Module):
    """Each token votes for a class; id 0 is silent."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        votes = self.table(input_ids)
        return (votes if attention_mask is None else votes * attention_mask[..., None]).sum(1)


def voters() -> Votes:
    model = double(Votes())
    with torch.no_grad():
        model.table.weight.copy_(torch.tensor([[0.0, 0], [3, 0], [1, 0], [0, 2], [0, 1], [0, 0.5]]))
    return model


def test_the_tokens_that_decide_are_removed_first() -> None:
    model, ids = voters(), torch.tensor([[1, 2, 3, 4], [4, 1, 5, 3], [2, 2, 2, 3]])
    before = fingerprint(model)
    found = counterfactual_tokens(model, ids, 0, batch_size=2)
    assert found.before.tolist() == [0, 1, 0]
    assert found.removed == [[0], [3], [0, 1]]
    assert found.flipped.tolist() == [True, True, True]
    assert found.after.tolist() == [1, 0, 1]
    assert found.margins[2] == [1.0, 0.0, -1.0]
    assert found.ids[0].tolist() == [0, 2, 3, 4]
    unchanged(before, model)


def test_protected_tokens_limits_and_dictionaries() -> None:
    model, ids = voters(), torch.tensor([[1, 2, 3, 4]])
    stays = counterfactual_tokens(model, ids, 0, protected=torch.tensor([True, False, False, False]))
    assert stays.removed == [[1]]  # 3 against 3: then nothing that is left speaks for the class
    assert counterfactual_tokens(model, ids, 0, most=0).removed == [[]]
    named = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    assert counterfactual_tokens(model, named, 0).removed == [[0]]
    assert counterfactual_tokens(model, ids, 0, target=1).flipped.tolist() == [True]


def test_refusals() -> None:
    model, ids = voters(), torch.tensor([[1, 2, 3, 4]])
    with pytest.raises(hw.InvalidInput, match="token ids"):
        counterfactual_tokens(double(nn.Sequential(nn.Linear(4, 2))), draw(2, 4), 0)
    with pytest.raises(hw.InvalidInput, match="protected"):
        counterfactual_tokens(model, ids, 0, protected=torch.tensor([True]))
    with pytest.raises(hw.InvalidTarget, match="two classes"):
        counterfactual_tokens(lambda i: model(i)[:, :1], ids, 0)
