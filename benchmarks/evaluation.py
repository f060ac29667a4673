"""``python -m benchmarks.evaluation``: the review's comparison of occlusion, smooth IG and LRP on real photographs.

Faithfulness, file size and runtime (Samek et al. 2021, Section IV and Fig. 6) on MobileNetV2, EfficientNet-Lite0 and
SqueezeNet instead of VGG-16 and ResNet-50, whose weights are not at hand; and the overview's perturbation of 9x9
patches by uniform noise, LRP beside sensitivity analysis. It goes through the photographs in chunks, keeps each chunk's
results in a folder, and goes on from there: break it off whenever you like; each table is of the chunks that are there.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.mend import mend_torchvision
from headwater.demo import load_model
from headwater.evaluate import bootstrap_interval, compare, pixel_flipping
from headwater.evaluate.comparison import Comparison
from headwater.remove.imputers import Uniform
from tests.models import shared

mend_torchvision()

CHUNK = 10  # photographs
STEPS = 20
PAPER_RATES = {"VGG-16": (204.1, 5.8, 2.4), "ResNet-50": (188.7, 8.7, 4.0)}  # LRP, IG, occlusion; a second
PAPER_SIZES = {"VGG-16": (698.4, 1828.3, 5795.0), "ResNet-50": (693.6, 2928.2, 5978.0)}  # occlusion, LRP, IG, bytes


@dataclass(frozen=True)
class Subject:
    """A trained network and how it takes pixels in 0 to 1.

    Attributes:
        build: from the folder of real data; ``prepare``: pixels ``[N, 3, H, W]`` to inputs; ``side``: of the pictures.
        composite: of LRP on this network: one with residual blocks, batch norm and ReLU6 takes other rules than a
            plain chain, which takes the review's for VGG-16.
    """

    build: Callable[[Path], nn.Module]
    prepare: Callable[[Tensor], Tensor]
    side: int
    composite: str

    def network(self, data: Path) -> nn.Module:
        """The network, frozen, in the layout of memory that is fastest on a CPU."""
        return self.build(data).requires_grad_(False).to(memory_format=torch.channels_last)


SUBJECTS = {
    "MobileNetV2": Subject(shared.mobilenet_v2, shared.normalized, 224, "epsilon_plus"),
    "EfficientNet-Lite0": Subject(lambda _: load_model(), lambda pixels: 2 * pixels - 1, 224, "epsilon_plus"),
    "SqueezeNet": Subject(shared.squeezenet, shared.caffe_pixels, 227, "cmp"),
}


def bounds(subject: Subject) -> tuple[Tensor, Tensor]:
    """Black and white as the network gets them, ``[3, 1, 1]`` each, ordered per channel."""
    ends = [subject.prepare(torch.full((1, 3, 1, 1), value))[0] for value in (0.0, 1.0)]
    return torch.minimum(*ends), torch.maximum(*ends)


def photographs(data: Path, count: int, side: int) -> Tensor:
    """``count`` of the shared photographs, spread over the classes, ``[count, 3, side, side]`` in 0 to 1."""
    return shared.photographs(data, max(1, 1000 // count), side)[0][:count]


def review(
    subject: Subject, model: nn.Module, x: Tensor, store: Path | None, repetitions: int = 0, steps: int = STEPS
) -> Comparison:
    """The review's three methods on some photographs, flipped pixel by pixel with inpainting (Fig. 6)."""
    methods: dict[str, Any] = {
        "occlusion": {"method": "occlusion", "window": 32, "stride": 16},
        "smooth IG": "smooth_ig",
        "LRP": {"method": "lrp", "composite": subject.composite},
    }
    return compare(
        model, x, methods, imputer="inpaint", steps=steps, bounds=bounds(subject), randomize=False,
        repetitions=repetitions, store=store, batch_size=32, progress=False,
    )  # fmt: skip


def overview(subject: Subject, model: nn.Module, x: Tensor, store: Path | None, steps: int = STEPS) -> Comparison:
    """LRP and sensitivity analysis, 9x9 patches replaced by uniform noise (overview, Fig. 2 A).

    The first 100 of some 625 patches are replaced, as in the study that the overview refers to (Samek et al. 2017).
    """
    low, high = bounds(subject)
    methods: dict[str, Any] = {"LRP": {"method": "lrp", "composite": subject.composite}, "sensitivity": "sensitivity"}
    return compare(
        model, x, methods, features=9, imputer=Uniform(low, high), steps=steps, until=0.16, bounds=(low, high),
        randomize=False, repetitions=0, store=store, batch_size=32, progress=False,
    )  # fmt: skip


