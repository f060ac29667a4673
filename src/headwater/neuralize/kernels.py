"""Kernel machines: support vector machines of all kinds, and kernel ridge regression."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from headwater.errors import UnsupportedModel
from headwater.neuralize.histograms import HistogramSum, histogram_intersection
from headwater.neuralize.linear import Linear, linear_model
from headwater.neuralize.mixtures import LogOdds, Target, shares_within
from headwater.neuralize.operators import operator
from headwater.neuralize.request import Lambda, Request, builds, tensor

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation

_GUARD = 1e-12  # evidence on either side that keeps logarithms finite, of the sum of all coefficients


class KernelSum(nn.Module):
    """``f_p = Σ_i α_pi k_i + b_p`` from logarithms of kernels ``[N, M]``, shape ``[N, P]``.

    With the evidence for it, ``P``, and against it, ``Q``, sums of positive terms, ``f = P - Q`` is their logarithmic
    mean times ``log P - log Q``. The mean is a gate; the log-ratio is a soft-max over the representatives of one side
    against a soft-max over those of the other: the log-odds of two clusters.

    Args:
        coefficients: ``[P, M]``; ``intercept``: ``[P]``.
        pooling: the rule for the soft maxima.
    """

    coefficients: Tensor
    intercept: Tensor

    def __init__(self, coefficients: Tensor, intercept: Tensor, pooling: str = "gradient") -> None:
        super().__init__()
        self.register_buffer("coefficients", coefficients)
        self.register_buffer("intercept", intercept)
        self.members: list[Tensor] = []
        heads = []
        for alpha, b in zip(coefficients, intercept, strict=True):
            sides = [torch.nonzero(alpha > 0).flatten(), torch.nonzero(alpha < 0).flatten()]
            guard = _GUARD * alpha.abs().sum() + torch.finfo(alpha.dtype).tiny
            constants = (b.clamp(min=0) + guard).log(), ((-b).clamp(min=0) + guard).log()
            weights = [torch.cat([alpha[s].abs().log(), k[None]]) for s, k in zip(sides, constants, strict=True)]
            heads.append(LogOdds([len(w) for w in weights], torch.cat(weights), pooling=pooling))
            self.members.append(torch.cat([sides[0], torch.tensor([-1]), sides[1], torch.tensor([-1])]))
        self.heads = nn.ModuleList(heads)

    def forward(self, logits: Tensor) -> Tensor:
        return kernel_sum(logits, self)

    def factor(self, logits: Tensor, c: Tensor, p: int, call: Call) -> Tensor:
        """The factor of the logarithms of kernels from that of function ``p``, ``[n]`` to ``[n, M]``."""
        head: Any = self.heads[p]
        rule = call.engine.composite.pooling(call) or head.rule
        padded = torch.cat([logits, torch.zeros_like(logits[:, :1])], 1)  # the intercept is a kernel that is always 1
        members = self.members[p].to(logits.device)
        own = padded[:, members]
        scores = head.scores(own)
        target = Target(head, 0, own, scores, shares_within(rule, head, own), c * logarithmic_mean(scores))
        factor = target.factor(rule, call)
        if call.engine.ledger:
            call.book("bias", factor * head.log_weights)
        members = torch.where(members < 0, logits.shape[1], members)
        return torch.zeros_like(padded).index_add(1, members, factor)[:, :-1]


def logarithmic_mean(logarithms: Tensor) -> Tensor:
    """``(P - Q) / (log P - log Q)`` from ``[N, 2]`` logarithms; the mean of both where they are equal."""
    p, q = logarithms.unbind(1)
    half = (p - q) / 2
    near = half.abs() < 1e-4
    ratio = torch.where(near, 1 + half.square() / 6, torch.sinh(half) / torch.where(near, torch.ones_like(half), half))
    huge = half.abs() > 300  # sinh would overflow: one side is nothing
    return torch.where(
        huge, torch.maximum(p, q).exp() / (2 * half.abs()), ((p + q) / 2).exp() * torch.where(huge, 0, ratio)
    )


def _treat(engine: Propagation, call: Call) -> Tensor:
    (live,), head = call.live, call.args[1]
    kept = engine.keeper.keep(live if engine.differentiable else live.detach())
    call.rule_name = str(engine.composite.pooling(call) or head.heads[0].rule)
    with torch.set_grad_enabled(engine.differentiable):
        out = call.func(*call.args, **call.kwargs)

    def walk(c: Tensor) -> list[Tensor]:
        factor = torch.zeros_like(kept.value)
        for p in c.detach().ne(0).any(0).nonzero().flatten().tolist():
            rows = c[:, p].detach().nonzero().flatten()
            factor = factor.index_add(0, rows, head.factor(kept.value[rows], c[rows, p], p, call))
        return [factor]

    result: Tensor = engine.reroute(call, out, [live], walk)
    return result


@operator(_treat)
def kernel_sum(logits: Tensor, head: KernelSum) -> Tensor:
    """``Σ_i α_pi exp ℓ_i + b_p``, ``[N, M]`` to ``[N, P]``; see :class:`KernelSum`."""
    return nn.functional.linear(logits.exp(), head.coefficients, head.intercept)


class InnerProducts(nn.Module):
    """Polynomial and sigmoid kernels, ``g(γ x·x_i + r)``, as a linear layer and its activation."""

    def __init__(self, points: Tensor, gamma: float, coef0: float, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = Linear(gamma * points, torch.zeros(len(points), dtype=points.dtype))
        self.coef0, self.function = coef0, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.linear(x) + self.coef0)


class Scale(nn.Module):
    """A product with a fixed number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def machine(
    estimator: Any, kernel: Any, points: Any, coefficients: Tensor, intercept: Tensor, gamma: float, request: Request
) -> nn.Module:
    """The functions ``Σ_i α_pi k(x, x_i) + b_p``, ``[N, P]``, of any kernel that has a network."""
    points = tensor(points)
    if kernel == "linear":
        return linear_model(estimator, coefficients @ points, intercept, request, False)
    if kernel == "rbf":
        distances = request.distances(points)
        return nn.Sequential(distances, Scale(-gamma), KernelSum(coefficients, intercept, request.pooling))
    if kernel is histogram_intersection:
        return HistogramSum(points, coefficients, intercept)
    functions: dict[Any, Callable[[Tensor], Tensor]] = {"poly": lambda z: z**estimator.degree, "sigmoid": torch.tanh}
    if not isinstance(kernel, str) or kernel not in functions:
        raise UnsupportedModel(
            f"There is no network for the kernel {kernel!r}: linear, poly, rbf, sigmoid and "
            "headwater.neuralize.histogram_intersection have one; explain others by removal, method='shapley_sampling'"
        )
    inner = InnerProducts(points, gamma, float(estimator.coef0), functions[kernel])
    return nn.Sequential(inner, Linear(coefficients, intercept))


