from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import headwater as hw
from headwater.errors import InvalidInput, NonFinite
from headwater.evaluate import cancellation, effective_features, entropy, file_size, gini
from tests.evaluate import nets


def test_file_size_is_that_of_pillows_standard_jpeg() -> None:
    relevance = torch.randn(2, 3, 30, 40)
    expected = []
    for one in relevance.double().sum(1):
        grey = np.round((one.numpy() / float(one.abs().max()) + 1) * 127.5).astype(np.uint8)
        buffer = BytesIO()
        Image.fromarray(grey).save(buffer, "JPEG")  # Pillow's own quality is 75
        expected.append(len(buffer.getvalue()))
    assert file_size(relevance).tolist() == expected


def test_file_size_grows_with_detail_and_does_not_see_the_unit() -> None:
    noise = torch.randn(1, 64, 64)
    smooth = torch.nn.functional.avg_pool2d(noise, 8).repeat_interleave(8, 1).repeat_interleave(8, 2)
    sizes = file_size(torch.cat([torch.zeros(1, 64, 64), smooth, noise]))
    assert sizes[0] < sizes[1] < sizes[2]
    assert file_size(noise).equal(file_size(1000 * noise))
    assert file_size(noise, colour="map") > file_size(noise)
    assert file_size(noise, size=(8, 8)) < file_size(noise)
    assert file_size(noise, quality=95) > file_size(noise)


@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 20), (2, 8, 8), (2, 3, 8, 8), (2, 1, 4, 8, 8), (2,)])
def test_every_shape_has_a_file(shape: tuple[int, ...]) -> None:
    assert file_size(torch.randn(shape)).shape == (2,)


def test_entropy_gini_and_effective_number_against_loops() -> None:
    relevance = torch.randn(4, 3, 5)
    for row, h, g, d1, d2 in zip(
        relevance.abs().double().flatten(1), entropy(relevance), gini(relevance),
        effective_features(relevance), effective_features(relevance, order=2), strict=True,
    ):  # fmt: skip
        p = [float(v) / float(row.sum()) for v in row]
        assert h == pytest.approx(-sum(q * math.log(q) for q in p))
        # the mean absolute difference of all pairs, in units of twice the mean
        mean = sum(p) / len(p)
        assert g == pytest.approx(sum(abs(a - b) for a in p for b in p) / (2 * len(p) ** 2 * mean))
        assert d1 == pytest.approx(math.exp(h))
        assert d2 == pytest.approx(1 / sum(q * q for q in p))


@given(st.integers(1, 50), st.integers(1, 50))
def test_equal_features_count_themselves(count: int, others: int) -> None:
    relevance = torch.zeros(1, count + others)
    relevance[0, :count] = 0.3
    assert float(effective_features(relevance)) == pytest.approx(count)
    assert float(effective_features(relevance, order=2)) == pytest.approx(count)
    assert float(gini(relevance)) == pytest.approx(others / (count + others))


def test_the_part_is_named() -> None:
    relevance = torch.tensor([[1.0, 1.0, -6.0]])
    assert float(effective_features(relevance, part="positive")) == pytest.approx(2)
    assert float(effective_features(relevance, part="negative")) == pytest.approx(1)
    assert float(cancellation(relevance)) == pytest.approx(2)
    with pytest.raises(InvalidInput, match="one sign"):
        entropy(relevance, part="signed")
    with pytest.raises(InvalidInput, match="part must be"):
        entropy(relevance, part="square")  # type: ignore[arg-type]


def test_a_map_of_zeros_has_no_shares() -> None:
    relevance = torch.zeros(1, 4, 4)
    assert bool(entropy(relevance).isnan())
    assert bool(gini(relevance).isnan())
    assert bool(cancellation(relevance).isnan())
    assert int(file_size(relevance)) > 0


def test_explanations_and_arrays_are_taken() -> None:
    explanation = hw.explain(nets.visual(), nets.pictures())
    assert file_size(explanation).equal(file_size(explanation.relevance.numpy()))
    ids = torch.randint(1, 20, (2, 6))
    words = hw.explain(nets.Words(), {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert entropy(words.tokens() if isinstance(words.tokens(), torch.Tensor) else words.relevance).shape == (2,)


def test_bad_input_is_told() -> None:
    with pytest.raises(NonFinite, match="NaN"):
        gini(torch.tensor([[torch.nan]]))
    with pytest.raises(InvalidInput, match="at least one sample"):
        gini(torch.zeros(0, 3))
    with pytest.raises(InvalidInput, match="relevance must be"):
        gini("map")
    with pytest.raises(InvalidInput, match="quality"):
        file_size(torch.rand(1, 8, 8), quality=0)
    with pytest.raises(InvalidInput, match="size"):
        file_size(torch.rand(1, 8, 8), size=(0, 3))
    with pytest.raises(InvalidInput, match="order"):
        effective_features(torch.rand(1, 8), order=3)  # type: ignore[arg-type]
