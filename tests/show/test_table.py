from __future__ import annotations

import pytest
import torch
from matplotlib.figure import Figure

from headwater.errors import InvalidInput, NonFinite
from headwater.show import table
from headwater.show.table import grouped


def bars(found: Figure) -> dict[str, float]:
    axes = found.axes[0]
    captions = [label.get_text() for label in axes.get_yticklabels()]
    return dict(zip(captions, [patch.get_width() for patch in axes.patches], strict=True))


def test_bars_are_sorted_by_magnitude_and_the_rest_is_summed() -> None:
    relevance = torch.tensor([0.1, -3.0, 2.0, 0.2, -0.5])
    found = bars(table(list("abcde"), None, relevance, top=2))
    assert list(found) == ["b", "c", "3 others, summed"]
    assert list(found.values()) == pytest.approx([-3.0, 2.0, -0.2])


def test_the_bars_add_up_to_the_relevance() -> None:
    relevance = torch.randn(30)
    for top in (1, 7, 29, 30, 40):
        assert grouped(relevance, top)[0].sum() == pytest.approx(float(relevance.double().sum()))


def test_one_feature_left_over_keeps_its_name() -> None:
    assert list(bars(table(list("abc"), None, torch.tensor([3.0, 2.0, 1.0]), top=2))) == ["a", "b", "c"]


def test_values_stand_beside_the_names() -> None:
    found = bars(table(["age", "place"], [41.25, "Ulm"], torch.tensor([1.0, -2.0])))
    assert list(found) == ["place = Ulm", "age = 41.25"]
    assert list(bars(table(None, torch.tensor([1.0]), torch.tensor([1.0])))) == ["feature 0 = 1"]


def test_the_axis_is_symmetric_and_a_zero_table_is_drawn() -> None:
    low, high = table(None, None, torch.tensor([1.0, 2.0])).axes[0].get_xlim()
    assert low == -high
    assert set(bars(table(None, None, torch.zeros(3))).values()) == {0.0}


def test_signs_have_their_colours() -> None:
    positive, negative = table(None, None, torch.tensor([2.0, -1.0])).axes[0].patches
    assert positive.get_facecolor()[0] > positive.get_facecolor()[2]
    assert negative.get_facecolor()[2] > negative.get_facecolor()[0]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInput, match="2 features have relevance, but there are 1 names"):
        table(["a"], None, torch.ones(2))
    with pytest.raises(InvalidInput, match=r"\[F\]"):
        table(None, None, torch.ones(2, 2))
    with pytest.raises(NonFinite):
        table(None, None, torch.tensor([float("nan")]))
