"""Estimators passed to ``explain`` as they are: labels, tables, trees, files, and refusals that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.neuralize import explain_estimator, is_estimator, load_estimator, neuralize
from headwater.neuralize.linear import Linear
from tests.reference.audit import assert_accounted, assert_balanced

pytest.importorskip("sklearn")

from sklearn import (
    cluster,
    datasets,
    ensemble,
    linear_model,
    neighbors,
    pipeline,
    preprocessing,
    svm,
    tree,
)  # fmt: skip

X, Y = datasets.load_wine(return_X_y=True)
NAMES = np.array(["Barolo", "Grignolino", "Barbera"])[Y]
chain = pipeline.make_pipeline


def explained(estimator: Any, x: Any, *args: Any, **options: Any) -> hw.Explanation:
    return explain_estimator(hw.explain, estimator, x, *args, **options)


def test_arrays_tables_and_labels() -> None:
    pandas = pytest.importorskip("pandas")
    fitted = chain(preprocessing.StandardScaler(), svm.SVC()).fit(X, NAMES)
    by_label = explained(fitted, X[:3], "Barbera")
    by_index = hw.explain(neuralize(fitted), torch.as_tensor(X[:3]), fitted.classes_.tolist().index("Barbera"))
    assert torch.equal(by_label.relevance, by_index.relevance)
    assert "neuralized SVC" in by_label.composite
    framed = explained(fitted, pandas.DataFrame(X[:3]), "Barbera")
    assert torch.allclose(by_label.relevance, framed.relevance, atol=1e-12)
    sparse = pytest.importorskip("scipy.sparse").csr_matrix(X[:3])
    assert torch.allclose(by_label.relevance, explained(fitted, sparse, "Barbera").relevance, atol=1e-12)
    whole = explained(fitted, torch.as_tensor((X[:3] * 100).astype(int)))
    assert whole.relevance.dtype == torch.float64
    named = svm.SVC().fit(pandas.DataFrame(X, columns=list("abcdefghijklm")), Y)
    with pytest.raises(hw.InvalidInput, match="in this order"):
        explained(named, pandas.DataFrame(X[:2], columns=list("bacdefghijklm")))
    with pytest.raises(hw.InvalidInput, match="none of Barbera, Barolo, Grignolino"):
        explained(fitted, X[:3], "Chianti")


def test_the_first_of_two_classes_is_the_negative_of_the_second() -> None:
    fitted = svm.SVC().fit(X / 100, Y > 0)
    second, first = (explained(fitted, X[:3] / 100, target=k) for k in (1, 0))
    assert torch.allclose(first.relevance, -second.relevance)
    assert torch.allclose(first.output, -second.output)


# ---------------------------------------------------------------------- trees

TREES: dict[str, tuple[Any, str]] = {
    "tree": (tree.DecisionTreeClassifier(max_depth=4, random_state=0), "predict_proba"),
    "forest": (ensemble.RandomForestClassifier(10, random_state=0), "predict_proba"),
    "forest, regression": (ensemble.ExtraTreesRegressor(10, random_state=0), "predict"),
    "boosting": (ensemble.GradientBoostingRegressor(n_estimators=10, random_state=0), "predict"),
    "histogram boosting": (ensemble.HistGradientBoostingClassifier(max_iter=5), "decision_function"),
    "isolation": (ensemble.IsolationForest(n_estimators=20, random_state=0), "decision_function"),
}


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("scaled", [False, True])
def test_trees_by_exact_shapley_values(name: str, scaled: bool) -> None:
    pytest.importorskip("shap")
    estimator, function = TREES[name]
    fitted = chain(*([preprocessing.StandardScaler()] if scaled else []), estimator).fit(X, Y)
    network, x = neuralize(fitted), torch.as_tensor(X)
    assert np.abs(network(x).numpy() - getattr(fitted, function)(X)).max() < 1e-9
    e = hw.explain(network, x[:3], ledger=True)
    assert_balanced(e)
    assert_accounted(e)
    assert "expected value" in e.ledger.causes()
    if name == "isolation":
        return  # its score is a function of the trees' own: what that expects is no expectation of the score
    for target in (None, hw.target.Margin(1, 0)) if network(x).dim() == 2 else (None,):
        e = hw.explain(network, x[:3], target=target)
        assert (e.output - e.reference - e.relevance.sum(1)).abs().max() < 1e-9  # as `shap` counts them


def test_shapley_values_of_a_small_tree_by_definition() -> None:
    """Two columns: each takes the mean of what it adds first and what it adds last, by the tree's own weights."""
    pytest.importorskip("shap")
    x = X[:, :2]
    fitted = tree.DecisionTreeRegressor(max_depth=3, random_state=0).fit(x, Y)
    inner = fitted.tree_

    def value(known: set[int], row: Any, node: int = 0) -> float:
        if inner.children_left[node] < 0:
            return float(inner.value[node].item())
        left, right, column = inner.children_left[node], inner.children_right[node], inner.feature[node]
        if column in known:
            return value(known, row, left if np.float32(row[column]) <= inner.threshold[node] else right)
        n = inner.weighted_n_node_samples
        return (n[left] * value(known, row, left) + n[right] * value(known, row, right)) / n[node]

    e = hw.explain(neuralize(fitted), torch.as_tensor(x[:5]))
    for row, found in zip(x[:5], e.relevance, strict=True):
        none, both, one, two = (value(s, row) for s in (set(), {0, 1}, {0}, {1}))
        expected = [(one - none + both - two) / 2, (two - none + both - one) / 2]
        assert np.abs(found.numpy() - expected).max() < 1e-9


# ---------------------------------------------------------------------- what has no network


