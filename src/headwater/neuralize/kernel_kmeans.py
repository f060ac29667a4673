"""Kernel k-means with soft assignments: the model of the review's Eq. 5, as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import KMeans
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from headwater.errors import InvalidInput

_BLOCK = 2**24  # kernel values formed at a time


class KernelKMeans(ClusterMixin, BaseEstimator):
    """Kernel k-means with a Gaussian kernel, on the sphere of its feature space, with power assignments.

    A sample belongs to the cluster whose mean feature vector has the direction nearest to its own: the one with the
    largest ``Z_c⁻¹ Σ_{i∈c} K(x, x_i)``, where ``Z_c`` is the length of the cluster's summed features. Probabilities are
    in proportion to the (β/γ)-th power of that (review, Eq. 5). Every sample of the fit is a representative.

    Args:
        n_clusters: K.
        gamma: of the kernel ``exp(-γ ‖x - y‖²)``; None takes one over the number of columns times their variance.
        beta: stiffness of the assignment; None takes γ.
        n_init: how many times plain k-means starts, whose best result the iterations begin with.
        max_iter: the most iterations.
        random_state: seed.

    Attributes:
        labels_: ``[N]``; ``representatives_``: ``[N, D]``, sorted by cluster; ``sizes_``: ``[K]``.
        log_norms_: ``[K]``, ``log Z``; ``gamma_``, ``beta_``: as used; ``n_iter_``: iterations.
    """

    def __init__(
        self, n_clusters: int = 8, *, gamma: float | None = None, beta: float | None = None, n_init: int = 4,
        max_iter: int = 100, random_state: Any = None,
    ) -> None:  # fmt: skip
        self.n_clusters, self.gamma, self.beta = n_clusters, gamma, beta
        self.n_init, self.max_iter, self.random_state = n_init, max_iter, random_state

    def fit(self, X: Any, y: Any = None) -> KernelKMeans:
        """Cluster ``X`` ``[N, D]``.

        Raises:
            InvalidInput: fewer samples than clusters, or a kernel or stiffness that is not positive.
        """
        X = validate_data(self, X, dtype=np.float64)
        if not 1 <= self.n_clusters <= len(X):
            raise InvalidInput(f"n_clusters must lie between 1 and the {len(X)} samples, not {self.n_clusters}")
        spread = X.var() * X.shape[1]
        self.gamma_ = float((1 / spread if spread else 1.0) if self.gamma is None else self.gamma)
        self.beta_ = float(self.gamma_ if self.beta is None else self.beta)
        if self.gamma_ <= 0 or self.beta_ <= 0:
            raise InvalidInput(f"gamma and beta must be positive, not {self.gamma_} and {self.beta_}")
        start = KMeans(self.n_clusters, n_init=self.n_init, random_state=self.random_state).fit(X)
        labels, self.n_iter_ = start.labels_, 0
        while self.n_iter_ < self.max_iter:
            self.n_iter_ += 1
            members = np.eye(self.n_clusters)[labels]
            sums = self._sums(X, X, members)
            found = np.argmax(sums - np.log(self._norms(sums, members)), axis=1)
            if len(np.unique(found)) < self.n_clusters or np.array_equal(found, labels):
                break
            labels = found
        return self._settle(X, labels)

    def _settle(self, X: Any, labels: Any) -> KernelKMeans:
        members = np.eye(self.n_clusters)[labels]
        self.labels_ = labels
        order = np.argsort(labels, kind="stable")
        self.representatives_, self.sizes_ = X[order], np.bincount(labels, minlength=self.n_clusters)
        self.log_norms_ = np.log(self._norms(self._sums(X, X, members), members))
        return self

    def _sums(self, X: Any, points: Any, members: Any) -> Any:
        """``log Σ_{i∈c} K(x, x_i)`` of samples ``[N, D]`` and clusters, ``[N, K]``, in blocks of samples."""
        step = max(1, _BLOCK // len(points))
        parts = []
        for i in range(0, len(X), step):
            exponent = -self.gamma_ * euclidean_distances(X[i : i + step], points, squared=True)
            groups = [logsumexp(exponent[:, m > 0], axis=1) for m in members.T]
            parts.append(np.stack(groups, axis=1))
        return np.concatenate(parts)

    @staticmethod
    def _norms(sums: Any, members: Any) -> Any:
        """``Z_c``, the length of each cluster's summed feature vectors."""
        return np.sqrt((np.exp(sums) * members).sum(0))

    def log_densities(self, X: Any) -> Any:
        """``β/γ (log Σ_{i∈c} K(x, x_i) - log Z_c)``, ``[N, K]``."""
        check_is_fitted(self)
        X = validate_data(self, check_array(X, dtype=np.float64), reset=False)
        members = np.repeat(np.eye(self.n_clusters), self.sizes_, axis=0)
        sums = self._sums(X, self.representatives_, members)
        return self.beta_ / self.gamma_ * (sums - self.log_norms_)

    def predict(self, X: Any) -> Any:
        """The cluster of each sample, ``[N]``."""
        return self.log_densities(X).argmax(axis=1)

    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the clusters, ``[N, K]``."""
        return softmax(self.log_densities(X), axis=1)
