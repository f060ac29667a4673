"""Fisher vectors and bags of words of images and clips, as a scikit-learn transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from headwater.errors import InvalidInput
from headwater.neuralize.encodings import Encoding, LocalDescriptors, Normalize
from headwater.neuralize.request import DTYPE, tensor

CELLS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "gradients": ((4, 4), (4, 4)),
    "motion": ((5, 2, 2), (3, 2, 2)),
}  # places in a cell, cells in a window


class FisherVectors(TransformerMixin, BaseEstimator):
    """Fisher vectors (or bags of words) of local descriptors, for a linear (or histogram-intersection) classifier.

    ``make_pipeline(FisherVectors(), LinearSVC())`` is neuralized as a whole: relevance arrives at pixels, or at the
    blocks and frames of a clip's motion.

    Args:
        descriptors: "gradients", orientations of an image's gradients (``[N, C, H, W]``), or "motion", orientations of
            motion vectors and their edges (``[N, 2, T, H, W]``; see :func:`headwater.neuralize.motion_vectors`).
        encoding: "fisher", with square roots and unit length, or "bag".
        n_words: Gaussians of the mixture, K.
        n_components: of the descriptors' principal components, D; None keeps them whole.
        cell, cells: places in a cell and cells in a window along each axis; None takes (4, 4) and (4, 4) for images,
            (5, 2, 2) and (3, 2, 2) for motion.
        n_samples: descriptors that the components and the mixture are fitted on, at most.
        random_state: seed.

    Attributes:
        local_, encoding_: the fitted modules.
    """

    def __init__(
        self, descriptors: str = "gradients", encoding: str = "fisher", *, n_words: int = 32,
        n_components: int | None = 24, cell: tuple[int, ...] | None = None, cells: tuple[int, ...] | None = None,
        n_samples: int = 50_000, random_state: Any = 0,
    ) -> None:  # fmt: skip
        self.descriptors, self.encoding, self.n_words, self.n_components = descriptors, encoding, n_words, n_components
        self.cell, self.cells, self.n_samples, self.random_state = cell, cells, n_samples, random_state

    def fit(self, X: Any, y: Any = None) -> FisherVectors:
        """Fit components and mixture on fields, an array ``[N, C, *S]`` or a list of ``[C, *S]`` of several sizes.

        Raises:
            InvalidInput: an unknown kind or encoding, or fields too small for a window.
        """
        if self.descriptors not in CELLS or self.encoding not in ("fisher", "bag"):
            raise InvalidInput(
                f"descriptors={self.descriptors!r} and encoding={self.encoding!r}: choose from "
                f"{', '.join(CELLS)} and fisher, bag"
            )
        cell, cells = CELLS[self.descriptors]
        local = LocalDescriptors(self.descriptors, self.cell or cell, self.cells or cells)
        sample = self._sample(local, fields(X))
        if self.n_components is not None:
            components = min(self.n_components, *sample.shape)
            pca = PCA(components, random_state=self.random_state).fit(sample)
            local = LocalDescriptors(local.kind, local.cell, local.cells, tensor(pca.mean_), tensor(pca.components_))
            sample = pca.transform(sample)
        mixture = GaussianMixture(
            self.n_words, covariance_type="diag", reg_covar=1e-4, random_state=self.random_state
        ).fit(sample)
        order = 2 if self.encoding == "fisher" else 0
        weights, means, variances = (tensor(p) for p in (mixture.weights_, mixture.means_, mixture.covariances_))
        self.local_, self.encoding_ = local, Encoding(weights, means, variances, order)
        return self

    def _sample(self, local: LocalDescriptors, items: Sequence[Tensor]) -> Any:
        """Descriptors from every field, as many from each."""
        random = check_random_state(self.random_state)
        each = max(1, self.n_samples // len(items))
        chosen = []
        for x in items:
            check_size(local, x)
            found = local.describe(x[None])[0].numpy()
            # Windows in which nothing is described say nothing of what there is to see.
            seen = found[found.std(1) > 1e-9]
            chosen.append(seen[random.permutation(len(seen))[:each]])
        sample = np.concatenate(chosen)
        if len(sample) < self.n_words:
            raise InvalidInput(f"The fields hold {len(sample)} descriptors, too few for {self.n_words} words")
        return sample

    def transform(self, X: Any) -> Any:
        """Vectors ``[N, F]`` of fields, with ``F = 2 K D``, or K for a bag of words."""
        check_is_fitted(self)
        network = nn.Sequential(*self.stages())
        with torch.no_grad():
            return np.concatenate([network(x[None]).numpy() for x in fields(X)])

    def stages(self) -> list[nn.Module]:
        """The transformer as modules, from ``[N, C, *S]`` to ``[N, F]``."""
        fisher = self.encoding == "fisher"
        return [self.local_, self.encoding_, *([Normalize()] if fisher else [])]


def fields(x: Any) -> list[Tensor]:
    """The fields of an array or list, as tensors of double precision.

    Raises:
        InvalidInput: no field at all.
    """
    found = [torch.as_tensor(np.asarray(item)).to(DTYPE) for item in x]
    if not found:
        raise InvalidInput("X holds no field: pass an array [N, C, ...] or a list of arrays [C, ...]")
    return found


def check_size(local: LocalDescriptors, x: Tensor) -> None:
    """Refuse a field that has no place for a window."""
    axes = len(local.cell)
    if x.dim() != axes + 1 or min(local.grid(x.shape[1:])) < 1:
        window = [c * k for c, k in zip(local.cell, local.cells, strict=True)]
        raise InvalidInput(
            f"A field of shape {list(x.shape)} has no window of {window} places: {local.kind} wants [C, *S], "
            f"{axes} axes S, each at least as long"
        )
