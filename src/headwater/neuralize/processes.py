"""Gaussian process regression: a kernel machine whose kernel is written as a formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from headwater.errors import UnsupportedModel
from headwater.neuralize.kernels import KernelSum, Scale
from headwater.neuralize.request import Lambda, Request, always, builds, tensor


@builds("GaussianProcessRegressor", folds=always)
def gaussian_process(estimator: Any, request: Request) -> nn.Module:
    """Mean prediction ``[N]`` or ``[N, K]`` of a Gaussian process with a Gaussian kernel, scaled, and noise."""
    request.choose(estimator, "predict")
    constant, lengths = gaussian_kernel(estimator.kernel_)
    dual = tensor(estimator.alpha_) * constant
    flat = dual.dim() == 1
    alpha = dual[None] if flat else dual.T
    spread, mean = tensor(estimator._y_train_std).reshape(-1, 1), tensor(estimator._y_train_mean).reshape(-1)
    columns = estimator.X_train_.shape[1]
    scale = 1 / tensor(np.broadcast_to(lengths, (columns,)).copy())
    distances = request.distances(estimator.X_train_, scale)
    intercept = mean.expand(len(alpha)).clone()
    machine = nn.Sequential(distances, Scale(-0.5), KernelSum(alpha * spread, intercept, request.pooling))
    return nn.Sequential(machine, Lambda("[N, 1] to [N]", _flat)) if flat else machine


def _flat(x: torch.Tensor) -> torch.Tensor:
    return x.squeeze(1)


def gaussian_kernel(kernel: Any) -> tuple[float, Any]:
    """The constant and the length scales of ``constant * RBF + noise``, in any order.

    Raises:
        UnsupportedModel: for any other kernel.
    """
    name = type(kernel).__name__
    if name == "RBF":
        return 1.0, np.atleast_1d(kernel.length_scale)
    parts: list[Any] = [getattr(kernel, k, None) for k in ("k1", "k2")]
    names = [type(part).__name__ for part in parts]
    for part, other, kind in ((parts[0], parts[1], names[1]), (parts[1], parts[0], names[0])):
        if name == "Sum" and kind == "WhiteKernel":
            return gaussian_kernel(part)
        if name == "Product" and kind == "ConstantKernel":
            constant, lengths = gaussian_kernel(part)
            return constant * float(other.constant_value), lengths
    raise UnsupportedModel(f"Only Gaussian processes with a kernel constant * RBF + noise have a network, not {kernel}")
