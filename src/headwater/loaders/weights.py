"""Weights from a file into a model: safetensors, or a checkpoint of tensors alone."""

from __future__ import annotations

import pickle
import textwrap
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from headwater.errors import InvalidInput


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a model with the weights in a file.

    Raises:
        InvalidInput: the file holds more than weights, or they do not fit.
    """
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
