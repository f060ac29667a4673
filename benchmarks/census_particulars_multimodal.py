"""What the census needs to know of models that take text along with images or sounds."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.census_particulars import GLM_MOE, GLM_TEXT, QWEN_TEXT, TEXT, Particular, ids, noise, rotary

IMAGE, START, END = 85, 83, 84  # token ids of an image's place, and of what stands around it
_TOKENS = {
    "image_token_id": IMAGE, "image_token_index": IMAGE, "video_token_id": 86, "vision_start_token_id": START,
    "vision_end_token_id": END, "image_start_token_id": START, "image_end_token_id": END, "video_start_token_id": 81,
    "video_end_token_id": 82,
}  # fmt: skip
_EYE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16,
    "patch_size": 4,
}  # fmt: skip
_TOWER: dict[str, Any] = {
    "depth": 2, "hidden_size": 32, "embed_dim": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 4,
    "image_size": 16, "out_hidden_size": 64, "spatial_merge_size": 2, "temporal_patch_size": 2,
    "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1],
}  # fmt: skip


def picture(places: int, pixels: torch.Tensor, **more: Any) -> dict[str, Any]:
    """Text around the places of an image, and its pixels."""
    text = ids(1, 6)
    image = torch.tensor([[START, *[IMAGE] * places, END]])
    tokens = torch.cat([text[:, :2], image, text[:, 2:]], 1)
    return {"input_ids": tokens, "pixel_values": pixels, **more}


def _typed(inputs: dict[str, Any], name: str = "mm_token_type_ids") -> dict[str, Any]:
    return {**inputs, name: (inputs["input_ids"] == IMAGE).long()}


def in_patches(features: int = 96, places: int = 4) -> dict[str, Any]:
    """An image of four by four patches in a row, merged two by two."""
    return _typed(picture(places, noise(16, features), image_grid_thw=torch.tensor([[1, 4, 4]])))


def tower(features: int = 96) -> dict[str, Any]:
    """The same image for a vision tower of its own."""
    return {"hidden_states": noise(16, features), "grid_thw": torch.tensor([[1, 4, 4]])}


_QWEN = {"text_config": QWEN_TEXT, "vision_config": _TOWER, **_TOKENS}
_QWEN2 = {**_QWEN, "vision_config": {**_TOWER, "hidden_size": 64}}
_GLM = {"text_config": GLM_TEXT, "vision_config": {**_TOWER, "intermediate_size": 64}, **_TOKENS}
_QFORMER: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "encoder_hidden_size": 32, "vocab_size": 128,
}  # fmt: skip
_BLIP: dict[str, Any] = {
    "vision_config": _EYE, "qformer_config": _QFORMER, "num_query_tokens": 4, "image_text_hidden_size": 16,
    "image_token_index": IMAGE, "text_config": {
        "model_type": "opt", "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": 128, "word_embed_proj_dim": 32},
}  # fmt: skip
_FLAT = {"num_patches": 16, "patch_size": 4, "vision_use_head": True}
_FLAT_EYE = {**_EYE, **_FLAT}
_LLAMA = {"model_type": "llama", **TEXT}


def _patches_with_shapes() -> dict[str, Any]:
    return {
        "pixel_values": noise(1, 16, 48), "pixel_attention_mask": torch.ones(1, 16, dtype=torch.long),
        "spatial_shapes": torch.tensor([[4, 4]]),
    }  # fmt: skip


MULTIMODAL: dict[str, Particular] = {
    "Qwen2VLForConditionalGeneration": Particular(_QWEN2, in_patches),
    "Qwen2_5_VLForConditionalGeneration": Particular(
        {**_QWEN, "vision_config": {**_TOWER, "window_size": 8, "fullatt_block_indexes": [1]}}, in_patches),
    "ColQwen2ForRetrieval": Particular(
        {"vlm_config": {"model_type": "qwen2_vl", **_QWEN2}, "embedding_dim": 16},
        lambda: {**in_patches(), "pixel_values": noise(1, 16, 96)}),
    "Qwen3VLVisionModel": Particular(_TOWER, tower),
    "Qwen3VLMoeVisionModel": Particular(_TOWER, tower),
    "CohereCompassVisionModel": Particular(_TOWER, tower),
    "VideoLlama3VisionModel": Particular(
        {**_EYE, "patch_size": 4},
        lambda: {"pixel_values": noise(16, 48), "grid_thw": torch.tensor([[1, 4, 4]]),
                 "merge_sizes": torch.tensor([2])}),
    "PaddleOCRVLForConditionalGeneration": Particular(
        {"text_config": QWEN_TEXT, "vision_config": {**_EYE, "spatial_merge_size": 2}, **_TOKENS},
        lambda: {**in_patches(), "pixel_values": noise(16, 3, 4, 4)}),
    "Glm4vForConditionalGeneration": Particular(_GLM, in_patches),
    "Glm46VForConditionalGeneration": Particular(_GLM, in_patches),
    "GlmOcrForConditionalGeneration": Particular(_GLM, in_patches),
    "Glm4vMoeForConditionalGeneration": Particular({**_GLM, "text_config": GLM_MOE}, in_patches),
    "HunYuanVLForConditionalGeneration": Particular(
        {"text_config": {**TEXT, **rotary(2, 2, 2, 2)},
         "vision_config": {**_EYE, "num_key_value_heads": 4, "out_hidden_size": 64, "text_hidden_size": 64,
                           "max_image_size": 32}, **_TOKENS},
        lambda: in_patches(48, 8)),
    "Siglip2VisionModel": Particular(_FLAT_EYE, _patches_with_shapes),
    "Siglip2ForImageClassification": Particular({"vision_config": _FLAT_EYE}, _patches_with_shapes),
    "Blip2QFormerModel": Particular(
        _QFORMER, lambda: {"query_embeds": noise(1, 4, 32), "encoder_hidden_states": noise(1, 9, 32)}),
    "Blip2ForConditionalGeneration": Particular(_BLIP, lambda: picture(4, noise(1, 3, 16, 16))),
    "InstructBlipForConditionalGeneration": Particular(
        _BLIP, lambda: picture(4, noise(1, 3, 16, 16), qformer_input_ids=ids(1, 5))),
    "InstructBlipVideoForConditionalGeneration": Particular(
        {**_BLIP, "video_token_index": IMAGE},
        lambda: picture(8, noise(1, 2, 3, 16, 16), qformer_input_ids=ids(1, 5))),
    "AyaVisionForConditionalGeneration": Particular(
        {"vision_config": _EYE, "text_config": {**TEXT, "layer_types": ["sliding_attention", "full_attention"]},
         "image_token_index": IMAGE}, lambda: picture(4, noise(1, 3, 16, 16))),
    "IdeficsForVisionText2Text": Particular(
        {**TEXT, "vision_config": {**_EYE, "embed_dim": 32}, "cross_layer_interval": 1},
        lambda: {"input_ids": ids(1, 7), "pixel_values": noise(1, 1, 3, 16, 16),
                 "image_attention_mask": torch.ones(1, 7, 1, dtype=torch.long)}),
    "ChameleonForConditionalGeneration": Particular(
        {**TEXT, "vocabulary_map": {"<image>": IMAGE, **{f"IMGIMG{'ABCD'[i % 4]}{'ABCD'[i // 4]}Z": 90 + i for i in
                                                           range(16)}},
         "vq_config": {"embed_dim": 16, "num_embeddings": 16, "latent_channels": 16, "resolution": 16,
                       "base_channels": 32, "channel_multiplier": [1, 2], "num_res_blocks": 1}},
        lambda: {"input_ids": ids(1, 7)}),
    "Kosmos2ForConditionalGeneration": Particular(
        {"text_config": {"embed_dim": 32, "layers": 2, "ffn_dim": 48, "attention_heads": 4, "vocab_size": 128},
         "vision_config": _EYE, "latent_query_num": 4},
        lambda: _typed(picture(4, noise(1, 3, 16, 16)), "image_embeds_position_mask")),
    "Pix2StructForConditionalGeneration": Particular(
        {"text_config": {"hidden_size": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
         "vision_config": {"hidden_size": 32, "patch_embed_hidden_size": 48, "d_kv": 8, "d_ff": 48,
                           "num_hidden_layers": 2, "num_attention_heads": 4, "seq_len": 16}},
        lambda: {"flattened_patches": torch.cat([1 + torch.cartesian_prod(*2 * [torch.arange(4.0)]), noise(16, 48)],
                                                1)[None],
                 "decoder_input_ids": ids(1, 5)}),
}  # fmt: skip
