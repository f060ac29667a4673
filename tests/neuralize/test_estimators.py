"""Every neuralized estimator computes what the fitted one computes, on real data, and its ledger balances."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.neuralize import KernelKMeans, histogram_intersection, neuralize
from tests.reference.audit import assert_accounted, assert_balanced

pytest.importorskip("sklearn")

from sklearn import (
    cluster,
    covariance,
    datasets,
    decomposition,
    discriminant_analysis,
    gaussian_process,
    kernel_ridge,
    linear_model,
    mixture,
    model_selection,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
)  # fmt: skip
from sklearn.exceptions import ConvergenceWarning

X, Y = datasets.load_wine(return_X_y=True)
BINARY = (Y > 0).astype(int)

CASES: dict[str, tuple[Any, Any, str, str | None]] = {
    # name: (estimator, labels, its function, the output that equals it; None is the default)
    "logistic": (linear_model.LogisticRegression(max_iter=1000), Y, "decision_function", None),
    "logistic, probabilities": (linear_model.LogisticRegression(max_iter=1000), Y, "predict_proba", "predict_proba"),
    "logistic, two classes": (linear_model.LogisticRegression(), BINARY, "predict_proba", "predict_proba"),
    "ridge": (linear_model.Ridge(), Y, "predict", None),
    "ridge, two targets": (linear_model.Ridge(), np.stack([Y, X[:, 0]], 1), "predict", None),
    "ridge classifier": (linear_model.RidgeClassifier(), Y, "decision_function", None),
    "linear svc": (svm.LinearSVC(), BINARY, "decision_function", None),
    "linear svr": (svm.LinearSVR(max_iter=10000), Y, "predict", None),
    "sgd": (linear_model.SGDClassifier(random_state=0), Y, "decision_function", None),
    "sgd one class": (linear_model.SGDOneClassSVM(random_state=0), None, "decision_function", None),
    "poisson": (linear_model.PoissonRegressor(), Y, "predict", None),
    "linear discriminant": (discriminant_analysis.LinearDiscriminantAnalysis(), Y, "decision_function", None),
    "perceptron, logistic": (
        neural_network.MLPClassifier((8, 6), activation="logistic", max_iter=50, random_state=0), Y,
        "predict_proba", "predict_proba",
    ),
    "perceptron, two classes": (
        neural_network.MLPClassifier((8,), max_iter=50, random_state=0), BINARY, "predict_proba", "predict_proba",
    ),
    "perceptron, regression": (
        neural_network.MLPRegressor(hidden_layer_sizes=(8,), activation="tanh", max_iter=50, random_state=0), Y,
        "predict", None,
    ),
    "svc rbf": (svm.SVC(), BINARY, "decision_function", None),
    "svc rbf, three classes": (svm.SVC(), Y, "decision_function", None),
    "svc rbf, pairs": (svm.SVC(decision_function_shape="ovo"), Y, "decision_function", None),
    "svc linear": (svm.SVC(kernel="linear"), Y, "decision_function", None),
    "svc poly": (svm.SVC(kernel="poly", coef0=1.0, degree=2), BINARY, "decision_function", None),
    "svc sigmoid": (svm.SVC(kernel="sigmoid"), Y, "decision_function", None),
    "svr": (svm.SVR(), Y, "predict", None),
    "nu svc": (svm.NuSVC(), Y, "decision_function", None),
    "one-class svm": (svm.OneClassSVM(nu=0.2), None, "decision_function", None),
    "one-class svm, linear": (svm.OneClassSVM(kernel="linear", nu=0.2), None, "decision_function", None),
    "kernel ridge": (kernel_ridge.KernelRidge(kernel="rbf", gamma=0.1), Y, "predict", None),
    "kernel ridge, poly": (kernel_ridge.KernelRidge(kernel="poly", gamma=0.1, degree=2), Y, "predict", None),
    "kernel density": (neighbors.KernelDensity(bandwidth=0.7), None, "score_samples", None),
    "mixture, full": (mixture.GaussianMixture(3, random_state=0), None, "predict_proba", "predict_proba"),
    "mixture, diag": (
        mixture.GaussianMixture(3, covariance_type="diag", random_state=0), None, "score_samples", "score_samples",
    ),
    "mixture, tied": (
        mixture.GaussianMixture(3, covariance_type="tied", random_state=0), None, "predict_proba", "predict_proba",
    ),
    "mixture, spherical": (
        mixture.GaussianMixture(3, covariance_type="spherical", random_state=0), None, "score_samples", "score_samples",
    ),
    "mixture, one": (mixture.GaussianMixture(1, random_state=0), None, "score_samples", None),
    "mixture, Bayesian": (
        mixture.BayesianGaussianMixture(n_components=3, random_state=0), None, "score_samples", "score_samples",
    ),
    "mixture, Bayesian, diag": (
        mixture.BayesianGaussianMixture(n_components=3, covariance_type="diag", random_state=0), None,
        "predict_proba", "predict_proba",
    ),
    "naive Bayes": (naive_bayes.GaussianNB(), Y, "predict_proba", "predict_proba"),
    "quadratic": (
        discriminant_analysis.QuadraticDiscriminantAnalysis(), Y, "predict_proba", "predict_proba",
    ),
    "nearest centroid": (neighbors.NearestCentroid(), Y, "decision_function", "decision_function"),
    "nearest centroid, priors": (
        neighbors.NearestCentroid(priors="empirical"), BINARY, "decision_function", "decision_function",
    ),
    "k-means": (cluster.KMeans(4, n_init=2, random_state=0), None, "transform", "transform"),
    "kernel k-means": (KernelKMeans(3, random_state=0), None, "predict_proba", "predict_proba"),
    "one against the rest": (multiclass.OneVsRestClassifier(svm.SVC()), Y, "decision_function", None),
    "one for each target": (multioutput.MultiOutputRegressor(svm.SVR()), np.stack([Y, Y**2], 1), "predict", None),
    "search": (model_selection.GridSearchCV(svm.SVC(), {"C": [1.0, 10.0]}, cv=2), BINARY, "decision_function", None),
    "Gaussian process": (
        gaussian_process.GaussianProcessRegressor(
            2.0 * gaussian_process.kernels.RBF(3.0) + gaussian_process.kernels.WhiteKernel(0.1), optimizer=None,
            normalize_y=True,
        ),
        Y, "predict", None,
    ),
    "envelope": (covariance.EllipticEnvelope(random_state=0), None, "decision_function", None),
}  # fmt: skip

FRONTS: dict[str, list[Any]] = {
    "scaled": [preprocessing.StandardScaler()],
    "components": [preprocessing.StandardScaler(), decomposition.PCA(5)],
}


def fitted(estimator: Any, labels: Any, front: str) -> Any:
    model = pipeline.make_pipeline(*FRONTS[front], estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        return model.fit(X, labels)


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("case", CASES)
def test_same_function_and_a_balanced_ledger(case: str, front: str) -> None:
    estimator, labels, function, output = CASES[case]
    model = fitted(estimator, labels, front)
    x = torch.as_tensor(X)
    expected = getattr(model, function)(X)
    found = neuralize(model, output)(x).detach().numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-9 * max(1.0, np.abs(expected).max())
    e = hw.explain(neuralize(model), x[:3], ledger=True)
    assert e.relevance.shape == (3, X.shape[1])
    assert_balanced(e)
    assert_accounted(e)


def test_the_default_output_names_the_predicted_class() -> None:
    for case in ("k-means", "nearest centroid", "kernel k-means", "mixture, full", "naive Bayes", "svc rbf, pairs"):
        estimator, labels, *_ = CASES[case]
        model = fitted(estimator, labels, "scaled")
        scores = neuralize(model)(torch.as_tensor(X))
        if "pairs" not in case:
            assert np.array_equal(scores.argmax(1).numpy(), model.predict(X)), case


def test_scaling_after_a_projection_is_part_of_it() -> None:
    for last in (svm.SVC(), linear_model.Ridge()):
        model = pipeline.make_pipeline(decomposition.PCA(5), preprocessing.StandardScaler(), last).fit(X, Y)
        e = hw.explain(neuralize(model), torch.as_tensor(X[:3]), composite="lrp_0", ledger=True)
        assert_balanced(e)
        assert "zero input" not in e.ledger.causes()


def test_kernel_k_means_is_an_estimator() -> None:
    from sklearn.utils.estimator_checks import check_estimator

    found = check_estimator(KernelKMeans(), on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in found if r["status"] == "failed"] == []


def test_kernel_k_means_finds_clusters_that_are_no_balls() -> None:
    x, y = datasets.make_moons(200, noise=0.05, random_state=0)
    fitted = KernelKMeans(2, gamma=30.0, random_state=0).fit(x)
    assert np.array_equal(fitted.predict(x), fitted.labels_)
    assert np.allclose(fitted.predict_proba(x).sum(1), 1)
    agreement = (fitted.labels_ == y).mean()
    plain = (cluster.KMeans(2, n_init=4, random_state=0).fit_predict(x) == y).mean()
    assert max(agreement, 1 - agreement) >= max(plain, 1 - plain)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_neighbours_outvote_where_their_margin_is_largest(count: int) -> None:
    model = fitted(neighbors.KNeighborsClassifier(count), Y, "scaled")
    network = neuralize(model)
    x = torch.as_tensor(X) + torch.randn(X.shape) * torch.as_tensor(X.std(0))
    assert np.array_equal(network(x).argmax(1).numpy(), model.predict(x.numpy()))
    e = hw.explain(network, x[:5], ledger=True)
    assert_balanced(e)
    assert e.delta.abs().max() < 1e-9  # differences of distances alone: nothing is absorbed


def test_more_neighbours_than_a_class_has() -> None:
    labels = np.r_[np.zeros(5, int), np.ones(2, int), np.full(len(X) - 7, 2)]
    model = neighbors.KNeighborsClassifier(9).fit(X, labels)
    assert np.array_equal(neuralize(model)(torch.as_tensor(X)).argmax(1).numpy(), model.predict(X))


def test_histogram_intersection_explains_bins_by_what_they_contribute() -> None:
    h = np.abs(X) / np.abs(X).sum(1, keepdims=True)
    h[:, 3] = 0
    for labels in (BINARY, Y):
        model = svm.SVC(kernel=histogram_intersection, C=100.0).fit(h, labels)
        network = neuralize(model)
        found = network(torch.as_tensor(h)).detach().numpy()
        assert np.abs(found - model.decision_function(h)).max() < 1e-9
    model = svm.SVC(kernel=histogram_intersection, C=100.0).fit(h, BINARY)
    e = hw.explain(neuralize(model), torch.as_tensor(h[:4]), ledger=True)
    support = h[model.support_]
    by_hand = [sum(a * np.minimum(x, s) for a, s in zip(model.dual_coef_[0], support, strict=True)) for x in h[:4]]
    assert np.abs(e.relevance.numpy() - np.stack(by_hand)).max() < 1e-12
    assert_balanced(e)


def test_a_baseline_of_linear_models_is_what_their_relevance_starts_from() -> None:
    model = fitted(linear_model.Ridge(), Y, "components")
    x, baseline = torch.as_tensor(X[:5]), X.mean(0) + X.std(0)
    network = neuralize(model, baseline=baseline)
    weight = torch.autograd.functional.jacobian(lambda v: network(v[None])[0], x[0])
    e = hw.explain(network, x, ledger=True)
    assert torch.allclose(e.relevance, weight * (x - torch.as_tensor(baseline)), atol=1e-10)
    assert torch.allclose(e.relevance.sum(1), e.output - float(model.predict(baseline[None])[0]), atol=1e-10)
    assert_balanced(e)
    bare = linear_model.LogisticRegression(max_iter=1000).fit(X / X.std(0), Y)
    x = x / torch.as_tensor(X.std(0))
    e = hw.explain(neuralize(bare), x, target=1, composite="lrp_0")
    assert torch.allclose(e.relevance, torch.as_tensor(bare.coef_[1]) * x, atol=1e-12)


def test_explanations_of_batches_and_float32() -> None:
    model = fitted(svm.SVC(), Y, "components")
    network, x = neuralize(model), torch.as_tensor(X[:7])
    whole = hw.explain(network, x)
    parts = hw.explain(network, x, batch_size=3)
    assert torch.allclose(whole.relevance, parts.relevance, atol=1e-12)
    single = hw.explain(network, x[:1])
    assert torch.allclose(whole.relevance[:1], single.relevance, atol=1e-12)
    low = hw.explain(network, x.float())
    assert low.relevance.dtype == torch.float32
    assert torch.allclose(low.relevance.double(), whole.relevance, rtol=1e-3, atol=1e-5)
    strided = torch.as_tensor(np.asfortranarray(X[:7]))
    assert torch.allclose(hw.explain(network, strided).relevance, whole.relevance, atol=1e-12)


@pytest.mark.parametrize("method", ["gradient", "gradient_x_input", "sensitivity"])
def test_gradients_are_those_of_the_function(method: str) -> None:
    network = neuralize(fitted(svm.SVC(), BINARY, "components"))
    x = torch.as_tensor(X[:3])
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(leaf).sum(), leaf)
    expected = {"gradient": gradient, "gradient_x_input": gradient * x, "sensitivity": gradient.abs()}[method]
    assert torch.allclose(hw.explain(network, x, method=method).relevance, expected, atol=1e-12)


def test_differentiable_explanations() -> None:
    network = neuralize(fitted(CASES["mixture, full"][0], None, "scaled"))
    x = torch.as_tensor(X[:2]).clone().requires_grad_()
    e = hw.explain(network, x, target=0, differentiable=True)
    (found,) = torch.autograd.grad(e.relevance.square().sum(), x)
    step, direction = 1e-6, torch.randn(x.shape, dtype=x.dtype) * torch.as_tensor(X.std(0))
    ends = [hw.explain(network, x.detach() + s * step * direction, target=0).relevance.square().sum() for s in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    assert torch.isclose((found * direction).sum(), slope, rtol=1e-4)


def test_a_selfcheck_passes() -> None:
    for case in ("svc rbf", "k-means", "mixture, full", "kernel density"):
        network = neuralize(fitted(*CASES[case][:2], "components"))
        report = hw.selfcheck(network, torch.as_tensor(X[:3]))
        assert report.passed, f"{case}: {report}"
