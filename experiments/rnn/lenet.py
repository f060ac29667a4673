"""Figure 3.14: one LeNet-5 on each set, explained by every method of the thesis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import headwater as hw
from experiments.reproduction import Reproduction
from experiments.rnn import data, explaining, figures, paper
from experiments.rnn.cells import DROPOUT
from experiments.rnn.data import TITLES, Examples
from experiments.rnn.explaining import Explain
from experiments.rnn.layers import Convolution, Dense, pool
from experiments.rnn.training import Lesson, Size, network, train
from experiments.rnn.verdicts import judged
from headwater.evaluate import agreement, effective_features

CLASSES = (0, 1, 3, 7, 8)


class LeNet(nn.Module):
    """LeNet-5 with rectifiers, with biases that inhibit and with dropout: images ``[N, 28, 28]`` to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Convolution(1, 6, 5), Convolution(6, 16, 5, padding="valid")
        self.dense = nn.ModuleList([Dense(400, 120), Dense(120, 84), Dense(84, 10)])

    def forward(self, x: Tensor) -> Tensor:
        a = pool(torch.relu(self.first(x.unsqueeze(1))))
        a = pool(torch.relu(self.second(a))).flatten(1)
        for layer in self.dense[:-1]:
            a = F.dropout(torch.relu(layer(a)), DROPOUT, self.training)
        return self.dense[-1](a)


def _with(alpha: float) -> Explain:
    """LRP-αβ without biases, z^B on pixels."""
    rules = {"input": hw.rules.Box(), "default": hw.rules.AlphaBeta(alpha, alpha - 1, bias=False)}
    return lambda model, x, y: explaining.asked(
        model, x, y, method="lrp", composite=hw.Composite(rules), bounds=explaining.BOUNDS
    )


METHODS: dict[str, Explain] = {
    "SA": explaining.sensitivity,
    "Simple Taylor": explaining.simple_taylor,
    "GB": explaining.guided_backprop,
    "DTD": explaining.deep_taylor,
    "LRP-α1.5β0.5": _with(1.5),
    "LRP-α2β1": _with(2.0),
    "LRP-α3β2": _with(3.0),
}


def reproduce(run: Reproduction) -> None:
    """Train, explain, draw and judge."""
    found = {name: run.step(f"lenet-{name}", lambda name=name: _study(run, name)) for name in data.sets(run)}  # type: ignore[misc]
    _draw(run, found)
    rows = [
        {"set": TITLES[name], "method": method}
        | {key: float(found[name][key][i]) for key in ("features", "rough", "like")}
        for name in found
        for i, method in enumerate(METHODS)
    ]
    run.table(
        "figure_3_14",
        rows,
        "LeNet-5: over how many pixels a heatmap is spread (the exponential of its entropy), how rough it is (mean "
        "difference of neighbours over mean magnitude), and its correlation with deep Taylor decomposition.",
    )
    _judge(run, found)


def _study(run: Reproduction, name: str) -> dict[str, Any]:
    images = data.load(run, name)
    rows, tested = data.split(images, None)
    rows = rows[torch.randperm(len(rows))]
    held = run.pick(quick=300, full=2000)
    test = Examples.single(images, tested)
    lesson = Lesson(Examples.single(images, rows[held:]), Examples.single(images, rows[:held]), test[: held * 5])
    size = Size(run.pick(quick=12_000, full=300_000), run.pick(quick=6_000, full=30_000))
    trained = train(run, f"LeNet-5 on {name}", LeNet, [lesson], size, paper.LENET_ACCURACY[name])
    model = network(LeNet, trained["weights"], 0)
    some = test[: run.pick(quick=60, full=500)]
    few = test[torch.tensor([int((test.labels == label).nonzero()[0]) for label in CLASSES])]
    maps = {method: explain(model, some.x(), some.labels) for method, explain in METHODS.items()}
    return {
        "accuracy": float(trained["accuracy"]),
        "seen": trained["seen"],
        "pixels": few.x(),
        "maps": {method: explain(model, few.x(), few.labels) for method, explain in METHODS.items()},
        "features": torch.stack([effective_features(each).nanmean() for each in maps.values()]),
        "rough": torch.stack([_roughness(each) for each in maps.values()]),
        "like": agreement(maps, "correlation")[list(METHODS).index("DTD")],
    }


