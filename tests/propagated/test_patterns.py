"""Patterns against the paper's formulas written out neuron by neuron, and what is walked back along them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import headwater as hw
from headwater.patterns import PatternAttribution, Patterns, patterns
from tests.reference.audit import TIGHT, assert_balanced, assert_same, fingerprint
from tests.reference.audit import assert_unchanged as unchanged
from tests.reference.nets import double, draw, folded, norm


def by_hand(x: Tensor, y: Tensor, w: Tensor, positive: bool) -> Tensor:
    """The pattern of one neuron from its inputs ``[S, D]``, outputs ``[S]`` and weights ``[D]``, in loops."""
    rows = [s for s in range(len(y)) if y[s] > 0 or not positive]
    if not rows:
        return torch.zeros_like(w)
    mean_y = sum(float(y[s]) for s in rows) / len(rows)
    covariance = []
    for d in range(len(w)):
        mean_x = sum(float(x[s, d]) for s in rows) / len(rows)
        mean_xy = sum(float(x[s, d] * y[s]) for s in rows) / len(rows)
        covariance.append(mean_xy - mean_x * mean_y)
    variance = sum(float(w[d]) * covariance[d] for d in range(len(w)))
    return torch.tensor([c / variance for c in covariance], dtype=w.dtype)


@pytest.mark.parametrize("estimator", ["two_component", "linear"])
def test_dense_patterns_by_the_formula(estimator: Any) -> None:
    model = double(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)))
    data = draw(60, 4) + 0.5
    found = patterns(model, data, estimator=estimator, batch_size=17)
    hidden = torch.relu(model[0](data)).detach()
    for place, x, layer in (("0", data, model[0]), ("2", hidden, model[2])):
        y = layer(x).detach()
        for k in range(layer.out_features):
            expected = by_hand(x, y[:, k], layer.weight[k].detach(), estimator == "two_component")
            assert_same(found[place][k], expected, 1e-8)


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutional_patterns_pool_over_patches(groups: int) -> None:
    model = double(nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=groups), nn.ReLU(), nn.Flatten(),
                                 nn.Linear(36, 2)))  # fmt: skip
    data = draw(9, 2, 6, 6)
    found = patterns(model, data, batch_size=4)["0"]
    y = model[0](data).detach()
    patches = F.unfold(data, 3, padding=1, stride=2).transpose(1, 2).reshape(9 * 9, 2, 9)
    for k in range(4):
        inputs = patches if groups == 1 else patches[:, k // 2 : k // 2 + 1]
        weight = model[0].weight[k].detach()
        expected = by_hand(inputs.flatten(1), y[:, k].flatten(), weight.flatten(), True)
        assert_same(found[k].flatten(), expected, 1e-8)


def test_a_transposed_convolution_is_a_convolution_of_its_scatter() -> None:
    """Each output place of a transposed convolution is a neuron; against its dense matrix."""
    model = double(nn.Sequential(nn.ConvTranspose1d(2, 3, 2, stride=2, bias=False), nn.Flatten(), nn.Linear(12, 2)))
    data = draw(30, 2, 2)
    found = patterns(model, data)["0"]
    y = model[0](data).detach()  # stride equals size: output 2 t + j sees input t through tap j
    for k in range(3):
        # One neuron k with two taps: the regime and the moments are those of all its places, tap by tap.
        count = float((y[:, k] > 0).sum())
        covariance = torch.zeros(2, 2, dtype=torch.float64)
        positive = (y[:, k] > 0).double()
        mean_y = float((y[:, k] * positive).sum()) / count
        for i in range(2):
            for j in range(2):
                x, m = data[:, i, :], positive[:, j::2]
                mean_xy = float((x * y[:, k, j::2] * m).sum()) / count
                covariance[i, j] = mean_xy - float((x * m).sum()) / count * mean_y
        variance = float((covariance * model[0].weight[:, k].detach()).sum())
        assert_same(found[:, k], covariance / variance, 1e-8)


def test_batch_norm_is_part_of_its_layer_and_batches_do_not_matter() -> None:
    conv, bn = double(nn.Conv2d(2, 4, 3)), norm(nn.BatchNorm2d(4))
    tail = double(nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)))
    data = draw(20, 2, 6, 6)
    found = patterns(nn.Sequential(conv, bn, *tail).eval(), data, batch_size=7)
    merged = patterns(nn.Sequential(folded(conv, bn), *tail).eval(), data, batch_size=20)
    assert_same(found["0"], merged["0"], 1e-8)
    assert_same(found["4"], merged["3"], 1e-8)


class Functional(nn.Module):
    """Functional operators, a reused layer, a weight that is computed, and residual sums."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.same, self.head = nn.Parameter(torch.randn(5, 4)), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(F.linear(x, self.w))
        h = F.relu(self.same(h))
        h = h + F.relu(self.same(h))
        return self.head(h) + x @ self.w.t()[:, :2]