def _gaussian(estimator: Any) -> bool:
    return estimator.kernel == "rbf"


def _support(estimator: Any) -> Any:
    """The support vectors; libsvm keeps none of a kernel that is a function, but their indices."""
    if estimator.kernel == "precomputed":
        raise UnsupportedModel("A precomputed kernel hides the inputs: fit the estimator with the kernel's function")
    if callable(estimator.kernel):
        return estimator._BaseLibSVM__Xfit[estimator.support_]
    return estimator.support_vectors_


@builds("SVR", "NuSVR", folds=_gaussian)
def regression(estimator: Any, request: Request) -> nn.Module:
    """Predictions ``[N]`` of a support vector regression."""
    request.choose(estimator, "predict")
    alpha, b = tensor(estimator.dual_coef_), tensor(estimator.intercept_)
    functions = machine(estimator, estimator.kernel, _support(estimator), alpha, b, estimator._gamma, request)
    return nn.Sequential(functions, nn.Flatten(0))


@builds("SVC", "NuSVC", folds=_gaussian)
def classification(estimator: Any, request: Request) -> nn.Module:
    """Decision function ``[N]`` of two classes; of more ``[N, K]`` (one against the rest) or ``[N, K (K - 1) / 2]``."""
    request.choose(estimator, "decision_function")
    alpha, b = pairs(estimator) if len(estimator.classes_) > 2 else (tensor(estimator.dual_coef_), estimator.intercept_)
    functions = machine(estimator, estimator.kernel, _support(estimator), alpha, tensor(b), estimator._gamma, request)
    if len(estimator.classes_) == 2:
        return nn.Sequential(functions, nn.Flatten(0))
    if estimator.decision_function_shape == "ovo":
        return functions
    return nn.Sequential(functions, Votes(len(estimator.classes_)))


