"""Pipelines of Hugging Face as models: what they make of a text, picture or recording is explained in their network."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from headwater.errors import InvalidInput, InvalidTarget
from headwater.target import Token

LABELLED = ("text-classification", "image-classification", "audio-classification", "video-classification")
TASKS = (*LABELLED, "text-generation", "fill-mask", "token-classification")


@dataclass(frozen=True)
class Opened:
    """A pipeline's network, and what the pipeline makes of the user's input and target.

    Attributes:
        model: the network, as it is.
        x: what it is called with, by name.
        target: names of labels and tokens turned into their numbers.
        words: of texts, the tokens as the tokenizer writes them; None for pictures and recordings.
    """

    model: nn.Module
    x: dict[str, Any]
    target: Any
    words: list[list[str]] | None


def is_pipeline(model: Any) -> bool:
    """Whether a model is a pipeline of transformers."""
    base = sys.modules.get("transformers.pipelines.base")
    return base is not None and isinstance(model, base.Pipeline)


def opened(pipe: Any, x: Any, target: Any = None) -> Opened:
    """Prepare samples as a pipeline does.

    Args:
        pipe: of one of the tasks in ``TASKS``.
        x: what the pipeline takes, or a list of it: texts; pictures (paths, Pillow's); recordings (arrays, paths, or
            ``{"raw": array, "sampling_rate": rate}``). Texts are padded on the right; others must be of one shape. Or
            a dict of tensors, which goes to the network as it is.
        target: as for :func:`headwater.explain`, or the name of a label or of a token. By default the predicted label;
            for text generation the likeliest next token, for a mask the likeliest token in its place.

    Raises:
        InvalidInput: another task, input that the pipeline cannot prepare, or samples of different shapes.
        InvalidTarget: a name that is none of the labels or not one token.
    """
    if pipe.task not in TASKS:
        raise InvalidInput(
            f"a pipeline of the task {pipe.task!r} has no one score to explain; those of {', '.join(TASKS)} have. "
            "Explain its network: hw.explain(pipe.model, inputs, target=...)"
        )
    ready = isinstance(x, Mapping) and pipe.model.main_input_name in x
    named = dict(x) if ready else _joined([_prepared(pipe, one) for one in _samples(pipe, x)], pipe)
    weight = next((w for w in pipe.model.parameters() if w.is_floating_point()), torch.zeros(()))
    named = {k: _placed(v, weight) if isinstance(v, Tensor) else v for k, v in named.items()}
    ids = named.get("input_ids")
    words = None if ids is None else _words(pipe, ids, named.get("attention_mask"))
    return Opened(pipe.model, named, _target(pipe, target, ids), words)


def _samples(pipe: Any, x: Any) -> list[Any]:
    is_chat = isinstance(x, Sequence) and bool(x) and isinstance(x[0], Mapping) and "role" in x[0]
    samples = list(x) if isinstance(x, (list, tuple)) and not is_chat else [x]
    if not samples:
        raise InvalidInput("x is an empty list: pass at least one sample")
    if pipe.tokenizer is not None and any(isinstance(one, str) and not one.strip() for one in samples):
        raise InvalidInput("a text holds no words: leave it out")
    return samples


def _prepared(pipe: Any, sample: Any) -> dict[str, Tensor]:
    """One sample as the pipeline's network takes it, ``[1, ...]``."""
    try:
        found = pipe.preprocess(sample, **pipe._preprocess_params)
        parts = [found] if isinstance(found, Mapping) else list(found)  # some tasks cut a text into parts
    except Exception as error:  # the pipeline's own, of whatever it was given
        raise InvalidInput(f"the pipeline cannot prepare a {type(sample).__name__}: {error}") from error
    if len(parts) != 1:
        raise InvalidInput(f"the pipeline cuts a sample into {len(parts)} parts: explain them one by one")
    taken = inspect.signature(pipe.model.forward).parameters
    tensors = {k: v for k, v in parts[0].items() if isinstance(v, Tensor) and k in taken}
    if "token_type_ids" in tensors and not bool(tensors["token_type_ids"].any()):
        del tensors["token_type_ids"]  # what networks take by themselves, and nothing to explain
    if "input_ids" in tensors:
        tensors.setdefault("attention_mask", torch.ones_like(tensors["input_ids"]))
    return tensors


