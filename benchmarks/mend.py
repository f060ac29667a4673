"""A torchvision that was built for another torch, mended as far as models and transforms go."""

from __future__ import annotations

import importlib

import torch


def mend_torchvision() -> None:
    """Declare the operators that a torchvision built for another torch lacks: it cannot be imported else."""
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return
    except RuntimeError:
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
