"""Fitted masks: they find what a score was made of, and pay what their formula says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater.arguments import Inputs
from headwater.optimize.masks import Grid, Masking, softly_widened
from headwater.question import Question
from tests.reference.audit import assert_same
from tests.reference.nets import double, draw

METHODS = ["meaningful_perturbation", "extremal_perturbation", "rate_distortion"]
QUICK: dict[str, dict[str, Any]] = {m: {"steps": 5} for m in METHODS}


def corner(x: Tensor) -> Tensor:
    """A score that only the upper left quarter carries."""
    return torch.tanh(x[:, :, :6, :6].flatten(1).mean(1))


@pytest.mark.parametrize("method", METHODS)
def test_masks_lie_where_the_score_was_made(method: str) -> None:
    x = 1 + 0.2 * draw(2, 2, 16, 16)
    options = {"baselines": 0.0} if method != "rate_distortion" else {"references": draw(20, 2, 16, 16, key=5)}
    e = hw.explain(corner, x, method=method, steps=120, **options)
    inside = e.relevance[:, :, :6, :6].sum((1, 2, 3)) / e.relevance.sum((1, 2, 3))
    assert (inside > 0.35).all(), inside  # it is a seventh of the picture
    assert e.relevance.shape == x.shape
    assert e.relevance.min() >= 0
    assert e.relevance.sum(1).max() <= 1 + 1e-6  # spread evenly over channels
    assert e.delta is None


def test_the_gradient_by_the_mask() -> None:
    """Against autograd through ``m x + (1 - m) b``."""
    model = double(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(108, 2)))
    x, b, m = draw(3, 2, 8, 8), draw(1, 2, 8, 8, key=4), torch.rand(3, 1, 8, 8).double().requires_grad_()
    masking = Masking(Question(model, Inputs.of(x), 1), resolution=8)
    with torch.enable_grad():
        scores, pulls = masking.look({0: m}, masking.behind(b))
    expected = model(m * x + (1 - m) * b)[:, 1]
    assert_same(scores, expected.detach())
    assert_same(pulls[0], torch.autograd.grad(expected.sum(), m)[0])


def test_cells_are_interpolated_and_widened() -> None:
    grid = Grid.over(torch.zeros(1, 3, 20, 30), embedded=False, resolution=10)
    assert grid.cells == (10, 10)
    assert grid.render(torch.full((2, 1, 10, 10), 0.3)).shape == (2, 1, 20, 30)
    assert Grid.over(torch.zeros(4, 7), False, 3).render(torch.rand(4, 1, 7)).shape == (4, 7)
    assert Grid.over(torch.zeros(4, 7, 5), True, 3).render(torch.rand(4, 1, 7)).shape == (4, 7, 1)
    assert Grid.over(torch.zeros(4, 2, 50), False, 9).cells == (9,)
    cells = torch.zeros(1, 1, 9, 9)
    cells[0, 0, 4, 4] = 1
    wide = softly_widened(cells)
    assert wide[0, 0, 4, 4] == pytest.approx(1, abs=1e-3)
    assert 0.5 < wide[0, 0, 4, 5] < 1
    assert wide[0, 0, 0, 0] < 1e-3
    assert softly_widened(torch.ones(1, 1, 12)).min() > 0.99


def test_meaningful_perturbation_pays_as_its_formula_says() -> None:
    """Of a linear score each cell has its own choice: what it carries against the price of hiding it."""
    w, x = torch.tensor([[0.5, 0.3, 0.1, 0.1, 0.0]]).double(), torch.ones(1, 5).double()

    def f(x: Tensor) -> Tensor:
        return (x * w).sum(1)

    e = hw.explain(f, x, method="meaningful_perturbation", sparsity=0.75, steps=200)  # 0.15 a cell
    assert_same(e.details["mask"], torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0]]), 1e-6)
    kept = hw.explain(f, x, method="meaningful_perturbation", game="preservation", sparsity=0.75, steps=200)
    assert_same(kept.details["mask"], torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0]]), 1e-6)
    assert_same(e.details["curve"][:, -1], torch.tensor([0.2]).double(), 1e-6)


def test_extremal_perturbation_keeps_its_areas() -> None:
    x = 1 + 0.2 * draw(2, 1, 24, 24)
    e = hw.explain(corner, x, method="extremal_perturbation", areas=(0.1, 0.3), baselines=0.0)
    assert e.details["masks"].shape == (2, 2, 1, 24, 24)
    area = e.details["masks"].flatten(2).mean(2)
    assert (area - torch.tensor([0.1, 0.3])).abs().max() < 0.05
    assert (e.details["kept"][:, 1] >= e.details["kept"][:, 0] - 0.05).all()
    with pytest.raises(hw.InvalidInput, match="areas"):
        hw.explain(corner, x, method="extremal_perturbation", areas=(1.5,))


def test_rate_distortion_of_independent_features() -> None:
    """Features that the score squares out of are dropped, those that fix it are kept."""
    w = torch.tensor([2.0, 2.0, 0.05, 0.0, 0.0]).double()
    x = torch.tensor([[2.0, -2.0, 1.0, 1.0, 1.0]]).double()
    e = hw.explain(lambda x: x @ w, x, method="rate_distortion", references=draw(200, 5), steps=300, draws=16)
    assert (e.details["mask"][0, :2] > 0.6).all()
    assert (e.details["mask"][0, 2:] < 0.1).all()
    assert e.details["distortion"] < 0.1


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embed(ids)).sum(1))


@pytest.mark.parametrize("method", METHODS)
def test_of_every_kind_of_input(method: str) -> None:
    series = nn.Sequential(nn.Conv1d(2, 3, 5), nn.ReLU(), nn.Flatten(), nn.Linear(78, 2)).eval()
    volume = nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)).eval()
    table = nn.Linear(5, 2).eval()
    cases: list[tuple[Any, Tensor]] = [
        (series, torch.randn(2, 2, 30)), (volume, torch.randn(2, 1, 4, 4, 4)), (table, torch.randn(2, 5)),
        (table.double(), torch.randn(1, 5).double()),
    ]  # fmt: skip
    for model, x in cases:
        model = model.to(x.dtype)
        e = hw.explain(model, x, method=method, **QUICK[method])
        assert e.relevance.shape == x.shape
        assert e.relevance.dtype == x.dtype
        assert e.relevance.isfinite().all()
        alone = hw.explain(model, x[:1], method=method, **QUICK[method])
        assert_same(alone.relevance, e.relevance[:1], 1e-4)
    ids = torch.randint(10, (2, 6))
    e = hw.explain(Reader().eval(), ids, method=method, **QUICK[method])
    assert e.tokens().shape == (2, 6)
    assert e.tokens().max() <= 1 + 1e-6
    two = hw.explain(lambda a, b: (a.sum(1) * b.sum(1)), (torch.randn(2, 3), torch.randn(2, 4)), method=method,
                     **QUICK[method])  # fmt: skip
    assert two.relevance[1].shape == (2, 4)


def test_memory_that_runs_out_halves_the_batch() -> None:
    net = nn.Linear(6, 1).double()

    def small(x: Tensor) -> Tensor:
        if len(x) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return net(x)[:, 0]

    x = draw(3, 6)
    for method in METHODS:
        found = hw.explain(small, x, method=method, **QUICK[method]).relevance
        assert_same(found, hw.explain(lambda x: net(x)[:, 0], x, method=method, **QUICK[method]).relevance, 1e-6)


@pytest.mark.parametrize(
    ("method", "options", "text"),
    [
        ("meaningful_perturbation", {"game": "chess"}, "chess"),
        ("meaningful_perturbation", {"steps": 0}, "steps"),
        ("extremal_perturbation", {"resolution": 0}, "resolution"),
        ("rate_distortion", {"draws": 0}, "draws"),
        ("taylor", {"steps": 0}, "steps"),
        ("activation_maximization", {}, "hw.optimize.maximize"),
    ],
)
def test_what_is_refused(method: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(hw.InvalidInput, match=text):
        hw.explain(nn.Linear(4, 2).eval(), torch.randn(2, 4), method=method, **options)


def test_masks_are_fitted_in_the_inputs_precision() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    x = torch.rand(2, 3, 11, 9, dtype=torch.float64)
    e = hw.explain(model.double(), x, 0, method="extremal_perturbation", steps=60)
    assert e.details["masks"].dtype == torch.float64
    alone = torch.cat([hw.explain(model, one[None], 0, method=e.method, steps=60).relevance for one in x])
    torch.testing.assert_close(alone, e.relevance, atol=1e-7, rtol=0)
