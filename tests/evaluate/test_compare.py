from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import headwater as hw
from headwater.errors import InvalidInput
from headwater.evaluate import compare, completeness_gap, effective_features, file_size, pixel_flipping
from tests.evaluate import nets

METHODS: dict[str, Any] = {"LRP": "lrp", "plus": {"method": "lrp", "composite": "epsilon_plus"}, "SA": "sensitivity"}


def test_the_table_is_what_its_measures_say() -> None:
    model, x = nets.visual(), nets.pictures(4)
    found = compare(model, x, METHODS, steps=6, repetitions=1)
    explanation = hw.explain(model, x)
    row = found.table["LRP"]
    assert row["area"] == pytest.approx(pixel_flipping(model, x, explanation, steps=6).area, abs=1e-6)
    assert row["file_size"] == pytest.approx(float(file_size(explanation).double().mean()))
    assert row["effective_features"] == pytest.approx(float(effective_features(explanation).mean()))
    assert row["gap"] == pytest.approx(float(completeness_gap(explanation).abs().mean()))
    assert row["low"] <= row["area"] <= row["high"]
    assert abs(row["randomized"]) < 0.6
    assert row["per_second"] > 0
    assert row["memory"] > 0
    assert found.table["SA"]["gap"] is None
    assert [e.name for e in found.entries] == ["LRP", "plus", "SA", "random"]
    text = str(found.table)
    assert all(name in text for name in (*METHODS, "random", "inpaint", "N = 4"))


def test_the_recommendation_gives_reasons_and_limits() -> None:
    model, x = nets.tabular(), torch.randn(30, 6)

    def good(model: Any, x: torch.Tensor, target: Any) -> torch.Tensor:
        return hw.explain(model, x, target, method="gradient_x_input").relevance

    def blind(model: Any, x: torch.Tensor, target: Any) -> torch.Tensor:
        return hw.explain(nets.tabular(), x, target, method="gradient_x_input").relevance  # of whatever model

    found = compare(model, x, {"good": good, "bad": lambda m, v, t: -good(m, v, t)}, repetitions=0)
    assert found.recommendation.startswith("Use good")
    assert "Not below a random order with 95 % confidence: bad" in found.recommendation
    assert "30 samples" in found.recommendation
    fooled = compare(model, x, {"blind": blind}, repetitions=0).recommendation
    assert "No method can be recommended" in fooled
    assert "blind is left out" in fooled
    assert "few" in compare(model, x[:1], {"good": good}, repetitions=0).recommendation


def test_a_method_that_cannot_serve_is_told_in_its_row() -> None:
    def failing(model: Any, x: torch.Tensor, target: Any) -> torch.Tensor:
        raise InvalidInput("needs a dark room")

    found = compare(nets.visual(), nets.pictures(2), {"LRP": "lrp", "odd": failing}, steps=3, repetitions=0)
    assert "does not serve: needs a dark room" in str(found.table)
    assert "area" not in found.table["odd"]
    assert "odd" not in found.curves


def test_results_are_kept_and_taken_only_for_the_same_question(tmp_path: Path) -> None:
    model, x = nets.visual(), nets.pictures(3)
    calls: list[int] = []

    def counted(model: Any, x: torch.Tensor, target: Any) -> torch.Tensor:
        calls.append(len(x))
        return hw.explain(model, x, target).relevance

    def run(**more: Any) -> Any:
        options = {"steps": 3, "repetitions": 0, "randomize": False, "store": tmp_path / "kept", **more}
        methods = {"own": counted, "SA": "sensitivity"}
        return compare(options.pop("model", model), options.pop("x", x), methods, **options)

    first, second = run(), run()
    assert len(calls) == 1
    assert str(first.table) == str(second.table)
    assert first.entries[0].relevance.equal(second.entries[0].relevance)
    run(steps=4)
    run(steps=4, x=x + 0.01)
    run(steps=4, x=x + 0.01, target=0)
    run(steps=4, x=x + 0.01, target=0, imputer=0.5)
    other = nets.visual()
    with torch.no_grad():
        other[0].bias.add_(0.1)
    run(steps=4, x=x + 0.01, target=0, imputer=0.5, model=other)
    assert len(calls) == 6
    (tmp_path / "kept" / "own.safetensors").write_bytes(b"half a file")
    run(steps=4, x=x + 0.01, target=0, imputer=0.5, model=other)
    assert len(calls) == 7


@pytest.mark.parametrize("kind", ["pictures", "series", "table", "words"])
def test_pictures_and_pages_of_every_kind(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    if kind == "pictures":
        model, x = nets.visual(24), nets.pictures(2, 24)
    elif kind == "series":
        model, x = nn.Sequential(nn.Conv1d(2, 3, 5), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)), torch.randn(2, 2, 20)
    elif kind == "table":
        model, x = nets.tabular(), torch.randn(3, 6)
    else:
        ids = torch.randint(1, 20, (2, 7))
        model, x = nets.Words(), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    found = compare(model.eval(), x, {"LRP": "lrp", "GI<b>": "gradient_x_input"}, steps=3, repetitions=0)
    html = found.to_html(tmp_path / "page" / "index.html")
    assert (tmp_path / "page" / "index.html").read_text() == html
    assert "GI&lt;b&gt;" in html
    assert "<b>" not in html
    assert html.count("data:image/png") == 2


def test_bad_arguments_are_told() -> None:
    model, x = nets.visual(), nets.pictures()
    with pytest.raises(InvalidInput, match="Unknown method"):
        compare(model, x, ["lrp", "tea_leaves"])
    with pytest.raises(InvalidInput, match="names of their own"):
        compare(model, x, ["lrp", "lrp"])
    with pytest.raises(InvalidInput, match="no methods"):
        compare(model, x, [])
    with pytest.raises(InvalidInput, match="list of methods"):
        compare(model, x, "lrp")
    with pytest.raises(InvalidInput, match="names for"):
        compare(model, x, ["lrp"], names=["one"], steps=2)
    with pytest.raises(InvalidInput, match="A method is"):
        compare(model, x, [3])  # type: ignore[list-item]
    with pytest.raises(InvalidInput, match="kind"):
        compare(model, x, ["gradient"], steps=2, repetitions=0).plot("pie")


@pytest.mark.parametrize(
    ("method", "what"), [({"method": "occlusion", "windw": 3}, "no option 'windw'"), ("spray", "no single explanation")]
)
def test_a_method_that_cannot_be_asked_so_is_refused_before_anything_runs(method: Any, what: str) -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("nothing may run")

    with pytest.raises(InvalidInput, match=what):
        compare(model, nets.pictures(2), [method])


def test_a_store_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note").touch()
    with pytest.raises(InvalidInput, match="is a file: name a folder"):
        compare(nets.tabular(), torch.randn(3, 6), ["lrp"], store=tmp_path / "note" / "methods")


class Sum(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.stack([a.sum(1) + b, a[:, 0] - b], 1)


def test_of_several_arguments_the_table_says_whose_map_it_measures() -> None:
    found = compare(Sum(), {"a": torch.rand(3, 4), "b": torch.rand(3)}, ["gradient_x_input"], repetitions=0)
    assert any("x['a'], x['b'] lose features together" in note for note in found.table.notes)
    axes = found.plot("maps").axes
    assert all(tick == round(tick) for ax in axes[:-1] for tick in ax.get_xticks())  # features are whole
