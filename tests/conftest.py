"""What every test starts from: one thread, one seed, and the folder of real data where there is one."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("headwater", derandomize=True, deadline=None)
settings.load_profile("headwater")
torch.set_num_threads(1)


def mend_torchvision() -> None:
    """Declare the operators that a torchvision built for another torch lacks: its models cannot be imported else."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return
    try:
        torch.ops.load_library(str(Path(spec.submodule_search_locations[0]) / "_C.so"))
    except OSError:
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )


mend_torchvision()


@pytest.fixture(autouse=True)
def manual_seed() -> None:
    """Every test draws the same random numbers, whichever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data and weights; its layout is that of the folder that HEADWATER_DATA names."""
    folder = os.environ.get("HEADWATER_DATA")
    if not folder:
        pytest.skip("HEADWATER_DATA names no folder of real data")
    return Path(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test marked ``data`` is skipped as one that takes the fixture is."""
    for item in items:
        if item.get_closest_marker("data") and isinstance(item, pytest.Function) and "data" not in item.fixturenames:
            item.fixturenames.insert(0, "data")
