"""Figure 3: gradients that change faster than the prediction, and roots that look like the picture itself."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import headwater as hw
from benchmarks import evaluation
from experiments.reproduction import Reproduction
from headwater.neuralize.video import read_frames
from headwater.show.figure import new_figure

CLIPS = ("demo.mp4", "test.mp4", "test.avi")


def frames_of(run: Reproduction, clip: str, side: int) -> Tensor:
    """The middle square of a clip's first frames, ``[T, 3, side, side]`` in 0 to 1."""
    frames = torch.from_numpy(np.array(read_frames(run.path("video_clips", clip), run.pick(quick=6, full=16))))
    pixels = frames.movedim(-1, 1).float() / 255
    height, width = pixels.shape[2:]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    return F.interpolate(pixels[:, :, top : top + edge, left : left + edge], side, mode="bilinear", antialias=True)


def moved(values: Tensor) -> float:
    """The mean change from one frame to the next, in parts of the mean magnitude; ``[T, ...]``."""
    values = values.double().flatten(1)
    return float((values[1:] - values[:-1]).norm(dim=1).mean() / values.norm(dim=1).mean())


def _clip(run: Reproduction, clip: str) -> dict[str, Any]:
    subject = evaluation.SUBJECTS["SqueezeNet"]
    model = subject.network(run.data)
    x = subject.prepare(frames_of(run, clip, subject.side))
    with torch.inference_mode():
        target = int(model(x).mean(0).argmax())
    bounds = tuple(b[None] for b in evaluation.bounds(subject))
    gradient = hw.explain(model, x, target, method="gradient", batch_size=8)
    relevance = hw.explain(model, x, target, composite="cmp", bounds=bounds, batch_size=8).relevance
    centre = (slice(None), 0, subject.side // 2, subject.side // 2)
    return {
        "target": target, "output": gradient.output, "gradient at a pixel": gradient.relevance[centre],
        "moved": {"pixels": moved(x), "prediction": moved(gradient.output[:, None]),
                  "gradient": moved(gradient.relevance), "LRP": moved(relevance)},
    }  # fmt: skip


def _roots(run: Reproduction) -> dict[str, Any]:
    """The nearest points at which the log-odds of the predicted class are zero."""
    subject = evaluation.SUBJECTS["MobileNetV2"]
    model = subject.network(run.data)
    pixels = evaluation.photographs(run.data, run.pick(quick=2, full=4), subject.side)
    x = subject.prepare(pixels)
    with torch.inference_mode():
        chance, target = model(x).softmax(1).max(1)
    sure = chance > 0.5
    x, target = x[sure], target[sure]
    e = hw.explain(model, x, hw.target.LogOdds(target), method="taylor", batch_size=8, steps=40)
    root = e.details["root"]
    with torch.inference_mode():
        after = model(root).softmax(1).gather(1, target[:, None])[:, 0]
    change = (root - x) * torch.tensor([0.229, 0.224, 0.225])[:, None, None]  # in pixels of 0 to 1
    return {
        "before": chance[sure], "after": after, "change": change.square().mean((1, 2, 3)).sqrt(),
        "contrast": pixels[sure].flatten(1).std(1), "first": pixels[sure][0],
        "root": (pixels[sure] + change)[0].clamp(0, 1),
    }  # fmt: skip


def reproduce(run: Reproduction) -> None:
    """Both halves of figure 3."""
    clips = {clip: run.step(f"figure_3_{clip.replace('.', '_')}", partial(_clip, run, clip))
             for clip in CLIPS[: run.pick(quick=1, full=3)]}  # fmt: skip
    roots = run.step("figure_3_roots", lambda: _roots(run))
    _draw(run, clips, roots)
    told = [f"{clip}: prediction {v['moved']['prediction']:.0%}, gradient {v['moved']['gradient']:.0%}, "
            f"LRP {v['moved']['LRP']:.0%}" for clip, v in clips.items()]  # fmt: skip
    run.claim(
        "shattered gradients", source="Section II-B, Fig. 3 (left)",
        text="From frame to frame of a video, the gradient changes much more than the prediction.",
        paper="one clip, by eye", ours="change a frame, in parts of the mean: " + "; ".join(told),
        verdict="reproduced"
        if all(v["moved"]["gradient"] > 3 * v["moved"]["prediction"] for v in clips.values()) else "not reproduced",
        why="SqueezeNet for VGG-16 on the shared clips; pixels change by "
        + ", ".join(f"{v['moved']['pixels']:.0%}" for v in clips.values()),
    )  # fmt: skip
    run.claim(
        "LRP smooths the gradient", source="Section III-D, Eq. 3",
        text="LRP's factors are a smoother version of the gradient.", paper="derived",
        ours="change a frame, LRP (cmp) over gradient: "
        + ", ".join(f"{v['moved']['LRP'] / v['moved']['gradient']:.2f}" for v in clips.values()),
        verdict="reproduced" if all(v["moved"]["LRP"] < v["moved"]["gradient"] for v in clips.values())
        else "not reproduced",
    )  # fmt: skip
    ratio = roots["change"] / roots["contrast"]
    run.claim(
        "pathological roots", source="Section II-B, Fig. 3 (right)",
        text="Near a picture lie points without any visible difference at which the output has dropped.",
        paper="one picture, by eye",
        ours=f"nearest point with even odds: root mean square change {float(roots['change'].mean()):.4f} of 0 to 1, "
        f"{float(ratio.mean()):.1%} of the contrast",
        verdict="reproduced" if float(ratio.max()) < 0.05 and float((roots["after"] - 0.5).abs().max()) < 0.05
        else "not reproduced",
        why=f"{len(ratio)} photographs, MobileNetV2; probability from {float(roots['before'].mean()):.2f} to "
        f"{float(roots['after'].mean()):.2f}",
    )  # fmt: skip


def _draw(run: Reproduction, clips: dict[str, Any], roots: dict[str, Any]) -> None:
    figure = new_figure(10.5, 3.2)
    line, first, second = figure.subplots(1, 3, width_ratios=[2.2, 1, 1])
    clip, values = next(iter(clips.items()))
    for name, colour in (("output", "k"), ("gradient at a pixel", "#b2182b")):
        series = values[name].double()
        line.plot((series / series.abs().max()).numpy(), color=colour, label=name.replace("output", "prediction"))
    line.set(xlabel=f"frame of {clip}", ylabel="in parts of the largest magnitude")
    line.legend(fontsize=8, frameon=False)
    line.spines[["top", "right"]].set_visible(False)
    heads = (f"photograph: {float(roots['before'][0]):.2f}", f"nearest even odds: {float(roots['after'][0]):.2f}")
    for axes, name, head in zip((first, second), ("first", "root"), heads, strict=True):
        axes.imshow(roots[name].movedim(0, -1).numpy())
        axes.set(xticks=[], yticks=[])
        axes.set_title(head, fontsize=10)
    run.figure(
        "figure_3_difficulties", figure,
        {"prediction": values["output"], "gradient": values["gradient at a pixel"], "picture": roots["first"],
         "root": roots["root"], "change": roots["change"]},
        "Figure 3: the score of SqueezeNet's class over the frames of a clip, and its gradient at the picture's middle "
        "(left); a photograph and the nearest point at which its class has even odds, with the class's probability.",
    )  # fmt: skip
