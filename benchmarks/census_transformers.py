"""The census's models of transformers: one class for each model type, its configuration made small generically.

Every width of a configuration (and of those within it) is divided by the same number, so that the relations between
widths, heads and groups stay; layers, vocabularies, experts, images and positions are cut. The strongest cut whose
model runs is taken.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.census_inputs import inputs_of
from benchmarks.census_particulars import TEXTS, Particular
from benchmarks.census_particulars_multimodal import MULTIMODAL
from benchmarks.census_particulars_pictures import PICTURES
from benchmarks.census_particulars_series import SERIES
from benchmarks.census_particulars_vision import VISION
from benchmarks.census_subjects import Built, NotBuilt, Subject, runs

MOST_PARAMETERS = 80_000_000
VOCABULARY = 128
# Tasks whose output is scores come first; a type that serves none of them is taken as its bare model.
_TASKS = """
MODEL_FOR_CAUSAL_LM MODEL_FOR_MASKED_LM MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM MODEL_FOR_IMAGE_TEXT_TO_TEXT
MODEL_FOR_IMAGE_CLASSIFICATION MODEL_FOR_VIDEO_CLASSIFICATION MODEL_FOR_AUDIO_CLASSIFICATION MODEL_FOR_CTC
MODEL_FOR_SPEECH_SEQ_2_SEQ MODEL_FOR_SEMANTIC_SEGMENTATION MODEL_FOR_UNIVERSAL_SEGMENTATION MODEL_FOR_OBJECT_DETECTION
MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION MODEL_FOR_DEPTH_ESTIMATION MODEL_FOR_SEQUENCE_CLASSIFICATION
MODEL_FOR_TIME_SERIES_PREDICTION MODEL_FOR_TIME_SERIES_REGRESSION MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION
MODEL_FOR_VISUAL_QUESTION_ANSWERING MODEL_FOR_MULTIMODAL_LM MODEL_FOR_TOKEN_CLASSIFICATION MODEL_FOR_PRETRAINING
MODEL_FOR_IMAGE_TO_IMAGE MODEL_FOR_MASK_GENERATION MODEL_FOR_KEYPOINT_DETECTION MODEL_FOR_KEYPOINT_MATCHING
MODEL_FOR_TEXT_TO_SPECTROGRAM MODEL_FOR_TEXT_TO_WAVEFORM MODEL_FOR_IMAGE_MATTING MODEL_FOR_POSE_ESTIMATION
MODEL_FOR_DECISION MODEL MODEL_FOR_BACKBONE MODEL_FOR_TEXT_ENCODING
"""

_LAYERS = re.compile(r"(num|n)_.*(layers?|blocks)(_\w+)?$|(encoder|decoder)_layers$|^(n_)?layers?$|^(\w+_)?depth$")
_NO_LAYERS = re.compile(r"per|num_encoder_blocks|num_feat_extract")  # counts that go with lists of stages
_WIDTH = re.compile(
    r"size|dim|width|rank|channels|d_model|d_ff|d_kv|d_inner|d_head|n_embd|embd|n_inner|hidden|inner|filters|features|units|headdim|"
    r"axes|bottleneck"
)
_NO_WIDTH = re.compile(
    r"vocab|image|patch|window|kernel|stride|chunk|crop|max_|batch|scale|pool|grid|^num_|^n_(?!embd|inner)|merge|group_size|input_size|"
    r"context|label|mel|prob|dropout|bins|resolution|sampl|frame|block_size|codebook|spatial_shapes"
)
# What some configurations leave open, and their models need.
_OPEN = {"vocab_size": VOCABULARY, "num_experts_per_tok": 2, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1,
         "topk_group": 1, "moe_intermediate_size": 16}  # fmt: skip
REQUIRED: dict[str, dict[str, Any]] = {
    "reformer": {"is_decoder": True},
    **{kind: {"prediction_length": 8} for kind in ("autoformer", "informer", "time_series_transformer")},
    "vits": {"upsample_initial_channel": 32, "upsample_rates": [4, 4], "upsample_kernel_sizes": [8, 8]},
    **{kind: {"vision_config": {"backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}} for kind in
       ("sam3_tracker", "sam3_tracker_video")},
}  # fmt: skip
PARTICULARS = {**TEXTS, **MULTIMODAL, **PICTURES, **VISION, **SERIES}
_EXPERTS = re.compile(r"experts?$|num_experts|n_routed|expert_num")
_CHOSEN = re.compile(r"experts_per_tok|top_?k$|moe_topk|n_group$|topk_group|moe_k|num_selected")


def subjects() -> list[Subject]:
    """One subject for each model type that has a class for torch."""
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    for common in ("llama.modeling_llama", "bart.modeling_bart", "vit.modeling_vit", "mixtral.modeling_mixtral"):
        importlib.import_module(f"transformers.models.{common}")  # once here rather than in every process
    classes: dict[str, str] = {}
    for task in _TASKS.split():
        for kind, names in getattr(auto, f"{task}_MAPPING_NAMES").items():
            classes.setdefault(kind, names if isinstance(names, str) else names[0])
    unique = {name: kind for kind, name in reversed(classes.items())}
    return [Subject("transformers", name, partial(build, kind, name)) for name, kind in sorted(unique.items())]


def build(kind: str, name: str) -> Built:
    """The model class ``name`` for the type ``kind``, as small as it runs, with an input.

    Raises:
        NotBuilt: where no cut of its configuration runs; the text is the failure of the mildest.
    """
    if name in PARTICULARS:
        return _as_given(kind, name, PARTICULARS[name])
    reasons = []
    for divisor, image in ((16, True), (8, True), (1, True), (4, False)):
        try:
            model_class, config_class = _classes(kind, name)
            config = config_class(**REQUIRED.get(kind, {}))
            shrink(config, divisor, image)
            model = _small(model_class, config)
            inputs, note = inputs_of(model, runs)
        except Exception as error:  # whatever a class raises about its configuration or its input
            reasons.append(f"{type(error).__name__}: {error}")
        else:
            return Built(model, inputs, f"{note}; widths / {divisor}")
    raise NotBuilt(reasons[0] if len(set(reasons)) == 1 else f"{reasons[0]} | {reasons[-1]}")


def _classes(kind: str, name: str) -> tuple[Any, Any]:
    """A model class and that of its configuration."""
    configurations = importlib.import_module("transformers.models.auto.configuration_auto")
    model_class = getattr(importlib.import_module("transformers"), name)
    return model_class, model_class.config_class or configurations.CONFIG_MAPPING[kind]


def _as_given(kind: str, name: str, particular: Particular) -> Built:
    model_class, config_class = _classes(kind, name)
    config = config_class(**particular.config)
    if particular.cut:
        shrink(config, divisor=1, image=False)
    model = _small(model_class, config)
    inputs, note = inputs_of(model, runs, particular.inputs)
    return Built(model, inputs, f"{note}; widths given")


def _small(kind: type[nn.Module], config: Any) -> nn.Module:
    try:
        with torch.device("meta"):
            count = sum(p.numel() for p in kind(config).parameters())
    except Exception:  # some initializations read values
        count = 0
    if count > MOST_PARAMETERS:
        raise NotBuilt(f"{count / 1e6:.0f} million parameters; the census stops at {MOST_PARAMETERS / 1e6:.0f}")
    return kind(config).eval()


# ---------------------------------------------------------------------- configurations


def shrink(config: Any, divisor: int, image: bool) -> None:
    """Make a configuration, and those within it, small in place.

    Args:
        divisor: of every width.
        image: make images small too.
    """
    facts = vars(config)
    kept = _kept_layers(facts)
    for key, value in list(facts.items()):
        if hasattr(value, "model_type"):
            shrink(value, divisor, image)
            continue
        small = _shrunk(key, value, divisor, image, facts, kept)
        if small is not value:
            _set(config, key, small)


def _set(config: Any, key: str, value: Any) -> None:
    try:
        setattr(config, key, value)
    except Exception:  # a property or a validated field that will not have it
        object.__setattr__(config, key, value)


def _kept_layers(facts: Mapping[str, Any]) -> tuple[int, list[int]]:
    """The number of layers, and which of them stay: two, and the first of every other kind."""
    stages = any(isinstance(facts.get(k), (list, tuple)) for k in ("depths", "layer_depths"))
    taps = [v for k, v in facts.items() if k.endswith("out_indices") and isinstance(v, (list, tuple))]
    if stages or any(len(v) > 1 for v in taps):
        return 0, []
    total = next((v for k in ("num_hidden_layers", "n_layer", "num_layers") if isinstance(v := facts.get(k), int)), 0)
    kinds = next(
        (v for k in ("layer_types", "layers_block_type") if isinstance(v := facts.get(k), list) and len(v) == total), []
    )
    kept = list(range(min(2, total)))
    for i, kind in enumerate(kinds):
        if kind not in [kinds[k] for k in kept]:
            kept.append(i)
    return total, kept


def _shrunk(key: str, value: Any, divisor: int, image: bool, facts: Mapping[str, Any], kept: Any) -> Any:
    layers = kept[1]
    if isinstance(value, bool) or key in ("id2label", "label2id"):
        return value
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {k: v if k == "model_type" else _shrunk(k, v, divisor, image, facts, kept) for k, v in value.items()}
    if value is None:
        return _OPEN.get(key)
    if isinstance(value, (list, tuple)):
        return _shrunk_list(key, value, divisor, image, kept)
    if not isinstance(value, int):
        return value
    if key.endswith(("token_id", "token_index")):
        return value if value < VOCABULARY - 40 else VOCABULARY - 1 - value % 40
    if "vocab" in key and value > VOCABULARY:
        return VOCABULARY
    if _CHOSEN.search(key):
        return min(value, 2) if "group" not in key else 1
    if _EXPERTS.search(key):
        return min(value, 4)
    if key in ("num_hidden_layers", "n_layer", "num_layers"):
        return len(layers) if layers else value
    if _LAYERS.search(key) and not _NO_LAYERS.search(key):
        return min(value, 2)
    if key in ("image_size", "input_size", "img_size") and image and value > 64:
        return _image(value, facts)
    if (
        re.search(r"max_.*(position|source|target|length)|n_positions|n_ctx|max_seq|context_length", key)
        and value > 512
    ):
        return 64 if "source_positions" in key else 512
    return _narrow(key, value, divisor)


def _image(value: int, facts: Mapping[str, Any]) -> int:
    patch = facts.get("patch_size", 16)
    patch = patch if isinstance(patch, int) else 16
    return patch * 4 if patch >= 8 else 64


def _narrow(key: str, value: int, divisor: int) -> int:
    wide = value >= 24 and _WIDTH.search(key) and not _NO_WIDTH.search(key.replace("hidden_channels", "hidden"))
    return max(value // divisor, 1) if wide else value


def _shrunk_list(key: str, value: Any, divisor: int, image: bool, kept: Any) -> Any:
    total, layers = kept
    if key in ("depths", "layer_depths", "num_blocks") and all(isinstance(v, int) for v in value):
        return type(value)(min(v, 2) for v in value)
    if total and len(value) == total and total > len(layers):
        value = type(value)(value[i] for i in layers)
    numbers = bool(value) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
    if total and numbers and re.search(r"layer_ids|indices|indexes|_layers$|layers_idx", key):
        return type(value)(layers.index(v) if v in layers else min(v, len(layers)) for v in value)
    if key == "mrope_section":
        return type(value)(max(v // divisor, 1) for v in value)
    if key in ("image_size", "input_size", "img_size"):
        return type(value)(64 if isinstance(v, int) and v > 64 else v for v in value) if image else value
    if numbers:
        return type(value)(_narrow(key, v, divisor) for v in value) if min(value) >= 24 else value
    return value
