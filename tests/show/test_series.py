from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from headwater.errors import InvalidInput, NonFinite
from headwater.show import series


def lines(found: Figure) -> list[LineCollection]:
    channels = [axes for axes in found.axes if axes.get_label() != "<colorbar>"]
    return [c for axes in channels for c in axes.collections if isinstance(c, LineCollection)]


def test_each_channel_is_a_line_of_as_many_pieces_as_samples_on_one_scale() -> None:
    relevance, signal = torch.randn(3, 40), torch.randn(3, 40)
    found = lines(series(relevance, signal, rate=100.0))
    assert len(found) == 3
    limit = float(relevance.abs().max())
    for row, line in zip(relevance.double(), found, strict=True):
        assert sorted(np.asarray(line.get_array())) == sorted(row.tolist())
        assert (line.norm.vmin, line.norm.vmax) == pytest.approx((-limit, limit))


def test_the_line_runs_through_the_signal_in_seconds() -> None:
    signal = torch.tensor([[0.0, 2.0, 4.0]])
    (line,) = lines(series(torch.tensor([[1.0, 2.0, 3.0]]), signal, rate=2.0))
    points = np.concatenate([np.asarray(piece) for piece in line.get_segments()])
    assert np.allclose(points[:, 1], 4.0 * points[:, 0])
    assert points[:, 0].max() == 1.0


def test_a_line_without_relevance_is_grey_and_a_single_channel_may_have_one_axis() -> None:
    (line,) = lines(series(torch.zeros(10), torch.randn(10)))
    line.update_scalarmappable()
    colours = np.asarray(line.get_colors())
    assert (colours[:, 0] == colours[:, 1]).all()
    assert (colours[:, :3] < 0.9).all()


def test_strong_relevance_is_drawn_last_and_broader() -> None:
    (line,) = lines(series(torch.tensor([[-3.0, 1.0, 0.0, 2.0]]), torch.randn(1, 4)))
    assert np.asarray(line.get_array()).tolist() == [0.0, 1.0, 2.0, -3.0]
    assert list(line.get_linewidths()) == sorted(line.get_linewidths())


def test_names_and_units() -> None:
    found = series(torch.randn(2, 9), torch.randn(2, 9), names=["E", "Z"], title="record")
    assert [axes.get_ylabel() for axes in found.axes[:2]] == ["E", "Z"]
    assert found.axes[1].get_xlabel() == "sample"
    assert series(torch.randn(2, 9), torch.randn(2, 9), rate=10).axes[1].get_xlabel() == "time (s)"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"\[2, 9\] and \[2, 8\]"):
        series(torch.randn(2, 9), torch.randn(2, 8))
    with pytest.raises(InvalidInput, match="at least 2 samples"):
        series(torch.randn(2, 1), torch.randn(2, 1))
    with pytest.raises(InvalidInput, match="1 names for 2 channels"):
        series(torch.randn(2, 9), torch.randn(2, 9), names=["E"])
    with pytest.raises(InvalidInput, match="rate"):
        series(torch.randn(2, 9), torch.randn(2, 9), rate=0)
    with pytest.raises(NonFinite, match="signal"):
        series(torch.randn(2), torch.tensor([1.0, float("inf")]))
