"""``python -m benchmarks.precision``: explanations in bfloat16 and float16 beside float32, on real photographs.

The same photographs are explained with the same target in each precision; heatmaps (relevance summed over colours) are
compared photograph by photograph, by Spearman's rank correlation over pixels and by the relative L2 distance.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import headwater as hw
from benchmarks.evaluation import SUBJECTS, Subject, bounds, photographs
from headwater.errors import NonFinite

METHODS = {
    "LRP, default": {},
    "LRP, epsilon_plus": {"composite": "epsilon_plus"},
    "LRP, epsilon": {"composite": "epsilon"},
    "gradient x input": {"method": "gradient_x_input"},
}
# A score is explained 64 times as large where small factors would be lost below float16's smallest number, 6e-8.
PRECISIONS = {
    "bfloat16": (torch.bfloat16, 1),
    "float16": (torch.float16, 1),
    "float16, score x 64": (torch.float16, 64),
}


@dataclass(frozen=True)
class Row:
    """How far a precision is from float32, the median over photographs.

    Attributes:
        network, method, precision: what was compared.
        correlation: of ranks, -1 to 1, and ``lowest`` that of the worst photograph.
        distance: ``|R - R32| / |R32|``, Euclidean.
        output: ``|f - f32| / |f32|`` of the explained score.
        overflowed: photographs that were refused, since a factor was too large for the precision.
    """

    network: str
    method: str
    precision: str
    correlation: float
    lowest: float
    distance: float
    output: float
    overflowed: int


def compare(network: str, model: nn.Module, x: Tensor, ends: tuple[Tensor, Tensor]) -> list[Row]:
    """Every method in every precision against float32.

    Args:
        network: its name in the rows; ``model``: in float32; ``x``: inputs ``[N, 3, H, W]``; ``ends``: their bounds.
    """
    rows = []
    with torch.no_grad():
        target = model(x).argmax(1)
    for name, options in METHODS.items():
        exact = hw.explain(model, x, target=target, bounds=ends, **options)
        for precision, (dtype, scale) in PRECISIONS.items():
            coarse = copy.deepcopy(model).to(dtype)
            box = [end.to(dtype) for end in ends]
            figures = []
            for i, c in enumerate(target.tolist()):
                score = lambda scores, c=c, scale=scale: scale * scores[:, c]  # noqa: E731
                with suppress(NonFinite):
                    e = hw.explain(coarse, x[i : i + 1].to(dtype), target=score, bounds=box, **options)
                    found = e.relevance[0].float() / scale, e.output[0].float() / scale
                    figures.append(deviation(exact.relevance[i], found[0], exact.output[i], found[1]))
            ranks, distances, outputs = zip(*(figures or [(math.nan,) * 3]), strict=True)
            rows.append(
                Row(
                    network, name, precision, statistics.median(ranks), min(ranks), statistics.median(distances),
                    statistics.median(outputs), len(x) - len(figures),
                )
            )  # fmt: skip
            print(line(rows[-1]), flush=True)
    return rows


def deviation(exact: Tensor, found: Tensor, score: Tensor, found_score: Tensor) -> tuple[float, float, float]:
    """Rank correlation and relative distance of two heatmaps ``[3, H, W]``, and the relative error of the scores."""
    reference, heat = (r.float().sum(0).flatten() for r in (exact, found))
    rank = float(spearmanr(heat.numpy(), reference.numpy()).statistic)
    return rank, float((heat - reference).norm() / reference.norm()), float((found_score - score).abs() / score.abs())


def line(row: Row) -> str:
    """A row of the table, in Markdown."""
    figures = f"{row.correlation:.3f} | {row.lowest:.3f} | {row.distance:.3f} | {row.output:.4f} | {row.overflowed}"
    return f"| {row.network} | {row.method} | {row.precision} | {figures} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--networks", default="MobileNetV2,EfficientNet-Lite0", help="(default: %(default)s)")
    parser.add_argument("--count", type=int, default=20, help="photographs (default: %(default)s)")
    options = parser.parse_args(arguments)
    if "HEADWATER_DATA" not in os.environ:
        parser.error("HEADWATER_DATA names no folder of real data")
    data = Path(os.environ["HEADWATER_DATA"])
    print(
        "| network | method | precision | rank correlation | lowest | relative L2 | score, relative error | refused |"
    )
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for name in options.networks.split(","):
        subject: Subject = SUBJECTS[name]
        x = subject.prepare(photographs(data, options.count, subject.side))
        compare(name, subject.build(data).eval(), x, bounds(subject))


if __name__ == "__main__":
    main()
