"""What removal costs beside the forward passes that it needs, and what Captum's costs.

    python -m benchmarks.removal --rounds 5

In every round each contestant runs once: the bare forward passes (as many rows, in batches of the same sizes, of inputs
that lie ready), Headwater's method, and Captum's where it has the method, given as large batches as Headwater takes.
The figure is the median over rounds of the ratio to the bare passes, in time of the processor, which other programs on
the machine disturb less than that of the clock.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import headwater as hw
from benchmarks.networks import resnet50


class Words(nn.Module):
    """A transformer encoder on token ids."""

    def __init__(self, width: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False), nn.Linear(width, 2)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits ``[N, 2]`` of ids ``[N, T]``."""
        return self.head(self.encoder(self.embedding(ids)).mean(1))


@dataclass(frozen=True)
class Case:
    """One method on one model.

    Attributes:
        name: of the row; ``build``: makes model and input; ``options`` of ``hw.explain``.
        captum: makes Captum's call for a model, an input and rows at a time; None where it has none.
    """

    name: str
    build: Callable[[], tuple[nn.Module, Tensor]]
    options: dict[str, Any]
    captum: Callable[[nn.Module, Tensor, int], Callable[[], Any]] | None = None


def pictures() -> tuple[nn.Module, Tensor]:
    """A ResNet of a quarter of ResNet-50's width, one picture."""
    return resnet50((1, 1, 1, 1), 24).eval(), torch.rand(1, 3, 96, 96)


def digits() -> tuple[nn.Module, Tensor]:
    """A small convolutional network, eight pictures of 28 x 28."""
    layers = [nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4608, 10)]
    return nn.Sequential(*layers).eval(), torch.rand(8, 1, 28, 28)


def rows() -> tuple[nn.Module, Tensor]:
    """A network of three layers, 256 rows of 20 columns."""
    layers = [nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 3)]
    return nn.Sequential(*layers).eval(), torch.randn(256, 20)


def words() -> tuple[nn.Module, Tensor]:
    """A transformer, two texts of 40 tokens."""
    return Words().eval(), torch.randint(1, 1000, (2, 40))


def _captum(name: str, **options: Any) -> Callable[[nn.Module, Tensor, int], Callable[[], Any]]:
    def make(model: nn.Module, x: Tensor, size: int) -> Callable[[], Any]:
        from captum import attr

        explainer, at_a_time = getattr(attr, name)(model), max(1, size // len(x))
        return lambda: explainer.attribute(x, target=0, perturbations_per_eval=at_a_time, **options)

    return make


def _grid(side: int, cell: int) -> Tensor:
    along = torch.arange(side) // cell
    return (along[:, None] * (int(along[-1]) + 1) + along)[None, None]


CASES = (
    Case(
        "occlusion, ResNet at 96 x 96", pictures, {"method": "occlusion", "window": 14, "stride": 7},
        _captum("Occlusion", sliding_window_shapes=(3, 14, 14), strides=(3, 7, 7)),
    ),
    Case("rise (200 masks), ResNet", pictures, {"method": "rise", "samples": 200}),
    Case(
        "shapley_sampling (4 orders of 64 patches), ResNet", pictures,
        {"method": "shapley_sampling", "permutations": 4},
        _captum("ShapleyValueSampling", n_samples=4, feature_mask=_grid(96, 12)),
    ),
    Case("lime (200 subsets of 64 patches), ResNet", pictures, {"method": "lime", "samples": 200, "features": "grid"}),
    Case("prediction_difference (10 draws), ResNet", pictures, {"method": "prediction_difference", "window": 24}),
    Case(
        "feature_ablation (196 patches of 2 x 2), digits", digits, {"method": "feature_ablation", "features": 2},
        _captum("FeatureAblation", feature_mask=_grid(28, 2)),
    ),
    Case(
        "shapley_sampling (25 orders), 256 rows", rows, {"method": "shapley_sampling"},
        _captum("ShapleyValueSampling", n_samples=25),
    ),
    Case("kernel_shap (2088 coalitions), 256 rows", rows, {"method": "kernel_shap"}),
    Case(
        "feature_ablation, 256 rows", rows, {"method": "feature_ablation"}, _captum("FeatureAblation"),
    ),
    Case("shapley_sampling (25 orders of 40 tokens), transformer", words, {"method": "shapley_sampling"}),
)  # fmt: skip


def measure(case: Case, rounds: int) -> dict[str, float]:
    """Medians over rounds of the ratios to the bare passes, and how many rows those have."""
    torch.manual_seed(0)
    model, x = case.build()
    sizes: list[int] = []

    def counting(batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        return model(batch)

    hw.explain(counting, x, target=0, progress=False, **case.options)
    ready = {size: x[torch.arange(size) % len(x)].clone() for size in set(sizes)}

    def bare() -> None:
        with torch.no_grad():
            for size in sizes:
                model(ready[size])

    calls: dict[str, Callable[[], Any]] = {"bare": bare}
    calls["headwater"] = lambda: hw.explain(model, x, target=0, progress=False, **case.options)
    if case.captum is not None:
        calls["captum"] = case.captum(model, x, max(sizes))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if turn:  # the first loads what is loaded once
                times[name].append(time.process_time() - start)
    ratios = {
        name: statistics.median(a / b for a, b in zip(times[name], times["bare"], strict=True))
        for name in calls
        if name != "bare"
    }
    return {"rows": sum(sizes), "seconds": statistics.median(times["bare"]), **ratios}


def main() -> None:
    """Print a table, one row a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print("| method and model | rows | processor seconds | Headwater / bare | Captum / bare |")
    print("| --- | --- | --- | --- | --- |")
    for case in CASES:
        if chosen.only in case.name:
            found = measure(case, chosen.rounds)
            captum = f"{found['captum']:.2f}" if "captum" in found else ""
            head = f"| {case.name} | {found['rows']:.0f} | {found['seconds']:.2f}"
            print(f"{head} | {found['headwater']:.2f} | {captum} |", flush=True)


if __name__ == "__main__":
    main()
