"""Inputs for models of transformers, found from the names of what their forward takes."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.census_subjects import NotBuilt

LENGTH = 7
_MODALITIES = ("input_ids", "pixel_values", "pixel_values_videos", "input_features", "input_values", "past_values")


def inputs_of(
    model: nn.Module, run: Callable[[nn.Module, Any], Any], given: Callable[[], dict[str, Any]] | None = None
) -> tuple[dict[str, Any], str]:
    """Keyword arguments on which the model runs, and a line about them; those given, or else found from their names.

    Raises:
        NotBuilt: where none of the candidates runs; the text is the first failure's.
    """
    reason = ""
    for inputs in itertools.islice(candidates(model), 40) if given is None else (_completed(given(), model),):
        found, error = _attempt(model, run, inputs)
        reason = reason or error
        for mended in () if found is not None else _with_placeholders(model, inputs, error):
            found = found if found is not None else _attempt(model, run, mended)[0]
        if found is not None:
            shapes = {k: "x".join(map(str, v.shape)) for k, v in found.items() if isinstance(v, Tensor)}
            return found, ", ".join(f"{k} {shape}" for k, shape in shapes.items())
    raise NotBuilt(reason)


def _attempt(
    model: nn.Module, run: Callable[[nn.Module, Any], Any], inputs: dict[str, Any]
) -> tuple[dict[str, Any] | None, str]:
    """These inputs if the model runs on them, else why it does not."""
    try:
        run(model, inputs)
    except Exception as error:  # whatever a model raises on an input that is not for it
        return None, f"{type(error).__name__}: {error}"
    return inputs, ""


def _with_placeholders(model: nn.Module, inputs: dict[str, Any], message: str) -> Iterator[dict[str, Any]]:
    """Token ids with as many placeholders of an image (or sound) as its features, where the error tells how many.

    Some models tell the number of features, some that of the values in them.
    """
    told = re.search(r"tokens:? (?P<tokens>\d+).*features:? (?P<features>\d+)", message.replace("\n", " "))
    if told is None or "input_ids" not in inputs:
        return
    config = model.config
    kinds = ["video", "audio", "image"] if "video" in message.lower() else ["audio", "image"]
    if "image" in message.lower():
        kinds = ["image"]
    names = [f"{k}_token_{end}" for k in kinds for end in ("id", "index")] + ["im_patch_id"]
    token = next((t for n in names if isinstance(t := _fact(config, n, None), int)), None)
    count, text = int(told["features"]), inputs["input_ids"]
    if token is None or not count:
        return
    width = model.get_input_embeddings().weight.shape[1]
    for places in dict.fromkeys((count, max(count // width, 1))):
        yield _placed(inputs, text, token, places)


def _placed(inputs: dict[str, Any], text: Tensor, token: int, count: int) -> dict[str, Any]:
    """The inputs with a token so many times within the text."""
    ids = torch.cat([text[:, :1], torch.full((1, count), token), text[:, 1:]], 1)
    mended = {**inputs, "input_ids": ids}
    if "attention_mask" in inputs:
        mended["attention_mask"] = torch.ones_like(ids)
    if "token_type_ids" in inputs:
        mended["token_type_ids"] = (ids == token).long()
    if "mm_token_type_ids" in inputs:
        mended["mm_token_type_ids"] = (ids == token).long()
    return mended


# ---------------------------------------------------------------------- candidates


def candidates(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Sets of arguments to try, the fullest first."""
    taken = inspect.signature(model.forward).parameters
    required = [n for n, p in taken.items() if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    main = getattr(model, "main_input_name", "input_ids")
    modal = [n for n in _MODALITIES if n in taken]
    sets = [[n for n in modal if n != "pixel_values_videos" and n != "input_values"], [main], modal]
    seen = []
    for chosen in sets:
        names = list(dict.fromkeys([*chosen, *required]))
        names = sorted(names, key=lambda n: n != "input_ids")
        if names in seen or not names:
            continue
        seen.append(names)
        options = [list(values(n, model, names)) for n in names]
        for combination in itertools.product(*options):
            inputs = {n: v for n, v in zip(names, combination, strict=True) if v is not None}
            yield _completed(inputs, model)


def _completed(inputs: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """What goes with the main inputs: masks, the decoder's ids, the shapes of images in patches."""
    taken = inspect.signature(model.forward).parameters
    ids = inputs.get("input_ids")
    if isinstance(ids, Tensor):
        if "attention_mask" in taken:
            inputs["attention_mask"] = torch.ones_like(ids)
        if "bbox" in taken and "bbox" not in inputs:
            inputs["bbox"] = torch.tensor([3, 5, 40, 60]).expand(*ids.shape, 4).clone()
        for name in ("token_type_ids", "mm_token_type_ids"):
            if name in taken and ("pixel_values" in inputs or taken[name].default is taken[name].empty):
                inputs.setdefault(name, torch.zeros_like(ids))
    config = model.config
    if "decoder_input_ids" in taken and "decoder_input_ids" not in inputs and getattr(config, "is_encoder_decoder", 0):
        inputs["decoder_input_ids"] = _ids(config, 5)
    pixels = inputs.get("pixel_values")
    if isinstance(pixels, Tensor) and pixels.dim() == 2 and "image_grid_thw" in taken:
        inputs["image_grid_thw"] = torch.tensor([[1, 4, 4]])
    if "use_cache" in taken:
        inputs["use_cache"] = False
    return inputs


def _ids(config: Any, length: int = LENGTH) -> Tensor:
    size = min(_fact(config, "vocab_size", 128), 128)
    return torch.randint(3, max(size - 45, 5), (1, length), generator=torch.Generator().manual_seed(1))


def _fact(config: Any, name: str, default: Any) -> Any:
    """A fact of a configuration, or of the first of those within that has it."""
    value = vars(config).get(name, None)
    if value is None and not isinstance(getattr(type(config), name, None), property):
        value = getattr(config, name, None)
    if value is not None:
        return value
    for inner in vars(config).values():
        if hasattr(inner, "model_type"):
            found = _fact(inner, name, None)
            if found is not None:
                return found
    return default


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def values(name: str, model: nn.Module, names: list[str]) -> Iterator[Any]:
    """Values to try for one argument."""
    config = model.config
    if name in ("pixel_values", "pixel_values_videos", "flattened_patches", "pixel_values_images"):
        yield from _pixels(name, config)
    elif name == "input_features":
        yield from _sounds(config)
    elif name in ("input_values", "audio_values", "raw_audio"):
        yield from (_noise(1, 3200), _noise(1, 1, 3200), *_sounds(config))
    elif name.endswith("input_ids") or name in ("input", "labels", "ids"):
        yield _ids(config)
    elif name == "bbox":
        yield torch.tensor([3, 5, 40, 60]).expand(1, LENGTH, 4).clone()
    elif "grid_thw" in name:
        yield torch.tensor([[1, 4, 4]])
    elif name == "query_embeds":
        yield _noise(1, 4, _fact(config, "hidden_size", 48))
    elif name in ("states", "actions", "rewards", "returns_to_go"):
        yield _noise(1, LENGTH, _fact(config, {"states": "state_dim", "actions": "act_dim"}.get(name, ""), 1))
    elif name in ("input_features_mask", "feature_attention_mask", "padding_mask"):
        yield from (torch.ones(1, length, dtype=torch.long) for length in _frames(config) if length)
    elif "mask" in name:
        yield torch.ones(1, LENGTH, dtype=torch.long)
        yield None
    elif name in ("past_values", "future_values", "past_observed_mask"):
        yield from _series(config)
    elif name == "past_time_features":
        yield _noise(1, _series_length(config), _fact(config, "num_time_features", 1) or 1)
    elif name == "hidden_states" and _fact(config, "temporal_patch_size", None):
        yield from _pixels("pixel_values", config)
    elif name in ("inputs", "hidden_states", "inputs_embeds", "encoder_hidden_states", "x", "sample"):
        yield _noise(1, LENGTH, _fact(config, "d_model", None) or _fact(config, "hidden_size", 48))
        yield _ids(config)
        yield from _pixels("pixel_values", config)
    elif "timestep" in name or name.endswith("_ids") or name == "position_ids":
        yield torch.arange(LENGTH)[None]
    else:
        yield None


def _pixels(name: str, config: Any) -> Iterator[Tensor]:
    size = _fact(config, "image_size", None) or _fact(config, "img_size", None) or 64
    size = size if isinstance(size, int) else next(iter(size.values())) if isinstance(size, dict) else size
    high, wide = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    channels = _fact(config, "num_channels", None) or _fact(config, "in_channels", 3)
    channels = channels if isinstance(channels, int) else 3
    patch = _fact(config, "patch_size", 14)
    patch = patch if isinstance(patch, int) else 14
    time = _fact(config, "temporal_patch_size", None)
    frames = _fact(config, "num_frames", 2)
    if time is not None:  # patches in a row, as Qwen's vision towers take them
        yield _noise(16, channels * time * patch * patch)
    if "video" in name:
        yield _noise(1, frames, channels, high, wide)
        return
    yield _noise(1, channels, high, wide)
    yield _noise(1, 1, channels, high, wide)
    yield _noise(1, frames, channels, high, wide)
    yield _noise(1, channels, 64, 64)
    yield _noise(1, channels, 128, 128)
    yield _noise(1, channels, 224, 224)
    yield _noise(16, channels * patch * patch)


def _sounds(config: Any) -> Iterator[Tensor]:
    bins = _fact(config, "num_mel_bins", None) or _fact(config, "n_mels", None) or _fact(config, "feature_size", 80)
    for length in _frames(config):
        if length:
            yield _noise(1, bins, length)
            yield _noise(1, length, bins)
    yield _noise(1, 3200)
    yield _noise(1, 160, 2 * bins)


def _frames(config: Any) -> tuple[int, ...]:
    return 2 * _fact(config, "max_source_positions", 64), 100, _fact(config, "max_length", 0)


def _series_length(config: Any) -> int:
    lags = _fact(config, "lags_sequence", None) or [0]
    return (_fact(config, "context_length", None) or _fact(config, "prediction_length", 24) or 24) + max(lags)


def _series(config: Any) -> Iterator[Tensor]:
    length = _series_length(config)
    channels = _fact(config, "num_input_channels", None) or _fact(config, "input_size", 1)
    yield _noise(1, length, channels)
    yield _noise(1, length)