def test_what_has_no_network_is_explained_by_removal_and_says_so() -> None:
    fitted = neighbors.LocalOutlierFactor(novelty=True).fit(X)
    asked: dict[str, Any] = {}

    def explain(model: Any, x: Any, target: Any, method: str, **options: Any) -> hw.Explanation:
        asked.update(model=model, method=method)
        scores = model(x)
        return hw.Explanation(torch.zeros_like(x), scores, torch.zeros_like(scores), target, method)

    with pytest.warns(hw.HeadwaterWarning, match="LocalOutlierFactor.*by removal"):
        e = explain_estimator(explain, fitted, X[:3])
    assert asked["method"] == e.method == "shapley_sampling"
    assert "by removal" in e.composite
    assert np.abs(e.output.numpy() - fitted.decision_function(X[:3])).max() < 1e-12


def test_refusals() -> None:
    with pytest.raises(hw.InvalidInput, match="not fitted"):
        neuralize(svm.SVC())
    with pytest.raises(hw.InvalidInput, match="a class"):
        neuralize(svm.SVC)
    with pytest.raises(hw.InvalidInput, match="takes a fitted"):
        neuralize(torch.nn.Linear(2, 2))
    fitted = svm.SVC().fit(X, Y)
    with pytest.raises(hw.InvalidInput, match="choose from decision_function"):
        neuralize(fitted, "predict_proba")
    with pytest.raises(hw.InvalidInput, match="choose from gradient, proportional, winner_takes_all"):
        neuralize(fitted, pooling="mean")
    with pytest.raises(hw.InvalidInput, match=r"takes \[N, 13\]"):
        neuralize(fitted)(torch.zeros(2, 5))
    with pytest.raises(hw.InvalidInput, match="baseline is for linear models"):
        neuralize(fitted, baseline=X[0])
    with pytest.raises(hw.UnsupportedModel, match="Neuralized are"):
        neuralize(neighbors.LocalOutlierFactor(novelty=True).fit(X))
    with pytest.raises(hw.UnsupportedModel, match="kernel"):
        neuralize(svm.SVC(kernel=lambda a, b: a @ b.T).fit(X, Y))
    with pytest.raises(hw.UnsupportedModel, match="FunctionTransformer"):
        neuralize(chain(preprocessing.FunctionTransformer(lambda a: a[:, ::-1]), svm.SVC()).fit(X, Y))
    with pytest.raises(hw.InvalidInput, match="stiffness"):
        neuralize(cluster.KMeans(2, n_init=1).fit(X), stiffness=-1.0)
    with pytest.raises(hw.InvalidInput, match="at least two clusters"):
        neuralize(cluster.KMeans(1, n_init=1).fit(X))
    with pytest.raises(hw.InvalidInput, match="samples by columns"):
        explained(fitted, X[0])
    with pytest.raises(hw.InvalidInput, match="no numbers"):
        explained(fitted, np.full((2, 13), "a"))
    with pytest.raises(hw.InvalidInput, match="empty"):
        explained(fitted, X[:0])


def test_namesakes_of_other_libraries_are_no_scikit_learn_estimators() -> None:
    class Own(svm.SVC):  # inherits what is known of an SVC
        pass

    assert neuralize(Own().fit(X, Y))(torch.as_tensor(X[:2])).shape == (2, 3)
    stranger = type("SVC", (), {"fit": None, "get_params": None})()
    stranger.weights_ = None
    with pytest.raises(hw.UnsupportedModel, match="no network equal to a SVC"):
        neuralize(stranger)


def test_estimators_are_told_from_models() -> None:
    assert is_estimator(svm.SVC())
    assert is_estimator(chain(preprocessing.StandardScaler(), svm.SVC()))
    assert not is_estimator(torch.nn.Linear(2, 2))
    assert not is_estimator(lambda x: x)
    assert not is_estimator(svm.SVC)


# ---------------------------------------------------------------------- files


def test_estimators_from_files(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io")
    fitted = chain(preprocessing.StandardScaler(), linear_model.LogisticRegression()).fit(X, Y)
    skops.dump(fitted, tmp_path / "model.skops")
    found = load_estimator(tmp_path / "model.skops")
    x = torch.as_tensor(X[:3])
    assert torch.equal(neuralize(found)(x), neuralize(fitted)(x))
    with pytest.raises(hw.InvalidInput, match="is no file"):
        load_estimator(tmp_path / "absent.skops")
    (tmp_path / "broken.skops").write_bytes(b"nothing")
    with pytest.raises(hw.InvalidInput, match="cannot be read"):
        load_estimator(tmp_path / "broken.skops")


def test_types_that_are_not_trusted_are_named(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io")
    skops.dump({"path": Path("x"), "model": linear_model.Ridge().fit(X, Y)}, tmp_path / "odd.skops")
    with pytest.raises(hw.InvalidInput, match=r"not trusted.*PosixPath"):
        load_estimator(tmp_path / "odd.skops")


def test_a_pickle_is_refused_unless_told_otherwise(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    joblib.dump(linear_model.Ridge().fit(X, Y), tmp_path / "model.joblib")
    with pytest.raises(hw.InvalidInput, match="runs the code in it"):
        load_estimator(tmp_path / "model.joblib")
    assert isinstance(load_estimator(tmp_path / "model.joblib", allow_pickle=True), linear_model.Ridge)


def test_columns_that_are_zero_differ_from_a_baseline() -> None:
    """``w_d (x_d - baseline_d)`` of a column at zero is no factor times zero."""
    weight, baseline = torch.tensor([[1.0, 2.0, 3.0]]), torch.ones(3)
    model = Linear(weight, torch.tensor([0.5]), baseline, flat=True).eval()
    x = torch.tensor([[0.0, 2.0, 0.0]])
    assert torch.equal(hw.explain(model, x).relevance, weight * (x - baseline))
