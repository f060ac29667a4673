"""Linear models and multi-layer perceptrons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from headwater.neuralize.operators import projection
from headwater.neuralize.request import Lambda, Request, builds, tensor


class Linear(nn.Module):
    """``w·x + b``: relevance ``w_d x_d``, or about a baseline, ``w_d (x_d - baseline_d)``.

    Args:
        weight: ``[K, D]``; ``bias``: ``[K]``.
        baseline: ``[D]``, or None for zero, where rules for affine operators apply.
        flat: K is 1, and the output ``[N]``.
    """

    baseline: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor, baseline: Tensor | None = None, flat: bool = False) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(t, requires_grad=False) for t in (weight, bias))
        self.register_buffer("baseline", baseline)
        self.relevance_without_factor = baseline is not None
        self.flat = flat

    def forward(self, x: Tensor) -> Tensor:
        if self.baseline is None:
            z = nn.functional.linear(x, self.weight, self.bias)
        else:
            z = projection(x, self.weight, self.baseline, self.bias + self.weight @ self.baseline)
        return z.squeeze(1) if self.flat else z


_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh, "logistic": nn.Sigmoid,
    "softmax": lambda: nn.Softmax(-1),
}  # fmt: skip


def linear_model(estimator: Any, weight: Any, bias: Any, request: Request, flat: bool) -> Linear:
    """A linear layer from scikit-learn's coefficients ``[K, D]`` or ``[D]``."""
    weight = torch.atleast_2d(tensor(weight))
    bias = tensor(bias).reshape(-1).expand(len(weight)).clone()
    if request.front is not None:  # explained about a baseline, which lies before what is affine
        bias = bias + weight @ (request.front.offset - request.front.matrix @ request.front.origin)
        weight = weight @ request.front.matrix
    return Linear(weight, bias, request.baseline, flat)


@builds(
    "LogisticRegression", "LogisticRegressionCV", "RidgeClassifier", "RidgeClassifierCV", "LinearSVC", "SGDClassifier",
    "Perceptron", "PassiveAggressiveClassifier", "LinearDiscriminantAnalysis",
)  # fmt: skip
def classifier(estimator: Any, request: Request) -> nn.Module:
    """Scores ``[N]`` of two classes, ``[N, K]`` of more; probabilities where the model has them."""
    probabilities = type(estimator).__name__ in ("LogisticRegression", "LogisticRegressionCV")
    output = request.choose(estimator, "decision_function", *(["predict_proba"] if probabilities else []))
    flat = len(estimator.coef_) == 1
    scores = linear_model(estimator, estimator.coef_, estimator.intercept_, request, flat)
    if output == "decision_function":
        return scores
    return nn.Sequential(scores, Lambda("both classes", _both) if flat else nn.Softmax(1))


def _both(score: Tensor) -> Tensor:
    p = torch.sigmoid(score)
    return torch.stack([1 - p, p], 1)


@builds(
    "LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "BayesianRidge",
    "ARDRegression", "HuberRegressor", "SGDRegressor", "LinearSVR", "QuantileRegressor", "TheilSenRegressor", "Lars",
    "LarsCV", "LassoLars", "LassoLarsCV", "LassoLarsIC", "OrthogonalMatchingPursuit", "MultiTaskLasso",
    "MultiTaskElasticNet", "PassiveAggressiveRegressor", "PLSRegression",
)  # fmt: skip
def regressor(estimator: Any, request: Request) -> nn.Module:
    """Predictions ``[N]``, or ``[N, K]`` of several targets."""
    request.choose(estimator, "predict")
    if type(estimator).__name__ == "PLSRegression":  # its input is centred first
        weight, mean = tensor(estimator.coef_), tensor(estimator._x_mean)
        return linear_model(estimator, weight, tensor(estimator.intercept_) - weight @ mean, request, len(weight) == 1)
    flat = estimator.coef_.ndim == 1 or (type(estimator).__name__ == "LinearSVR" and len(estimator.coef_) == 1)
    return linear_model(estimator, estimator.coef_, estimator.intercept_, request, flat)


@builds("PoissonRegressor", "GammaRegressor", "TweedieRegressor")
def generalized(estimator: Any, request: Request) -> nn.Module:
    """The linear predictor, or the prediction through its link."""
    output = request.choose(estimator, "predict", "linear_predictor")
    scores = linear_model(estimator, estimator.coef_, estimator.intercept_, request, True)
    logarithmic = "Identity" not in type(estimator._base_loss.link).__name__
    return nn.Sequential(scores, Lambda("exp", torch.exp)) if output == "predict" and logarithmic else scores


@builds("SGDOneClassSVM")
def linear_one_class(estimator: Any, request: Request) -> nn.Module:
    """Decision function ``[N]`` of the linear one-class SVM."""
    request.choose(estimator, "decision_function")
    return linear_model(estimator, estimator.coef_, -estimator.offset_, request, True)


@builds("MLPClassifier", "MLPRegressor")
def perceptron(estimator: Any, request: Request) -> nn.Module:
    """The layers of a multi-layer perceptron: by default its logits, of which probabilities are a softmax."""
    regression = not hasattr(estimator, "classes_")
    output = request.choose(estimator, *(["predict"] if regression else ["logits", "predict_proba"]))
    layers: list[nn.Module] = []
    for weight, bias in zip(estimator.coefs_, estimator.intercepts_, strict=True):
        layers += [Linear(tensor(weight).T.contiguous(), tensor(bias)), _ACTIVATIONS[estimator.activation]()]
    layers = layers[:-1]
    flat = estimator.n_outputs_ == 1
    if flat:
        layers.append(nn.Flatten(0))
    if output == "predict_proba":
        last = Lambda("both classes", _both) if flat else _ACTIVATIONS[estimator.out_activation_]()
        layers.append(last)
    return nn.Sequential(*layers)
