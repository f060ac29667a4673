"""Photographs (Section 5.1): heatmaps of sensitivity analysis and of LRP, and patches replaced by noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import headwater as hw
from benchmarks import evaluation
from experiments.reproduction import Reproduction
from experiments.verdicts import below, verdict
from headwater.evaluate import bootstrap_interval, mass_accuracy
from headwater.evaluate.complexity import file_size
from headwater.evaluate.drawing import plot_curves
from headwater.evaluate.flipping import Flipping
from headwater.show import images as draw_images

CHUNKS = 20  # of ten photographs each; a run takes the first of them
METHODS = {"LRP": "lrp", "sensitivity": "sensitivity"}
VOLCANO, MUG = "n09472597_volcano", "n03063599_coffee_mug"
MUG_BOX = (0.42, 0.98, 0.23, 0.79)  # top, bottom, left, right of the mug, in parts of the square picture
SKY = 0.85  # all channels of the volcano's sky are brighter


def report(run: Reproduction) -> None:
    """The two heatmaps of Figure 2 A, the perturbation curves below them, and the claims on both."""
    names = run.pick(quick=("SqueezeNet",), full=tuple(evaluation.SUBJECTS))
    _heatmaps(run)
    curves = {name: _curves(run, name) for name in names}
    _faithfulness(run, curves)


def _curves(run: Reproduction, name: str) -> dict[str, Tensor]:
    """Scores while patches are replaced, by method: ``[N, steps + 1]``; goes on from the chunks that are there."""
    subject = evaluation.SUBJECTS[name]
    count, chunks, taken, steps = run.pick(quick=(4, 1, 1, 10), full=(200, CHUNKS, 8, evaluation.STEPS))

    def compute() -> dict[str, Any]:
        model = subject.network(run.data)
        pixels = evaluation.photographs(run.data, count, subject.side)
        parts = []
        for chunk in run.progress(range(taken), f"{name}, chunks of photographs"):
            store = run.out / "images" / name / f"{chunk:03}-of-{chunks:03}"
            parts.append(evaluation.overview(subject, model, subject.prepare(pixels[chunk::chunks]), store, steps))
        return {method: values["curves"] for method, values in evaluation.joined(parts).items()}

    run.path("imagenet_sample_1000")
    return run.step(f"images_{name}", compute)


def _faithfulness(run: Reproduction, curves: dict[str, dict[str, Tensor]]) -> None:
    rows = []
    for name, by_method in curves.items():
        areas = {method: evaluation.areas_of(values, "overview") for method, values in by_method.items()}
        for method, values in by_method.items():
            low, high = bootstrap_interval(areas[method])
            halfway = evaluation.left(values)[:, values.shape[1] // 2].mean()
            rows.append({
                "network": name, "photographs": len(values), "order": method, "area": float(areas[method].mean()),
                "95 %": f"{float(low):.3f} to {float(high):.3f}", "left after half the patches": float(halfway),
            })  # fmt: skip
        less, told = below(areas["sensitivity"], areas["LRP"])
        scattered = bool(areas["random"].mean() < areas["sensitivity"].mean() < areas["LRP"].mean())
        run.claim(
            f"perturbation-{name}",
            source="5.1, Fig. 2 A",
            text=f"the score falls faster when patches go in the order of LRP than of sensitivity ({name})",
            paper="much faster (GoogLeNet, 5,040 images)",
            ours=f"area {float(areas['LRP'].mean()):.2f} against {float(areas['sensitivity'].mean()):.2f} ({told}); "
            f"random {float(areas['random'].mean()):.2f}; {len(areas['LRP'])} photographs",
            verdict=verdict(less),
            why="noise scattered over the picture, as chance scatters it, harms this network most" if scattered else "",
        )
    run.table(
        "perturbation",
        rows,
        "Patches of 9x9 replaced by uniform noise, the first 100 of some 625, in the order of each method; areas "
        "under the curve in units of the mean score of the whole photograph, lower is more faithful.",
    )
    _draw(run, curves)


def _draw(run: Reproduction, curves: dict[str, dict[str, Tensor]]) -> None:
    from headwater.show.figure import new_figure

    figure = new_figure(3.6 * len(curves) + 0.6, 3.3)
    axes = np.atleast_1d(figure.subplots(1, len(curves), sharey=True))
    for ax, (name, by_method) in zip(axes, curves.items(), strict=True):
        relative = {method: evaluation.left(values) for method, values in by_method.items()}
        fractions = torch.linspace(0, 0.16, next(iter(relative.values())).shape[1])
        plot_curves(
            {method: Flipping(values, fractions, {"output": "score"}) for method, values in relative.items()},
            title=name, ax=ax,
        )  # fmt: skip
        ax.set_ylabel("")
        ax.set_xlabel("patches replaced, %")
    axes[0].set_ylabel("score, relative")
    data = {f"{name}_{method}": values.numpy() for name, found_ in curves.items() for method, values in found_.items()}
    run.figure(
        "perturbation", figure, data,
        "Mean score of the predicted class while 9x9 patches are replaced by uniform noise, relative to the whole "
        "photograph (the paper's Figure 2 A, below); bands are 95 % intervals over photographs.",
    )  # fmt: skip


def _heatmaps(run: Reproduction) -> None:
    """The paper's two motifs, a volcano and a cup, by both methods; and whether they look where they should."""
    subject = evaluation.SUBJECTS["SqueezeNet"]
    model = subject.network(run.data)
    pixels = torch.stack(
        [_photograph(run.path("imagenet_sample_1000", f"{n}.JPEG"), subject.side) for n in (VOLCANO, MUG)]
    )
    x = subject.prepare(pixels)
    maps = {name: _explained(model, subject, x, method) for name, method in METHODS.items()}
    said = model(x).argmax(1).tolist()
    cells = [None, maps["sensitivity"][0], maps["LRP"][0], None, maps["sensitivity"][1], maps["LRP"][1]]
    titles = [f"volcano (says {said[0]})", "sensitivity", "LRP", f"coffee mug (says {said[1]})", "sensitivity", "LRP"]
    pictures = [pixels[0]] * 3 + [pixels[1]] * 3
    figure = draw_images(cells, pictures, titles, limit="each", overlay=False, columns=3)
    run.figure(
        "heatmaps", figure, {"pictures": pixels.numpy(), **{name: values.numpy() for name, values in maps.items()}},
        "Sensitivity analysis and LRP of SqueezeNet on the paper's motifs (Figure 2 A): a volcano (class 980) and a "
        "coffee mug (504).",
    )  # fmt: skip
    _looks(run, pixels, maps)