def without_maps(found: Comparison) -> Comparison:
    """The figures alone, so that hundreds of photographs fit into memory; the store keeps the maps."""
    entries = tuple(replace(entry, relevance=torch.zeros(0)) for entry in found.entries)
    return replace(found, entries=entries, inputs=torch.zeros(0))


def joined(parts: Sequence[Comparison]) -> dict[str, dict[str, Tensor]]:
    """For each method its curves ``[N, steps + 1]`` and measures ``[N]``, over all chunks."""
    found: dict[str, dict[str, Tensor]] = {}
    for name in (e.name for e in parts[0].entries if not e.error):
        entries = [next(e for e in part.entries if e.name == name) for part in parts]
        found[name] = {"curves": torch.cat([e.curves for e in entries])}
        for measure in entries[0].measures:
            found[name][measure] = torch.cat([e.measures[measure].double() for e in entries])
    return found


def fallen(curves: Tensor) -> Tensor:
    """Curves ``[N, steps + 1]`` less their ends, in units of the mean fall from the whole picture to none of it.

    Scores have no natural zero, and start and end are the same for all methods.
    """
    start, end = curves[:, :1], curves[:, -1:]
    return (curves - end) / (start - end).mean()


def left(curves: Tensor) -> Tensor:
    """Curves ``[N, steps + 1]`` in units of the mean score of the whole picture, as the overview draws them."""
    return curves / curves[:, :1].mean()


UNITS: dict[str, Callable[[Tensor], Tensor]] = {"review": fallen, "overview": left}


def areas_of(curves: Tensor, kind: str) -> Tensor:
    """Each sample's area under its curve in the experiment's units, ``[N]``: about 1 where it stays up to the end."""
    return torch.trapezoid(UNITS[kind](curves), dx=1 / (curves.shape[1] - 1), dim=1)


