"""Relevance of channels and groups, and the samples that speak most for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater import concepts
from tests.reference.audit import assert_same, fingerprint
from tests.reference.audit import assert_unchanged as unchanged
from tests.reference.nets import double, draw


def network() -> nn.Sequential:
    return double(
        nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)), 0.4
    )


def test_channels_are_the_layers_relevance_summed_over_places() -> None:
    model, x = network(), draw(3, 2, 8, 8)
    whole = hw.explain(model, x, target=1, layers=["3", "5"])
    found = concepts.channel_relevance(model, x, "3", target=1)
    assert_same(found.relevance, whole.layers["3"].sum((2, 3)))
    assert_same(found.output, whole.output)
    assert_same(concepts.channel_relevance(model, x, "5", target=1).relevance, whole.layers["5"])
    assert_same(concepts.channel_relevance(model, x, "3", target=1, batch_size=2).relevance, found.relevance)
    order = found.ranking()
    assert torch.equal(found.relevance.gather(1, order), found.relevance.sort(1, descending=True).values)
    name, value = found.top(1)[0][0]
    assert (int(name), value) == (int(order[0, 0]), float(found.relevance[0].max()))
    assert "sample 2" in str(found)


def test_groups_pool_channels_and_conditions_chain_layers() -> None:
    model, x = network(), draw(3, 2, 8, 8)
    each = concepts.channel_relevance(model, x, "1", target=1)
    groups = concepts.channel_relevance(model, x, "1", target=1, groups={"a": [0, 3], "b": range(1, 3)})
    assert groups.names == ("a", "b")
    assert_same(groups.relevance[:, 0], each.relevance[:, 0] + each.relevance[:, 3])
    nested = [concepts.channel_relevance(model, x, "1", target=1, through="3", keep=k).relevance for k in range(4)]
    assert_same(sum(nested), each.relevance)
    with pytest.raises(hw.InvalidInput, match="names 9"):
        concepts.channel_relevance(model, x, "1", groups={"a": [9]})
    with pytest.raises(hw.InvalidInput, match="no module"):
        concepts.channel_relevance(model, x, "nowhere")


@pytest.mark.parametrize("by", ["relevance", "activation"])
@pytest.mark.parametrize("pool", ["sum", "max"])
def test_reference_samples_by_brute_force(by: Any, pool: Any) -> None:
    model, data = network(), draw(23, 2, 8, 8)
    e = hw.explain(model, data, layers=["3"])
    maps = e.layers["3"] if by == "relevance" else model[:4](data).detach()
    strength = maps.flatten(2).sum(2) if pool == "sum" else maps.flatten(2).amax(2)
    values, order = strength.t().topk(5, 1)
    found = concepts.reference_samples(model, data, "3", count=5, by=by, pool=pool, batch_size=4)
    assert_same(found.scores, values, 1e-8)
    assert torch.equal(found.indices, order)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(data, torch.zeros(23, dtype=torch.long)), batch_size=6
    )
    assert torch.equal(concepts.reference_samples(model, loader, "3", count=5, by=by, pool=pool).indices, order)


def test_few_samples_and_bad_arguments() -> None:
    model, data = network(), draw(2, 2, 8, 8)
    found = concepts.reference_samples(model, data, "3", count=4)
    assert found.indices.shape == (4, 4)
    assert (found.indices[:, 2:] == -1).all()
    for options in ({"by": "size"}, {"pool": "mean"}, {"count": 0}):
        with pytest.raises(hw.InvalidInput, match="reference_samples takes"):
            concepts.reference_samples(model, data, "3", **options)
    with pytest.raises(hw.InvalidInput, match="no batch"):
        concepts.reference_samples(model, [], "3")


def test_models_of_other_kinds_and_the_model_is_left_alone() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.memory, self.head = nn.Embedding(9, 6), nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.memory(self.table(ids))[0].mean(1))

    model, ids = double(Reader()), torch.randint(0, 9, (4, 7))
    before = fingerprint(model)
    whole = hw.explain(model, ids, target=0, layers=["memory"])
    assert_same(concepts.channel_relevance(model, ids, "memory", target=0).relevance, whole.layers["memory"].sum(1))
    unchanged(before, model)


def test_rows_of_the_register_name_their_calls() -> None:
    for name in ("tcav", "layer_relevance", "bilrp", "counterfactual_tokens", "feature_maps", "spray"):
        row = next(r for r in hw.methods() if r.name == name)
        assert row.call.startswith("hw.")
        with pytest.raises(hw.InvalidInput, match=row.call):
            hw.explain(network(), draw(2, 2, 8, 8), method=name)
