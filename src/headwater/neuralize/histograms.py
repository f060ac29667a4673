"""Histogram intersection: a kernel that is a sum over bins, so that its machines explain themselves bin by bin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from headwater.neuralize.operators import give, operator

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation

_BLOCK = 2**24  # values formed at a time


def histogram_intersection(a: Any, b: Any) -> Any:
    """The kernel ``Σ_d min(a_d, b_d)`` of histograms ``[N, D]`` and ``[M, D]``, ``[N, M]``, for ``SVC(kernel=...)``.

    Source: Bach et al. 2015 (overview, reference [5]), on bags of words.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    step = max(1, _BLOCK // max(1, b.size))
    parts = [np.minimum(a[i : i + step, None], b[None]).sum(2) for i in range(0, len(a), step)]
    return np.concatenate(parts) if parts else np.zeros((0, len(b)))


class HistogramSum(nn.Module):
    """``f_p = Σ_i α_pi Σ_d min(x_d, x_id) + b_p``: a sum over bins of piecewise linear functions, ``[N, P]``.

    Of each bin the support values are sorted, and sums of their coefficients kept: a value costs one binary search,
    however many support vectors there are (Maji et al. 2008).

    Args:
        points: support histograms ``[M, D]``; ``coefficients``: ``[P, M]``; ``intercept``: ``[P]``.
    """

    relevance_without_factor = True

    values: Tensor
    below: Tensor
    above: Tensor
    intercept: Tensor

    def __init__(self, points: Tensor, coefficients: Tensor, intercept: Tensor) -> None:
        super().__init__()
        values, order = points.T.contiguous().sort(1)  # [D, M]
        alpha = coefficients[:, order]  # [P, D, M]
        zero = torch.zeros_like(alpha[..., :1])
        self.register_buffer("values", values)
        self.register_buffer("below", torch.cat([zero, (alpha * values).cumsum(2)], 2))
        self.register_buffer("above", torch.cat([alpha.flip(2).cumsum(2).flip(2), zero], 2))
        self.register_buffer("intercept", intercept)

    def forward(self, x: Tensor) -> Tensor:
        return histogram_sum(x, self)

    def bins(self, x: Tensor) -> Tensor:
        """What each bin contributes, ``[N, D]`` to ``[N, P, D]``."""
        at = torch.searchsorted(self.values, x.detach().T.contiguous(), right=True)  # [D, N]
        at = at.expand(len(self.below), *at.shape)
        return (self.below.gather(2, at) + self.above.gather(2, at) * x.T).transpose(1, 2).transpose(0, 1)


def _treat(engine: Propagation, call: Call) -> Tensor:
    head = call.args[1]

    def relevance(x: Tensor, c: Tensor) -> Tensor:
        if engine.ledger:
            call.book("bias", head.intercept * c)
        return torch.einsum("np,npd->nd", c, head.bins(x))

    return give(engine, call, relevance)


@operator(_treat)
def histogram_sum(x: Tensor, head: HistogramSum) -> Tensor:
    """See :class:`HistogramSum`; each bin is explained by what it contributes."""
    return head.bins(x).sum(2) + head.intercept
