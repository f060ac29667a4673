"""Models by name: what the command line accepts as ``MODEL``, with the preparation of inputs that the model expects."""

from __future__ import annotations

import importlib
import inspect
import pickle
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from headwater.errors import InvalidInput, MissingExtra


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode and how its inputs are made.

    Attributes:
        model: the model, in evaluation mode.
        size: height and width of the pictures it was trained on, where that is known.
        mean: per channel, subtracted from pictures in [0, 1]; ``None`` where it is not known.
        std: per channel, divides pictures after the mean was subtracted; ``None`` where it is not known.
        tokenizer: a ``transformers`` tokenizer, for models of text.
    """

    model: nn.Module
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    tokenizer: Any = None


def load_model(spec: str, weights: Path | None = None) -> LoadedModel:
    """Build the model that ``spec`` names and put it in evaluation mode.

    Args:
        spec: ``package.module:factory`` (a module, or a function called without arguments that returns one; the working
            directory is searched first), ``torchvision:NAME``, ``timm:NAME`` or ``hf:PATH`` (saved by transformers).
        weights: a safetensors file, or a checkpoint that torch can load with ``weights_only=True``. Absent, the model
            keeps the weights that it was built with (for torchvision and timm: the pretrained ones).

    Raises:
        InvalidInput: nothing can be built from ``spec``, or the weights do not fit.
        MissingExtra: the package that ``spec`` names is not installed.
    """
    source, separator, name = spec.partition(":")
    if not (source and separator and name):
        raise InvalidInput(
            f"the model {spec!r} names no source: write package.module:factory, torchvision:NAME, timm:NAME or hf:PATH"
        )
    loaded = _SOURCES.get(source, _from_python)(spec, weights is None)
    if weights is not None:
        _load_weights(loaded.model, weights)
    loaded.model.eval()
    return loaded


def _from_python(spec: str, pretrained: bool) -> LoadedModel:
    module_name, _, attribute = spec.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists; something that it imports does not
        raise InvalidInput(
            f"no Python module {module_name!r} for the model {spec!r}: run from the folder that holds it, or install it"
        ) from error
    try:
        factory = reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        raise InvalidInput(f"the module {module_name!r} has no {attribute!r}") from error
    return LoadedModel(_build(factory, spec))


def _build(factory: object, spec: str) -> nn.Module:
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise InvalidInput(f"{spec!r} is a {type(factory).__name__}: name a module or a function that returns one")
    try:
        inspect.signature(factory).bind()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{spec!r} cannot be called without arguments: {error}") from error
    model = factory()
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"{spec!r} returned a {type(model).__name__}, not a torch.nn.Module")
    return model


def _from_torchvision(spec: str, pretrained: bool) -> LoadedModel:
    models = _package("torchvision.models", "torchvision")
    name = spec.partition(":")[2]
    try:
        default = models.get_model_weights(name).DEFAULT
    except ValueError as error:
        raise InvalidInput(f"torchvision has no model {name!r}: torchvision.models.list_models() names them") from error
    model = _fetch(lambda: models.get_model(name, weights=default if pretrained else None), spec, pretrained)
    preparation = default.transforms()
    side = getattr(preparation, "crop_size", None)
    return LoadedModel(
        model,
        size=(side[0], side[0]) if side else None,
        mean=tuple(getattr(preparation, "mean", ())) or None,
        std=tuple(getattr(preparation, "std", ())) or None,
    )


def _from_timm(spec: str, pretrained: bool) -> LoadedModel:
    timm = _package("timm", "timm")
    name = spec.partition(":")[2]
    if not timm.is_model(name):
        raise InvalidInput(f"timm has no model {name!r}: timm.list_models() names them")
    model = _fetch(lambda: timm.create_model(name, pretrained=pretrained), spec, pretrained)
    preparation = _package("timm.data", "timm").resolve_model_data_config(model)
    height, width = preparation["input_size"][1:]
    return LoadedModel(model, (height, width), tuple(preparation["mean"]), tuple(preparation["std"]))


def _from_transformers(spec: str, pretrained: bool) -> LoadedModel:
    transformers = _package("transformers", "hf")
    path = spec.partition(":")[2]
    try:
        config = transformers.AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"no model of transformers at {path!r}: name a folder that save_pretrained wrote") from error
    if not config.architectures:
        raise InvalidInput(f"the configuration at {path!r} names no architecture: save the model with save_pretrained")
    architecture = getattr(transformers, config.architectures[0], None)
    if architecture is None:
        raise InvalidInput(f"this transformers has no {config.architectures[0]}, which {path!r} needs")
    model = _fetch(lambda: architecture.from_pretrained(path), spec, pretrained) if pretrained else architecture(config)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError):
        tokenizer = None  # not every model reads text
    return LoadedModel(model, tokenizer=tokenizer)


_SOURCES: dict[str, Callable[[str, bool], LoadedModel]] = {
    "torchvision": _from_torchvision,
    "timm": _from_timm,
    "hf": _from_transformers,
}


def _package(name: str, extra: str) -> ModuleType:
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtra(extra, package) from error
    except RuntimeError as error:  # how a torchvision that was built for another torch fails to import
        raise InvalidInput(f"{package} cannot be imported beside torch {torch.__version__}: {error}") from error


def _fetch(build: Callable[[], Any], spec: str, pretrained: bool) -> nn.Module:
    try:
        model: nn.Module = build()
    except OSError as error:
        raise InvalidInput(
            f"the weights of {spec!r} could not be fetched ({error}): pass a file of weights with --weights"
        ) from error
    return model


def _load_weights(model: nn.Module, path: Path) -> None:
    state = _read_weights(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:  # its text lists every name, each kind of misfit on a line of its own
        misfits = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise InvalidInput(f"the weights in {path} do not fit the model: {textwrap.shorten(misfits, 300)}") from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InvalidInput(f"there is no file of weights {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InvalidInput(
            f"{path} holds more than weights, or is damaged: save model.state_dict() with torch.save or safetensors"
        ) from error
    for key in ("state_dict", "model"):  # Lightning's and torchvision's training scripts nest the weights
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
    if not isinstance(checkpoint, dict) or not all(isinstance(value, Tensor) for value in checkpoint.values()):
        raise InvalidInput(f"{path} holds no state dict (names to tensors): save model.state_dict()")
    return checkpoint
