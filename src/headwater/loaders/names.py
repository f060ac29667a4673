"""Models by name: of a Python module, torchvision, timm, transformers or PEFT."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from torch import nn

from headwater.errors import HeadwaterError, InvalidInput
from headwater.loaders.loaded import LoadedModel, package


def from_python(spec: str, pretrained: bool) -> LoadedModel:
    """A module, or what a function of a Python module returns.

    Raises:
        InvalidInput: nothing can be built from ``spec``.
    """
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
    try:
        model = factory()
    except HeadwaterError:
        raise
    except Exception as error:  # the function is the user's: it may raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        reason = str(error).strip().partition("\n")[0]
        raise InvalidInput(
            f"{spec!r} built no model: {type(error).__name__} in {last.filename}:{last.lineno}: {reason}"
        ) from error
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"{spec!r} returned a {type(model).__name__}, not a torch.nn.Module")
    return model


def from_torchvision(spec: str, pretrained: bool) -> LoadedModel:
    """A model of torchvision with the preparation that its weights were trained on.

    Raises:
        InvalidInput: nothing can be built from ``spec``.
        MissingExtra: torchvision is not installed.
    """
    models = package("torchvision.models", "torchvision")
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


def from_timm(spec: str, pretrained: bool) -> LoadedModel:
    """A model of timm with its preparation.

    Raises:
        InvalidInput: nothing can be built from ``spec``.
        MissingExtra: timm is not installed.
    """
    timm = package("timm", "timm")
    name = spec.partition(":")[2]
    if not timm.is_model(name):
        raise InvalidInput(f"timm has no model {name!r}: timm.list_models() names them")
    model = _fetch(lambda: timm.create_model(name, pretrained=pretrained), spec, pretrained)
    preparation = package("timm.data", "timm").resolve_model_data_config(model)
    height, width = preparation["input_size"][1:]
    return LoadedModel(model, (height, width), tuple(preparation["mean"]), tuple(preparation["std"]))


def from_transformers(spec: str, pretrained: bool) -> LoadedModel:
    """A model that transformers saved, with its tokenizer; or an adapter that PEFT saved.

    Raises:
        InvalidInput: nothing can be built from ``spec``.
        MissingExtra: transformers or PEFT is not installed.
    """
    transformers = package("transformers", "hf")
    path = spec.partition(":")[2]
    if (Path(path) / "adapter_config.json").is_file():
        return _from_adapter(Path(path), pretrained)
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


def _from_adapter(path: Path, pretrained: bool) -> LoadedModel:
    """What PEFT saved: the model that it was trained upon, with the adapter in it."""
    peft = package("peft", "peft")
    kept = path / "adapter_model.safetensors"
    if not kept.is_file():
        raise InvalidInput(f"there is no {kept}: save the adapter with save_pretrained, which writes safetensors")
    base = from_transformers(f"hf:{peft.PeftConfig.from_pretrained(str(path)).base_model_name_or_path}", pretrained)
    return replace(base, model=peft.PeftModel.from_pretrained(base.model, str(path)))


def _fetch(build: Callable[[], Any], spec: str, pretrained: bool) -> nn.Module:
    try:
        model: nn.Module = build()
    except OSError as error:
        raise InvalidInput(
            f"the weights of {spec!r} could not be fetched ({error}): pass a file of weights with --weights"
        ) from error
    return model
