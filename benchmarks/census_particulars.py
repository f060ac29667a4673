"""Classes of transformers that no general cut makes small, or no name of an argument feeds: what each wants.

A row gives keyword arguments of the configuration (layers, vocabularies and positions are cut as ever) and, where
the names of the arguments do not say what the model is fed, its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

IMAGE, START, END, SOUND = 85, 83, 84, 87  # token ids of an image's place, of what stands around it, of a sound's place
Inputs = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Particular:
    """What one class wants.

    Attributes:
        config: keyword arguments of its configuration; those of configurations within are dictionaries.
        inputs: its keyword arguments; without them they are found from the names of what it takes.
        cut: layers, vocabularies and positions are cut; else the configuration is taken as it is given.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Inputs | None = None
    cut: bool = True


def noise(*shape: int) -> Tensor:
    """Normal noise, the same at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def ids(*shape: int, below: int = 80) -> Tensor:
    """Token ids, the same at every call; the lowest, which are special as a rule, are left out."""
    return torch.randint(5, below, shape, generator=torch.Generator().manual_seed(1))


# Widths of a text model; sections of its rotary positions, where it has such, fill half a head.
TEXT: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 128, "max_position_embeddings": 128,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def rotary(*sections: int, **more: Any) -> dict[str, Any]:
    """Rotary positions in sections, as many as a position has axes; in sum half of what is rotated of a head."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": list(sections), **more}}


SECTIONED = {**TEXT, **rotary(2, 3, 3)}
_HALF_ROTARY = rotary(1, 1, 2, partial_rotary_factor=0.5)
GLM_MOE = {**TEXT, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, **_HALF_ROTARY}

TEXTS: dict[str, Particular] = {
    "DbrxForCausalLM": Particular(
        {"d_model": 64, "n_heads": 4, "n_layers": 2,
         "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
         "ffn_config": {"hidden_size": 64, "ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2}}),
    "DeepseekV2ForCausalLM": Particular(
        {**TEXT, "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 24, "qk_nope_head_dim": 16,
         "qk_rope_head_dim": 16, "v_head_dim": 16, "n_routed_experts": 4, "num_experts_per_tok": 2,
         "moe_intermediate_size": 32, "n_shared_experts": 1}),
    "BailingHybridForCausalLM": Particular(
        {**TEXT, "num_key_value_heads": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16,
         "v_head_dim": 16, "num_experts": 8, "num_expert_group": 2, "topk_group": 1, "num_experts_per_token": 2,
         "moe_intermediate_size": 32, "layer_types": ["linear_attention", "full_attention"],
         "mlp_layer_types": ["dense", "sparse"], "linear_head_dim": 16, "linear_num_heads": 4}),
    "CohereCompassForCausalLM": Particular(
        {**TEXT, "layer_types": ["full_attention", "sliding_attention"],
         "rope_parameters": {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in
                             ("full_attention", "sliding_attention")}}),
    "Gemma3nForCausalLM": Particular(
        {**TEXT, "num_hidden_layers": 4, "num_kv_shared_layers": 2, "intermediate_size": [96] * 4,
         "layer_types": ["sliding_attention", "full_attention"] * 2, "vocab_size_per_layer_input": 128,
         "hidden_size_per_layer_input": 16, "laurel_rank": 8, "activation_sparsity_pattern": [0.9, 0.0, 0.0, 0.0]},
        cut=False),
    "GraniteMoeHybridForCausalLM": Particular(
        {**TEXT, "num_local_experts": 4, "shared_intermediate_size": 32, "mamba_n_heads": 8, "mamba_d_head": 16,
         "mamba_d_state": 16, "mamba_chunk_size": 16, "layer_types": ["linear_attention", "full_attention"]}),
    "HunYuanDenseV1ForCausalLM": Particular(TEXT),
    "HunYuanMoEV1ForCausalLM": Particular({**TEXT, "num_experts": 4, "moe_topk": 2}),
    "HunYuanVLTextModel": Particular({**TEXT, **rotary(2, 2, 2, 2)}),
    "Lfm2MoeForCausalLM": Particular(
        {**TEXT, **EXPERTS, "num_dense_layers": 1, "layer_types": ["conv", "full_attention"]}),
    "MinistralForCausalLM": Particular(TEXT),
    "NemotronForCausalLM": Particular(TEXT),
    "Qwen4ExpForCausalLM": Particular({**TEXT, **EXPERTS}),
    "Qwen2VLTextModel": Particular(SECTIONED),
    "Qwen2_5_VLTextModel": Particular(SECTIONED),
    "Glm4vTextModel": Particular(SECTIONED),
    "Glm4vMoeTextModel": Particular(GLM_MOE),
    "GlmImageTextModel": Particular({**SECTIONED, "vision_vocab_size": 128}),
    "XmodForCausalLM": Particular(
        {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "is_decoder": True,
         "default_language": "en_XX"}),
    "ZambaForCausalLM": Particular(
        {**TEXT, "num_hidden_layers": 5, "attention_hidden_size": 128, "attention_head_dim": 32, "mamba_dt_rank": 8,
         "num_key_value_heads": 4, "use_mamba_kernels": False,
         "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid", "linear_attention"]},
        cut=False),
    "EsmForMaskedLM": Particular(
        {**TEXT, "pad_token_id": 1, "mask_token_id": 4, "position_embedding_type": "rotary"}),
    "PerceiverForMaskedLM": Particular(
        {"num_latents": 8, "d_latents": 64, "d_model": 48, "num_self_attends_per_block": 2,
         "num_self_attention_heads": 4, "num_cross_attention_heads": 4, "max_position_embeddings": 7}),
    "SplinterForPreTraining": Particular(
        {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "question_token_id": 84},
        lambda: {"input_ids": torch.cat([ids(1, 4), torch.tensor([[84]]), ids(1, 5)], 1)}),
}  # fmt: skip