def test_functional_and_reused_operators_have_patterns() -> None:
    model, data = double(Functional(), 0.5), draw(50, 4)
    found = patterns(model, data)
    assert sorted(tuple(t.shape) for t in found.values()) == [(2, 4), (2, 5), (5, 4), (5, 5)]
    with torch.no_grad():  # the reused layer: both of its calls count
        first = F.relu(F.linear(data, model.w))
        second = F.relu(model.same(first))
        inputs = torch.cat([first, second])
        y = model.same(inputs)
    for k in range(5):
        assert_same(found["same"][k], by_hand(inputs, y[:, k], model.same.weight[k].detach(), True), 1e-8)
    e = hw.explain(model, data[:3], target=0, method="pattern_attribution", patterns=found, ledger=True)
    assert_balanced(e)


def network() -> nn.Sequential:
    return double(
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)), 0.7
    )


@pytest.mark.parametrize("method", ["pattern_net", "pattern_attribution"])
def test_signals_and_relevance_by_the_papers_walk(method: str) -> None:
    """From the output's score back: along a (PatternNet) or w * a (PatternAttribution), through the ReLU's gates."""
    model, data = network(), draw(80, 4)
    found, x = patterns(model, data), data[:6].clone()
    values = [x]
    for layer in model:
        values.append(layer(values[-1].clone()).detach())
    signal = torch.zeros_like(values[-1])
    signal[:, 1] = values[-1][:, 1]
    for place in (4, 2, 0):
        a, w = found[str(place)], model[place].weight.detach()
        signal = signal @ (a if method == "pattern_net" else w * a)
        if place:
            signal = signal * (values[place] > 0)
    assert_same(hw.explain(model, x, target=1, method=method, patterns=found).relevance, signal)


def test_patterns_make_up_for_the_distractor() -> None:
    """The paper's two-dimensional example: a filter that cancels a distractor looks nothing like the signal."""
    generator = torch.Generator().manual_seed(0)
    y, noise = torch.rand(2000, generator=generator).double() + 0.1, torch.randn(2000, generator=generator).double()
    data = y[:, None] * torch.tensor([1.0, 0.0]) + noise[:, None] * torch.tensor([1.0, 1.0])
    model = double(nn.Sequential(nn.Linear(2, 1, bias=False)))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -1.0]]))  # y = x0 - x1
    for estimator in ("linear", "two_component"):
        pattern = patterns(model, data, estimator=estimator)["0"][0]
        assert (pattern - torch.tensor([1.0, 0.0])).abs().max() < 0.15


def test_saving_loading_and_use_in_a_composite(tmp_path: Path) -> None:
    model, data = network(), draw(40, 4)
    found = patterns(model, ((batch, torch.zeros(len(batch), dtype=torch.long)) for batch in data.split(9)))
    loaded = Patterns.load(found.save(tmp_path / "patterns.safetensors"))
    assert loaded.estimator == found.estimator
    assert loaded.keys() == found.keys()
    assert all(torch.equal(loaded[k], found[k]) for k in found)
    table = hw.Composite({"layer:0": PatternAttribution(loaded), "default": hw.rules.Epsilon()})
    e = hw.explain(model, data[:3], target=0, composite=table, ledger=True)
    assert_balanced(e, TIGHT)
    assert e.relevance.isfinite().all()
    (tmp_path / "nothing").write_bytes(b"")
    for path in ("absent", "nothing"):
        with pytest.raises(hw.InvalidInput, match="cannot be read"):
            Patterns.load(tmp_path / path)


def test_batches_are_samples_and_the_model_is_left_alone() -> None:
    model, data = network(), draw(40, 4)
    before = fingerprint(model)
    found = patterns(model, data)
    for method in ("pattern_net", "pattern_attribution"):
        together = hw.explain(model, data[:5], method=method, patterns=found)
        apart = [hw.explain(model, data[i : i + 1], method=method, patterns=found).relevance for i in range(5)]
        assert_same(together.relevance, torch.cat(apart))
        small = hw.explain(model.float(), data[:5].float(), method=method, patterns=found)
        assert small.relevance.dtype == torch.float32
        model.double()
    unchanged({k: v for k, v in before.items() if k != "parameters"}, model)


def test_refusals() -> None:
    model, data = network(), draw(10, 4)
    with pytest.raises(hw.InvalidInput, match=r"hw\.patterns"):
        hw.explain(model, data, method="pattern_net")
    other = patterns(double(nn.Sequential(nn.Linear(4, 3))), data)
    with pytest.raises(hw.InvalidInput, match="this very model"):
        hw.explain(model, data, method="pattern_attribution", patterns=other)
    with pytest.raises(hw.InvalidInput, match="estimator"):
        patterns(model, data, estimator="quadratic")  # type: ignore[arg-type]
    with pytest.raises(hw.InvalidInput, match="no batch"):
        patterns(model, [])
    with pytest.raises(hw.InvalidInput, match="tensors or an iterable"):
        patterns(model, 3)
    left = double(LeftProduct())
    with pytest.raises(hw.UnsupportedOperator, match="matmul"):
        patterns(left, draw(6, 3, 2))


class LeftProduct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(self.w, x).flatten(1)
