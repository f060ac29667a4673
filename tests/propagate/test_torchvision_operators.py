"""The operators that torchvision compiles: deformable convolution, pooling of regions, suppression of boxes.

Where torchvision comes without its compiled part, these stand under their names as plain functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import headwater as hw

_INTS = "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w"
SCHEMAS = {
    "deform_conv2d": f"Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, {_INTS}, SymInt groups, "
    "SymInt offset_groups, bool use_mask",
    "roi_align": "Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned",
    "nms": "Tensor dets, Tensor scores, float iou_threshold",
}


def deformed(x: Tensor, w: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, *rest: Any) -> Tensor:
    """Deformable convolution of stride 1 with padding and no dilation: each tap of the kernel is sampled by itself."""
    size, pad = w.shape[-1], rest[2]
    places = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=x.dtype) for n in x.shape[2:]), indexing="ij"), -1)
    moves = offset.unflatten(1, (size * size, 2)).permute(0, 1, 3, 4, 2)  # (down, right) for each tap
    columns = []
    for tap in range(size * size):
        at = places + torch.tensor([tap // size - pad, tap % size - pad], dtype=x.dtype) + moves[:, tap]
        scale = torch.tensor([2.0 / n for n in x.shape[2:]], dtype=x.dtype)
        grid = ((at + 0.5) * scale - 1).flip(-1)
        columns.append(F.grid_sample(x, grid, align_corners=False) * mask[:, tap : tap + 1])
    return F.conv2d(torch.cat(columns, 1), w.flatten(2).transpose(1, 2).flatten(1)[:, :, None, None], bias)


def aligned(x: Tensor, rois: Tensor, scale: float, height: int, width: int, ratio: int, shift: bool) -> Tensor:
    """Bilinear samples of the first picture in each region."""
    low, high = rois[:, 1:3] * scale, rois[:, 3:5] * scale
    steps = torch.linspace(0, 1, height, dtype=x.dtype)
    down, right = torch.meshgrid(steps, steps, indexing="ij")
    at = low[:, None, None] + torch.stack([right, down], -1) * (high - low)[:, None, None]
    return F.grid_sample(x[:1].expand(len(rois), -1, -1, -1), at / x.shape[-1] * 2 - 1, align_corners=False)


def kept(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Boxes by score."""
    return scores.argsort(descending=True)[:2]


@pytest.fixture(scope="module", autouse=True)
def operators() -> Iterator[None]:
    """The three names, for as long as this module's tests run."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, function in (("deform_conv2d", deformed), ("roi_align", aligned), ("nms", kept)):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}({SCHEMAS[name]}) -> Tensor")
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"torchvision::{name}", "CompositeImplicitAutograd"):
            library.impl(name, function, "CompositeImplicitAutograd")
    yield
    library._destroy()


class Deformable(nn.Module):
    """A deformable convolution that learns where to look, as ResNets of detectors have it; ``[N, 2, 7, 7]``."""

    def __init__(self, run: Callable[..., Tensor], moving: bool = True, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.run, self.moving = run, moving
        self.first, self.where, self.mask = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 18, 3, padding=1), nn.Conv2d(3, 9, 1)
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4) if norm else nn.Identity()
        self.head = nn.Linear(4, 3)
        for t in self.norm.state_dict().values():
            if t.is_floating_point():
                t.copy_(torch.rand_like(t) + 0.5)
        if norm:
            with torch.no_grad():
                self.norm.weight[::2].neg_()
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``[N, 3]``."""
        x = self.first(x)
        offset, mask = 0.3 * self.where(x), self.mask(x).sigmoid()
        if self.moving:
            x = x.relu()  # a sample between pixels of both signs has one of its own
        else:
            offset, mask = torch.zeros_like(offset), torch.ones_like(mask)
        weights = (self.conv.weight, offset, mask, self.conv.bias, 1, 1, 1, 1, 1, 1, 1, 1, True)
        scores: Tensor = self.head(self.norm(self.run(x, *weights)).relu().mean((2, 3)))
        return scores


RULES = [hw.rules.Zero(), hw.rules.Epsilon(0.1), hw.rules.Gamma(0.5), hw.rules.ZPlus(), hw.rules.AlphaBeta(2, 1)]


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("moving", [True, False])
def test_deformable_convolution_is_that_of_its_samples(rule: hw.rules.Rule, moving: bool) -> None:
    x = torch.randn(2, 2, 7, 7, dtype=torch.float64)
    composite = hw.Composite({"affine": rule})
    ours = hw.explain(Deformable(lambda *a: torch.ops.torchvision.deform_conv2d(*a), moving), x, composite=composite)
    written = hw.explain(Deformable(deformed, moving), x, composite=composite)
    torch.testing.assert_close(ours.output, written.output)
    torch.testing.assert_close(ours.relevance, written.relevance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_without_offsets_it_is_a_convolution_with_its_batch_norm(rule: hw.rules.Rule) -> None:
    def plain(x: Tensor, w: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, *_: Any) -> Tensor:
        return F.conv2d(x, w, bias, padding=1)

    x, composite = torch.randn(2, 2, 7, 7, dtype=torch.float64), hw.Composite({"affine": rule})
    operator = Deformable(lambda *a: torch.ops.torchvision.deform_conv2d(*a), moving=False, norm=True)
    ours = hw.explain(operator, x, composite=composite, ledger=True)
    known = hw.explain(Deformable(plain, moving=False, norm=True), x, composite=composite)
    torch.testing.assert_close(ours.relevance, known.relevance, rtol=1e-9, atol=1e-12)
    assert float(ours.ledger.unexplained().max()) < 1e-9


class Detector(nn.Module):
    """Proposes regions, drops some, and scores what it pools from the best."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.boxes, self.head = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(3, 8), nn.Linear(27, 4)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        """Scores of two regions, ``[2, 4]``."""
        features = self.body(x).relu()
        boxes = self.boxes(features.mean((2, 3))).sigmoid().view(2, 4) * 4
        boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:] + 1], 1)
        best = torch.ops.torchvision.nms(boxes, boxes.sum(1), 0.5)
        rois = torch.cat([boxes.new_zeros(len(best), 1), boxes[best]], 1)
        pooled = torch.ops.torchvision.roi_align(features, rois, 1.0, 3, 3, 2, True)
        scores: Tensor = self.head(pooled.flatten(1))
        return scores


def test_regions_are_constant_and_what_is_pooled_from_them_takes_all() -> None:
    model, x = Detector(), torch.randn(1, 1, 8, 8, dtype=torch.float64)
    found = hw.explain(model, x, target=lambda scores: scores[:1, 0], ledger=True)
    assert float(found.ledger.unexplained().max()) < 1e-9
    passed = {row.operator: (row.incoming, row.outgoing) for row in found.ledger}
    torch.testing.assert_close(*passed["roi_align"])
    torch.testing.assert_close(passed["conv2d"][1], found.relevance.sum()[None])
