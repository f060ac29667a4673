"""Section IV: faithfulness (Fig. 6), file size and runtime of occlusion, smooth integrated gradients and LRP."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

import headwater as hw
from benchmarks import evaluation
from experiments.reproduction import Reproduction
from experiments.review import photographs
from experiments.review.photographs import alike, negative
from headwater.evaluate import bootstrap_interval
from headwater.remove.imputers import Imputer
from headwater.remove.inpainting import Inpaint
from headwater.show.figure import new_figure

METHODS = ("occlusion", "smooth IG", "LRP")
CHUNKS = 20  # of ten photographs each, as the benchmark divides its two hundred
COLOURS = {"occlusion": "#1b7837", "smooth IG": "#b2182b", "LRP": "#2166ac", "random": "0.6"}
FAR = 8  # pixels
LOOKED_AT = 3  # photographs of a chunk
STRIDES = (32, 16, 8)


def reproduce(run: Reproduction) -> None:
    """Figure 6, three tables, and their claims."""
    run.path("imagenet_sample_1000")
    networks = run.pick(quick=("SqueezeNet",), full=tuple(evaluation.SUBJECTS))
    found = {name: _joined(_chunks(run, name)) for name in networks}
    _figure(run, found)
    _faithfulness(run, found)
    _completeness(run, found)
    _visible(run, found)
    _interpretability(run, found)
    _runtime(run, {name: run.step(f"runtime_{name}", partial(_timed, run, name)) for name in networks})
    _strides(run)


def _chunks(run: Reproduction, name: str) -> list[dict[str, Any]]:
    """The benchmark's comparison, chunk by chunk; further chunks whose comparisons are there already are taken too."""
    store = run.out / "comparisons" / name / "review"
    wanted = run.pick(quick=1, full=4)
    there = [k for k in range(CHUNKS) if (store / f"{k:03}-of-{CHUNKS:03}" / "random.safetensors").exists()]
    numbers = sorted({*range(wanted), *there}) if run.scale == "full" else range(wanted)
    return [
        run.step(f"flipping_{name}_{number:02}", partial(_compared, run, name, number))
        for number in run.progress(numbers, f"photographs on {name}")
    ]


def _compared(run: Reproduction, name: str, number: int) -> dict[str, Any]:
    subject = evaluation.SUBJECTS[name]
    model = subject.network(run.data)
    pixels = photographs.spread(run.data, *run.pick(quick=(4, 0, 1), full=(10 * CHUNKS, number, CHUNKS)), subject.side)
    store = run.out / "comparisons" / name / "review" / f"{number:03}-of-{CHUNKS:03}"
    found = evaluation.review(
        subject, model, subject.prepare(pixels), None if run.scale == "quick" else store,
        steps=run.pick(quick=10, full=evaluation.STEPS),
    )  # fmt: skip
    # a few photographs of every ten are enough for signs and grain, which cost more than reading the rest
    maps = {e.name: e.relevance[:LOOKED_AT].sum(1).float() for e in found.entries if e.name in METHODS}
    return {
        "methods": evaluation.joined([found]),
        "changed": {method: _changed(pixels[:LOOKED_AT], maps[method]) for method in METHODS},
        "negative": {method: negative(maps[method]) for method in METHODS},
        "alike": {method: [alike(maps[method], 1), alike(maps[method], FAR)] for method in METHODS},
    }


def _changed(pixels: Tensor, maps: Tensor, share: float = 0.1) -> Tensor:
    """The mean change of the pixels (0 to 1) where the most relevant tenth is inpainted, ``[N]``."""
    ranked = maps.flatten(1).argsort(dim=1, descending=True)[:, : round(share * maps[0].numel())]
    hole = torch.zeros(maps.flatten(1).shape, dtype=torch.bool).scatter_(1, ranked, True).view_as(maps)
    imputer: Imputer = Inpaint()
    fill = imputer.prepare(pixels, torch.Generator().manual_seed(0))
    return (fill(pixels, hole[:, None].expand_as(pixels), torch.arange(len(pixels))) - pixels).abs().mean((1, 2, 3))


