"""Occlusion, ablation and permutation against loops and Captum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import headwater as hw
from headwater.remove.references import Marginal
from headwater.remove.windows import Windows


def network(axes: int = 2, channels: int = 3) -> nn.Module:
    conv: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
    pool: Any = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[axes]
    model = nn.Sequential(conv(channels, 4, 3), nn.Tanh(), pool(2), nn.Flatten(), nn.Linear(4 * 2**axes, 3))
    return model.double().eval()


def slow_occlusion(model: nn.Module, x: Tensor, sizes: list[int], steps: list[int], target: int) -> Tensor:
    """One window after the other over spatial axes; the mean of the windows that cover a place."""
    total, covering = torch.zeros_like(x), torch.zeros_like(x)
    starts = []
    for length, size, step in zip(x.shape[2:], sizes, steps, strict=True):
        own, at = [], 0
        while True:
            own.append(at)
            if at + size >= length:
                break
            at += step
        starts.append(own)
    grid = torch.cartesian_prod(*map(torch.tensor, starts)).view(-1, len(starts)).tolist()
    with torch.no_grad():
        before = model(x)[:, target]
        for corner in grid:
            where = (slice(None), slice(None), *[slice(a, a + s) for a, s in zip(corner, sizes, strict=True)])
            hidden = x.clone()
            hidden[where] = 0
            fall = before - model(hidden)[:, target]
            total[where] += fall.view(-1, *[1] * (x.dim() - 1))
            covering[where] += 1
    return total / covering.clamp(min=1)


@pytest.mark.parametrize(
    ("shape", "window", "stride"),
    [
        ((2, 3, 11, 9), (4, 3), (2, 2)), ((2, 3, 11, 9), (4, 3), (3, 1)), ((1, 3, 8, 8), 3, 4), ((2, 3, 20), 5, 2),
        ((2, 3, 20), 50, 7), ((2, 3, 6, 5, 7), (2, 3, 4), (2, 2, 3)), ((2, 3, 11, 9), (4, 3), None),
    ],
)  # fmt: skip
def test_against_a_loop(shape: tuple[int, ...], window: Any, stride: Any) -> None:
    axes = len(shape) - 2
    model, x = network(axes), torch.randn(shape, dtype=torch.float64)
    found = hw.explain(model, x, target=1, method="occlusion", window=window, stride=stride)
    sizes = [window] * axes if isinstance(window, int) else list(window)
    sizes = [min(s, length) for s, length in zip(sizes, shape[2:], strict=True)]
    steps = (
        [max(1, s // 2) for s in sizes] if stride is None else [stride] * axes if isinstance(stride, int) else stride
    )
    torch.testing.assert_close(found.relevance, slow_occlusion(model, x, sizes, list(steps), 1))


@pytest.mark.parametrize(("window", "stride"), [((1, 4, 3), (1, 2, 2)), ((3, 4, 4), (3, 3, 1)), ((2, 5, 5), (1, 5, 5))])
def test_against_captum(window: Any, stride: Any) -> None:
    captum = pytest.importorskip("captum.attr")
    model, x = network(), torch.randn(2, 3, 11, 9, dtype=torch.float64)
    expected = captum.Occlusion(model).attribute(
        x, sliding_window_shapes=window, strides=stride, baselines=0.3, target=2
    )
    found = hw.explain(model, x, target=2, method="occlusion", window=window, stride=stride, imputer=0.3)
    torch.testing.assert_close(found.relevance, expected.double())  # Captum returns float32 for float64


def test_default_windows_are_the_reviews() -> None:
    windows = Windows.of(torch.zeros(1, 3, 224, 224))
    assert [t[:3].tolist() for t in windows.starts] == [[0], [0, 16, 32], [0, 16, 32]]
    assert [t[:2].tolist() for t in windows.stops] == [[3], [32, 48], [32, 48]]
    assert Windows.of(torch.zeros(1, 2, 3000)).stops[1][0] == 150
    assert Windows.of(torch.zeros(1, 13)).count == 13
    assert Windows.of(torch.zeros(1, 1, 1, 1)).count == 1


@given(st.integers(0, 10_000))
def test_windows_are_averaged_as_they_cover(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = [int(s) for s in torch.randint(1, 9, (4,), generator=generator)]
    window, stride = (tuple(int(s) for s in torch.randint(1, 6, (2,), generator=generator)) for _ in range(2))
    windows = Windows.of(torch.zeros(shape), window, stride)
    holes = windows.holes(torch.arange(windows.count)).expand(windows.count, *shape[1:]).double()
    scores = torch.randn(shape[0], windows.count, generator=generator, dtype=torch.float64)
    mean = torch.einsum("nw,wchx->nchx", scores, holes) / holes.sum(0).clamp(min=1)
    torch.testing.assert_close(windows.averaged(scores), mean)
    assert holes.flatten(1).any(1).all()
    corners = windows.corners()
    assert torch.equal((corners[:, :, 1] - corners[:, :, 0]).prod(1), holes.flatten(1).sum(1).long())


def test_ablation_against_captum() -> None:
    captum = pytest.importorskip("captum.attr")
    model, x = network(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    labels = torch.arange(64).view(8, 8) // 11
    expected = captum.FeatureAblation(model).attribute(x, feature_mask=labels[None, None], target=0)
    found = hw.explain(model, x, target=0, method="feature_ablation", features=labels)
    sizes = torch.bincount(labels.flatten()).double() * 3
    torch.testing.assert_close(
        found.relevance, expected.double() / sizes[labels]
    )  # Captum gives every entry the whole score
    torch.testing.assert_close(found.relevance.flatten(1).sum(1), found.details["features"].sum(1))
    assert found.details["masks"].shape == (2, 1, 8, 8)


def test_an_additive_model_is_read_off_exactly() -> None:
    weight = torch.randn(6, dtype=torch.float64)
    x = torch.randn(4, 6, dtype=torch.float64)
    for method in ("occlusion", "feature_ablation", "shapley_exact", "shapley_sampling", "kernel_shap"):
        found = hw.explain(lambda v: v @ weight, x, method=method)
        torch.testing.assert_close(found.relevance, x * weight)


def test_permutation_is_the_mean_over_exchanges() -> None:
    model, x = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double().eval(), torch.randn(7, 4).double()
    found = hw.explain(model, x, target=0, method="feature_permutation", repeats=400)
    with torch.no_grad():
        expected = torch.zeros_like(x)
        for i in range(4):
            for n in range(7):
                others = [m for m in range(7) if m != n]
                exchanged = x[n].repeat(6, 1)
                exchanged[:, i] = x[others, i]
                expected[n, i] = model(x[n : n + 1])[0, 0] - model(exchanged)[:, 0].mean()
    error = found.details["standard_error"]
    assert ((found.relevance - expected).abs() < 5 * error + 1e-12).all()
    outside = hw.explain(model, x[:1], target=0, method="feature_permutation", references=x, repeats=50)
    assert outside.relevance.shape == (1, 4)


def test_draws_are_averaged_and_their_error_told() -> None:
    model, x = network(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    reference = torch.randn(12, 3, 8, 8, dtype=torch.float64)
    whole = hw.explain(model, x, target=0, method="feature_ablation", features=4, imputer=Marginal(reference, None))
    with torch.no_grad():
        changed = x[1].repeat(12, 1, 1, 1)
        changed[:, :, :4, 4:] = reference[:, :, :4, 4:]
        falls = model(x[1:2])[:, 0] - model(changed)[:, 0]
    torch.testing.assert_close(whole.details["features"][1, 1], falls.mean())
    torch.testing.assert_close(whole.details["standard_error"][1, 1], falls.std() / 12**0.5)
    few = hw.explain(model, x, target=0, method="feature_ablation", features=4, references=reference)
    gap = (few.details["features"] - whole.details["features"]).abs()
    assert (gap < 3 * few.details["standard_error"]).all()


@pytest.mark.parametrize(
    "options",
    [
        {"window": 0}, {"window": (2, 2, 2, 2)}, {"window": "wide"}, {"stride": -1}, {"window": 2.5},
        {"imputer": "fog"}, {"imputer": "marginal"}, {"imputer": object()}, {"argument": "x"}, {"argument": 3},
        {"layer": "nothing"},
    ],
)  # fmt: skip
def test_refusals(options: dict[str, Any]) -> None:
    with pytest.raises(hw.HeadwaterError):
        hw.explain(network(), torch.randn(1, 3, 8, 8).double(), target=0, method="occlusion", **options)
