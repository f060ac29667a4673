"""The census's image and video networks: the smallest variant of each family of timm, and torchvision's models."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import torch

from benchmarks.census_subjects import Built, NotBuilt, Subject, first_that_runs

MOST_PARAMETERS = 150_000_000
_SIZES = """
test atto femto pico nano zepto xxtiny xtiny xxt xt t0 xxs xs mini tiny lite small s m medium base b l large
xlarge xl so400m huge h giant g giantopt gigantic enormous e 7b 6b
"""


def timm() -> list[Subject]:
    """One subject for each family: a module of timm and the word that its variants' names begin with."""
    library = importlib.import_module("timm")
    families: dict[str, list[str]] = {}
    for module in library.list_modules():
        for name in library.list_models(module=module):
            word = re.match(r"[a-z]+(v\d)?", name)
            if word is not None and not name.startswith("test_"):
                families.setdefault(f"{module}/{word.group()}", []).append(name)
    return [Subject("timm", key, partial(_timm, min(names, key=_size))) for key, names in sorted(families.items())]


def _size(name: str) -> tuple[int, int, int, str]:
    """How large a variant is by its name: words of size first, then numbers."""
    words = name.split("_")
    sizes = _SIZES.split()
    rank = min((sizes.index(w) for w in words if w in sizes), default=sizes.index("medium"))
    number = re.search(r"\d+", name)
    return rank, int(number.group()) if number else 0, len(name), name


def _timm(name: str) -> Built:
    library = importlib.import_module("timm")
    with torch.device("meta"):
        _refuse_huge(library.create_model(name))

    def candidates() -> Iterator[Built]:
        for size in (64, 128, None):
            for options in ({} if size is None else {"img_size": size}, {}):
                try:
                    model = library.create_model(name, **options).eval()
                except Exception:  # not every model has an option for the size of its images
                    continue
                channels, *native = model.default_cfg["input_size"]
                shape = native if size is None else (size, size)
                yield Built(model, torch.randn(1, channels, *shape), f"{name}, pixels {'x'.join(map(str, shape))}")

    return first_that_runs(candidates())


# The larger of several variants that differ in size alone.
_LARGER = re.compile(
    r"quantized|vgg1[369]$|net(101|152)|densenet(169|201)|efficientnet_b[4-7]|efficientnet_v2_[ml]|vit_[lh]|raft_large|"
    r"regnet_[xy]_(16|32|128|8|3_2)gf|swin3d_[sb]|swin(_v2)?_b|convnext_(base|large)|resnext101_64|mnasnet1_3|x2_0"
)


def torchvision() -> list[Subject]:
    """Every model, but of those that differ in size alone the larger ones, and the quantized ones."""
    models = importlib.import_module("torchvision.models")
    names = [name for name in models.list_models() if not _LARGER.search(name)]
    return [Subject("torchvision", name, partial(_torchvision, name)) for name in names]


def _torchvision(name: str) -> Built:
    models = importlib.import_module("torchvision.models")
    options: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    detects = name in models.list_models(module=models.detection)
    options |= _few_boxes(name) if detects else {}
    try:
        with torch.device("meta"):
            _refuse_huge(models.get_model(name, **options))
    except NotImplementedError:  # some read values while they are built; all of those are small
        pass
    with _short_clips(models):
        model = models.get_model(name, **options).eval()

    def candidates() -> Iterator[Built]:
        if detects:
            yield Built(model, torch.rand(1, 3, 128, 128), "pixels 128x128", found_scores)
        for shape in ((64, 64), (128, 128), (224, 224)):
            yield Built(model, torch.randn(1, 3, *shape), f"pixels {'x'.join(map(str, shape))}")
        yield Built(model, torch.randn(1, 3, 8, 64, 64), "video 8x64x64")
        yield Built(model, torch.randn(1, 3, 16, 112, 112), "video 16x112x112")
        yield Built(model, torch.randn(1, 3, 16, 224, 224), "video 16x224x224")
        yield Built(model, (torch.randn(1, 3, 128, 128), torch.randn(1, 3, 128, 128)), "two images 128x128")

    return first_that_runs(candidates())


@contextlib.contextmanager
def _short_clips(models: Any) -> Iterator[None]:
    """Let MViT's builders, which fix the size of their clips, make the model for 8 frames of 64 x 64."""
    networks = models.video.mvit
    build, small = networks.MViT, {"spatial_size": (64, 64), "temporal_size": 8}
    with mock.patch.object(networks, "MViT", lambda **options: build(**options | small)):
        yield


def _few_boxes(name: str) -> dict[str, Any]:
    """Options of a detector for small images, few candidates, and boxes found however low their scores."""
    if "rcnn" in name:
        few = {"rpn_pre_nms_top_n_test": 40, "rpn_post_nms_top_n_test": 20, "box_detections_per_img": 10}
        return {"min_size": 128, "max_size": 128, "box_score_thresh": -1.0, **few}
    few = {"topk_candidates": 40, "detections_per_img": 10, "score_thresh": -1.0}
    return few if name.startswith("ssd") else {"min_size": 128, "max_size": 128, **few}


def found_scores(found: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """What is explained of a detector: the sum of the scores of all that it finds in each image, ``[N]``."""
    return torch.stack([image["scores"].sum() for image in found])


def _refuse_huge(model: torch.nn.Module) -> None:
    count = sum(p.numel() for p in model.parameters())
    if count > MOST_PARAMETERS:
        raise NotBuilt(f"{count / 1e6:.0f} million parameters; the census stops at {MOST_PARAMETERS / 1e6:.0f}")
