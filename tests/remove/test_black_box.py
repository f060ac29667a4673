"""Models of which only answers can be had."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import headwater as hw
from headwater.remove import black_box


def test_arrays_go_in_and_tensors_come_out() -> None:
    seen: list[Any] = []

    def predict(rows: np.ndarray) -> np.ndarray:
        seen.append(type(rows))
        return rows @ np.arange(8.0).reshape(4, 2)

    x = torch.randn(3, 4, dtype=torch.float64)
    answers = black_box(predict)(x)
    assert seen == [np.ndarray]
    torch.testing.assert_close(answers, x @ torch.arange(8.0, dtype=torch.float64).view(4, 2))
    seen.clear()
    black_box(lambda rows: (seen.append(type(rows)), rows.sum(1))[1], numpy=False)(x)
    assert seen == [Tensor]


def test_a_function_that_answers_in_arrays_needs_no_wrapping() -> None:
    x = torch.rand(3, 4, dtype=torch.float64)
    found = hw.explain(lambda rows: rows.numpy() @ np.arange(8.0).reshape(4, 2), x, target=1, method="shapley_exact")
    torch.testing.assert_close(found.relevance, x * torch.tensor([1.0, 3.0, 5.0, 7.0]))
    with pytest.raises(hw.HeadwaterError):
        hw.explain(lambda rows: rows.detach().numpy().sum(1), x, method="gradient")


def test_an_estimator_that_knows_names_is_asked_arrays_without_complaint() -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame({"age": [20.0, 30, 50, 60], "dose": [1.0, 0, 1, 0]})
    fitted = linear.LogisticRegression().fit(table, [0, 0, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = black_box(fitted)(torch.tensor(table.to_numpy()))
    torch.testing.assert_close(answers, torch.from_numpy(fitted.predict_proba(table)))


def test_no_row_is_asked_twice() -> None:
    box = black_box(lambda rows: rows.sum(1))
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    assert box(x).tolist() == [3.0, 7.0, 3.0]
    assert (box.queries, box.hits, box.calls) == (3, 1, 1)
    box(x)
    assert (box.queries, box.hits, box.calls) == (6, 4, 1)
    small = black_box(lambda rows: rows.sum(1), cache=1)
    for _ in range(2):
        assert small(x).tolist() == [3.0, 7.0, 3.0]
    assert small.calls == 2
    fresh = black_box(lambda rows: rows.sum(1), cache=0)
    assert fresh(x).tolist() == fresh(x).tolist()
    assert fresh.calls == 2


def test_calls_hold_at_most_a_batch() -> None:
    sizes: list[int] = []

    def predict(rows: np.ndarray, other: np.ndarray) -> list[float]:
        assert len(rows) == len(other)
        sizes.append(len(rows))
        return list(rows.sum(1) + other)

    x, other = torch.randn(7, 3), torch.arange(7.0)
    answers = black_box(predict, batch_size=3)(x, other=other)
    assert sizes == [3, 3, 1]
    torch.testing.assert_close(answers.float(), x.sum(1) + other)


def test_failures_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tenacity")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    failures = iter([ConnectionError("busy"), TimeoutError("slow"), None, ConnectionError("down")])

    def predict(rows: np.ndarray) -> np.ndarray:
        error = next(failures)
        if error:
            raise error
        return rows.sum(1)

    box = black_box(predict, retries=2)
    assert box(torch.ones(1, 3)).tolist() == [3.0]
    assert box.calls == 3
    with pytest.raises(ConnectionError, match="down"):
        black_box(predict)(torch.ones(1, 3))


def test_calls_keep_their_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.sleep", sleep)
    black_box(lambda rows: rows.sum(1), rate=4.0, batch_size=1)(torch.randn(3, 2))
    assert slept == [0.0, 0.25, 0.25]


@pytest.mark.parametrize("name", ["forest", "machine", "nearest", "regression", "pipeline"])
def test_estimators(name: str) -> None:
    pytest.importorskip("sklearn")
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LinearRegression, Perceptron
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 4)), np.array(["a", "b", "c"])[rng.integers(0, 3, 60)]
    made = {
        "forest": RandomForestClassifier(5, random_state=0), "machine": SVC(), "nearest": Perceptron(),
        "regression": LinearRegression(), "pipeline": make_pipeline(StandardScaler(), SVC()),
    }[name]  # fmt: skip
    made.fit(x, x[:, 0] if name == "regression" else labels)
    found = hw.explain(black_box(made), torch.from_numpy(x[:3]), method="shapley_exact", references=x)
    assert found.relevance.shape == (3, 4)
    assert found.delta is not None
    assert found.delta.abs().max() < 1e-9
    if name == "regression":
        assert (found.relevance[:, 1:].abs() < 1e-9).all()
    if name == "nearest":
        one_hot = black_box(made, way="predict")(torch.from_numpy(x[:5]))
        assert (one_hot.sum(1) == 1).all()
        assert np.array_equal(made.classes_[one_hot.argmax(1).numpy()], made.predict(x[:5]))


def test_a_gradient_is_refused_with_what_serves() -> None:
    box = black_box(lambda rows: rows.sum(1))
    for method in ("lrp", "gradient", "integrated_gradients"):
        with pytest.raises(hw.UnsupportedModel, match="shapley_sampling"):
            hw.explain(box, torch.randn(2, 3), method=method)
    x = torch.randn(2, 3, requires_grad=True)
    assert hw.explain(box, x, method="occlusion").relevance.shape == (2, 3)


@pytest.mark.parametrize(
    "predict", [lambda rows: rows[:1], lambda rows: 3.0, lambda rows: ["a"] * len(rows), lambda rows: None]
)
def test_answers_that_are_no_scores(predict: Any) -> None:
    with pytest.raises(hw.InvalidTarget):
        black_box(predict)(torch.randn(4, 3))


@pytest.mark.parametrize(
    "settings", [{"batch_size": 0}, {"rate": 0.0}, {"retries": -1}, {"cache": -1}, {"way": "guess"}]
)
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(hw.InvalidInput):
        black_box(lambda rows: rows, **settings)
    with pytest.raises(hw.InvalidInput):
        black_box(3)
