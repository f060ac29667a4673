from __future__ import annotations

import pytest
import torch
from skimage.metrics import structural_similarity as reference_ssim

from headwater.errors import InvalidInput
from headwater.evaluate import (
    agreement,
    correlation,
    cosine,
    rank_correlation,
    structural_similarity,
    top_overlap,
)


def ranks(values: list[float]) -> list[float]:
    return [1 + sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


def pearson(a: list[float], b: list[float]) -> float:
    x, y = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x.square().sum() * y.square().sum()).sqrt())


def test_rank_correlation_with_ties_against_loops() -> None:
    a, b = torch.randint(0, 4, (5, 3, 4)).float(), torch.randn(5, 3, 4)
    for x, y, found, plain in zip(a, b, rank_correlation(a, b), correlation(a, b), strict=True):
        assert float(found) == pytest.approx(pearson(ranks(x.flatten().tolist()), ranks(y.flatten().tolist())))
        assert float(plain) == pytest.approx(pearson(x.flatten().tolist(), y.flatten().tolist()))


def test_signs_count_unless_they_are_taken_away() -> None:
    a = torch.randn(2, 30)
    assert rank_correlation(a, -a).tolist() == pytest.approx([-1, -1])
    assert rank_correlation(a, -a, part="absolute").tolist() == pytest.approx([1, 1])
    assert cosine(a, 3 * a).tolist() == pytest.approx([1, 1])
    assert bool(rank_correlation(a, torch.ones(2, 30)).isnan().all())


def test_top_overlap_against_loops() -> None:
    a, b = torch.randn(4, 5, 5), torch.randn(4, 5, 5)
    for k, count in ((7, 7), (0.2, 5)):
        for x, y, found in zip(a.flatten(1), b.flatten(1), top_overlap(a, b, k=k), strict=True):
            best = [set(sorted(range(25), key=lambda i, v=v: -v[i])[:count]) for v in (x.tolist(), y.tolist())]
            assert float(found) == len(best[0] & best[1]) / count
    with pytest.raises(InvalidInput, match="k must be"):
        top_overlap(a, b, k=26)


def test_structural_similarity_is_scikit_images() -> None:
    a, b = torch.randn(2, 3, 16, 20).double(), torch.randn(2, 3, 16, 20).double()
    for x, y, found in zip(a.sum(1), b.sum(1), structural_similarity(a, b), strict=True):
        x, y = x / x.abs().max(), y / y.abs().max()
        span = float(max(x.max(), y.max()) - min(x.min(), y.min()))
        expected = reference_ssim(
            x.numpy(), y.numpy(), data_range=span, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert float(found) == pytest.approx(expected)
    assert structural_similarity(a, a).tolist() == pytest.approx([1, 1])
    assert bool((structural_similarity(a, 2 * a, scale="none") < 1).all())
    with pytest.raises(InvalidInput, match="11 pixels"):
        structural_similarity(torch.rand(1, 5, 5), torch.rand(1, 5, 5))


def test_agreement_is_a_symmetric_matrix() -> None:
    maps = {name: torch.randn(3, 40) for name in "abc"}
    matrix = agreement(maps)
    assert matrix.equal(matrix.T)
    assert matrix.diagonal().tolist() == [1, 1, 1]
    assert float(matrix[0, 2]) == pytest.approx(float(rank_correlation(maps["a"], maps["c"]).mean()))
    assert float(agreement(maps, "cosine")[1, 2]) == pytest.approx(float(cosine(maps["b"], maps["c"]).mean()))
    with pytest.raises(InvalidInput, match="Unknown similarity"):
        agreement(maps, "likeness")
    with pytest.raises(InvalidInput, match="cannot be compared"):
        cosine(torch.rand(2, 3), torch.rand(2, 4))