def _joined(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything over all chunks: measures and curves by method ``[N, ...]``, changes ``[N]``, shares averaged."""
    methods = chunks[0]["methods"]
    return {
        "methods": {m: {k: torch.cat([c["methods"][m][k] for c in chunks]) for k in methods[m]} for m in methods},
        "changed": {m: torch.cat([c["changed"][m] for c in chunks]) for m in chunks[0]["changed"]},
        "negative": {m: sum(c["negative"][m] for c in chunks) / len(chunks) for m in METHODS},
        "alike": {m: [sum(c["alike"][m][i] for c in chunks) / len(chunks) for i in (0, 1)] for m in METHODS},
    }  # fmt: skip


def _figure(run: Reproduction, found: dict[str, Any]) -> None:
    figure = new_figure(3.6 * len(found) + 0.6, 3.4)
    data: dict[str, Any] = {}
    for axes, (name, values) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        for method, colour in COLOURS.items():
            curves = evaluation.fallen(values["methods"][method]["curves"])
            low, high = bootstrap_interval(curves)
            removed = torch.linspace(0, 100, curves.shape[1])
            axes.plot(removed, curves.mean(0), color=colour, label=method)
            axes.fill_between(removed, low, high, color=colour, alpha=0.15, linewidth=0)
            data[f"{name} {method}"] = values["methods"][method]["curves"]
        axes.set_title(f"{name}, {len(curves)} photographs", fontsize=10)
        axes.set_xlabel("pixels flipped (%)")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("score, in parts of its whole fall")
    figure.axes[0].legend(fontsize=8, frameon=False)
    run.figure(
        "figure_6_pixel_flipping", figure, data,
        "Figure 6: the score of the predicted class while pixels are inpainted, the most relevant first; 0 is the "
        "score of the picture of which nothing is left. Bands are 95 % bootstrap intervals over photographs.",
    )  # fmt: skip


def _faithfulness(run: Reproduction, found: dict[str, Any]) -> None:
    rows, better, early, late = [], [], [], []
    for name, values in found.items():
        curves = {method: evaluation.fallen(values["methods"][method]["curves"]) for method in COLOURS}
        areas = {m: evaluation.areas_of(values["methods"][m]["curves"], "review") for m in COLOURS}
        tenth = (curves["LRP"].shape[1] - 1) // 10
        for method in COLOURS:
            low, high = bootstrap_interval(areas[method])
            rows.append({
                "network": name, "method": method, "area": f"{float(areas[method].mean()):.3f}",
                "95 %": f"{float(low):.3f} to {float(high):.3f}",
                "after 10 %": f"{float(curves[method][:, tenth].mean()):.2f}",
                "after 50 %": f"{float(curves[method][:, 5 * tenth].mean()):.2f}",
                "change of pixels at 10 %": _told(values["changed"].get(method)),
            })  # fmt: skip
        better.append(all(float(bootstrap_interval(areas[m] - areas["random"])[1]) < 0 for m in METHODS))
        first = {m: float(curves[m][:, 1 if run.scale == "full" else tenth].mean()) for m in METHODS}
        early.append(min(first, key=lambda m: first[m]) == "smooth IG")
        half = {m: float(curves[m][:, 5 * tenth].mean()) for m in METHODS}
        late.append(half["smooth IG"] > max(half["LRP"], half["occlusion"]))
    run.table("flipping", rows, "Pixel-flipping: a low area is a fast fall, 1 means that nothing falls before the end.")
    networks = list(found)
    run.claim(
        "better than random", source="Section IV-A, Fig. 6",
        text="By all three methods, removing what is relevant destroys the evidence faster than removal at random.",
        paper="on both networks", ours=f"on {sum(better)} of {len(better)} networks (95 %, paired)",
        verdict="reproduced" if all(better) else "not reproduced", why=_failing(networks, better),
    )  # fmt: skip
    run.claim(
        "integrated gradients fall first", source="Section IV-A, Fig. 6",
        text="Integrated gradients have the highest rate of decay at first.",
        paper="on both networks", ours=f"on {sum(early)} of {len(early)} networks",
        verdict="reproduced" if all(early) else "not reproduced", why=_failing(networks, early),
    )  # fmt: skip
    run.claim(
        "integrated gradients stagnate", source="Section IV-A, Fig. 6",
        text="Later they stagnate, and stay above the other two.",
        paper="on both networks", ours=f"highest after half of the pixels on {sum(late)} of {len(late)} networks",
        verdict="reproduced" if all(late) else "not reproduced", why=_failing(networks, late),
    )  # fmt: skip
    _structure(run, found)


def _told(values: Tensor | None) -> str:
    return "" if values is None else f"{float(values.mean()):.4f}"


def _failing(networks: list[str], held: list[bool]) -> str:
    failing = [name for name, holds in zip(networks, held, strict=True) if not holds]
    return f"not on {', '.join(failing)}" if failing else f"networks: {', '.join(networks)}"


def _structure(run: Reproduction, found: dict[str, Any]) -> None:
    """LRP on a plain chain with pooling, and on networks with residual blocks and strided convolutions."""
    gains = {}
    for name, values in found.items():
        areas = {m: evaluation.areas_of(values["methods"][m]["curves"], "review") for m in ("LRP", "random")}
        gains[name] = float((areas["random"] - areas["LRP"]).mean() / areas["random"].mean())
    told = ", ".join(f"{name} {gain:.0%}" for name, gain in gains.items())
    others = [gain for name, gain in gains.items() if name != "SqueezeNet"]
    text = "LRP flips better on the plain network with pooling layers (VGG-16) than on the residual one with strides."
    if not others:
        run.claim(
            "LRP likes plain structure", source="Section IV-A", text=text, paper="VGG-16 before ResNet-50", ours=told,
            verdict="not testable here", why="a quick run has one network",
        )  # fmt: skip
        return
    run.claim(
        "LRP likes plain structure", source="Section IV-A", text=text, paper="VGG-16 before ResNet-50",
        ours=f"area below random's: {told}",
        verdict="reproduced" if gains["SqueezeNet"] > max(others) else "not reproduced",
        why="SqueezeNet (rules: cmp) stands for VGG-16, the two with inverted residuals (epsilon_plus) for ResNet-50",
    )  # fmt: skip


def _completeness(run: Reproduction, found: dict[str, Any]) -> None:
    gaps = {name: float(values["methods"]["smooth IG"]["gap"].nanmedian()) for name, values in found.items()}
    run.claim(
        "smooth integrated gradients stay complete", source="Appendix A, Algorithm 5",
        text="With starts drawn near the origin instead of at a root, the explanation remains approximately complete.",
        paper="argued", ours="median gap: " + ", ".join(f"{name} {gap:.0%}" for name, gap in gaps.items()),
        verdict="reproduced" if max(gaps.values()) < 0.1 else "not reproduced",
        why="gap between the sum and the rise of the score from the starts, in parts of it; five steps each",
    )  # fmt: skip


def _visible(run: Reproduction, found: dict[str, Any]) -> None:
    told, holds = [], []
    for name, values in found.items():
        change = {method: float(values["changed"][method].mean()) for method in METHODS}
        told.append(
            f"{name} IG {change['smooth IG']:.3f}, LRP {change['LRP']:.3f}, occlusion {change['occlusion']:.3f}"
        )
        holds.append(change["smooth IG"] < min(change["LRP"], change["occlusion"]))
    run.claim(
        "integrated gradients make adversarial examples", source="Section IV-A, Fig. 6 (middle)",
        text="After 10 % of the pixels are gone by integrated gradients the score has fallen most, yet the picture "
        "looks almost intact; not so by occlusion and LRP.",
        paper="one picture", ours=f"mean change of the pixels: {'; '.join(told)}",
        verdict="reproduced" if all(holds) else "not reproduced",
        why="scores after 10 % stand in the table of flipping",
    )  # fmt: skip


def _interpretability(run: Reproduction, found: dict[str, Any]) -> None:
    sizes = {n: {m: float(v["methods"][m]["file_size"].mean()) for m in METHODS} for n, v in found.items()}
    papers = ({m: given[(0, 2, 1)[i]] for i, m in enumerate(METHODS)} for given in evaluation.PAPER_SIZES.values())
    rows = [{"network": f"{name} (paper)", **{m: f"{s[m]:.1f}" for m in METHODS}}
            for name, s in zip(evaluation.PAPER_SIZES, papers, strict=True)]  # fmt: skip
    rows += [{"network": name, **{m: f"{s[m]:.1f}" for m in METHODS}} for name, s in sizes.items()]
    run.table("file_size", rows, "Bytes of a heatmap as a JPEG of quality 75 (here grey, zero in the middle).")
    qualities = [
        {"network": name, "method": m, "negative share": f"{v['negative'][m]:.2f}",
         "correlation 1 pixel apart": f"{v['alike'][m][0]:.2f}", f"correlation {FAR} apart": f"{v['alike'][m][1]:.2f}"}
        for name, v in found.items() for m in METHODS
    ]  # fmt: skip
    run.table("qualities", qualities, "Figure 5 in numbers: signs and grain of the heatmaps.")
    ordered = all(s["occlusion"] < s["LRP"] < s["smooth IG"] for s in sizes.values())
    run.claim(
        "file sizes", source="Section IV-B, table",
        text="Occlusion has the smallest files, integrated gradients the largest, LRP lies between.",
        paper="VGG-16 698 : 1828 : 5795, ResNet-50 694 : 2928 : 5978",
        ours="; ".join(f"{n} {' : '.join(f'{s[m]:.0f}' for m in ('occlusion', 'LRP', 'smooth IG'))}"
                       for n, s in sizes.items()),
        verdict="reproduced" if ordered else "not reproduced",
    )  # fmt: skip
    shares = {n: v["negative"] for n, v in found.items()}
    run.claim(
        "signs of heatmaps", source="Section IV, Fig. 5",
        text="Integrated gradients show much evidence both for and against; LRP has fewer negative scores.",
        paper="by eye",
        ours="negative share IG against LRP: " + "; ".join(
            f"{n} {s['smooth IG']:.0%}, {s['LRP']:.0%}" for n, s in shares.items()),
        verdict="reproduced" if all(s["LRP"] < s["smooth IG"] for s in shares.values()) else "not reproduced",
    )  # fmt: skip
    grains = {n: v["alike"] for n, v in found.items()}
    coarse = all(g["occlusion"][1] > g["LRP"][1] for g in grains.values())
    whole = all(g["LRP"][0] > g["smooth IG"][0] for g in grains.values())
    run.claim(
        "grain of heatmaps", source="Section IV, Fig. 5",
        text="Occlusion is coarse; integrated gradients are pixel by pixel; LRP is fine but takes whole features.",
        paper="by eye",
        ours=f"correlation {FAR} pixels apart: " + "; ".join(
            f"{n} {g['occlusion'][1]:.2f}, {g['smooth IG'][1]:.2f}, {g['LRP'][1]:.2f}" for n, g in grains.items()),
        verdict="reproduced" if coarse and whole else "not reproduced",
        why="occlusion, IG, LRP; neighbours one pixel apart stand in the table of qualities",
    )  # fmt: skip


def _timed(run: Reproduction, name: str) -> dict[str, Any]:
    """Explanations a second and their cost in forward passes, by method."""
    subject = evaluation.SUBJECTS[name]
    x = subject.prepare(evaluation.photographs(run.data, 1, subject.side))
    found = evaluation.review(subject, subject.network(run.data), x, None, repetitions=1, steps=1)
    timed = {e.name: e for e in found.entries if e.name in METHODS}
    return {m: {"per_second": timed[m].per_second, "forwards": timed[m].forwards} for m in METHODS}


def _runtime(run: Reproduction, found: dict[str, dict[str, Any]]) -> None:
    order = ("LRP", "smooth IG", "occlusion")
    rows = []
    for name, rates in evaluation.PAPER_RATES.items():
        ratios = " : ".join(f"{rate / rates[-1]:.3g}" for rate in rates)
        per_second = {m: f"{rate:.3g}" for m, rate in zip(order, rates, strict=True)}
        rows.append(
            {"network": f"{name} (paper, GPU)", **per_second, "ratio": ratios, "LRP in forward passes": "about 3"}
        )
    for name, v in found.items():
        per_second = {m: f"{v[m]['per_second']:.3g}" for m in order}
        ratios = " : ".join(f"{v[m]['per_second'] / v['occlusion']['per_second']:.3g}" for m in order)
        rows.append({"network": name, **per_second, "ratio": ratios,
                     "LRP in forward passes": f"{v['LRP']['forwards']:.1f}"})  # fmt: skip
    run.table("runtime", rows, "Explanations a second; occlusion of 32x32 pixels by steps of 16, IG with 25 gradients.")
    faster = all(v["LRP"]["per_second"] > v["smooth IG"]["per_second"] > v["occlusion"]["per_second"]
                 for v in found.values())  # fmt: skip
    run.claim(
        "runtime", source="Section IV-C, table",
        text="LRP is the fastest by an order of magnitude, occlusion the slowest.",
        paper="LRP : IG : occlusion = 85 : 2.4 : 1 and 47 : 2.2 : 1", ours="; ".join(
            f"{row['network']} {row['ratio']}" for row in rows[len(evaluation.PAPER_RATES):]),
        verdict="reproduced" if faster and all(
            v["LRP"]["per_second"] > 5 * v["smooth IG"]["per_second"] for v in found.values()) else "not reproduced",
        why="one photograph at a time on a core of a shared CPU, where batches gain little; the paper has 16 on a GPU",
    )  # fmt: skip
    costs = {name: v["LRP"]["forwards"] for name, v in found.items()}
    run.claim(
        "cost of LRP", source="Section IV-C", text="LRP takes about three times as long as one forward pass.",
        paper="about 3", ours=", ".join(f"{name} {cost:.1f}" for name, cost in costs.items()),
        verdict="reproduced" if all(1.5 < cost < 6 for cost in costs.values()) else "not reproduced",
        why="one photograph at a time, so that what a call costs by itself counts in full; timed on a shared machine",
    )  # fmt: skip


def _strides(run: Reproduction) -> None:
    """How many pictures occlusion asks about, by its step."""
    asked: dict[int, int] = {}

    def counting(x: Tensor) -> Tensor:
        asked[stride] = asked.get(stride, 0) + len(x)
        return x.mean((1, 2, 3))

    for stride in STRIDES:
        hw.explain(hw.black_box(counting), torch.rand(1, 3, 224, 224), method="occlusion", window=32, stride=stride)
    run.claim(
        "occlusion's cost grows with resolution", source="Section IV-C",
        text="Occlusion's runtime grows with the square of the resolution.",
        paper="quadratic", ours=", ".join(f"step {s}: {asked[s]} pictures" for s in STRIDES),
        verdict="reproduced" if 3.3 < asked[8] / asked[16] < 4.5 else "not reproduced",
    )  # fmt: skip
