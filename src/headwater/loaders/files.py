"""Models from the files of other frameworks: ONNX, exported programs of torch, Keras 3. None of them is unpickled."""

from __future__ import annotations

import os
import pickle
import sys
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from headwater.errors import InvalidInput
from headwater.loaders import onnx
from headwater.loaders.loaded import LoadedModel, package


def from_onnx(path: Path) -> LoadedModel:
    """A graph in ONNX, as modules of torch that onnx2torch makes of it.

    Raises:
        UnsupportedModel: operators that onnx2torch does not know.
    """
    model, shape = onnx.convert(path)
    return LoadedModel(model, size=_square(shape[2:]) if len(shape) == 4 and shape[1] in (1, 3) else None)


def from_exported(path: Path) -> LoadedModel:
    """A program that ``torch.export.save`` wrote, with the modules that it was exported from.

    Its batch is as long as the one it was exported with, unless that axis was declared dynamic.

    Raises:
        InvalidInput: a damaged file, or one that holds compiled code or pickled objects.
    """
    _refuse_code(path)
    try:
        with _tensors_alone():
            program = torch.export.load(path)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, ValueError, KeyError, AssertionError) as error:
        raise InvalidInput(
            f"{path} holds more than a program and its tensors, or is damaged: write it with torch.export.save"
        ) from error
    with warnings.catch_warnings():
        # torch's own copying of the program calls what torch declares deprecated
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        return LoadedModel(torch.export.unflatten(program))


def _refuse_code(path: Path) -> None:
    """Compiled libraries and pickled objects have places of their own in the archive."""
    try:
        members = zipfile.ZipFile(path).namelist()
    except zipfile.BadZipFile as error:
        raise InvalidInput(f"{path} is no archive of torch.export: write it with torch.export.save") from error
    for member in members:
        if "/data/aotinductor/" in member or Path(member).name.startswith(("custom_obj_", "opaque_obj_")):
            raise InvalidInput(f"{path} holds code or pickled objects ({member}): export the model without them")


@contextmanager
def _tensors_alone() -> Iterator[None]:
    """Within, every ``torch.load`` reads tensors alone, also those that ask for more: ``torch.export.load`` does."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def from_keras(path: Path) -> LoadedModel:
    """A model that Keras 3 saved, on its backend of torch. Pictures may be passed channels first.

    Raises:
        InvalidInput: another backend is active, or the file cannot be read (Python functions in it are refused).
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"  # Keras reads it once, when it is imported
    keras = package("keras", "keras")
    if keras.config.backend() != "torch":
        raise InvalidInput(
            f"Keras runs on {keras.config.backend()}: set KERAS_BACKEND=torch in the environment before it is imported"
        )
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"Keras cannot load {path}: {str(error).strip().partition(chr(10))[0]}") from error
    shape = model.input_shape if isinstance(model.input_shape, tuple) else ()
    if len(shape) != 4 or shape[-1] not in (1, 3):
        return LoadedModel(model)
    return LoadedModel(ChannelsLast(model, shape[-1]), size=_square(shape[1:3]))


class ChannelsLast(nn.Module):
    """A model of pictures ``[N, H, W, C]`` that also takes them as ``[N, C, H, W]``.

    Args:
        model: the model; ``channels``: its C.
    """

    def __init__(self, model: nn.Module, channels: int) -> None:
        super().__init__()
        self.model, self.channels = model, channels

    def forward(self, x: Tensor) -> Tensor:
        first = x.shape[1] == self.channels and x.shape[-1] != self.channels
        out: Tensor = self.model(x.movedim(1, -1) if first else x)
        return out


def _square(sides: tuple[int | None, ...]) -> tuple[int, int] | None:
    height, width = sides
    return None if height is None or width is None else (height, width)
