"""Clusterings and Gaussian models as networks of distances: why this cluster, and not another?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headwater.errors import InvalidInput
from headwater.neuralize.geometry import DiagonalDistances, Distances
from headwater.neuralize.kernels import Scale, outlierness
from headwater.neuralize.mixtures import LogOdds
from headwater.neuralize.request import Lambda, Request, always, builds, tensor


@builds("KMeans", "MiniBatchKMeans", "BisectingKMeans", folds=always)
def kmeans(estimator: Any, request: Request) -> nn.Module:
    """Scores ``[N, K]``: by how much a cluster's centre is nearer than all others, in squared distance.

    ``f_c = β min_{k≠c} {‖x - μ_k‖² - ‖x - μ_c‖²}``, whose largest is the assigned cluster; the minimum is soft where a
    stiffness β is given, and then ``f_c`` is the log-odds of a soft assignment. ``output="transform"`` gives distances.
    """
    output = request.choose(estimator, "log_odds", "transform")
    distances = request.distances(estimator.cluster_centers_)
    if output == "transform":
        return nn.Sequential(distances, Lambda("sqrt", torch.sqrt))
    return contrast(distances, request, torch.zeros(len(distances.points), dtype=torch.float64))


def contrast(distances: nn.Module, request: Request, log_weights: Tensor) -> nn.Module:
    """The margin by which each of K points is nearest, or its log-odds under a stiffness."""
    beta = 1.0 if request.stiffness is None else _positive(request.stiffness)
    ones = [1] * len(log_weights)
    return nn.Sequential(
        distances, Scale(-beta), LogOdds(ones, beta * log_weights, 1.0, request.stiffness is None, request.pooling)
    )


def _positive(stiffness: float) -> float:
    if not stiffness > 0:
        raise InvalidInput(f"stiffness must be positive, not {stiffness}: None makes assignments hard")
    return float(stiffness)


@builds("NearestCentroid", folds=always)
def nearest_centroid(estimator: Any, request: Request) -> nn.Module:
    """By how much a class's centroid is nearer than all others ``[N, K]``; or scikit-learn's decision function."""
    if estimator.metric != "euclidean":
        raise InvalidInput(f"Only the euclidean nearest centroid has a network, not metric={estimator.metric!r}")
    output = request.choose(estimator, "log_odds", "decision_function")
    priors = np.asarray(estimator.class_prior_)
    uniform = np.isclose(priors, 1 / len(priors)).all()
    if output == "log_odds" and uniform:
        return contrast(request.distances(estimator.centroids_), request, torch.zeros(len(priors), dtype=torch.float64))
    deviation = np.asarray(estimator.within_class_std_dev_, dtype=np.float64)
    scale = 1 / np.where(deviation == 0, 1, deviation)
    distances, weights = request.distances(estimator.centroids_, tensor(scale)), 2 * tensor(priors).log()
    if output == "log_odds":
        return contrast(distances, request, weights)
    scores = nn.Sequential(distances, Lambda("2 log prior - d", lambda d: weights.to(d) - d))
    if len(priors) > 2:
        return scores
    return nn.Sequential(scores, Lambda("second - first", lambda s: s[:, 1] - s[:, 0]))


@builds("KernelKMeans", folds=always)
def kernel_kmeans(estimator: Any, request: Request) -> nn.Module:
    """Log-odds ``[N, K]`` of kernel k-means (review, Eq. 5), or their sigmoid ``predict_proba``."""
    output = request.choose(estimator, "log_odds", "predict_proba")
    gamma, sizes = float(estimator.gamma_), [int(n) for n in estimator.sizes_]
    weights = -tensor(estimator.log_norms_).repeat_interleave(torch.tensor(sizes))
    odds = LogOdds(sizes, weights, estimator.beta_ / gamma, pooling=request.pooling)
    network = nn.Sequential(request.distances(estimator.representatives_), Scale(-gamma), odds)
    return network if output == "log_odds" else nn.Sequential(network, nn.Sigmoid())


# ---------------------------------------------------------------------- Gaussian models


@builds("GaussianMixture", "BayesianGaussianMixture", folds=always)
def mixture(estimator: Any, request: Request) -> nn.Module:
    """Log-odds ``[N, K]`` of components, their sigmoid ``predict_proba``, or the log-likelihood ``score_samples``."""
    means, roots = tensor(estimator.means_), tensor(estimator.precisions_cholesky_)
    k, d = means.shape
    kind = estimator.covariance_type
    # scikit-learn keeps a root U of each precision, P = U Uᵀ: a difference is seen as Uᵀ (x - μ).
    if kind in ("diag", "spherical"):
        scales = roots if kind == "diag" else roots[:, None].expand(k, d)
        log_root = scales.log().sum(1)
        distances = diagonal(means, scales, request)
    elif kind == "tied":
        log_root = roots.diagonal().log().sum().expand(k)
        distances = request.distances(means, root=roots.T.contiguous())
    else:
        log_root = roots.diagonal(dim1=1, dim2=2).log().sum(1)
        distances = Joined(
            [request.distances(m[None], root=u.T.contiguous()) for m, u in zip(means, roots, strict=True)]
        )
    constants = (
        tensor(estimator._estimate_log_weights()) + log_root - d / 2 * np.log(2 * np.pi) + _bayesian(estimator, d)
    )
    return gaussian(estimator, distances, constants, request, "score_samples")


def _bayesian(estimator: Any, d: int) -> Tensor | float:
    """The term of a variational mixture for the uncertainty of its precisions and means (Bishop, Eq. 10.64-66)."""
    if not hasattr(estimator, "degrees_of_freedom_"):
        return 0.0
    nu = torch.as_tensor(np.broadcast_to(estimator.degrees_of_freedom_, estimator.means_.shape[:1]).copy())
    steps = torch.arange(d, dtype=nu.dtype)
    log_lambda = d * np.log(2.0) + torch.digamma(0.5 * (nu - steps[:, None])).sum(0)
    return 0.5 * (log_lambda - d / tensor(estimator.mean_precision_)) - 0.5 * d * nu.log()


def gaussian(
    estimator: Any, distances: nn.Module, constants: Tensor, request: Request, likelihood: str | None
) -> nn.Module:
    """Log-odds, probabilities or log-likelihood of Gaussians from their squared distances and constants ``[K]``."""
    names = ("log_odds", "predict_proba", *([likelihood] if likelihood else []))
    single = len(constants) == 1
    output = request.choose(estimator, *((likelihood,) if single and likelihood else names))
    if output == likelihood:
        return nn.Sequential(distances, Scale(-0.5), LogSumExp(constants))
    odds = nn.Sequential(distances, Scale(-0.5), LogOdds([1] * len(constants), constants, pooling=request.pooling))
    return odds if output == "log_odds" else nn.Sequential(odds, nn.Sigmoid())


class LogSumExp(nn.Module):
    """``log Σ_k exp(ℓ_k + w_k)``, ``[N, K]`` to ``[N]``."""

    log_weights: Tensor

    def __init__(self, log_weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("log_weights", log_weights)

    def forward(self, logits: Tensor) -> Tensor:
        return torch.logsumexp(logits + self.log_weights, 1)


class Joined(nn.Module):
    """Distances of several metrics, side by side."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], 1)