def pairs(estimator: Any) -> tuple[Tensor, Tensor]:
    """Coefficients ``[K (K - 1) / 2, M]`` and intercepts of libsvm's pairs of classes; positive is the first."""
    dual, ends = np.asarray(_dense(estimator.dual_coef_)), np.cumsum([0, *estimator.n_support_])
    rows = []
    for i, j in combinations(range(len(estimator.classes_)), 2):
        row = np.zeros(dual.shape[1])
        first, second = slice(ends[i], ends[i + 1]), slice(ends[j], ends[j + 1])
        row[first], row[second] = dual[j - 1, first], dual[i, second]
        rows.append(row)
    return tensor(np.stack(rows)), tensor(estimator.intercept_)


def _dense(values: Any) -> Any:
    return values.toarray() if hasattr(values, "toarray") else values


class Votes(nn.Module):
    """scikit-learn's decision function of one class against the rest, from those of pairs of classes.

    ``votes + s / (3 (|s| + 1))`` with the sum ``s`` of a class's pairs; votes do not carry relevance, the divisor is
    constant, so a class is explained by its pairs.
    """

    signs: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        signs = torch.zeros(classes, classes * (classes - 1) // 2, dtype=torch.float64)
        for k, (i, j) in enumerate(combinations(range(classes), 2)):
            signs[i, k], signs[j, k] = 1, -1
        self.register_buffer("signs", signs)

    def forward(self, pairs: Tensor) -> Tensor:
        won = (pairs < 0).to(pairs.dtype)
        votes = (1 - won) @ self.signs.clamp(min=0).T + won @ self.signs.clamp(max=0).abs().T
        s = pairs @ self.signs.T
        return votes + s / (3 * (s.abs() + 1))


@builds("OneClassSVM", folds=_gaussian)
def one_class(estimator: Any, request: Request) -> nn.Module:
    """The one-class SVM ``[N]``: its decision function, or with a Gaussian kernel its outlierness or inlierness.

    Outlierness is the soft minimum of squared distances to the support vectors, ``-1/γ log Σ α_i k_i``; inlierness is
    how far that lies below its threshold. (Kauffmann et al. 2020, the review's reference [68].)
    """
    rbf = estimator.kernel == "rbf"
    output = request.choose(estimator, "decision_function", *(["outlierness", "inlierness"] if rbf else []))
    alpha, b, gamma = tensor(estimator.dual_coef_), tensor(estimator.intercept_), float(estimator._gamma)
    if output == "decision_function":
        functions = machine(estimator, estimator.kernel, _support(estimator), alpha, b, gamma, request)
        return nn.Sequential(functions, nn.Flatten(0))
    distances = request.distances(estimator.support_vectors_)
    threshold = float(estimator.offset_.squeeze())
    return outlierness(distances, gamma, alpha[0].log(), None if output == "outlierness" else threshold)


def outlierness(distances: nn.Module, gamma: float, log_weights: Tensor, threshold: float | None = None) -> nn.Module:
    """``-1/γ log Σ_i w_i exp(-γ d_i)``; with a threshold on the sum, how far it lies below that of the threshold."""
    soft_min = SoftMin(gamma, log_weights)
    if threshold is None:
        return nn.Sequential(distances, soft_min)
    limit = -np.log(threshold) / gamma
    return nn.Sequential(distances, soft_min, Lambda(f"{limit:.4g} - outlierness", lambda o: limit - o))


class SoftMin(nn.Module):
    """``-1/γ log Σ_i w_i exp(-γ d_i)``, ``[N, M]`` to ``[N]``."""

    log_weights: Tensor

    def __init__(self, gamma: float, log_weights: Tensor) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("log_weights", log_weights)

    def forward(self, d: Tensor) -> Tensor:
        return torch.logsumexp(-self.gamma * d + self.log_weights, 1) * (-1 / self.gamma)


@builds("KernelRidge", folds=_gaussian)
def kernel_ridge(estimator: Any, request: Request) -> nn.Module:
    """Predictions ``[N]`` or ``[N, K]`` of a kernel ridge regression."""
    request.choose(estimator, "predict")
    dual = tensor(estimator.dual_coef_)
    alpha = dual.T if dual.dim() == 2 else dual[None]
    gamma = 1 / estimator.X_fit_.shape[1] if estimator.gamma is None else estimator.gamma
    zeros = torch.zeros(len(alpha), dtype=alpha.dtype)
    functions = machine(estimator, estimator.kernel, estimator.X_fit_, alpha, zeros, gamma, request)
    return nn.Sequential(functions, nn.Flatten(0)) if dual.dim() == 1 else functions
