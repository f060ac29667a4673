"""What the census needs to know of models of sounds and of series, and of what is neither text nor image."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.census_particulars import SOUND, TEXT, Particular, ids, noise

_BERT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 128,
}  # fmt: skip
_FORECAST: dict[str, Any] = {
    "prediction_length": 4, "context_length": 12, "lags_sequence": [1, 2, 3], "num_time_features": 2, "d_model": 16,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
}  # fmt: skip
_MIMI: dict[str, Any] = {
    "hidden_size": 32, "num_filters": 4, "upsampling_ratios": [4, 2], "codebook_size": 32, "codebook_dim": 16,
    "num_quantizers": 4, "vector_quantization_hidden_dimension": 16, "upsample_groups": 32, "num_hidden_layers": 2,
    "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8, "sampling_rate": 240,
}  # fmt: skip
_MUSIC: dict[str, Any] = {
    "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_codebooks": 2,
    "vocab_size": 64, "pad_token_id": 64, "bos_token_id": 64,
}  # fmt: skip
_TOKENIZER: dict[str, Any] = {
    "hidden_size": 16, "num_filters": 4, "downsampling_ratios": [2, 2, 4], "depths": [1, 1, 1, 1], "ffn_expansion": 2,
}  # fmt: skip


def _forecast() -> dict[str, Any]:
    past, future = 15, 4
    return {
        "past_values": noise(1, past) + 3, "past_time_features": noise(1, past, 2),
        "past_observed_mask": torch.ones(1, past), "future_values": noise(1, future) + 3,
        "future_time_features": noise(1, future, 2),
    }  # fmt: skip


_CODEC: dict[str, Any] = {
    "semantic_model_config": {"model_type": "wav2vec2-bert", "hidden_size": 32, "num_hidden_layers": 2,
                              "num_attention_heads": 4, "intermediate_size": 48, "feature_projection_input_dim": 16},
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 8, "encoder_hidden_size": 4, "downsampling_ratios": [2, 2],
    "quantization_dim": 64,
}  # fmt: skip
_GRANITE: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 8, "num_mel_bins": 16, "max_position_embeddings": 16, "context_size": 8,
}  # fmt: skip


def _heard() -> dict[str, Any]:
    return {"input_values": noise(1, 1, 64), "input_features": noise(1, 16, 16)}


def _spoken() -> dict[str, Any]:
    """Text around the ten places of a sound."""
    text = torch.cat([ids(1, 3), torch.full((1, 10), SOUND), ids(1, 2)], 1)
    return {
        "input_ids": text,
        "input_values": noise(1, 1, 160),
        "padding_mask": torch.ones(1, 160).bool(),
        "sample": False,
    }


SERIES: dict[str, Particular] = {
    "InformerModel": Particular(_FORECAST, _forecast),
    "AutoformerModel": Particular({**_FORECAST, "label_length": 6, "moving_average": 5}, _forecast),
    "TimeSeriesTransformerModel": Particular(_FORECAST, _forecast),
    "DecisionTransformerModel": Particular(
        {"hidden_size": 32, "n_head": 2, "n_inner": 48, "state_dim": 5, "act_dim": 3, "n_positions": 64,
         "max_ep_len": 64},
        lambda: {"states": noise(1, 6, 5), "actions": noise(1, 6, 3), "rewards": noise(1, 6, 1),
                 "returns_to_go": noise(1, 6, 1), "timesteps": torch.arange(6)[None],
                 "attention_mask": torch.ones(1, 6).long()}),
    "LxmertForPreTraining": Particular(
        {**_BERT, "l_layers": 2, "x_layers": 2, "r_layers": 2, "visual_feat_dim": 12},
        lambda: {"input_ids": ids(1, 7), "visual_feats": noise(1, 5, 12), "visual_pos": noise(1, 5, 4).sigmoid()},
        cut=False),
    "ClapModel": Particular(
        {"text_config": {**_BERT, "projection_dim": 16},
         "audio_config": {"window_size": 4, "num_mel_bins": 16, "spec_size": 64, "hidden_size": 64,
                          "patch_embeds_hidden_size": 16, "depths": [1, 1, 1], "num_attention_heads": [2, 2, 4],
                          "num_hidden_layers": 3, "projection_dim": 16},
         "projection_dim": 16},
        lambda: {"input_ids": ids(1, 7), "input_features": noise(1, 1, 256, 16),
                 "is_longer": torch.zeros(1, 1, dtype=torch.bool)}, cut=False),
    "MusicgenForCausalLM": Particular(_MUSIC, lambda: {"input_ids": ids(2, 7, below=60)}),
    "MusicgenMelodyForCausalLM": Particular(_MUSIC, lambda: {"input_ids": ids(2, 7, below=60)}),
    "MimiDecoderModel": Particular(_MIMI, lambda: {"latents": noise(1, 32, 8)}),
    "KyutaiSpeechToTextForConditionalGeneration": Particular(
        {**TEXT, "ffn_dim": 192, "num_key_value_heads": 4, "codec_config": {"model_type": "mimi", **_MIMI},
         "codebook_vocab_size": 33, "num_codebooks": 4, "audio_bos_token_id": 32, "audio_pad_token_id": 131},
        lambda: {"input_ids": torch.cat([ids(1, 7, 1), ids(1, 7, 4, below=30)], 2)}),
    "CsmForConditionalGeneration": Particular(
        {**TEXT, "text_vocab_size": 128, "vocab_size": 64, "num_codebooks": 4, "codebook_pad_token_id": 63,
         "audio_token_id": 90, "audio_eos_token_id": 91, "pad_token_id": 92, "bos_token_id": 93,
         "codec_config": {"model_type": "mimi", **_MIMI},
         "depth_decoder_config": {**TEXT, "vocab_size": 64, "num_codebooks": 4, "backbone_hidden_size": 64}},
        lambda: {"input_ids": ids(1, 7, 4, below=60)}, cut=False),
    "DiaForConditionalGeneration": Particular(
        {"encoder_config": TEXT, "decoder_config": {**TEXT, "num_channels": 3, "cross_num_attention_heads": 4,
                                                    "cross_head_dim": 16, "cross_num_key_value_heads": 4,
                                                    "cross_hidden_size": 64}, "delay_pattern": [0, 1, 2]},
        lambda: {"input_ids": ids(1, 7), "decoder_input_ids": ids(1, 5, 3)}),
    "XcodecModel": Particular(
        {"acoustic_model_config": {"model_type": "dac", "encoder_hidden_size": 4, "decoder_hidden_size": 64,
                                   "hidden_size": 64, "n_codebooks": 2, "codebook_size": 16},
         "semantic_model_config": {"model_type": "hubert", **_BERT, "conv_dim": [16] * 7,
                                   "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4},
         "codebook_size": 16, "codebook_dim": 96},
        lambda: {"input_values": noise(1, 1, 3200)}, cut=False),
    "VibeVoiceAcousticTokenizerModel": Particular(
        _TOKENIZER, lambda: {"input_values": noise(1, 1, 160), "sample": False}, cut=False),
    "VibeVoiceAcousticTokenizerEncoderModel": Particular(
        _TOKENIZER, lambda: {"hidden_states": noise(1, 1, 160)}, cut=False),
    "VibeVoiceAcousticTokenizerDecoderModel": Particular(
        _TOKENIZER, lambda: {"hidden_states": noise(1, 16, 4)}, cut=False),
    "MoonshineStreamingForConditionalGeneration": Particular(
        {**TEXT, "num_key_value_heads": 4, "encoder_config": {**TEXT, "num_key_value_heads": 4,
                                                              "sliding_windows": [[16, 4], [16, 0]]}},
        lambda: {"input_values": noise(1, 3200), "decoder_input_ids": ids(1, 5)}),
    "Gemma3nAudioEncoder": Particular(
        {"input_feat_size": 32, "hidden_size": 32, "conf_num_attention_heads": 4, "conf_num_hidden_layers": 2,
         "sscp_conv_channel_size": [8, 4]},
        lambda: {"audio_mel": noise(1, 48, 32), "audio_mel_mask": torch.zeros(1, 48, dtype=torch.bool)}),
    "AudioFlamingo3Encoder": Particular(
        {"num_mel_bins": 16, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48,
         "num_hidden_layers": 2, "max_source_positions": 20},
        lambda: {"input_features": noise(1, 16, 40), "input_features_mask": torch.ones(1, 40).long()}, cut=False),
    "PocketTTSAudioTokenizerDecoderModel": Particular(
        {"hidden_size": 32, "num_filters": 4, "upsampling_ratios": [4, 2], "upsample_groups": 32,
         "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8,
         "latent_stride": 4, "latent_dim": 8},
        lambda: {"latents": noise(1, 32, 6)}, cut=False),
    "NeuCodecModel": Particular(_CODEC, _heard),
    "Xcodec2Model": Particular(_CODEC, _heard),
    "GraniteSpeech5Encoder": Particular(_GRANITE, lambda: {"input_features": noise(1, 24, 64)}, cut=False),
    "GraniteSpeech5ForCTC": Particular(
        {"encoder_config": _GRANITE, "vocab_size": 64}, lambda: {"input_features": noise(1, 24, 64)}, cut=False),
    "FunAsrNanoEncoder": Particular(
        {"num_mel_bins": 8, "num_stacked_frames": 4, "hidden_size": 32, "num_attention_heads": 4,
         "intermediate_size": 48, "num_hidden_layers": 2, "num_timestamp_prediction_layers": 1, "fsmn_kernel_size": 3},
        lambda: {"input_features": noise(1, 9, 32), "input_features_mask": torch.ones(1, 9).long()}, cut=False),
    "MuseSparkAudioModel": Particular(
        {"patch_sizes": [4, 2, 2], "hidden_sizes": [8, 16, 32], "depths": [1, 1, 1], "num_hidden_layers": 3,
         "out_hidden_size": 32}, lambda: {"input_values": noise(1, 160)}, cut=False),
    "VoxtralRealtimeForConditionalGeneration": Particular(
        {"text_config": TEXT, "audio_config": {**TEXT, "num_mel_bins": 16, "sliding_window": 16},
         "downsample_factor": 2, "audio_length_per_tok": 4},
        lambda: {"input_ids": ids(1, 8), "input_features": noise(1, 16, 32), "num_delay_tokens": 2}),
    "VibeVoiceAsrForConditionalGeneration": Particular(
        {"acoustic_tokenizer_encoder_config": _TOKENIZER, "semantic_tokenizer_encoder_config": _TOKENIZER,
         "text_config": {"model_type": "qwen2", **TEXT}, "audio_token_id": SOUND, "audio_bos_token_id": 81,
         "audio_eos_token_id": 82}, _spoken, cut=False),
    "VibeVoiceForConditionalGeneration": Particular(
        {"audio_config": _TOKENIZER, "semantic_model_config": _TOKENIZER,
         "text_config": {"model_type": "qwen2", **TEXT},
         "diffusion_head_config": {"hidden_size": 64, "latent_size": 16, "num_hidden_layers": 1,
                                   "intermediate_size": 48, "frequency_embedding_size": 16},
         "audio_token_id": SOUND, "audio_bos_token_id": 81, "audio_eos_token_id": 82, "vocab_size": 128}, _spoken,
        cut=False),
}  # fmt: skip
