"""Models by name or from a file: what the command line accepts as ``MODEL``, with the preparation that it expects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from headwater.errors import InvalidInput
from headwater.loaders import files, names
from headwater.loaders.loaded import LoadedModel
from headwater.loaders.weights import load_weights

__all__ = ["LoadedModel", "load_model"]

_NAMED: dict[str, Callable[[str, bool], LoadedModel]] = {
    "torchvision": names.from_torchvision,
    "timm": names.from_timm,
    "hf": names.from_transformers,
}
_FILES: dict[str, Callable[[Path], LoadedModel]] = {
    ".onnx": files.from_onnx,
    ".pt2": files.from_exported,
    ".keras": files.from_keras,
}


def load_model(spec: str, weights: Path | None = None) -> LoadedModel:
    """Build the model that ``spec`` names and put it in evaluation mode. Nothing is unpickled.

    Args:
        spec: ``package.module:factory`` (a module, or a function called without arguments that returns one; the working
            directory is searched first), ``torchvision:NAME``, ``timm:NAME``, ``hf:PATH`` (saved by transformers, or
            an adapter saved by PEFT), or a file: ``.onnx``, ``.pt2`` (``torch.export.save``), ``.keras``.
        weights: a safetensors file, or a checkpoint that torch can load with ``weights_only=True`` (Lightning's too).
            Absent, the model keeps the weights that it was built with (for torchvision and timm: the pretrained ones).

    Raises:
        InvalidInput: nothing can be built from ``spec``, or the weights do not fit.
        UnsupportedModel: a file with operators that its converter does not know.
        MissingExtra: the package that ``spec`` names is not installed.
    """
    loaded = _load(spec, weights is None)
    if weights is not None:
        load_weights(loaded.model, weights)
    loaded.model.eval()
    return loaded


def _load(spec: str, pretrained: bool) -> LoadedModel:
    path = Path(spec)
    if path.suffix in _FILES and (path.is_file() or ":" not in spec):
        if not path.is_file():
            raise InvalidInput(f"there is no file {spec}")
        return _FILES[path.suffix](path)
    source, separator, name = spec.partition(":")
    if not (source and separator and name):
        raise InvalidInput(
            f"the model {spec!r} names no source: write package.module:factory, torchvision:NAME, timm:NAME, hf:PATH "
            f"or a file ({', '.join(_FILES)})"
        )
    return _NAMED.get(source, names.from_python)(spec, pretrained)