def _joined(samples: list[dict[str, Tensor]], pipe: Any) -> dict[str, Tensor]:
    """The samples as one batch; texts are padded."""
    keys = {key for sample in samples for key in sample}
    if "input_ids" in keys:
        longest = max(sample["input_ids"].shape[1] for sample in samples)
        most = getattr(pipe.model.config, "max_position_embeddings", None) or longest
        if longest > most:
            raise InvalidInput(f"a text has {longest} tokens, the model takes at most {most}: shorten it")
        tokenizer, config = pipe.tokenizer, pipe.model.config
        pad = next((i for i in (tokenizer.pad_token_id, config.pad_token_id) if i is not None), 0)
        samples = [{k: s[k] if k in s else torch.zeros_like(s["input_ids"]) for k in keys} for s in samples]
        return {
            k: pad_sequence([s[k][0] for s in samples], batch_first=True, padding_value=pad if k == "input_ids" else 0)
            for k in sorted(keys, key=list(samples[0]).index)
        }
    for key in keys:
        shapes = {tuple(sample[key].shape[1:]) for sample in samples}
        if len(shapes) > 1:
            raise InvalidInput(
                f"the samples become {key} of different shapes ({', '.join(map(str, sorted(shapes)))}): make them "
                "of one length or size, or explain them one by one"
            )
    return {key: torch.cat([sample[key] for sample in samples]) for key in samples[0]}


def _placed(value: Tensor, weight: Tensor) -> Tensor:
    return value.to(weight.device, weight.dtype if value.is_floating_point() else value.dtype)


def _words(pipe: Any, ids: Tensor, mask: Tensor | None) -> list[list[str]]:
    counts = [ids.shape[1]] * len(ids) if mask is None else [int(row.nonzero().max()) + 1 for row in mask]
    return [pipe.tokenizer.convert_ids_to_tokens(row[:n].tolist()) for row, n in zip(ids, counts, strict=True)]


def _target(pipe: Any, target: Any, ids: Tensor | None) -> Any:
    if pipe.task == "token-classification":
        if target is None:
            raise InvalidTarget("each token has its own label: choose one with target=hw.target.Token(position, label)")
        return target
    number = _label if pipe.task in LABELLED else _token
    if isinstance(target, str):
        target = number(pipe, target)
    elif isinstance(target, (list, tuple)) and target and all(isinstance(one, str) for one in target):
        target = [number(pipe, one) for one in target]
    if pipe.task != "fill-mask" or ids is None or not (target is None or isinstance(target, (int, list, Tensor))):
        return target
    places = (ids == pipe.tokenizer.mask_token_id).long().argmax(1)
    if bool((places != places[0]).any()):
        raise InvalidInput("the masks stand at different places: explain these texts one by one")
    return Token(int(places[0]), torch.tensor(target) if isinstance(target, list) else target)


def _label(pipe: Any, name: str) -> int:
    known: dict[str, int] = pipe.model.config.label2id or {}
    if name not in known:
        raise InvalidTarget(f"The model has no label {name!r}: choose from {', '.join(known)}")
    return known[name]


def _token(pipe: Any, name: str) -> int:
    """The number of a token as the vocabulary or as a text writes it."""
    vocabulary: dict[str, int] = pipe.tokenizer.get_vocab()
    if name in vocabulary:
        return vocabulary[name]
    ids: list[int] = pipe.tokenizer.encode(name, add_special_tokens=False)
    if len(ids) != 1 or ids[0] == pipe.tokenizer.unk_token_id:
        pieces = ", ".join(map(repr, pipe.tokenizer.convert_ids_to_tokens(ids)))
        raise InvalidTarget(f"{name!r} is not one token of this model but {pieces}: name one, or pass its number")
    return ids[0]
