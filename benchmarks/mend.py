"""A torchvision that was built for another torch, mended as far as models and transforms go."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor


def mend_torchvision() -> None:
    """Declare the operators that a torchvision built for another torch lacks: it cannot be imported else.

    Of those, detectors need non-maximum suppression alone: torchvision has the rest in Python.
    """
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return
    except RuntimeError:
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
    if not torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", "CPU"):
        torch.library.impl("torchvision::nms", "CPU", suppressed)
        importlib.import_module("torchvision.ops.boxes")._assert_has_ops = lambda: None
        align = importlib.import_module("torchvision.ops.roi_align")
        align._roi_align = align._roi_align.__wrapped__  # else it is compiled first, for minutes


def suppressed(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Which boxes stay in non-maximum suppression, the best first.

    Args:
        boxes: corners ``x1 y1 x2 y2``, ``[K, 4]``.
        scores: ``[K]``.
        threshold: a box goes whose intersection over union with a better one that stays is larger.

    Returns:
        indices into ``boxes``.
    """
    overlap = importlib.import_module("torchvision.ops.boxes").box_iou(boxes, boxes)
    waiting, kept = scores.argsort(descending=True, stable=True), []
    while len(waiting):
        kept.append(best := waiting[0])
        waiting = waiting[1:][overlap[best, waiting[1:]] <= threshold]
    return torch.stack(kept) if kept else waiting