def _looks(run: Reproduction, pixels: Tensor, maps: dict[str, Tensor]) -> None:
    sky = (pixels[:1] > SKY).all(1)
    share = {name: float(mass_accuracy(values[:1], sky, part="absolute")) for name, values in maps.items()}
    area = float(sky.double().mean())
    run.claim(
        "sky",
        source="5.1",
        text="sensitivity puts large values on pure background such as the sky, LRP does not",
        paper="seen",
        ours=f"share of the volcano's relevance in its sky ({area:.0%} of the picture): sensitivity "
        f"{share['sensitivity']:.1%}, LRP {share['LRP']:.1%}",
        verdict=verdict(share["LRP"] < share["sensitivity"] / 2),
    )
    top, bottom, left, right = (round(part * pixels.shape[-1]) for part in MUG_BOX)
    box = torch.zeros(1, *pixels.shape[-2:], dtype=torch.bool)
    box[:, top:bottom, left:right] = True
    inside = {name: float(mass_accuracy(values[1:], box, part="absolute")) for name, values in maps.items()}
    run.claim(
        "cup",
        source="5.1",
        text="the heatmap of LRP shows the cup",
        paper="seen",
        ours=f"share of |R| in the mug's box ({float(box.double().mean()):.0%} of the picture): LRP "
        f"{inside['LRP']:.0%}, sensitivity {inside['sensitivity']:.0%}",
        verdict=verdict(inside["LRP"] > max(inside["sensitivity"], float(box.double().mean()))),
    )
    sizes = {name: file_size(values).double().mean() for name, values in maps.items()}
    run.claim(
        "noise",
        source="5.1",
        text="heatmaps of sensitivity analysis are much noisier than those of LRP",
        paper="seen",
        ours=f"bytes of the two heatmaps as JPEG: sensitivity {sizes['sensitivity']:.0f}, LRP {sizes['LRP']:.0f}",
        verdict=verdict(bool(sizes["LRP"] < sizes["sensitivity"])),
        why="by the review's measure of complexity",
    )


def _explained(model: nn.Module, subject: evaluation.Subject, x: Tensor, method: str) -> Tensor:
    """Relevance summed over channels, ``[N, H, W]``."""
    options: dict[str, Any] = (
        {"composite": subject.composite, "bounds": evaluation.bounds(subject)} if method == "lrp" else {}
    )
    return hw.explain(model, x, method=method, progress=False, **options).relevance.sum(1)


def _photograph(path: Path, side: int) -> Tensor:
    from PIL import Image

    picture = Image.open(path).convert("RGB")
    short, (width, height) = min(picture.size), picture.size
    left, top = (width - short) // 2, (height - short) // 2
    square = picture.crop((left, top, left + short, top + short)).resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(square)).movedim(-1, 0).float() / 255
