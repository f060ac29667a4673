"""Token ids as input: explained at their embedding, one relevance for each token and dimension."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

import headwater as hw
from tests.reference.audit import assert_same


class Reader(nn.Module):
    """Token ids to class scores."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.core, self.head = nn.Embedding(10, 4), nn.GRU(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.core(self.embed(ids))[0][:, -1])


def test_tokens_sum_the_embedding_axis() -> None:
    model, ids = Reader().double().eval(), torch.randint(10, (3, 6))
    e = hw.explain(model, ids)
    assert e.relevance.shape == (3, 6, 4)
    assert torch.equal(e.tokens(), e.relevance.sum(-1))
    assert torch.equal(e.inputs, ids)


def test_tokens_of_named_inputs() -> None:
    class Named(Reader):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return super().forward(input_ids) * attention_mask[:, :1]

    model, ids = Named().double().eval(), torch.randint(10, (3, 6))
    e = hw.explain(model, {"input_ids": ids, "attention_mask": torch.ones(3, 6, dtype=torch.long)})
    assert_same(e.tokens(), hw.explain(model, (ids, torch.ones(3, 6, dtype=torch.long))).tokens(), 1e-12)
    assert e.tokens().shape == (3, 6)


MOVED: dict[str, Callable[[nn.Embedding, Tensor], Tensor]] = {
    "as they are": lambda embed, ids: embed(ids),
    "sequence first": lambda embed, ids: embed(ids.t()).transpose(0, 1),
    "sequence first, contiguous": lambda embed, ids: embed(ids.t().contiguous()).transpose(0, 1),
    "flat": lambda embed, ids: embed(ids.reshape(-1)).view(*ids.shape, -1),
    "flipped": lambda embed, ids: embed(ids.flip(1)).flip(1),
    "one by one": lambda embed, ids: torch.stack([embed(ids[:, t]) for t in range(ids.shape[1])], 1),
    "in two halves": lambda embed, ids: torch.cat([embed(half) for half in ids.chunk(2, 1)], 1),
    "clamped": lambda embed, ids: embed(ids.clamp(min=0, max=9)),
    "looked up twice": lambda embed, ids: (embed(ids) + embed(ids)) / 2,
}


@pytest.mark.parametrize("way", MOVED)
def test_tokens_that_are_moved_before_they_are_looked_up(way: str) -> None:
    """The relevance belongs to the ids as they were given."""
    embed, weight = nn.Embedding(10, 4).double(), torch.randn(6, 4, 3, dtype=torch.float64)
    ids = torch.randint(10, (2, 6))
    e = hw.explain(lambda ids: torch.einsum("ntd,tdc->nc", MOVED[way](embed, ids), weight), ids, target=1)
    expected = torch.einsum("ntd,td->nt", embed(ids), weight[:, :, 1]).detach()
    assert_same(e.tokens(), expected, 1e-9)


def test_tokens_that_are_shifted_or_not_read() -> None:
    """A decoder reads a start token and all ids but the last, which so has no relevance; nor has the start token."""
    embed, weight = nn.Embedding(10, 4).double(), torch.randn(6, 4, 3, dtype=torch.float64)
    ids = torch.randint(1, 10, (2, 6))

    def shifted(ids: Tensor) -> Tensor:
        read = torch.zeros_like(ids)
        read[:, 1:] = ids[:, :-1]
        return torch.einsum("ntd,tdc->nc", embed(read), weight)

    def joined(ids: Tensor) -> Tensor:
        read = torch.cat([torch.zeros(2, 1, dtype=torch.long), ids[:, :-1]], 1)
        return torch.einsum("ntd,tdc->nc", embed(read), weight)

    expected = torch.einsum("ntd,td->nt", embed(ids)[:, :-1], weight[1:, :, 1]).detach()
    for model in (shifted, joined):
        e = hw.explain(model, ids, target=1)
        assert_same(e.tokens()[:, :-1], expected, 1e-9)
        assert (e.tokens()[:, -1] == 0).all()


def _filled_in_a_copy(ids: Tensor) -> Tensor:
    filled = ids.clone()
    filled.masked_fill_(ids > 5, 0)
    return torch.cat([filled, ids], 1)


# Ids among which others than those of the input are read: the given ones are 3 to 8, the others 0 to 2.
FILLED: dict[str, Callable[[Tensor], Tensor]] = {
    "number where not": lambda ids: torch.where(ids > 5, ids, 2),
    "number where": lambda ids: torch.where(ids > 5, 2, ids),
    "number where not, as a method": lambda ids: ids.where(ids > 5, 1),
    "number where not, named": lambda ids: torch.where(ids > 5, input=ids, other=1),
    "masked": lambda ids: ids.masked_fill(ids > 5, 1),
    "masked, named": lambda ids: ids.masked_fill(ids > 5, value=1),
    "masked in a copy": _filled_in_a_copy,
    "columns": lambda ids: ids.index_fill(1, torch.tensor([0, 4]), 2),
    "scattered": lambda ids: ids.scatter(1, torch.tensor([[3, 1]]), 1),
    "scattered ids": lambda ids: torch.zeros_like(ids).scatter(1, torch.tensor([[4, 1]]), ids[:, 2:4]),
    "put": lambda ids: ids.index_put((torch.tensor([0]), torch.tensor([1])), torch.tensor(2)),
    "padded": lambda ids: F.pad(ids, (2, 1), value=1),
    "padded rows": lambda ids: pad_sequence([ids[0], ids[0, 1:3]], batch_first=True, padding_value=2).flatten()[None],
    "padded rows, by nought": lambda ids: pad_sequence([ids[0, :2], ids[0]]).flatten()[None],
}


@pytest.mark.parametrize("way", FILLED)
def test_ids_that_are_filled_in_have_no_share_in_those_of_the_input(way: str) -> None:
    """A position has what its own id contributes, wherever it is read; other ids have it nowhere."""
    embed, ids = nn.Embedding(9, 4).double(), torch.tensor([[4, 8, 3, 7, 5, 6]])
    read = FILLED[way](ids)
    weight = torch.randn(read.shape[1], 4, 3, dtype=torch.float64)
    e = hw.explain(lambda ids: torch.einsum("ntd,tdc->nc", embed(FILLED[way](ids)), weight), ids, target=1)
    shares = (embed(read)[0] * weight[:, :, 1]).sum(-1).detach()
    expected = torch.stack([shares[read[0] == i].sum() for i in ids[0]])[None]
    assert_same(e.tokens(), expected, 1e-9)


def test_tokens_of_floats_is_an_error() -> None:
    e = hw.explain(nn.Linear(4, 3).eval(), torch.randn(2, 4))
    with pytest.raises(hw.HeadwaterError, match="token ids"):
        e.tokens()
