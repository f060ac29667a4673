from __future__ import annotations

import math

import pytest
import torch

from headwater.errors import InvalidInput
from headwater.evaluate import (
    block_cosine,
    block_percentage,
    block_shares,
    boxes_mask,
    mass_accuracy,
    pointing_game,
    rank_accuracy,
)


def test_pointing_game_against_the_protocol_in_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(30, 2, 20, 25, generator=generator)
    mask = torch.zeros(30, 20, 25, dtype=torch.bool)
    for i in range(30):
        top, left = (int(torch.randint(n, (), generator=generator)) for n in (15, 20))
        mask[i, top : top + 5, left : left + 5] = True
    for tolerance in (0.0, 3.0, 7.5):
        hits = []
        for one, where in zip(maps.sum(1), mask, strict=True):
            best = max(((float(one[r, c]), r, c) for r in range(20) for c in range(25)), key=lambda t: t[0])
            hits.append(
                any(
                    (r - best[1]) ** 2 + (c - best[2]) ** 2 < tolerance**2 or (r, c) == best[1:]
                    for r, c in where.nonzero().tolist()
                )
            )
        found = pointing_game(maps, mask, tolerance=tolerance)
        assert found.hits.tolist() == hits
        assert found.accuracy == pytest.approx(sum(hits) / 30)


def test_pointing_accuracy_is_the_mean_over_classes_that_count() -> None:
    maps = torch.zeros(4, 5, 5)
    maps[:, 0, 0] = 1
    mask = torch.zeros(4, 5, 5, dtype=torch.bool)
    mask[:3, 0, 0], mask[3, 4, 4] = True, True
    found = pointing_game(maps, mask, tolerance=1, classes=[7, 7, 7, 2])
    assert found.by_class == {7: 1.0, 2: 0.0}
    assert found.accuracy == 0.5
    assert pointing_game(maps, mask, tolerance=1, classes=[7, 7, 7, 2], keep=[True, True, True, False]).accuracy == 1
    with pytest.raises(InvalidInput, match="keep"):
        pointing_game(maps, mask, keep=[False] * 4)


def test_the_pointing_game_of_a_series() -> None:
    maps = torch.zeros(1, 2, 50)
    maps[0, 1, 30] = 2
    mask = torch.zeros(1, 50, dtype=torch.bool)
    mask[0, 40:45] = True
    assert not pointing_game(maps, mask, tolerance=10).hits
    assert pointing_game(maps, mask, tolerance=10.5).hits


def test_boxes_are_masks() -> None:
    mask = boxes_mask([[[1, 2, 4, 5]], [0, 0, 2, 1]], (6, 6))
    assert mask[0].nonzero().tolist() == [[r, c] for r in (2, 3, 4) for c in (1, 2, 3)]
    assert mask[1].nonzero().tolist() == [[0, 0], [0, 1]]
    with pytest.raises(InvalidInput, match="left < right"):
        boxes_mask([[3, 0, 1, 2]], (4, 4))


def test_mass_and_rank_accuracy_against_loops() -> None:
    maps = torch.randn(5, 3, 6, 6)
    mask = torch.rand(5, 6, 6) < 0.4
    for one, where, mass, rank in zip(
        maps.double().sum(1), mask, mass_accuracy(maps, mask), rank_accuracy(maps, mask), strict=True
    ):
        positive = one.clamp(min=0)
        assert mass == pytest.approx(float(positive[where].sum() / positive.sum()))
        k = int(where.sum())
        top = one.flatten().argsort(descending=True)[:k].tolist()
        assert rank == pytest.approx(sum(bool(where.flatten()[i]) for i in top) / k)


def test_masks_that_do_not_fit_are_told() -> None:
    maps = torch.rand(2, 3, 6, 6)
    with pytest.raises(InvalidInput, match="does not fit"):
        mass_accuracy(maps, torch.ones(2, 5, 5, dtype=torch.bool))
    with pytest.raises(InvalidInput, match="empty"):
        rank_accuracy(maps, torch.zeros(2, 6, 6, dtype=torch.bool))
    with pytest.raises(InvalidInput, match="True and False"):
        mass_accuracy(maps, torch.rand(2, 6, 6))
    with pytest.raises(InvalidInput, match="one sign"):
        mass_accuracy(maps, torch.ones(2, 6, 6), part="signed")


def test_blocks_against_the_thesis() -> None:
    relevance = torch.randn(4, 28, 84)
    marks = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]])
    for i in range(4):
        positive = [float(relevance[i, :, 28 * b : 28 * b + 28].clamp(min=0).double().sum()) for b in range(3)]
        v = [p / sum(positive) for p in positive]
        m = marks[i].tolist()
        cosine = sum(a * b for a, b in zip(m, v, strict=True)) / (math.dist(m, (0, 0, 0)) * math.dist(v, (0, 0, 0)))
        assert block_shares(relevance, 3)[i].tolist() == pytest.approx(v)
        right = sum(a * b for a, b in zip(m, v, strict=True))
        assert float(block_percentage(relevance, marks)[i]) == pytest.approx(right)
        assert float(block_cosine(relevance, marks)[i]) == pytest.approx(cosine)


def test_one_block_alone_has_all_the_percentage_but_not_the_cosine() -> None:
    relevance = torch.zeros(1, 2, 6)
    relevance[0, :, :2] = 1
    marks = torch.tensor([[True, True, False]])
    assert float(block_percentage(relevance, marks)) == 1
    assert float(block_cosine(relevance, marks)) == pytest.approx(math.sqrt(0.5))


def test_blocks_that_do_not_fit_are_told() -> None:
    with pytest.raises(InvalidInput, match="no 4 equal blocks"):
        block_shares(torch.rand(1, 6), 4)
    with pytest.raises(InvalidInput, match="axis"):
        block_shares(torch.rand(1, 6), 2, axis=0)
    with pytest.raises(InvalidInput, match="marks"):
        block_cosine(torch.rand(1, 6), torch.zeros(1, 3))
