"""What a loader returns, and how it reaches packages that need not be installed."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn

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


def package(name: str, extra: str) -> ModuleType:
    """An optional package (or a module of it), which the extra brings.

    Raises:
        MissingExtra: it is not installed.
        InvalidInput: it is, but cannot be imported.
    """
    root = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtra(extra, root) from error
    except RuntimeError as error:  # how a torchvision that was built for another torch fails to import
        raise InvalidInput(
            f"{root} cannot be imported beside torch {torch.__version__}, for which it was not built ({error}): "
            f"install both from the same index in one command, pip install torch {root}"
        ) from error
