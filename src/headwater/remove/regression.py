"""Weighted linear regressions of scores on sets of features."""

from __future__ import annotations

import torch
from torch import Tensor


def constrained(
    kept: Tensor, values: Tensor, weights: Tensor, total: Tensor, drawn: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients whose sum is given, by weighted least squares without an intercept.

    Args:
        kept: which features are there, 0 or 1, ``[M, c]``; ``weights``: ``[M]``.
        values: of n samples, ``[M, n]``; ``total``: what their coefficients sum to, ``[n]``.
        drawn: how many rows, at the end and in pairs, are random.

    Returns:
        coefficients ``[n, c]``, their standard errors over the random rows, and the weighted R² ``[n]``.

    Source: Covert, Lee: Improving KernelSHAP, AISTATS 2021, Eq. 7 and Section 3.
    """
    design = kept[:, :-1] - kept[:, -1:]
    right = values - kept[:, -1:] * total
    root = weights.sqrt()[:, None]
    inverse = torch.linalg.pinv(root * design)
    free = inverse @ (root * right)
    coefficients = torch.cat([free, total - free.sum(0, keepdim=True)])
    residual = values - kept @ coefficients
    influence = inverse.T * root  # of each row on each free coefficient
    influence = torch.cat([influence, -influence.sum(1, keepdim=True)], 1)
    error = _spread(influence[len(kept) - drawn :], residual[len(kept) - drawn :], 2)
    return coefficients.T, error, explained(values, residual, weights)


def ridge(kept: Tensor, values: Tensor, weights: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coefficients by weighted ridge regression; the intercept is not penalized.

    Args:
        kept: ``[M, c]``; ``values``: of n samples, ``[M, n]``; ``weights``: ``[M]``; ``alpha``: of the penalty.

    Returns:
        coefficients ``[n, c]``, intercepts ``[n]``, standard errors ``[n, c]`` and the weighted R² ``[n]``.
    """
    share = (weights / weights.sum())[:, None]
    design = kept - (share * kept).sum(0)
    right = values - (share * values).sum(0)
    gram = design.T @ (weights[:, None] * design) + alpha * torch.eye(design.shape[1], dtype=design.dtype)
    inverse = torch.linalg.pinv(gram, hermitian=True)
    coefficients = inverse @ (design.T @ (weights[:, None] * right))
    residual = right - design @ coefficients
    intercept = (share * (values - kept @ coefficients)).sum(0)
    error = _spread((weights[:, None] * design) @ inverse, residual, 1)
    return coefficients.T, intercept, error, explained(values, residual, weights)


def explained(values: Tensor, residual: Tensor, weights: Tensor) -> Tensor:
    """Weighted R² ``[n]`` of values ``[M, n]``; 1 where they do not vary and nothing is left."""
    share = (weights / weights.sum())[:, None]
    total = (share * (values - (share * values).sum(0)).square()).sum(0)
    rest = (share * residual.square()).sum(0)
    flat = total <= torch.finfo(total.dtype).eps * values.square().amax(0)
    return torch.where(flat, (rest <= total).to(total.dtype), 1 - rest / total.clamp(min=torch.finfo(total.dtype).tiny))


def _spread(influence: Tensor, residual: Tensor, together: int) -> Tensor:
    """Standard errors ``[n, c]`` from each group of rows' push on each coefficient (sandwich)."""
    groups = len(influence) // together
    if not groups:
        return torch.zeros(residual.shape[1], influence.shape[1], dtype=influence.dtype)
    mean = residual.T @ influence / groups
    squares = _products(residual, groups).T @ _products(influence, groups) / groups
    return ((squares - mean.square()).clamp(min=0) * groups).sqrt()


def _products(rows: Tensor, groups: int) -> Tensor:
    """The products of every two rows of a group, columns kept apart."""
    rows = rows.reshape(groups, -1, rows.shape[1])
    return (rows[:, :, None] * rows[:, None]).flatten(0, 2)
