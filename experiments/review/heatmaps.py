"""Figures 5, 10 and 12: three methods side by side, a score against its log-odds, LRP-ε against the composite."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

import headwater as hw
from benchmarks import evaluation
from experiments.reproduction import Reproduction
from experiments.review.photographs import OF_FIGURE_5, Pictures, class_names, named, sign_changes
from headwater.evaluate import effective_features, file_size
from headwater.show.image import images

# rivals of one another, as the paper's passenger car and locomotive
PAIRS = (
    ("passenger_car", "steam_locomotive"), ("Egyptian_cat", "Labrador_retriever"), ("tench", "goldfish"),
    ("zebra", "African_elephant"), ("fire_engine", "school_bus"), ("teapot", "espresso"),
    ("banana", "strawberry"), ("lion", "tiger"), ("golf_ball", "tennis_ball"), ("airliner", "warplane"),
    ("ostrich", "flamingo"), ("violin", "grand_piano"),
)  # fmt: skip


def reproduce(run: Reproduction) -> None:
    """The three figures and their claims."""
    run.path("imagenet_sample_1000")
    _methods(run)
    _rules(run)
    _rivals(run)


def _methods(run: Reproduction) -> None:
    """Figure 5 on the same five classes."""
    wanted = OF_FIGURE_5[: run.pick(quick=2, full=5)]

    def study() -> dict[str, Any]:
        pictures = named(run.data, "SqueezeNet", wanted)
        subject = evaluation.SUBJECTS["SqueezeNet"]
        found = evaluation.review(subject, pictures.model, pictures.x, None, steps=1)
        maps = {e.name: e.relevance.sum(1) for e in found.entries if e.name != "random"}
        return {"pixels": pictures.pixels, "right": pictures.right, "maps": maps}

    found = run.step("figure_5", study)
    heads, cells, over = [], [], []
    for i, name in enumerate(wanted):
        cells += [None, *(m[i] / m[i].abs().max() for m in found["maps"].values())]
        over += [found["pixels"][i]] * (1 + len(found["maps"]))
        heads += [name.replace("_", " ") + ("" if found["right"][i] else " (missed)"), *found["maps"]]
    figure = images(cells, over, heads, limit="each", overlay=False, columns=1 + len(found["maps"]))
    run.figure(
        "figure_5_heatmaps", figure, {"pixels": found["pixels"], **found["maps"]},
        "Figure 5: photographs of the paper's five classes and why SqueezeNet gives its first class, by occlusion "
        "(32x32 by steps of 16), integrated gradients from five random starts, and LRP (cmp).",
    )  # fmt: skip


def _rules(run: Reproduction) -> None:
    """Figure 12: rules, on networks that are no age classifiers."""
    count = run.pick(quick=4, full=16)

    def study(name: str) -> dict[str, Any]:
        subject = evaluation.SUBJECTS[name]
        model = subject.network(run.data)
        x = subject.prepare(evaluation.photographs(run.data, count, subject.side))
        bounds = tuple(b[None] for b in evaluation.bounds(subject))
        found: dict[str, Any] = {"pixels": evaluation.photographs(run.data, count, subject.side)[:4]}
        for rules in ("epsilon", "cmp"):
            relevance = hw.explain(model, x, composite=rules, bounds=bounds, batch_size=4).relevance
            maps = relevance.sum(1).float()
            found[rules] = {
                "maps": maps[:4], "file_size": float(file_size(relevance).double().mean()),
                "sign changes": sign_changes(maps), "features": float(effective_features(relevance).double().mean()),
            }  # fmt: skip
        return found

    networks = run.pick(quick=("SqueezeNet",), full=("SqueezeNet", "MobileNetV2"))
    found = {name: run.step(f"rules_{name}", partial(study, name)) for name in networks}
    rows = [
        {"network": name, "rules": rules, "file size, bytes": f"{v[rules]['file_size']:.0f}",
         "neighbours of opposite sign": f"{v[rules]['sign changes']:.1%}",
         "effective pixels": f"{v[rules]['features']:.0f}"}
        for name, v in found.items() for rules in ("epsilon", "cmp")
    ]  # fmt: skip
    run.table("rules", rows, f"LRP-ε on all layers against the composite strategy; {count} photographs.")
    squeeze = found["SqueezeNet"]
    cells = [cell for i in range(2) for cell in (None, squeeze["epsilon"]["maps"][i], squeeze["cmp"]["maps"][i])]
    pixels = [squeeze["pixels"][i] for i in range(2) for _ in range(3)]
    figure = images(cells, pixels, ["photograph", "LRP-ε", "LRP-CMP"] * 2, limit="each", overlay=False, columns=3)
    run.figure(
        "figure_12_rules", figure, {"pixels": squeeze["pixels"], **{r: squeeze[r]["maps"] for r in ("epsilon", "cmp")}},
        "Figure 12: the same two predictions of SqueezeNet by LRP-ε on all layers and by the composite LRP-CMP.",
    )  # fmt: skip
    simpler = [
        v["cmp"]["file_size"] < v["epsilon"]["file_size"] and v["cmp"]["sign changes"] < v["epsilon"]["sign changes"]
        for v in found.values()
    ]
    run.claim(
        "the composite is easier to read", source="Section VII-A, Fig. 12",
        text="LRP-ε on all layers is overly complex, with frequent local changes of sign; the composite is not.",
        paper="by eye, on one face",
        ours="neighbours of opposite sign: " + "; ".join(
            f"{n} ε {v['epsilon']['sign changes']:.0%}, CMP {v['cmp']['sign changes']:.0%}" for n, v in found.items()),
        verdict="reproduced" if all(simpler) else "not reproduced",
        why=f"{count} photographs instead of faces; file sizes stand in the table of rules",
    )  # fmt: skip
    run.claim(
        "baldness speaks for the youngest and the oldest", source="Section VII-A, Fig. 12",
        text="A bald head speaks for both (0-2) and (60+) and against (25-32).", paper="one photograph",
        ours="-", verdict="not testable here", why="needs Adience's faces, which are not at hand",
    )  # fmt: skip


def collages(data_pictures: tuple[Pictures, Pictures]) -> Tensor:
    """Pairs side by side, the first on the left half, ``[N, 3, H, W]`` in the networks' units."""
    left, right = (pictures.x for pictures in data_pictures)
    width = left.shape[-1]
    return torch.cat([
        torch.nn.functional.interpolate(half, size=(width, size), mode="bilinear", antialias=True)
        for half, size in ((left, width // 2), (right, width - width // 2))
    ], dim=3)  # fmt: skip


def _rivals(run: Reproduction) -> None:
    """Figure 10: the raw score of a class, and its log-odds against all others."""
    known = class_names(run.data)
    pairs = [pair for pair in PAIRS if set(pair) <= set(known)][: run.pick(quick=4, full=len(PAIRS))]

    def study() -> dict[str, Any]:
        sides = tuple(named(run.data, "MobileNetV2", tuple(pair[i] for pair in pairs)) for i in (0, 1))
        first, second = sides
        x = collages((first, second))
        with torch.inference_mode():
            chances = first.model(x).softmax(1)
        both = torch.stack([chances.gather(1, s.labels[:, None])[:, 0] for s in sides], 1)
        maps = {
            name: hw.explain(first.model, x, target, composite=first.composite, batch_size=8).relevance.sum(1).float()
            for name, target in (("score", first.labels), ("log-odds", hw.target.LogOdds(first.labels)))
        }
        pixels = collages((_pixels(first), _pixels(second)))
        return {"pixels": pixels, "both": both, "maps": maps}

    found = run.step("figure_10", study)
    half = found["pixels"].shape[-1] // 2
    shares = {n: m[:, :, half:].double().sum((1, 2)) / m.double().abs().sum((1, 2)) for n, m in found["maps"].items()}
    seen = found["both"].amin(1) > 0.01  # the network sees both
    shown = [int(i) for i in found["both"].amin(1).argsort(descending=True)[:2]]
    cells = [cell for i in shown for cell in (None, *(m[i] for m in found["maps"].values()))]
    heads = [head for i in shown for head in (" | ".join(p.replace("_", " ") for p in pairs[i]), "score of the left",
                                              "its log-odds")]  # fmt: skip
    over = [found["pixels"][i] for i in shown for _ in range(3)]
    figure = images(cells, over, heads, limit="each", overlay=False, columns=3)
    run.figure(
        "figure_10_log_odds", figure, {"pixels": found["pixels"], "chances": found["both"], **found["maps"]},
        "Figure 10: two photographs in one picture, and LRP (MobileNetV2, epsilon_plus) of the left one's class: of "
        "its score, and of its log-odds against all other classes.",
    )  # fmt: skip
    fell = (shares["log-odds"] < shares["score"])[seen]
    turned = (shares["log-odds"] < 0)[seen]
    run.claim(
        "log-odds show the rival", source="Section VI-A, Fig. 10",
        text="Explaining log-odds instead of the raw score, what speaks for a competing class turns negative.",
        paper="one picture (passenger car, locomotive)",
        ours=f"of {int(seen.sum())} collages: rival's relevance lower {float(fell.double().mean()):.0%}, negative "
        f"{float(turned.double().mean()):.0%} (raw score: "
        f"{float((shares['score'] < 0)[seen].double().mean()):.0%})",
        verdict="reproduced" if bool(seen.any()) and float(turned.double().mean()) > 0.5 else "not reproduced",
        why=f"{len(pairs)} collages of two photographs; counted where both classes have a probability above 1 %",
    )  # fmt: skip


def _pixels(pictures: Pictures) -> Pictures:
    from dataclasses import replace

    return replace(pictures, x=pictures.pixels)
