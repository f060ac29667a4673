"""What averaging costs beside the passes that it needs, and what Captum's costs.

    python -m benchmarks.averaging --rounds 5

In every round each contestant runs once: the bare passes (forward and backward of as many rows in batches of the same
sizes, at inputs that lie ready, and the forward passes that give the scores at the input and at the baselines),
Headwater's method, and Captum's, given as large batches. The figure is the median over rounds of the ratio to the bare
passes, in time of the processor, which other programs on the machine disturb less than that of the clock.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import headwater as hw
from benchmarks.networks import VGG, resnet50


@dataclass(frozen=True)
class Case:
    """One method on one model.

    Attributes:
        name: of the method; ``rows``: passes forward and back for each sample; ``forwards``: forward passes beside.
        captum: makes Captum's call for a model, an input, and rows at a time.
    """

    name: str
    rows: int
    forwards: int
    captum: Callable[[nn.Module, Tensor, int], Callable[[], Any]] | None = None


def _integrated(model: nn.Module, x: Tensor, size: int) -> Callable[[], Any]:
    from captum.attr import IntegratedGradients

    explainer = IntegratedGradients(model)
    return lambda: explainer.attribute(x, target=0, n_steps=50, internal_batch_size=size, return_convergence_delta=True)


def _smoothed(model: nn.Module, x: Tensor, size: int) -> Callable[[], Any]:
    from captum.attr import NoiseTunnel, Saliency

    explainer, each = NoiseTunnel(Saliency(model)), max(1, size // len(x))
    return lambda: explainer.attribute(x, target=0, nt_samples=50, nt_samples_batch_size=each, stdevs=0.1, abs=False)


CASES = (
    Case("integrated_gradients", 50, 2, _integrated),
    Case("smoothgrad", 50, 1, _smoothed),
    Case("smooth_ig", 25, 6),
)
MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor, int]]] = {
    # model, input, rows at a time
    "VGG-16": lambda: (VGG(), torch.rand(1, 3, 96, 96), 10),
    "ResNet-50": lambda: (resnet50(), torch.rand(1, 3, 128, 128), 10),
    "VGG, quarter width": lambda: (VGG(((16, 2), (32, 2), (64, 3), (128, 3)), 256), torch.rand(1, 3, 128, 128), 10),
    "ResNet, quarter width": lambda: (resnet50((1, 1, 1, 1), 24), torch.rand(2, 3, 96, 96), 10),
    "digits": lambda: (
        nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.Flatten(),
                      nn.Linear(4608, 10)), torch.rand(8, 1, 28, 28), 64,
    ),
    "table": lambda: (
        nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 3)),
        torch.randn(64, 20), 256,
    ),
}  # fmt: skip


def bare(model: nn.Module, x: Tensor, rows: int, forwards: int, size: int) -> Callable[[], None]:
    """As many passes as a method needs, in batches of ``size`` rows."""
    ready = x[torch.arange(size) % len(x)].clone()
    total = rows * len(x)

    def run() -> None:
        for start in range(0, total, size):
            part = ready[: min(size, total - start)].detach().requires_grad_()
            torch.autograd.grad(model(part)[:, 0].sum(), part)
        with torch.no_grad():
            for start in range(0, forwards * len(x), size):
                model(ready[: min(size, forwards * len(x) - start)])

    return run


def measure(case: Case, name: str, rounds: int) -> str:
    """One row of the table."""
    model, x, size = MODELS[name]()
    model = model.eval().requires_grad_(False)
    calls: dict[str, Callable[[], Any]] = {
        "bare": bare(model, x, case.rows, case.forwards, size),
        "headwater": lambda: hw.explain(model, x, target=0, method=case.name, batch_size=size),
    }
    if case.captum is not None and importlib.util.find_spec("captum") is not None:
        calls["captum"] = case.captum(model, x, size)
    seconds: dict[str, list[float]] = {k: [] for k in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for key, call in calls.items():
            start = time.process_time()
            call()
            seconds[key].append(time.process_time() - start)
    ratios = {k: statistics.median(a / b for a, b in zip(v, seconds["bare"], strict=True)) for k, v in seconds.items()}
    theirs = f"{ratios['captum']:.3f}" if "captum" in ratios else ""
    return f"| {case.name} | {name} | {statistics.median(seconds['bare']):.2f} | {ratios['headwater']:.3f} | {theirs} |"


def main() -> None:
    """Print a table of all methods on all models."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.averaging", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each contestant runs (default: 5)")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    options = parser.parse_args()
    torch.manual_seed(0)
    print("| method | model | bare passes, s | Headwater / bare | Captum / bare |\n| --- | --- | ---: | ---: | ---: |")
    for name in options.models:
        for case in CASES:
            print(measure(case, name, options.rounds), flush=True)


if __name__ == "__main__":
    main()
