"""Figure 9: kernel k-means of three clusters on the plane, and the network that is equal to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import headwater as hw
from experiments.reproduction import Reproduction
from headwater.neuralize import KernelKMeans, neuralize
from headwater.show.colour import colour_map, norm
from headwater.show.figure import new_figure

CENTRES = torch.tensor([[-1.6, -0.6], [1.5, -0.9], [0.1, 1.6]], dtype=torch.float64)


def blobs(count: int) -> Tensor:
    """Three clusters of bent shapes, ``[3 count, 2]``."""
    noise = torch.randn(3, count, 2, dtype=torch.float64) * torch.tensor([[0.7, 0.3]], dtype=torch.float64)
    angle = torch.tensor([0.7, 2.4, 0.0], dtype=torch.float64)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1)
    return (noise @ turn.mT + CENTRES[:, None]).flatten(0, 1)


def ratio_of(model: KernelKMeans, x: Tensor, cluster: int) -> Tensor:
    """The log of Eq. 5's probability ratio in plain sums, ``[N]``."""
    powers = []
    for k in range(model.n_clusters):
        members = torch.from_numpy(model.representatives_[np.sort(model.labels_) == k])
        kernel = torch.exp(-model.gamma_ * torch.cdist(x, members).square())
        powers.append((kernel.sum(1) / float(np.exp(model.log_norms_[k]))) ** (model.beta_ / model.gamma_))
    rest = torch.stack([power for k, power in enumerate(powers) if k != cluster]).sum(0)
    return torch.log(powers[cluster] / rest)


def study(count: int) -> dict[str, Any]:
    """Cluster, neuralize, compare the log-odds with Eq. 5, and explain."""
    x = blobs(count)
    model = KernelKMeans(3, gamma=1.0, beta=1.0, random_state=0).fit(x.numpy())
    network = neuralize(model)
    gaps = [float((network(x)[:, c] - ratio_of(model, x, c)).abs().max()) for c in range(3)]
    grid = torch.stack(torch.meshgrid(*(torch.linspace(-3.5, 3.5, 81, dtype=torch.float64),) * 2, indexing="xy"), -1)
    e = hw.explain(network, x)
    lost = (e.output - e.relevance.sum(1)).abs().mean() / e.output.abs().mean()
    return {
        "x": x, "labels": torch.from_numpy(np.asarray(model.labels_, dtype=np.int64)), "gap": max(gaps),
        "log_odds": network(grid.flatten(0, 1))[:, 0].view(81, 81), "relevance": e.relevance, "lost": float(lost),
        "scale": float(network(x).abs().max()),
    }  # fmt: skip


def reproduce(run: Reproduction) -> None:
    """Figure 9 and the claim that the network is the model."""
    found = run.step("figure_9", lambda: study(run.pick(quick=20, full=60)))
    figure = new_figure(8.6, 3.8)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    limit = float(found["log_odds"].abs().quantile(0.95))
    left.contourf(*(np.linspace(-3.5, 3.5, 81),) * 2, found["log_odds"].numpy(), levels=np.linspace(-limit, limit, 21),
                  cmap=colour_map(), norm=norm(limit), extend="both")  # fmt: skip
    for c, marker in enumerate("osv"):
        own = found["labels"] == c
        x, r = found["x"][own], found["relevance"][own]
        left.plot(*x.T.numpy(), marker, color="k", markersize=3, alpha=0.7)
        right.quiver(*x.T.numpy(), *r.T.numpy(), color=("#1b7837", "#762a83", "#e08214")[c], width=0.004)
    left.set_title("log-odds of the first cluster", fontsize=10)
    right.set_title("relevance of both coordinates for the own cluster", fontsize=10)
    run.figure(
        "figure_9_kernel_kmeans", figure, {k: found[k] for k in ("x", "labels", "log_odds", "relevance")},
        "Figure 9: kernel k-means on the plane; the log-odds of one cluster, as the equivalent network gives them, and "
        "what each coordinate contributes to the assignment of every point (an arrow is its pair of relevances).",
    )  # fmt: skip
    run.claim(
        "kernel k-means is a network", source="Section VI-A, Eq. 5 and Fig. 9",
        text="The log-odds of a cluster are a network of linear units and soft minima and maxima.",
        paper="derived", ours=f"largest difference from Eq. 5 in plain sums {found['gap']:.1e} (values up to "
        f"{found['scale']:.0f})",
        verdict="reproduced" if found["gap"] < 1e-8 * found["scale"] else "not reproduced",
        why=f"soft poolings absorb {found['lost']:.1%} of the explained log-odds (their entropy and log Z)",
    )  # fmt: skip
