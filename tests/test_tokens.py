"""Token ids as input: explained at their embedding, one relevance for each token and dimension."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

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


def test_tokens_of_floats_is_an_error() -> None:
    e = hw.explain(nn.Linear(4, 3).eval(), torch.randn(2, 4))
    with pytest.raises(hw.HeadwaterError, match="token ids"):
        e.tokens()