def report(name: str, kind: str, parts: Sequence[Comparison]) -> str:
    """A Markdown table of all chunks of one network."""
    found = joined(parts)
    count = len(next(iter(found.values()))["curves"])
    lines = [
        f"## {name}, {kind}, {count} photographs", "",
        "| method | area | 95 % | after a tenth of the steps | below random | file size, bytes |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    areas = {method: areas_of(values["curves"], kind) for method, values in found.items()}
    for method, values in found.items():
        low, high = bootstrap_interval(areas[method])
        early = UNITS[kind](values["curves"])[:, (values["curves"].shape[1] - 1) // 10].mean()
        below = (areas[method] < areas["random"]).double().mean()
        size = values["file_size"].mean() if "file_size" in values else torch.tensor(torch.nan)
        interval = f"{low:.3f} to {high:.3f}"
        lines.append(f"| {method} | {areas[method].mean():.3f} | {interval} | {early:.3f} | {below:.0%} | {size:.0f} |")
    return "\n".join(lines)


def rates(name: str, timed: Comparison) -> str:
    """Explanations per second beside the paper's ratios."""
    per_second = {e.name: e.per_second or 0.0 for e in timed.entries if e.per_second}
    forwards = {e.name: e.forwards or 0.0 for e in timed.entries if e.forwards}
    order = [method for method in ("LRP", "smooth IG", "occlusion") if method in per_second]
    last = per_second[order[-1]]
    told = ", ".join(f"{m} {per_second[m]:.3g}/s ({forwards[m]:.3g} forward passes)" for m in order)
    ratios = " : ".join(f"{per_second[m] / last:.3g}" for m in order)
    papers = "; ".join(f"{k} {' : '.join(f'{r / given[-1]:.3g}' for r in given)}" for k, given in PAPER_RATES.items())
    return f"{name}: {told}. LRP : IG : occlusion = {ratios} (the paper: {papers})"


def flipping_cost(model: nn.Module, x: Tensor, steps: int = 15, rounds: int = 5, batch: int = 32) -> dict[str, float]:
    """Pixel-flipping in units of the bare forward passes of as many rows, the median over interleaved rounds.

    Every kind of feature is paired with an imputer; Quantus's region perturbation is among them where it is installed.
    """
    relevance = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    target = model(x).argmax(1)

    def bare() -> None:
        rows = torch.arange(len(x)).repeat_interleave(steps + 1)
        with torch.no_grad():
            for part in rows.split(batch):
                model(x[part])

    def flip(features: Any, imputer: Any) -> Callable[[], Any]:
        return lambda: pixel_flipping(
            model, x, relevance, target, features=features, imputer=imputer, steps=steps, batch_size=batch
        )

    calls: dict[str, Callable[[], Any]] = {
        "pixels, zero": flip(None, "zero"), "pixels, inpaint": flip(None, "inpaint"),
        "values, mean": flip("value", "mean"), "patches of 9x9, uniform": flip(9, "uniform"),
        "patches of 31x17, blur": flip((31, 17), "blur"),
    }  # fmt: skip
    if importlib.util.find_spec("quantus"):
        calls["Quantus, patches of 56x56, black"] = _quantus(model, x, relevance, target, steps)
    ratios: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            ratios[name].append(_seconds(call) / _seconds(bare))
    return {name: statistics.median(found) for name, found in ratios.items()}


def _quantus(model: nn.Module, x: Tensor, relevance: Tensor, target: Tensor, steps: int) -> Callable[[], Any]:
    import quantus

    metric = quantus.RegionPerturbation(
        patch_size=56, regions_evaluation=steps, normalise=False, disable_warnings=True, display_progressbar=False
    )
    given = {"x_batch": x.numpy(), "y_batch": target.numpy(), "a_batch": relevance.numpy()}
    return lambda: metric(model=model, **given, device="cpu", batch_size=len(x))


def _seconds(call: Callable[[], Any]) -> float:
    """Of the processor, which other processes disturb less than the wall clock."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as the command line says, chunk after chunk, one network after the other within each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__)
    parser.add_argument("data", type=Path, help="the folder of real data and weights")
    parser.add_argument("--store", type=Path, default=Path("out/evaluation"), help="where results are kept")
    parser.add_argument("--photographs", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--models", default=",".join(SUBJECTS), help="divided by commas (default: %(default)s)")
    parser.add_argument("--parts", default="review,overview", help="which experiments (default: %(default)s)")
    parser.add_argument("--timing", action="store_true", help="time the review's methods too")
    parser.add_argument("--report", action="store_true", help="print tables after the last chunk alone")
    parser.add_argument("--cost", action="store_true", help="measure what pixel-flipping costs, and nothing else")
    options = parser.parse_args(arguments)
    names, kinds = options.models.split(","), options.parts.split(",")
    models = {name: SUBJECTS[name].network(options.data) for name in names}
    if options.cost:
        for name in names:
            subject = SUBJECTS[name]
            costs = flipping_cost(models[name], subject.prepare(photographs(options.data, 4, subject.side)))
            print(name, ", ".join(f"{kind}: {ratio:.3f}" for kind, ratio in costs.items()), flush=True)
        return
    runs: dict[str, Callable[..., Comparison]] = {"review": review, "overview": overview}
    parts: dict[tuple[str, str], list[Comparison]] = {(name, kind): [] for name in names for kind in kinds}
    chunks = max(1, options.photographs // CHUNK)
    for chunk in range(chunks):
        for name in names:
            subject = SUBJECTS[name]
            # every so many-th, so that each chunk has classes of all kinds
            pixels = photographs(options.data, options.photographs, subject.side)[chunk::chunks]
            for kind in kinds:
                store = options.store / name / kind / f"{chunk:03}-of-{chunks:03}"
                parts[name, kind].append(
                    without_maps(runs[kind](subject, models[name], subject.prepare(pixels), store))
                )
                if not options.report or chunk == chunks - 1:
                    print(report(name, kind, parts[name, kind]), flush=True)
    if options.timing:
        for name in names:
            subject = SUBJECTS[name]
            x = subject.prepare(photographs(options.data, 16, subject.side))
            print(rates(name, review(subject, models[name], x, None, repetitions=3, steps=1)), flush=True)


if __name__ == "__main__":
    main()