def diagonal(means: Tensor, scales: Tensor, request: Request) -> nn.Module:
    """Distances to points each with axes of its own, ``Σ_d s_kd² (x_d - μ_kd)²``."""
    if request.front is None:
        return DiagonalDistances(means, scales)
    return Joined([Distances(m[None], request.front, s) for m, s in zip(means, scales, strict=True)])


@builds("GaussianNB", folds=always)
def naive_bayes(estimator: Any, request: Request) -> nn.Module:
    """Log-odds ``[N, K]`` of Gaussian naive Bayes, or its probabilities."""
    variances = tensor(estimator.var_)
    constants = tensor(estimator.class_prior_).log() - 0.5 * (2 * np.pi * variances).log().sum(1)
    return gaussian(estimator, diagonal(tensor(estimator.theta_), variances.rsqrt(), request), constants, request, None)


@builds("QuadraticDiscriminantAnalysis", folds=always)
def quadratic(estimator: Any, request: Request) -> nn.Module:
    """Log-odds ``[N, K]`` of quadratic discriminant analysis, or its probabilities."""
    parts, spreads = [], []
    for mean, rotation, scaling in zip(estimator.means_, estimator.rotations_, estimator.scalings_, strict=True):
        root = tensor(rotation).T / tensor(scaling).sqrt()[:, None]
        parts.append(request.distances(np.asarray(mean)[None], root=root))
        spreads.append(tensor(scaling).log().sum())
    constants = tensor(estimator.priors_).log() - 0.5 * torch.stack(spreads)
    return gaussian(estimator, Joined(parts), constants, request, None)


@builds("EllipticEnvelope", folds=always)
def envelope(estimator: Any, request: Request) -> nn.Module:
    """Decision function ``[N]`` of an elliptic envelope, or its outlierness, the squared Mahalanobis distance."""
    output = request.choose(estimator, "decision_function", "outlierness")
    values, vectors = torch.linalg.eigh(tensor(estimator.get_precision()))
    root = values.clamp(min=0).sqrt()[:, None] * vectors.T
    distance = nn.Sequential(request.distances(estimator.location_[None], root=root), nn.Flatten(0))
    if output == "outlierness":
        return distance
    offset = float(estimator.offset_)
    return nn.Sequential(distance, Lambda(f"-d - {offset:.4g}", lambda d: -d - offset))


@builds("KernelDensity", folds=always)
def density(estimator: Any, request: Request) -> nn.Module:
    """Log-density ``[N]`` of a Gaussian kernel density estimate; or its outlierness, a soft minimum of distances."""
    if estimator.kernel != "gaussian" or estimator.metric != "euclidean":
        raise InvalidInput("Only kernel densities with kernel='gaussian' and metric='euclidean' have a network")
    output = request.choose(estimator, "score_samples", "outlierness")
    points, h = np.asarray(estimator.tree_.data), float(estimator.bandwidth_)
    weights = estimator.tree_.sample_weight
    weights = np.ones(len(points)) if weights is None else np.asarray(weights)
    log_weights = tensor(weights / weights.sum()).log()
    distances = request.distances(points)
    if output == "outlierness":
        return outlierness(distances, 0.5 / h**2, log_weights)
    constants = log_weights - points.shape[1] * (np.log(h) + 0.5 * np.log(2 * np.pi))
    return nn.Sequential(distances, Scale(-0.5 / h**2), LogSumExp(constants))
