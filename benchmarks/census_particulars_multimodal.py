"""What the census needs to know of models that take text along with images or sounds."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.census_particulars import (
    END,
    GLM_MOE,
    IMAGE,
    SECTIONED,
    SOUND,
    START,
    TEXT,
    Particular,
    ids,
    noise,
    rotary,
)

TOKENS = {
    "image_token_id": IMAGE, "image_token_index": IMAGE, "video_token_id": 86, "vision_start_token_id": START,
    "vision_end_token_id": END, "image_start_token_id": START, "image_end_token_id": END, "video_start_token_id": 81,
    "video_end_token_id": 82,
}  # fmt: skip
EYE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16,
    "patch_size": 4,
}  # fmt: skip
TOWER: dict[str, Any] = {
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


def typed(inputs: dict[str, Any], name: str = "mm_token_type_ids") -> dict[str, Any]:
    """The same with the places of an image marked."""
    return {**inputs, name: (inputs["input_ids"] == IMAGE).long()}


def in_patches(features: int = 96, places: int = 4) -> dict[str, Any]:
    """An image of four by four patches in a row, merged two by two."""
    return typed(picture(places, noise(16, features), image_grid_thw=torch.tensor([[1, 4, 4]])))


def tower(features: int = 96) -> dict[str, Any]:
    """The same image for a vision tower of its own."""
    return {"hidden_states": noise(16, features), "grid_thw": torch.tensor([[1, 4, 4]])}


_QWEN = {"text_config": SECTIONED, "vision_config": TOWER, **TOKENS}
_QWEN2 = {**_QWEN, "vision_config": {**TOWER, "hidden_size": 64}}
_GLM = {"text_config": SECTIONED, "vision_config": {**TOWER, "intermediate_size": 64}, **TOKENS}
_QFORMER: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "encoder_hidden_size": 32, "vocab_size": 128,
}  # fmt: skip
_BLIP: dict[str, Any] = {
    "vision_config": EYE, "qformer_config": _QFORMER, "num_query_tokens": 4, "image_text_hidden_size": 16,
    "image_token_index": IMAGE, "text_config": {
        "model_type": "opt", "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": 128, "word_embed_proj_dim": 32},
}  # fmt: skip
_FLAT = {"num_patches": 16, "patch_size": 4, "vision_use_head": True}
FLAT_EYE = {**EYE, **_FLAT}
_LLAMA = {"model_type": "llama", **TEXT}


def _patches_with_shapes() -> dict[str, Any]:
    return {
        "pixel_values": noise(1, 16, 48), "pixel_attention_mask": torch.ones(1, 16, dtype=torch.long),
        "spatial_shapes": torch.tensor([[4, 4]]),
    }  # fmt: skip


MUSE = {
    **EYE,
    "pos_emb_height": 4,
    "pos_emb_width": 4,
    "patch_temporal": 2,
    "layer_types": ["window_attention", "full_attention"],
}
ROPES = {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("sliding_attention", "full_attention")}
_GEMMA4_TEXT: dict[str, Any] = {
    **TEXT, "layer_types": ["sliding_attention", "full_attention"], "global_head_dim": 16, "rope_parameters": ROPES,
    "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 128,
}  # fmt: skip
_ASSISTANT = {
    "text_config": {**_GEMMA4_TEXT, "num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2,
                    "num_kv_shared_layers": 2, "vocab_size_per_layer_input": 0},
    "backbone_hidden_size": 32,
}  # fmt: skip
_GEMMA4_EYE = {**EYE, "num_key_value_heads": 4, "head_dim": 8, "pooling_kernel_size": 2, "position_embedding_size": 16}
_PE = {"embed_dim": 32, "img_size": [28, 28], "depth": 2, "num_heads": 2, "ref_feat_shape": [2, 2]}
_EAR: dict[str, Any] = {
    "num_mel_bins": 16, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48, "d_model": 32,
    "max_source_positions": 100, "output_dim": 64, "n_window_infer": 100, "conv_chunksize": 100,
    "downsample_hidden_size": 8,
}  # fmt: skip


def _muse() -> dict[str, Any]:
    return {"pixel_values": noise(16, 96), "grid_thw": torch.tensor([[1, 4, 4]])}


def _grid() -> torch.Tensor:
    """Where each of sixteen patches is."""
    return torch.cartesian_prod(*2 * [torch.arange(4)])[None]


def _shared() -> dict[str, Any]:
    """What an assistant is handed by the model that it assists."""
    states = {kind: (noise(1, 2, 7, 16), noise(1, 2, 7, 16)) for kind in ("sliding_attention", "full_attention")}
    return {"inputs_embeds": noise(1, 1, 64), "position_ids": torch.tensor([[6]]), "shared_kv_states": states}


def _seen_and_heard(places: int) -> dict[str, Any]:
    """An image, and a sound of a hundred frames."""
    inputs = in_patches()
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.full((1, places), SOUND), ids(1, 2)], 1)
    return {**typed(inputs), "input_features": noise(1, 16, 100), "feature_attention_mask": torch.ones(1, 100).long()}


MULTIMODAL: dict[str, Particular] = {
    "Qwen2VLForConditionalGeneration": Particular(_QWEN2, in_patches),
    "Qwen2_5_VLForConditionalGeneration": Particular(
        {**_QWEN, "vision_config": {**TOWER, "window_size": 8, "fullatt_block_indexes": [1]}}, in_patches),
    "ColQwen2ForRetrieval": Particular(
        {"vlm_config": {"model_type": "qwen2_vl", **_QWEN2}, "embedding_dim": 16},
        lambda: {**in_patches(), "pixel_values": noise(1, 16, 96)}),
    "Qwen3VLVisionModel": Particular(TOWER, tower),
    "Qwen3VLMoeVisionModel": Particular(TOWER, tower),
    "CohereCompassVisionModel": Particular(TOWER, tower),
    "VideoLlama3VisionModel": Particular(
        {**EYE, "patch_size": 4},
        lambda: {"pixel_values": noise(16, 48), "grid_thw": torch.tensor([[1, 4, 4]]),
                 "merge_sizes": torch.tensor([2])}),
    "PaddleOCRVLForConditionalGeneration": Particular(
        {"text_config": SECTIONED, "vision_config": {**EYE, "spatial_merge_size": 2}, **TOKENS},
        lambda: {**in_patches(), "pixel_values": noise(16, 3, 4, 4)}),
    "Glm4vForConditionalGeneration": Particular(_GLM, in_patches),
    "Glm46VForConditionalGeneration": Particular(_GLM, in_patches),
    "GlmOcrForConditionalGeneration": Particular(_GLM, in_patches),
    "Glm4vMoeForConditionalGeneration": Particular({**_GLM, "text_config": GLM_MOE}, in_patches),
    "HunYuanVLForConditionalGeneration": Particular(
        {"text_config": {**TEXT, **rotary(2, 2, 2, 2)},
         "vision_config": {**EYE, "num_key_value_heads": 4, "out_hidden_size": 64, "text_hidden_size": 64,
                           "max_image_size": 32}, **TOKENS},
        lambda: in_patches(48, 8)),
    "Siglip2VisionModel": Particular(FLAT_EYE, _patches_with_shapes),
    "Siglip2ForImageClassification": Particular({"vision_config": FLAT_EYE}, _patches_with_shapes),
    "Blip2QFormerModel": Particular(
        _QFORMER, lambda: {"query_embeds": noise(1, 4, 32), "encoder_hidden_states": noise(1, 9, 32)}),
    "Blip2ForConditionalGeneration": Particular(_BLIP, lambda: picture(4, noise(1, 3, 16, 16))),
    "InstructBlipForConditionalGeneration": Particular(
        _BLIP, lambda: picture(4, noise(1, 3, 16, 16), qformer_input_ids=ids(1, 5))),
    "InstructBlipVideoForConditionalGeneration": Particular(
        {**_BLIP, "video_token_index": IMAGE},
        lambda: picture(8, noise(1, 2, 3, 16, 16), qformer_input_ids=ids(1, 5))),
    "AyaVisionForConditionalGeneration": Particular(
        {"vision_config": EYE, "text_config": {**TEXT, "layer_types": ["sliding_attention", "full_attention"]},
         "image_token_index": IMAGE}, lambda: picture(4, noise(1, 3, 16, 16))),
    "IdeficsForVisionText2Text": Particular(
        {**TEXT, "vision_config": {**EYE, "embed_dim": 32}, "cross_layer_interval": 1},
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
         "vision_config": EYE, "latent_query_num": 4},
        lambda: typed(picture(4, noise(1, 3, 16, 16)), "image_embeds_position_mask")),
    "Pix2StructForConditionalGeneration": Particular(
        {"text_config": {"hidden_size": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
         "vision_config": {"hidden_size": 32, "patch_embed_hidden_size": 48, "d_kv": 8, "d_ff": 48,
                           "num_hidden_layers": 2, "num_attention_heads": 4, "seq_len": 16}},
        lambda: {"flattened_patches": torch.cat([1 + torch.cartesian_prod(*2 * [torch.arange(4.0)]), noise(16, 48)],
                                                1)[None],
                 "decoder_input_ids": ids(1, 5)}),
    "Kimi_K25VisionModel": Particular(
        {**EYE, "pos_emb_height": 4, "pos_emb_width": 4},
        lambda: {"pixel_values": noise(16, 3, 4, 4), "grid_thw": torch.tensor([[1, 4, 4]])}),
    "MuseGlimmerVisionModel": Particular(MUSE, _muse),
    "MuseSparkVisionModel": Particular(MUSE, _muse),
    "MuseGlimmerAssistantModel": Particular(
        {**TEXT, "layer_types": ["sliding_attention", "full_attention"], "block_size": 4, "target_layer_ids": [0, 1]},
        lambda: {"noise_embeds": noise(1, 4, 64), "context_hidden_states": noise(1, 6, 128)}),
    "Inkling2VisionModel": Particular(
        {**EYE, "posemb_grid_size": 4, "projection_hidden_dim": 48, "text_hidden_size": 32},
        lambda: {"pixel_values": noise(4, 8, 8, 3), "image_grid_thw": torch.tensor([[1, 2, 2]])}),
    "MiniCPMV4_7VisionModel": Particular(
        {**EYE, "insert_layer_id": 0},
        lambda: {"pixel_values": noise(1, 3, 4, 64), "target_sizes": torch.tensor([[4, 4]]).int()}),
    "MiniCPMOcrVisionModel": Particular(
        {**EYE, "insert_layer_id": 0},
        lambda: {"pixel_values": noise(1, 3, 4, 64), "target_sizes": torch.tensor([[4, 4]]).int()}),
    "Gemma4VisionModel": Particular(
        _GEMMA4_EYE, lambda: {"pixel_values": noise(1, 16, 48), "pixel_position_ids": _grid()}),
    "Gemma4ForConditionalGeneration": Particular(
        {"text_config": _GEMMA4_TEXT, "vision_config": _GEMMA4_EYE, **TOKENS},
        lambda: typed(picture(4, noise(1, 16, 48), image_position_ids=_grid())), cut=False),
    "Gemma4UnifiedForConditionalGeneration": Particular(
        {"text_config": _GEMMA4_TEXT, **TOKENS,
         "vision_config": {"patch_size": 2, "pooling_kernel_size": 2, "mm_embed_dim": 32, "mm_posemb_size": 8,
                           "output_proj_dims": 32}},
        lambda: typed(picture(16, noise(1, 16, 48), image_position_ids=_grid())), cut=False),
    "Gemma4UnifiedAssistantForCausalLM": Particular(_ASSISTANT, _shared, cut=False),
    "EmbeddingGemma2Model": Particular(
        {"text_config": {**_GEMMA4_TEXT, "hidden_size_per_layer_input": 16, "embedding_dim": 32}, **TOKENS},
        lambda: {"input_ids": ids(1, 7)}, cut=False),
    "DiffusionGemmaForBlockDiffusion": Particular(
        {"text_config": {**_GEMMA4_TEXT, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32},
         "vision_config": _GEMMA4_EYE, "canvas_length": 4, **TOKENS},
        lambda: {"input_ids": ids(1, 7), "decoder_input_ids": ids(1, 4)}, cut=False),
    "T5Gemma2Encoder": Particular(
        {"text_config": {**TEXT, "layer_types": ["sliding_attention", "full_attention"], "dropout_rate": 0.0},
         "vision_config": EYE, "mm_tokens_per_image": 4, **TOKENS}, lambda: {"input_ids": ids(1, 7)}),
    "Gemma3nForConditionalGeneration": Particular(
        {"text_config": {**TEXT, "num_hidden_layers": 4, "num_kv_shared_layers": 2, "intermediate_size": [96] * 4,
                         "layer_types": ["sliding_attention", "full_attention"] * 2, "vocab_size_per_layer_input": 128,
                         "hidden_size_per_layer_input": 16, "laurel_rank": 8,
                         "activation_sparsity_pattern": [0.9, 0.0, 0.0, 0.0]},
         "vision_config": {"architecture": "test_resnet", "hidden_size": 96, "vocab_size": 8, "vocab_offset": 112},
         "audio_config": {"input_feat_size": 32, "hidden_size": 32, "conf_num_attention_heads": 4,
                          "conf_num_hidden_layers": 2, "sscp_conv_channel_size": [8, 4], "vocab_size": 8,
                          "vocab_offset": 120},
         "vision_soft_tokens_per_image": 4, **TOKENS},
        lambda: typed(picture(4, noise(1, 3, 64, 64)), "token_type_ids"), cut=False),
    "Granite4VisionForConditionalGeneration": Particular(
        {"vision_config": {"model_type": "siglip_vision_model", **EYE, "hidden_size": 64, "vision_use_head": False},
         "text_config": {**TEXT, "num_key_value_heads": 4, "num_hidden_layers": 4},
         "qformer_config": {"model_type": "blip_2_qformer", **_QFORMER, "num_hidden_layers": 1},
         "downsample_rate": "1/2", "deepstack_layer_map": [[0, 0], [1, 1]], "spatial_target_layers": [0, 1, 2, 3],
         "image_grid_pinpoints": [[16, 16]], "vision_feature_select_strategy": "full", **TOKENS},
        lambda: picture(4 + 6, noise(1, 2, 3, 16, 16), image_sizes=torch.tensor([[16, 16]])), cut=False),
    "PerceptionLMForConditionalGeneration": Particular(
        {"vision_config": {"architecture": "vit_pe_core_large_patch14_336", "num_classes": 32, "model_args": _PE},
         "text_config": {"model_type": "llama", **TEXT}, **TOKENS}, lambda: picture(4, noise(1, 1, 3, 28, 28))),
    "FastVlmForConditionalGeneration": Particular(
        {"vision_config": {"architecture": "fastvit_t8", "model_args": {"inference_mode": True}, "hidden_size": 768},
         "text_config": {"model_type": "qwen2", **TEXT}, **TOKENS}, lambda: picture(4, noise(1, 3, 64, 64))),
    "GlmImageModel": Particular(
        {"text_config": {**SECTIONED, "vision_vocab_size": 128}, "vision_config": {**TOWER, "spatial_merge_size": 1},
         "vq_config": {"embed_dim": 32, "num_embeddings": 16, "latent_channels": 32}, **TOKENS},
        lambda: {"input_ids": ids(1, 7)}),
    "CohereCompassForConditionalGeneration": Particular(
        {"text_config": {**TEXT, "layer_types": ["full_attention", "sliding_attention"],
                         "rope_parameters": {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in
                                             ("full_attention", "sliding_attention")}},
         "vision_config": TOWER, **TOKENS}, in_patches),
    "Ernie4_5_VLMoeForConditionalGeneration": Particular(
        {"text_config": {**TEXT, **rotary(2, 2, 4), "moe_intermediate_size": [32, 16], "moe_k": 2, "moe_num_experts": 4,
                         "moe_num_shared_experts": 1, "mlp_layer_types": ["dense", "sparse"]},
         "vision_config": {**TOWER, "temporal_merge_size": 2}, **TOKENS}, lambda: in_patches(48), cut=False),
    "Step3p7ForConditionalGeneration": Particular(
        {"text_config": {**TEXT, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
                         "share_expert_dim": 32, "mlp_layer_types": ["dense", "sparse"],
                         "layer_types": ["full_attention"] * 2, "num_sliding_attention_heads": 4, "sliding_window": 8},
         "vision_config": {**EYE, "image_size": 32}, **TOKENS},
        lambda: picture(4, noise(1, 3, 32, 32)), cut=False),
    "Qwen2_5OmniThinkerForConditionalGeneration": Particular(
        {"text_config": SECTIONED, "vision_config": {**TOWER, "window_size": 8, "fullatt_block_indexes": [1]},
         "audio_config": {**_EAR, "n_window": 50}, **TOKENS, "audio_token_index": SOUND},
        lambda: _seen_and_heard(25)),
    "Qwen3OmniMoeThinkerForConditionalGeneration": Particular(
        {"text_config": {**SECTIONED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
         "vision_config": TOWER, "audio_config": {**_EAR, "n_window": 50}, **TOKENS, "audio_token_id": SOUND},
        lambda: _seen_and_heard(13)),
    "PI0ForConditionalGeneration": Particular(
        {"vlm_config": {"model_type": "paligemma", "vision_config": {"model_type": "siglip_vision_model", **EYE,
                                                                     "vision_use_head": False},
                        "text_config": {"model_type": "gemma", **TEXT}, "projection_dim": 64, **TOKENS},
         "dit_config": {"model_type": "gemma", **TEXT}, "chunk_size": 4, "max_state_dim": 6, "max_action_dim": 6},
        lambda: {**picture(16, noise(1, 1, 3, 16, 16)), "pixel_attention_mask": torch.ones(1, 1).long(),
                 "state": noise(1, 6), "noise": noise(1, 4, 6),
                 "timestep": torch.tensor([0.4])}),
    "JevForDecision": Particular(
        {"text_config": {**TEXT, **rotary(1, 1, 2, partial_rotary_factor=0.5), "linear_key_head_dim": 8,
                         "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
                         "layer_types": ["linear_attention", "full_attention"]}, "hidden_size": 64},
        lambda: {"input_ids": ids(1, 7), "marks": torch.tensor([[6]]), "num_options": torch.tensor([[3]]),
                 "question_type_ids": torch.tensor([[2]])}),
    "DeepseekOcr2ForConditionalGeneration": Particular(
        {"text_config": {**TEXT, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
                         "n_shared_experts": 1, "mlp_layer_types": ["dense", "sparse"]},
         "vision_config": {"sam_config": {**EYE, "image_size": 64, "output_channels": 16, "window_size": 4,
                                          "global_attn_indexes": [1], "mlp_dim": 48, "downsample_channels": [24, 64]},
                           "encoder_config": {**TEXT, "num_key_value_heads": 4}}, **TOKENS},
        lambda: picture(145, noise(1, 3, 64, 64)), cut=False),
    "NemotronH_Omni_Reasoning_V3": Particular(
        {"text_config": {**TEXT, "ssm_state_size": 8, "mamba_num_heads": 8, "mamba_head_dim": 16, "n_groups": 2,
                         "chunk_size": 8, "n_routed_experts": 4, "moe_intermediate_size": 32,
                         "use_mamba_kernels": False, "moe_shared_expert_intermediate_size": 32, "num_hidden_layers": 4},
         "vision_config": {**EYE, "max_img_size": 16, "video_temporal_patch_size": 2, "num_cls_tokens": 2,
                           "num_registers": 2}, **TOKENS,
         "projector_hidden_size": 48, "vision_hidden_size": 32, "audio_token_id": SOUND},
        lambda: picture(4, noise(16, 48), image_grid_hw=torch.tensor([[4, 4]])), cut=False),
}  # fmt: skip
