"""What the census needs to know of models that would run on text alone, so that they are asked of an image or a sound.

Their towers, projectors and the places that features take in the text are then part of what is explained.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.census_particulars import GLM_MOE, SECTIONED, SOUND, TEXT, Particular, ids, noise
from benchmarks.census_particulars_multimodal import (
    EYE,
    FLAT_EYE,
    MUSE,
    ROPES,
    TOKENS,
    TOWER,
    in_patches,
    picture,
    typed,
)

_SIZE = torch.tensor([[16, 16]])
_CLIP = {"model_type": "clip_vision_model", **EYE}
_SIGLIP = {"model_type": "siglip_vision_model", **EYE, "vision_use_head": False}
_PIXTRAL = {"model_type": "pixtral", **EYE, "head_dim": 8}
_LLAMA = {"model_type": "llama", **TEXT}
_QWEN = {"model_type": "qwen2", **TEXT}
_LLAVA: dict[str, Any] = {"vision_config": _CLIP, "text_config": _LLAMA, **TOKENS, "image_grid_pinpoints": [[16, 16]]}
_WINDOWED = {**TOWER, "window_size": 8, "fullatt_block_indexes": [1]}
_WHISPER: dict[str, Any] = {
    "num_mel_bins": 16, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48, "d_model": 32,
    "max_source_positions": 20, "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8,
}  # fmt: skip
_AUDIO = {"audio_token_index": SOUND, "audio_token_id": SOUND}

_GRANITE: dict[str, Any] = {
    "text_config": {"model_type": "granite", **TEXT}, **_AUDIO, "downsample_rate": 2, "window_size": 4,
    "has_lora_adapter": False,
    "encoder_config": {"input_dim": 16, "num_layers": 2, "hidden_dim": 32, "feedforward_mult": 2, "num_heads": 4,
                       "dim_head": 8, "output_dim": 12, "context_size": 8, "max_pos_emb": 16,
                       "conv_kernel_size": 3},
    "projector_config": {"model_type": "blip_2_qformer", "hidden_size": 32, "intermediate_size": 48,
                         "num_hidden_layers": 2, "num_attention_heads": 4, "encoder_hidden_size": 32},
}  # fmt: skip


def _image(places: int) -> dict[str, Any]:
    return picture(places, noise(1, 3, 16, 16))


def _tiles(places: int) -> dict[str, Any]:
    """An image as a whole and as its one tile."""
    return picture(places, noise(1, 2, 3, 16, 16), image_sizes=_SIZE)


def _sound(places: int, frames: int = 40, mask: str = "", bins: int = 16) -> dict[str, Any]:
    """Text around the places of a sound."""
    text = torch.cat([ids(1, 3), torch.full((1, places), SOUND), ids(1, 2)], 1)
    masks = {mask: torch.ones(1, frames).long()} if mask else {}
    return {"input_ids": text, "input_features": noise(1, bins, frames), **masks}


PICTURES: dict[str, Particular] = {
    "LlavaNextForConditionalGeneration": Particular(_LLAVA, lambda: _tiles(36)),
    "LlavaNextVideoForConditionalGeneration": Particular(_LLAVA, lambda: _tiles(36)),
    "LlavaOnevisionForConditionalGeneration": Particular(
        {**_LLAVA, "vision_config": _SIGLIP, "text_config": _QWEN}, lambda: _tiles(36)),
    "VipLlavaForConditionalGeneration": Particular({**_LLAVA, "vision_feature_layer": [-1, -2]}, lambda: _image(16)),
    "Gemma3ForConditionalGeneration": Particular(
        {"text_config": {**TEXT, "layer_types": ["sliding_attention", "full_attention"], "rope_parameters": ROPES},
         "vision_config": EYE, "mm_tokens_per_image": 4, **TOKENS}, lambda: typed(_image(4), "token_type_ids")),
    "T5Gemma2ForConditionalGeneration": Particular(
        {"encoder": {"text_config": {**TEXT, "layer_types": ["sliding_attention", "full_attention"],
                                     "rope_parameters": ROPES},
                     "vision_config": EYE, "mm_tokens_per_image": 4, **TOKENS},
         "decoder": {**TEXT, "layer_types": ["sliding_attention", "full_attention"], "rope_parameters": ROPES},
         **TOKENS},
        lambda: {**_image(4), "decoder_input_ids": ids(1, 5)}),
    "Qwen3VLForConditionalGeneration": Particular(
        {"text_config": SECTIONED, "vision_config": TOWER, **TOKENS}, in_patches),
    "Qwen3VLMoeForConditionalGeneration": Particular(
        {"text_config": {**SECTIONED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
         "vision_config": TOWER, **TOKENS}, in_patches),
    "Exaone4_5_ForConditionalGeneration": Particular(
        {"text_config": {"model_type": "exaone4", **TEXT, "sliding_window": 8,
                         "layer_types": ["sliding_attention", "full_attention"]},
         "vision_config": {"model_type": "exaone4_5_vision", **_WINDOWED, "num_key_value_heads": 2}, **TOKENS},
        in_patches),
    "HyperCLOVAXVisionV2ForConditionalGeneration": Particular(
        {"text_config": TEXT, "vision_config": _WINDOWED, **TOKENS}, in_patches),
    "Mistral3ForConditionalGeneration": Particular(
        {"text_config": {"model_type": "mistral", **TEXT}, "vision_config": _PIXTRAL, **TOKENS},
        lambda: {**_image(4), "image_sizes": _SIZE}),
    "LightOnOcrForConditionalGeneration": Particular(
        {"text_config": {"model_type": "qwen3", **TEXT}, "vision_config": _PIXTRAL, **TOKENS},
        lambda: {**_image(4), "image_sizes": _SIZE}),
    "AriaForConditionalGeneration": Particular(
        {"text_config": {**TEXT, "moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1},
         "vision_config": {"model_type": "idefics3_vision", **EYE}, "projector_patch_to_query_dict": {16: 4}, **TOKENS},
        lambda: {**_image(4), "pixel_mask": torch.ones(1, 16, 16).bool()}),
    "Lfm2VlForConditionalGeneration": Particular(
        {"text_config": {"model_type": "lfm2", **TEXT, "layer_types": ["conv", "full_attention"], "block_ff_dim": 96},
         "vision_config": {"model_type": "siglip2_vision_model", **FLAT_EYE}, "downsample_factor": 2,
         "projector_hidden_size": 48, **TOKENS},
        lambda: picture(4, noise(1, 16, 48), spatial_shapes=torch.tensor([[4, 4]]),
                        pixel_attention_mask=torch.ones(1, 16).long())),
    "VideoLlama3ForConditionalGeneration": Particular(
        {"text_config": _QWEN, "vision_config": EYE, **TOKENS},
        lambda: picture(4, noise(16, 48), image_grid_thw=torch.tensor([[1, 4, 4]]),
                        image_merge_sizes=torch.tensor([2]))),
    "Kimi_K25ForConditionalGeneration": Particular(
        {"text_config": {**GLM_MOE, "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 24,
                         "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16, "n_group": 1,
                         "topk_group": 1,
                         "first_k_dense_replace": 1, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
         "vision_config": {**EYE, "pos_emb_height": 4, "pos_emb_width": 4}, "projection_hidden_size": 32, **TOKENS},
        lambda: picture(4, noise(16, 3, 4, 4), image_grid_thw=torch.tensor([[1, 4, 4]]))),
    "Inkling2ForConditionalGeneration": Particular(
        {"vision_config": {**EYE, "posemb_grid_size": 4, "projection_hidden_dim": 48, "text_hidden_size": 64},
         "text_config": TEXT, **TOKENS},
        lambda: picture(4, noise(4, 8, 8, 3), image_grid_thw=torch.tensor([[1, 2, 2]]))),
    "ColModernVBertForRetrieval": Particular(
        {"vlm_config": {"model_type": "modernvbert", "vision_config": _SIGLIP, "pixel_shuffle_factor": 2, **TOKENS,
                        "text_config": {"model_type": "modernbert", **TEXT, "layer_types": ["full_attention"] * 2,
                                        "pad_token_id": 0}}, "embedding_dim": 16},
        lambda: picture(4, noise(1, 1, 3, 16, 16))),
    "Molmo2ForConditionalGeneration": Particular(
        {"text_config": {**TEXT, "additional_vocab_size": 8, "rope_scaling_layers": [0, 1]},
         "vision_config": {**EYE, "image_size": [16, 16], "num_key_value_heads": 4, "head_dim": 8,
                           "num_position_embeddings": 16},
         "adapter_config": {"vision_feature_layer": [1, 0], "hidden_size": 32, "num_attention_heads": 4,
                            "num_key_value_heads": 4, "head_dim": 8, "intermediate_size": 48, "text_hidden_size": 64},
         "image_patch_id": 85, **TOKENS},
        lambda: typed(picture(
            4, noise(1, 16, 48), image_token_pooling=torch.arange(16).view(4, 4),
            image_grids=torch.tensor([[2, 2, 0, 0]]), image_num_crops=torch.tensor([1]))), cut=False),
    "Cosmos3OmniForConditionalGeneration": Particular(
        {"text_config": SECTIONED, "vision_config": TOWER, **TOKENS}, in_patches),
    "MistralLarge4ForConditionalGeneration": Particular(
        {"text_config": {**GLM_MOE, "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 24,
                         "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16, "n_group": 1,
                         "topk_group": 1, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
         "vision_config": _PIXTRAL, **TOKENS}, lambda: {**_image(4), "image_sizes": _SIZE}),
    "GraniteSpeechPlusForConditionalGeneration": Particular(
        _GRANITE, lambda: {**_sound(8), "input_features": noise(1, 16, 16)}, cut=False),
    "Qwen3ASRForConditionalGeneration": Particular(
        {"audio_config": {**_WHISPER, "n_window": 50, "output_dim": 64, "n_window_infer": 100, "conv_chunksize": 100,
                          "downsample_hidden_size": 8, "max_source_positions": 100},
         "text_config": {"model_type": "qwen3", **SECTIONED}, **_AUDIO},
        lambda: _sound(13, 100, "input_features_mask"), cut=False),
    "MuseGlimmerForConditionalGeneration": Particular(
        {"text_config": {**TEXT, "layer_types": ["sliding_attention", "full_attention"], "layer_rope_theta": [1e4, 0]},
         "vision_config": MUSE, "out_hidden_size": 128, "projector_hidden_size": 48, **TOKENS},
        lambda: picture(4, noise(16, 96), image_grid_thw=torch.tensor([[1, 4, 4]]))),
    "Ovis2ForConditionalGeneration": Particular(
        {"text_config": _QWEN, "vision_config": {**EYE, "hidden_stride": 2, "vocab_size": 24},
         "visual_indicator_token_ids": [76, 77, 78, 79, 80], **TOKENS, "hidden_size": 64, "vocab_size": 128},
        lambda: _image(4), cut=False),
    "Qwen2AudioForConditionalGeneration": Particular(
        {"text_config": _QWEN, "audio_config": _WHISPER, **_AUDIO},
        lambda: _sound(10, mask="feature_attention_mask"), cut=False),
    "VoxtralForConditionalGeneration": Particular(
        {"text_config": _LLAMA, "audio_config": {**_WHISPER, "encoder_ffn_dim": 128}, **_AUDIO,
         "hidden_size": 64}, lambda: _sound(5), cut=False),
    "AudioFlamingo3ForConditionalGeneration": Particular(
        {"text_config": _QWEN, "audio_config": _WHISPER, **_AUDIO},
        lambda: _sound(10, mask="input_features_mask"), cut=False),
    "MusicFlamingoForConditionalGeneration": Particular(
        {"text_config": _QWEN, "audio_config": {"model_type": "audioflamingo3_encoder", **_WHISPER}, **_AUDIO},
        lambda: _sound(10, mask="input_features_mask"), cut=False),
    "GlmAsrForConditionalGeneration": Particular(
        {"text_config": _LLAMA, "audio_config": _WHISPER, **_AUDIO},
        lambda: _sound(5, mask="input_features_mask"), cut=False),
    "GraniteSpeechForConditionalGeneration": Particular(
        _GRANITE,
        lambda: {**_sound(8), "input_features": noise(1, 16, 16)}, cut=False),
}  # fmt: skip
