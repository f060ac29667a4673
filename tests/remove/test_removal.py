"""The engine: several arguments, hidden layers, batches, memory, targets and devices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater.remove.references import Marginal

METHODS = {
    "occlusion": {}, "feature_ablation": {}, "shapley_sampling": {"permutations": 2}, "kernel_shap": {"samples": 150},
    "lime": {"samples": 20, "features": "grid"}, "rise": {"samples": 10},
}  # fmt: skip


class Two(nn.Module):
    """A picture and a table, whose scores multiply."""

    def forward(self, picture: Tensor, table: Tensor) -> Tensor:
        return torch.stack([picture.sum((1, 2, 3)) * table.sum(1), table.sum(1)], 1)


@pytest.mark.parametrize("method", METHODS)
def test_several_arguments(method: str) -> None:
    a, b = torch.rand(2, 1, 6, 6, dtype=torch.float64), torch.rand(2, 3, dtype=torch.float64)
    features = {} if method in ("occlusion", "rise") else {"features": {0: 3, 1: None}}
    options = {k: v for k, v in METHODS[method].items() if k != "features"}
    both = hw.explain(Two(), (a, b), target=0, method=method, **options, **features)
    assert [r.shape for r in both.relevance] == [a.shape, b.shape]
    if both.complete:
        assert both.delta is not None
        assert both.delta.abs().max() < 1e-9
    named = {"features": {"picture": 3}} if features else {}
    one = hw.explain(Two(), {"picture": a, "table": b}, target=0, method=method, argument="picture", **options, **named)
    assert one.relevance["table"] is None
    assert one.relevance["picture"].shape == a.shape


def test_shapley_values_of_two_arguments_that_multiply() -> None:
    a, b = torch.rand(2, 1, 2, 2, dtype=torch.float64), torch.rand(2, 3, dtype=torch.float64)
    found = hw.explain(Two(), (a, b), target=0, method="shapley_exact", features={0: None, 1: None})
    torch.testing.assert_close(found.relevance[0], a * b.sum(1)[:, None, None, None] / 2)
    torch.testing.assert_close(found.relevance[1], b * a.sum((1, 2, 3))[:, None] / 2)


def network() -> nn.Sequential:
    layers = [nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 3)]
    return nn.Sequential(*layers).double().eval()


def test_channels_of_a_hidden_layer() -> None:
    model, x = network(), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    found = hw.explain(model, x, target=1, method="feature_ablation", layer="1")
    assert found.relevance is None
    with torch.no_grad():
        hidden = model[1](model[0](x))
        for c in range(5):
            without = hidden.clone()
            without[:, c] = 0
            fall = model(x)[:, 1] - model[4](model[3](model[2](without)))[:, 1]
            torch.testing.assert_close(found.details["features"][:, c], fall)
            torch.testing.assert_close(found.layers["1"][:, c].sum((1, 2)), fall)
    groups = torch.tensor([0, 0, 1, 1, 1])[:, None, None]
    grouped = hw.explain(model, x, target=1, method="shapley_exact", layer="1", features=groups)
    assert grouped.details["features"].shape == (2, 2)
    assert grouped.delta is not None
    assert grouped.delta.abs().max() < 1e-9
    mean = hw.explain(model, x, target=1, method="occlusion", layer="1", imputer="mean", window=3)
    assert mean.layers["1"].shape == (2, 5, 6, 6)
    assert not any(m._forward_hooks for m in model.modules())


def test_a_layer_that_returns_several_tensors_and_named_arguments() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
            out, _ = self.lstm(x)
            return self.head((out * attention_mask[..., None]).mean(1))

    model, x = Reads().eval(), torch.randn(2, 5, 3)
    inputs = {"x": x, "attention_mask": torch.ones(2, 5)}
    found = hw.explain(model, inputs, target=0, method="feature_ablation", layer="lstm")
    with torch.no_grad():
        out = model.lstm(x)[0]
        out[:, 2] = 0
        fall = model(**inputs)[:, 0] - model.head(out.mean(1))[:, 0]
    torch.testing.assert_close(found.layers["lstm"][:, 2].sum(1), fall, atol=1e-6, rtol=1e-5)


def test_layers_that_cannot_be_removed_from() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x)).sum(1)

    with pytest.raises(hw.InvalidInput, match="runs 2 times"):
        hw.explain(Twice().eval(), torch.randn(2, 3), method="feature_ablation", layer="layer")
    with pytest.raises(hw.InvalidInput, match="no module"):
        hw.explain(lambda x: x.sum(1), torch.randn(2, 3), method="feature_ablation", layer="layer")


@pytest.mark.parametrize("method", METHODS)
def test_too_much_for_the_memory_is_halved(method: str) -> None:
    model = network()
    most: list[int] = []

    def tight(x: Tensor) -> Tensor:
        if len(x) > 7:
            raise torch.OutOfMemoryError("out of memory")
        most.append(len(x))
        return model(x)

    x = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    found = hw.explain(tight, x, target=0, method=method, **METHODS[method])
    expected = hw.explain(model, x, target=0, method=method, **METHODS[method])
    torch.testing.assert_close(found.relevance, expected.relevance)
    assert max(most) <= 7


@pytest.mark.parametrize("method", METHODS)
def test_rows_that_the_model_gets(method: str) -> None:
    """No row more than the method needs, in full batches."""
    sizes: list[int] = []

    def counting(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x.flatten(1).sum(1)

    hw.explain(counting, torch.rand(2, 1, 8, 8), method=method, batch_size=50, **METHODS[method])
    cells = 64
    needed = {
        "occlusion": 2 * cells + 2, "feature_ablation": 2 * cells + 2, "shapley_sampling": 2 * 2 * (cells - 1) + 4,
        "kernel_shap": 2 * 150 + 4, "lime": 2 * 20 + 2, "rise": 2 * 10 + 2,
    }[method]  # fmt: skip
    assert sum(sizes) == needed
    assert len([s for s in sizes if s < 50]) <= 3


@pytest.mark.parametrize(
    "target",
    [
        None, 1, [0, 2], hw.target.LogOdds(1), hw.target.Margin(0, 2), hw.target.Contrast(2), hw.target.Sum(),
        hw.target.Neuron("4", 1), lambda out: out[:, 0] * out[:, 1],
    ],
    ids=lambda target: "function" if callable(target) else str(target),
)  # fmt: skip
def test_every_target(target: Any) -> None:
    model, x = network(), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    found = hw.explain(model, x, target=target, method="shapley_sampling", permutations=2)
    assert found.delta is not None
    assert found.delta.abs().max() < 1e-9


def test_targets_by_place() -> None:
    dense = nn.Conv2d(1, 3, 3, padding=1).eval()
    found = hw.explain(dense, torch.rand(2, 1, 6, 6), method="feature_ablation", features=3)
    assert found.target.shape == (2,)
    speaks = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9)).eval()
    found = hw.explain(speaks, torch.randint(0, 9, (2, 5)), target=hw.target.Token(-1), method="feature_ablation")
    assert found.relevance.shape == (2, 5)
    assert (found.relevance[:, :-1] == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    model, x = network(), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    fine = hw.explain(model, x, target=0, method="shapley_sampling", permutations=4)
    coarse = hw.explain(model.to(dtype), x.to(dtype), target=0, method="shapley_sampling", permutations=4)
    assert coarse.relevance.dtype == dtype
    assert (coarse.relevance.double() - fine.relevance).abs().max() < 0.1 * fine.relevance.abs().max()


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_writes_to_its_input(method: str) -> None:
    def writes(x: Tensor, scale: Tensor) -> Tensor:
        x.mul_(scale[:, None])
        scale.zero_()
        return x.sum(1)

    x, scale = torch.rand(2, 6, dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64)
    given = (x.clone(), scale.clone())
    options = {k: v for k, v in METHODS[method].items() if k != "features"}
    found = hw.explain(writes, (x, scale), method=method, argument=0, **options)
    assert torch.equal(x, given[0])
    assert torch.equal(scale, given[1])
    if method not in ("rise", "lime"):  # which estimate
        torch.testing.assert_close(found.relevance[0], x * scale[:, None])


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("shapley_sampling", {"permutations": 2.5}), ("lime", {"samples": "many"}), ("rise", {"samples": True}),
        ("kernel_shap", {"samples": 0}), ("feature_permutation", {"repeats": 1.5}), ("lime", {"depth": 0.5}),
        ("contextual_prediction_difference", {"samples": 0}), ("shapley_exact", {"features": "words"}),
    ],
)  # fmt: skip
def test_counts_that_are_none(method: str, options: dict[str, Any]) -> None:
    with pytest.raises(hw.InvalidInput):
        hw.explain(network(), torch.rand(2, 3, 8, 8).double(), target=0, method=method, **options)


def test_answers_that_are_not_finite() -> None:
    with pytest.raises(hw.NonFinite):
        hw.explain(lambda x: 1 / x.sum(1), torch.ones(1, 3), method="shapley_exact")


def test_marginal_shapley_values_sum_to_the_gap_to_the_mean_answer() -> None:
    model, x, others = network(), torch.rand(2, 3, 8, 8).double(), torch.rand(6, 3, 8, 8).double()
    found = hw.explain(model, x, target=0, method="kernel_shap", features=4, imputer=Marginal(others, None))
    torch.testing.assert_close(found.reference, model(others)[:, 0].mean().detach().expand(2))


def test_saved_and_loaded(tmp_path: Any) -> None:
    found = hw.explain(lambda t: [float(len(s)) for s in t], ["one two", "three"], method="shapley_exact")
    again = hw.load(found.save(tmp_path / "found.safetensors"))
    assert again.details["words"] == [["one", "two"], ["three"]]
    torch.testing.assert_close(again.relevance, found.relevance)
    hidden = hw.explain(network(), torch.rand(1, 3, 8, 8).double(), method="feature_ablation", layer="1")
    assert hw.load(hidden.save(tmp_path / "hidden.safetensors")).layers["1"].shape == (1, 5, 6, 6)