def _roughness(maps: Tensor) -> Tensor:
    """Mean difference of neighbouring pixels, in units of the mean magnitude."""
    steps = [maps.diff(dim=axis).abs().mean((1, 2)) for axis in (1, 2)]
    return ((steps[0] + steps[1]) / 2 / maps.abs().mean((1, 2))).nanmean()


def _draw(run: Reproduction, found: dict[str, dict[str, Any]]) -> None:
    pictures = {f"{TITLES[name]}": (found[name]["pixels"], found[name]["maps"]) for name in found}
    figure = figures.columns(pictures, list(METHODS))
    run.figure(
        "figure_3_14",
        figure,
        {f"{name}-{number}": found[name]["maps"][method] for name in found for number, method in enumerate(METHODS)},
        "Figure 3.14: LeNet-5 explained by every method of the thesis, for the true class. Each map has its own scale; "
        "warm colours speak for the class, cold ones against it.",
    )


def _judge(run: Reproduction, found: dict[str, dict[str, Any]]) -> None:
    at = {method: number for number, method in enumerate(METHODS)}

    def numbers(key: str, *methods: str) -> str:
        parts = ("/".join(f"{float(one[key][at[method]]):.2f}" for method in methods) for one in found.values())
        return ", ".join(f"{TITLES[name]} {part}" for name, part in zip(found, parts, strict=True))

    def everywhere(holds: Callable[[dict[str, float], dict[str, float], dict[str, float]], bool]) -> bool:
        """Whether something holds on every set of spread, roughness and likeness to deep Taylor by method."""
        named = (
            [dict(zip(METHODS, one[key].tolist(), strict=True)) for key in ("features", "rough", "like")]
            for one in found.values()
        )
        return all(holds(*each) for each in named)

    reached = {name: one["accuracy"] for name, one in found.items()}
    claims = (
        (
            "lenet-accuracy", "LeNet-5 with inhibiting biases classifies both sets.", "99.21 %, 87.90 %",
            ", ".join(f"{value:.2%}" for value in reached.values()),
            all(value > paper.LENET_ACCURACY[name] - 0.01 for name, value in reached.items()),
            f"{' and '.join(format(one['seen'], ',') for one in found.values())} examples; within 1 %",
        ),
        (
            "taylor-noisy", "Simple Taylor decomposition gives the noisiest heatmaps.", "seen",
            f"roughness of simple Taylor/SA/GB/DTD: {numbers('rough', 'Simple Taylor', 'SA', 'GB', 'DTD')}",
            everywhere(lambda spread, rough, like: rough["Simple Taylor"] >= max(rough.values())),
            "noise is read as roughness",
        ),
        (
            "guided-smoother", "Guided backprop gives a smoother version of sensitivity's heatmaps.", "seen",
            f"roughness of GB/SA: {numbers('rough', 'GB', 'SA')}",
            everywhere(lambda spread, rough, like: rough["GB"] < rough["SA"]), "",
        ),
        (
            "propagation-diffuse", "Deep Taylor and LRP are more diffuse than SA and GB.", "seen",
            f"pixels of SA/GB/DTD/LRP-α1.5β0.5: {numbers('features', 'SA', 'GB', 'DTD', 'LRP-α1.5β0.5')}",
            everywhere(
                lambda spread, rough, like: min(spread["DTD"], spread["LRP-α1.5β0.5"]) > max(spread["SA"], spread["GB"])
            ), "",
        ),
        (
            "small-beta", "LRP looks like deep Taylor decomposition when β is small.", "seen",
            f"correlation for β = 0.5/1/2: {numbers('like', 'LRP-α1.5β0.5', 'LRP-α2β1', 'LRP-α3β2')}",
            everywhere(lambda spread, rough, like: like["LRP-α1.5β0.5"] > max(0.5, like["LRP-α2β1"], like["LRP-α3β2"])),
            "alike: a correlation above 0.5, and above those of larger β",
        ),
    )  # fmt: skip
    for key, text, printed, ours, held, why in claims:
        run.claim(key, source="Fig. 3.14", text=text, paper=printed, ours=ours, **judged(run, held, why))
