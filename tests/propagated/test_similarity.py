"""BiLRP against the product of Jacobians of a bias-free ReLU network, of which it is the second-order expansion."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater.similarity import bilrp, cosine
from tests.reference.audit import assert_same, fingerprint
from tests.reference.audit import assert_unchanged as unchanged
from tests.reference.nets import double, draw


def embedding() -> nn.Sequential:
    return double(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
            nn.Linear(36, 5, bias=False),
        ),
        0.5,
    )  # fmt: skip


def jacobian(model: nn.Module, x: Tensor) -> Tensor:
    return torch.autograd.functional.jacobian(lambda t: model(t[None])[0], x)


def test_lrp_0_is_the_hessian_of_the_similarity_times_both_inputs() -> None:
    model, a, b = embedding(), draw(2, 2, 6, 6), draw(2, 2, 6, 6, key=8)
    found = bilrp(model, a, b, composite="lrp_0")
    for n in range(2):
        left = (jacobian(model, a[n]) * a[n]).sum(1).flatten(1)  # [5, places]
        right = (jacobian(model, b[n]) * b[n]).sum(1).flatten(1)
        expected = (left.t() @ right).view(6, 6, 6, 6)
        assert_same(found.relevance[n], expected)
    assert_same(found.similarity, (model(a) * model(b)).sum(1).detach())
    assert found.delta.abs().max() < 1e-9
    assert_same(found.of_first(), found.relevance.sum((3, 4)))
    assert_same(found.of_second(), found.relevance.sum((1, 2)))


def test_pooling_batches_and_the_strongest_pairs() -> None:
    model, a, b = embedding(), draw(3, 2, 6, 6), draw(3, 2, 6, 6, key=8)
    whole = bilrp(model, a, b)
    pooled = bilrp(model, a, b, pool=(2, 3), batch_size=4)
    assert pooled.relevance.shape == (3, 3, 2, 3, 2)
    expected = whole.relevance.unflatten(4, (2, 3)).sum(5).unflatten(3, (3, 2)).sum(4)
    expected = expected.unflatten(2, (2, 3)).sum(3).unflatten(1, (3, 2)).sum(2)
    assert_same(pooled.relevance, expected)
    (first, second, value), *_ = pooled.top(3, sample=1)
    assert value == pooled.relevance[(1, *first, *second)]
    assert abs(value) == pooled.relevance[1].abs().max()


def test_random_projections_converge_to_it() -> None:
    model, a, b = embedding(), draw(1, 2, 6, 6), draw(1, 2, 6, 6, key=8)
    exact = bilrp(model, a, b, pool=3).relevance
    rough = bilrp(model, a, b, pool=3, components=3000, composite="default").relevance
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max() + 1e-9


def test_the_cosine_of_texts_series_and_tables() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.layer = nn.Embedding(9, 6), nn.Linear(6, 4, bias=False)

        def forward(self, ids: Tensor) -> Tensor:
            return torch.relu(self.layer(self.table(ids))).mean(1)

    model, a, b = double(Reader()), torch.randint(0, 9, (2, 5)), torch.randint(0, 9, (2, 7))
    before = fingerprint(model)
    found = bilrp(cosine(model), a, b)
    assert found.relevance.shape == (2, 5, 7)
    assert_same(found.similarity, torch.cosine_similarity(model(a), model(b)).detach())
    assert found.delta.abs().max() < 1e-4  # the stabilizer
    unchanged(before, model)
    table = double(nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)))
    assert bilrp(table, draw(2, 4), draw(2, 4)).relevance.shape == (2, 4, 4)
    series = double(nn.Sequential(nn.Conv1d(2, 3, 3, bias=False), nn.ReLU(), nn.Flatten()))
    assert bilrp(series, draw(2, 2, 8), draw(2, 2, 8), pool=4).relevance.shape == (2, 2, 2)


def test_refusals() -> None:
    model, a = embedding(), draw(2, 2, 6, 6)
    for options, text in (
        ({"pool": 4}, "must divide"),
        ({"components": 0}, "components"),
        ({"pool": (2,)}, "must divide"),
    ):
        with pytest.raises(hw.InvalidInput, match=text):
            bilrp(model, a, a, **options)
    with pytest.raises(hw.InvalidInput, match="as many samples"):
        bilrp(model, a, a[:1])
    with pytest.raises(hw.InvalidInput, match="one row for each"):
        bilrp(lambda x: model(x).sum(0, keepdim=True), a, a)
