"""Nearest neighbours as a network: margins between distances of equal rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headwater.errors import InvalidInput, UnsupportedModel
from headwater.neuralize.geometry import Distances
from headwater.neuralize.request import Request, always, builds, tensor


@builds("KNeighborsClassifier", folds=always)
def neighbours(estimator: Any, request: Request) -> nn.Module:
    """Margins ``[N, K]``, squared distances, whose largest is the class that most of the neighbours vote for.

    Class c outvotes class r if its m-th nearest sample is nearer than the m-th nearest of r, for the m that the votes
    themselves name; a class's margin is its smallest against the others. A tie is decided for the first class, as
    scikit-learn does.
    """
    request.choose(estimator, "margin")
    euclidean = estimator.effective_metric_ == "euclidean"
    if not euclidean or estimator.weights != "uniform" or getattr(estimator, "outputs_2d_", False):
        raise UnsupportedModel(
            "Only nearest neighbours with a euclidean metric, uniform weights and one label have a network; explain "
            "others by removal, method='shapley_sampling'"
        )
    labels = np.asarray(estimator._y).ravel()
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels, minlength=len(estimator.classes_)).tolist()
    return Neighbours(request.distances(tensor(estimator._fit_X)[order]), sizes, estimator.n_neighbors)


class Neighbours(nn.Module):
    """Margins of votes among the nearest neighbours, ``[N, D]`` to ``[N, K]``.

    Args:
        distances: to all samples, sorted by class; ``sizes``: how many each class has.
        count: how many neighbours vote.

    Raises:
        InvalidInput: fewer than two classes.
    """

    def __init__(self, distances: Distances, sizes: list[int], count: int) -> None:
        super().__init__()
        if len(sizes) < 2:
            raise InvalidInput("Nearest neighbours of a single class leave nothing to explain")
        self.distances, self.sizes, self.count = distances, sizes, count

    def forward(self, x: Tensor) -> Tensor:
        d = self.distances(x)
        far = d.amax(1, keepdim=True) * 2 + 1  # stands for a neighbour that a small class does not have
        ranked = []
        for part in d.split(self.sizes, 1):
            known = min(self.count + 1, part.shape[1])
            nearest = torch.topk(part, known, dim=1, largest=False).values
            ranked.append(torch.cat([nearest, far.expand(-1, self.count + 1 - known)], 1))
        ranks = torch.stack(ranked, 1)  # [N, K, count + 1], ascending
        radius = torch.topk(d, self.count, dim=1, largest=False).values[:, -1]
        votes = (ranks[:, :, :-1] <= radius[:, None, None]).sum(2)
        return self._margins(ranks, votes)

    def _margins(self, ranks: Tensor, votes: Tensor) -> Tensor:
        """The smallest of ``t_r(m) - t_c(m)`` over rivals r, with ``t(m)`` the m-th nearest of a class."""
        classes = votes.shape[1]
        ours, theirs = votes[:, :, None], votes[:, None, :]
        most = torch.maximum(ours, theirs).clamp(min=1) - 1
        tied = (ours == theirs) & (ours > 0)
        first = torch.arange(classes, device=votes.device)
        wins = tied & (first[:, None] < first[None, :])
        loses = tied & (first[:, None] > first[None, :])
        shape = (-1, classes, classes, ranks.shape[2])
        own = ranks[:, :, None, :].expand(shape).gather(3, (most + loses)[..., None]).squeeze(3)
        rival = ranks[:, None, :, :].expand(shape).gather(3, (most + wins)[..., None]).squeeze(3)
        same = torch.eye(classes, dtype=torch.bool, device=votes.device)
        return (rival - own).masked_fill(same, torch.inf).amin(2)
