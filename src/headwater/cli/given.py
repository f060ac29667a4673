"""What the arguments of a command name: the model, its inputs, the target. It needs torch; the declarations do not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headwater import target
from headwater.cli.app import numbers
from headwater.dataset.sources import Source, folder, source_of
from headwater.errors import InvalidInput, InvalidTarget
from headwater.inputs import Preparation, Samples, read
from headwater.loaders import LoadedModel, load_model

LAZY = (".png", ".jpg", ".jpeg", ".wav", ".flac")
TARGETS = "3, 3,5,1, log-odds:3, margin:3,5, contrast:3, neuron:LAYER,3, token:POSITION,ID or sum"


def load(
    model: str,
    inputs: list[str],
    weights: Path | None,
    size: str | None,
    mean: str | None,
    std: str | None,
    drop: list[str] | None,
) -> tuple[LoadedModel, Samples]:
    """The model, and the samples in its form and precision; options go before what the model knows of itself."""
    loaded = load_model(model, weights)
    preparation = _preparation(loaded, size, mean, std, drop)
    return loaded, _in_precision_of(loaded.model, read(inputs, preparation))


def _preparation(
    loaded: LoadedModel, size: str | None, mean: str | None, std: str | None, drop: list[str] | None
) -> Preparation:
    return Preparation(
        size=_sides(size) or loaded.size,
        mean=_channels("--mean", mean) or loaded.mean or Preparation.mean,
        std=_channels("--std", std) or loaded.std or Preparation.std,
        drop=drop or (),
        tokenizer=loaded.tokenizer,
    )


def _in_precision_of(model: nn.Module, samples: Samples) -> Samples:
    dtype = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.float32)

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    x = samples.x
    converted = {name: cast(part) for name, part in x.items()} if isinstance(x, dict) else cast(x)
    return replace(samples, x=converted)


@dataclass(frozen=True)
class Given:
    """A model and its samples; pictures and recordings of one folder are read when their turn comes."""

    loaded: LoadedModel
    source: Source
    bounds: Any

    @staticmethod
    def of(
        loaded: LoadedModel,
        inputs: list[str],
        size: str | None,
        mean: str | None,
        std: str | None,
        drop: list[str] | None,
    ) -> Given:
        """Options go before what the model knows of itself."""
        preparation = _preparation(loaded, size, mean, std, drop)
        first = _first_file(inputs)
        if first is not None:
            return Given(loaded, folder(Path(inputs[0]), preparation), read([str(first)], preparation).bounds)
        samples = read(inputs, preparation)
        return Given(loaded, source_of(samples.x, samples.names), samples.bounds)


def _first_file(inputs: list[str]) -> Path | None:
    """A file of the folder that the inputs are, where its files are read one by one."""
    if len(inputs) != 1 or not Path(inputs[0]).is_dir():
        return None
    return next((p for p in sorted(Path(inputs[0]).rglob("*")) if p.suffix.lower() in LAZY), None)


def _sides(text: str | None) -> tuple[int, int] | None:
    chosen = numbers("--size", text, 1, 2)
    if chosen is None:
        return None
    if any(side < 1 or side != int(side) for side in chosen):
        raise InvalidInput(f"--size {text!r}: write whole numbers of pixels, such as 224 or 224,320")
    return int(chosen[0]), int(chosen[-1])


def _channels(option: str, text: str | None) -> tuple[float, ...] | None:
    given = numbers(option, text, 1, 3)
    return given * 3 if given is not None and len(given) == 1 else given


def target_of(text: str | None) -> Any:
    """The target that ``text`` writes.

    Raises:
        InvalidTarget: it writes none; the text lists the ways to write one.
    """
    if text is None:
        return None
    kind, _, rest = text.partition(":")
    arguments = [part.strip() for part in rest.split(",")] if rest else []
    try:
        match kind, arguments:
            case "sum", []:
                return target.Sum()
            case "log-odds", [c]:
                return target.LogOdds(int(c))
            case "contrast", [c]:
                return target.Contrast(int(c))
            case "margin", [a, b]:
                return target.Margin(int(a), int(b))
            case "neuron", [layer, *index]:
                return target.Neuron(layer, tuple(int(place) for place in index))
            case "token", [position, identity]:
                return target.Token(int(position), int(identity))
            case _, []:
                classes = [int(part) for part in kind.split(",")]
                return classes[0] if len(classes) == 1 else classes
    except ValueError:
        pass  # not a number where one is wanted
    raise InvalidTarget(f"--target {text!r} writes no target: write one as {TARGETS}")
