"""What the census needs to know of models of images, detectors and segmenters."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.census_particulars import Particular, ids, noise

_VIT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
_SAM: dict[str, Any] = {
    "vision_config": {**_VIT, "output_channels": 16, "image_size": 64, "window_size": 2, "global_attn_indexes": [1],
                      "num_pos_feats": 8, "mlp_dim": 48},
    "prompt_encoder_config": {"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 16},
    "mask_decoder_config": {"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
                            "vit_dim": 32},
}  # fmt: skip
_HIERA: dict[str, Any] = {
    "model_type": "sam2_hiera_det_model", "hidden_size": 16, "image_size": [128, 128], "blocks_per_stage": [1, 2, 2, 1],
    "embed_dim_per_stage": [16, 32, 64, 128], "num_attention_heads_per_stage": [1, 2, 2, 2],
    "window_size_per_stage": [8, 4, 4, 4], "global_attention_blocks": [4],
}  # fmt: skip
_SAM2: dict[str, Any] = {
    "vision_config": {"backbone_config": _HIERA, "backbone_channel_list": [128, 64, 32, 16], "fpn_hidden_size": 32,
                      "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]]},
    "prompt_encoder_config": {"hidden_size": 32, "image_size": 128, "mask_input_channels": 16},
    "mask_decoder_config": {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
}  # fmt: skip
_SWIN: dict[str, Any] = {
    "model_type": "swin", "image_size": 64, "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [2, 2, 4, 4],
    "window_size": 4,
}  # fmt: skip
_BERT: dict[str, Any] = {
    "model_type": "bert", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "vocab_size": 128,
}  # fmt: skip
_DETECTOR: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_queries": 10, "disable_custom_kernels": True,
}  # fmt: skip
_DINO = {
    **_DETECTOR, "text_config": _BERT, "max_text_len": 7,
    "backbone_config": {**_SWIN, "out_indices": [2, 3, 4]},
}  # fmt: skip
_LW: dict[str, Any] = {
    "d_model": 32, "decoder_layers": 2, "decoder_ffn_dim": 48, "decoder_self_attention_heads": 4,
    "decoder_cross_attention_heads": 4, "num_queries": 10, "group_detr": 2, "c2f_num_blocks": 1,
}  # fmt: skip
_WINDOWS: dict[str, Any] = {
    **_VIT, "num_hidden_layers": 4, "image_size": 64, "pretrain_image_size": 64, "num_windows": 4,
    "num_windows_side": 2, "window_block_indices": [0, 2], "window_block_indexes": [0, 2],
}  # fmt: skip


def _image(size: int = 64, name: str = "pixel_values") -> dict[str, Any]:
    return {name: noise(1, 3, size, size)}


def _pointed(size: int) -> dict[str, Any]:
    """An image and a point in it."""
    return {
        **_image(size),
        "input_points": torch.tensor([[[[20.0, 30.0]]]]),
        "input_labels": torch.ones(1, 1, 1).long(),
    }


_EDGE = {
    "backbone_config": {"model_type": "timm_wrapper", "architecture": "test_resnet", "num_classes": 2,
                        "model_args": {"in_chans": 3, "features_only": True, "out_indices": [1, 2, 3, 4]}},
    "backbone_channel_list": [96, 192, 48, 32],
    "fpn_hidden_size": 32, "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
}  # fmt: skip
_HGNET: dict[str, Any] = {
    "stem_channels": [3, 8, 12], "stage_in_channels": [12, 16, 24, 32], "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [16, 24, 32, 48], "stage_num_blocks": [1, 1, 1, 1], "stage_numb_of_layers": [2, 2, 2, 2],
    "embedding_size": 8, "hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1],
}  # fmt: skip
_LCNET: dict[str, Any] = {
    "model_type": "pp_lcnet_v4", "out_indices": [1, 2, 3, 4], "stem_channels": [3, 8, 8],
    "block_configs": [[[3, 8, 8, 1, True]], [[3, 8, 16, 2, False]], [[3, 16, 24, 2, True]], [[3, 24, 32, 2, False]]],
}  # fmt: skip
_LONG = [f"{way}_{ratio}ratio" for ratio in ("long", "mid", "short") for way in (
    "vertical_long_to_small_conv", "horizontal_small_to_long_conv", "symmetric_conv_long")]  # fmt: skip
_NECK: dict[str, Any] = {
    "neck_out_channels": 16, "scale_factor_list": [1, 2, 4, 8], "kernel_list": [3, 2, 2],
    "intraclass_block_config": {**{k: [3, 1, 1] for k in _LONG}, "reduce_channel": [1, 1, 0],
                                "return_channel": [1, 1, 0]},
}  # fmt: skip
_CORE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 8,
}  # fmt: skip
_PE = {
    **_CORE,
    "vision_config": {
        "architecture": "vit_pe_core_large_patch14_336",
        "num_classes": 16,
        "model_args": {"embed_dim": 32, "img_size": [28, 28], "depth": 2, "num_heads": 2, "ref_feat_shape": [2, 2]},
    },
}
_PE_BOTH = {
    **_CORE,
    "video_config": _PE,
    "audio_config": {
        **_CORE,
        "dac_config": {"encoder_hidden_size": 4, "downsampling_ratios": [2, 4], "codebook_dim": 16, "hidden_size": 16},
    },
}
_MODERN = {
    "model_type": "modernbert",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 128,
    "pad_token_id": 0,
    "layer_types": ["full_attention"] * 2,
}


def _film() -> dict[str, Any]:
    return {"pixel_values_videos": noise(1, 4, 3, 28, 28)}


VISION: dict[str, Particular] = {
    "SamModel": Particular(_SAM, lambda: _pointed(64)),
    "SamHQModel": Particular(_SAM, lambda: _pointed(64)),
    "Sam2Model": Particular(_SAM2, lambda: _pointed(128), cut=False),
    "GroundingDinoForObjectDetection": Particular(_DINO, lambda: {**_image(128), "input_ids": ids(1, 7)}, cut=False),
    "MMGroundingDinoForObjectDetection": Particular(_DINO, lambda: {**_image(128), "input_ids": ids(1, 7)}, cut=False),
    "OneFormerForUniversalSegmentation": Particular(
        {"backbone_config": {**_SWIN, "out_indices": [1, 2, 3, 4]}, "num_queries": 6, "conv_dim": 32, "mask_dim": 32,
         "hidden_dim": 32, "encoder_feedforward_dim": 32, "encoder_layers": 1, "decoder_layers": 2,
         "num_attention_heads": 4, "dim_feedforward": 32, "query_dec_layers": 1, "text_encoder_width": 32,
         "text_encoder_num_layers": 1, "text_encoder_vocab_size": 128, "task_seq_len": 7},
        lambda: {**_image(), "task_inputs": ids(1, 7)}, cut=False),
    "RfDetrDinov2Backbone": Particular({**_WINDOWS, "out_indices": [2, 4]}, _image, cut=False),
    "RfDetrForObjectDetection": Particular(
        {**_LW, "backbone_config": {"model_type": "rf_detr_dinov2", **_WINDOWS, "out_indices": [2, 4]}}, _image,
        cut=False),
    "LwDetrViTBackbone": Particular({**_WINDOWS, "out_indices": [2, 4]}, _image, cut=False),
    "LwDetrForObjectDetection": Particular(
        {**_LW, "projector_scale_factors": [1.0],
         "backbone_config": {"model_type": "lw_detr_vit", **_WINDOWS, "out_indices": [2, 4]}}, _image, cut=False),
    "VitMatteForImageMatting": Particular(
        {"backbone_config": {"model_type": "vitdet", **_VIT, "pretrain_image_size": 32, "num_channels": 4,
                             "out_features": ["stage2"], "patch_size": 16, "image_size": 64},
         "hidden_size": 32, "convstream_hidden_sizes": [8, 16, 24], "fusion_hidden_sizes": [32, 16, 12, 8]},
        lambda: {"pixel_values": noise(1, 4, 64, 64)}, cut=False),
    "VitPoseBackbone": Particular(
        {**_VIT, "image_size": [32, 32], "patch_size": [8, 8], "out_indices": [1, 2]}, lambda: _image(32), cut=False),
    "VitPoseForPoseEstimation": Particular(
        {"backbone_config": {"model_type": "vitpose_backbone", **_VIT, "image_size": [32, 32], "patch_size": [8, 8],
                             "out_indices": [2]}}, lambda: _image(32), cut=False),
    "OmDetTurboForObjectDetection": Particular(
        {"backbone_config": {**_SWIN, "out_indices": [2, 3, 4]}, "image_size": 64, "num_queries": 10,
         "text_config": {"model_type": "clip_text_model", "hidden_size": 48, "intermediate_size": 48,
                         "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 128, "projection_dim": 48,
                         "max_position_embeddings": 16},
         "text_projection_in_dim": 48, "text_projection_out_dim": 48, "task_encoder_hidden_dim": 32,
         "class_embed_dim": 48,
         "apply_layernorm_after_vision_backbone": False, "d_model": 32, "vision_features_channels": [32, 32, 32],
         "encoder_in_channels": [32, 64, 128], "encoder_attention_heads": 4, "encoder_dim_feedforward": 48,
         "decoder_hidden_dim": 32, "decoder_num_heads": 4, "decoder_num_layers": 2, "decoder_dim_feedforward": 48,
         "disable_custom_kernels": True},
        lambda: {**_image(), "classes_input_ids": ids(2, 5), "classes_attention_mask": torch.ones(2, 5).long(),
                 "tasks_input_ids": ids(1, 5), "tasks_attention_mask": torch.ones(1, 5).long(),
                 "classes_structure": torch.tensor([2])}, cut=False),
    "SegGptModel": Particular(
        {**_VIT, "image_size": [64, 32], "mlp_dim": 48, "pretrain_image_size": 32, "decoder_hidden_size": 8,
         "merge_index": 0, "intermediate_hidden_state_indices": [0, 1]},
        lambda: {**_image(32), **_image(32, "prompt_pixel_values"), **_image(32, "prompt_masks")}),
    "TvpModel": Particular(
        {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "max_img_size": 64, "visual_prompt_size": 8, "num_frames": 2,
         "backbone_config": {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 16, 16, 32],
                             "depths": [1, 1, 1, 1], "layer_type": "basic", "out_features": ["stage4"]}},
        lambda: {"input_ids": ids(1, 7), "pixel_values": noise(1, 2, 3, 64, 64)}),
    "DepthProForDepthEstimation": Particular(
        {**{f"{part}_model_config": {"model_type": "dinov2", **_VIT, "image_size": 16, "patch_size": 4, "mlp_ratio": 2,
                                     "num_hidden_layers": 4} for part in ("image", "patch", "fov")},
         "patch_size": 16, "fusion_hidden_size": 16, "intermediate_hook_ids": [3, 1],
         "intermediate_feature_dims": [16, 16], "scaled_images_feature_dims": [32, 32, 16]}, _image, cut=False),
    "TimmBackbone": Particular({"backbone": "test_resnet", "out_indices": [2, 3]}, _image, cut=False),
    "EdgeTamVisionModel": Particular(_EDGE, lambda: _image(128), cut=False),
    "EdgeTamModel": Particular(
        {"vision_config": _EDGE, "prompt_encoder_config": _SAM2["prompt_encoder_config"],
         "mask_decoder_config": _SAM2["mask_decoder_config"]}, lambda: _pointed(128), cut=False),
    "UVDocModel": Particular(
        {"backbone_config": {"model_type": "uvdoc_backbone", "resnet_head": [[3, 8], [8, 8]],
                             "resnet_configs": [[[8, 8, 1, False], [8, 8, 3, False]], [[8, 16, 3, True]],
                                                [[16, 32, 3, True]]],
                             "stage_configs": [[[32, 1]], [[32, 2]]], "out_indices": [1, 2]},
         "bridge_connector": [32, 32], "out_point_positions2D": [[32, 8], [8, 2]]}, _image, cut=False),
    "PPOCRV5ServerDetForObjectDetection": Particular(
        {"backbone_config": {"model_type": "hgnet_v2", **_HGNET, "out_indices": [1, 2, 3, 4]}, **_NECK}, _image,
        cut=False),
    "PPOCRV6MediumDetForObjectDetection": Particular(
        {"backbone_config": _LCNET, **_NECK}, _image, cut=False),
    "PPOCRV6SmallDetForObjectDetection": Particular(
        {"backbone_config": _LCNET, "neck_out_channels": 16,
         "layer_list_out_channels": [8, 16, 24, 32]}, _image, cut=False),
    "PPDocLayoutV2ForObjectDetection": Particular(
        {"backbone_config": {"model_type": "hgnet_v2", **_HGNET, "out_indices": [2, 3, 4]},
         "encoder_hidden_dim": 32, "encoder_in_channels": [24, 32, 48], "encoder_ffn_dim": 48,
         "encoder_attention_heads": 4, "d_model": 32, "num_queries": 10, "decoder_in_channels": [32, 32, 32],
         "decoder_ffn_dim": 48, "decoder_layers": 2, "decoder_attention_heads": 4,
         "num_labels": 2, "class_thresholds": [0.0, 0.0], "class_order": [0, 1],
         "reading_order_config": {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48,
                                  "num_hidden_layers": 2, "coordinate_size": 6, "shape_size": 4,
                                  "global_pointer_head_size": 8, "relation_bias_embed_dim": 4}}, _image, cut=False),
    "Sapiens2ForSemanticSegmentation": Particular(
        {**_VIT, "num_key_value_attention_heads": 2, "num_first_full_attention_layers": 1,
         "num_last_full_attention_layers": 0, "num_register_tokens": 2, "out_indices": [2],
         "num_key_value_heads_per_layer": [4, 2],
         "head_config": {"upsample_out_channels": [16, 16], "conv_out_channels": [8]}}, lambda: _image(32), cut=False),
    "PeVideoEncoder": Particular(_PE, _film, cut=False),
    "PeVideoModel": Particular(
        {"video_config": _PE, "text_config": _MODERN}, lambda: {**_film(), "input_ids": ids(1, 7)}, cut=False),
    "PeAudioVideoEncoder": Particular(_PE_BOTH, lambda: {**_film(), "input_values": noise(1, 1, 640)}, cut=False),
    "PeAudioVideoModel": Particular(
        {"audio_video_config": _PE_BOTH, "text_config": _MODERN},
        lambda: {**_film(), "input_values": noise(1, 1, 640), "input_ids": ids(1, 7)}, cut=False),
}  # fmt: skip
