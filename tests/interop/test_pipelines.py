"""Pipelines of transformers as models: the relevance is that of their network, on what they make of the input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")

WORDS = ["the", "film", "is", "good", "bad", "very", "not", "and", "a", "story", "paris"]
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def tokenizer() -> Any:
    vocabulary = {word: i for i, word in enumerate([*SPECIAL.values(), *WORDS, "##s"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, **SPECIAL, model_input_names=["input_ids", "token_type_ids", "attention_mask"]
    )


def bert(kind: str, **options: Any) -> Any:
    config = transformers.BertConfig(vocab_size=17, max_position_embeddings=24, **TINY, **options)
    return getattr(transformers, f"BertFor{kind}")(config).eval()


def classifier() -> Any:
    labels = {"negative": 0, "neutral": 1, "positive": 2}
    model = bert("SequenceClassification", num_labels=3, label2id=labels, id2label={v: k for k, v in labels.items()})
    return transformers.pipeline("text-classification", model=model, tokenizer=tokenizer())


def generator() -> Any:
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(["?", *WORDS])}, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="?")
    config = transformers.GPT2Config(vocab_size=12, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    return transformers.pipeline("text-generation", model=transformers.GPT2LMHeadModel(config).eval(), tokenizer=words)


def test_a_text_and_its_network(tmp_path: Any) -> None:
    pipe = classifier()
    e = hw.explain(pipe, "The film is very good", ledger=True)
    batch = pipe.tokenizer("The film is very good", return_tensors="pt")
    direct = hw.explain(pipe.model, {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]})
    assert torch.equal(e.tokens(), direct.tokens())
    assert e.details["words"] == [["[CLS]", "the", "film", "is", "very", "good", "[SEP]"]]
    assert pipe("The film is very good")[0]["label"] == pipe.model.config.id2label[int(e.target)]
    assert "very" in str(e.plot())
    assert hw.load(e.save(tmp_path / "e.safetensors")).details["words"] == e.details["words"]


def test_texts_of_different_lengths_are_each_explained_as_alone() -> None:
    pipe = classifier()
    texts = ["Good", "The film is not good and a bad story", "very bad"]
    e = hw.explain(pipe, texts, target="positive")
    assert e.target.tolist() == [2, 2, 2]
    for i, text in enumerate(texts):
        alone = hw.explain(pipe, text, target="positive")
        count = alone.tokens().shape[1]
        assert torch.allclose(e.tokens()[i, :count], alone.tokens()[0], atol=1e-5)
        assert not e.tokens()[i, count:].any()
        assert torch.allclose(e.output[i], alone.output[0], atol=1e-5)
        assert e.details["words"][i] == alone.details["words"][0]
    named = hw.explain(pipe, texts, target=["positive", "negative", "neutral"])
    assert named.target.tolist() == [2, 0, 1]


def test_pairs_of_texts_keep_their_kinds() -> None:
    pipe = classifier()
    e = hw.explain(pipe, {"text": "the film", "text_pair": "a bad story"})
    assert set(e.relevance) == {"input_ids", "token_type_ids", "attention_mask"}
    assert e.details["words"][0][-2:] == ["story", "[SEP]"]


@pytest.mark.parametrize("method", ["occlusion", "shapley_sampling", "integrated_gradients", "gradient_x_input"])
def test_other_methods(method: str) -> None:
    e = hw.explain(classifier(), ["very good", "a bad film"], method=method)
    assert e.tokens().shape == (2, 5)
    assert e.tokens().abs().sum() > 0


def test_the_next_token() -> None:
    pipe = generator()
    e = hw.explain(pipe, "the film is")
    logits = pipe.model(**pipe.tokenizer("the film is", return_tensors="pt")).logits[0, -1]
    assert torch.allclose(e.output[0], logits.max(), atol=1e-5)
    named = hw.explain(pipe, ["the film is", "a story"], target="bad")
    assert torch.allclose(named.output[0], logits[pipe.tokenizer.convert_tokens_to_ids("bad")], atol=1e-5)
    alone = hw.explain(pipe, "a story", target="bad")
    assert torch.allclose(named.output[1], alone.output[0], atol=1e-5)
    assert torch.allclose(named.tokens()[1, :2], alone.tokens()[0], atol=1e-5)


def test_a_masked_token() -> None:
    pipe = transformers.pipeline("fill-mask", model=bert("MaskedLM"), tokenizer=tokenizer())
    e = hw.explain(pipe, "the [MASK] is good")
    best = pipe("the [MASK] is good", top_k=1)[0]
    logits = pipe.model(**pipe.tokenizer("the [MASK] is good", return_tensors="pt")).logits[0, 2]
    assert torch.allclose(e.output[0], logits[best["token"]], atol=1e-5)
    named = hw.explain(pipe, "the [MASK] is good", target="film")
    assert torch.allclose(named.output[0], logits[pipe.tokenizer.convert_tokens_to_ids("film")], atol=1e-5)
    with pytest.raises(hw.InvalidInput, match="different places"):
        hw.explain(pipe, ["the [MASK] is good", "[MASK] story"])


def test_a_label_of_a_token() -> None:
    pipe = transformers.pipeline("token-classification", model=bert("TokenClassification"), tokenizer=tokenizer())
    with pytest.raises(hw.InvalidTarget, match="each token has its own label"):
        hw.explain(pipe, "paris is good")
    e = hw.explain(pipe, "paris is good", target=hw.target.Token(1, 0))
    assert e.tokens().shape == (1, 5)


def pictures_pipeline() -> Any:
    config = transformers.ViTConfig(
        image_size=16, patch_size=4, **TINY, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1}
    )
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    return transformers.pipeline(
        "image-classification", model=transformers.ViTForImageClassification(config).eval(), image_processor=processor
    )


def test_pictures(tmp_path: Any) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pipe = pictures_pipeline()
    pixels = np.random.default_rng(0).integers(0, 255, (2, 20, 30, 3), dtype=np.uint8)
    photographs = [image.fromarray(p) for p in pixels]
    photographs[1].save(tmp_path / "dog.png")
    e = hw.explain(pipe, [photographs[0], str(tmp_path / "dog.png")], target="dog")
    assert e.relevance["pixel_values"].shape == (2, 3, 16, 16)
    assert e.target.tolist() == [1, 1]
    alone = hw.explain(pipe, photographs[1], target=1)
    assert torch.allclose(alone.relevance["pixel_values"][0], e.relevance["pixel_values"][1], atol=1e-5)
    ready = hw.explain(pipe, {"pixel_values": e.inputs["pixel_values"]}, target="dog")
    assert torch.equal(ready.relevance["pixel_values"], e.relevance["pixel_values"])


def test_recordings() -> None:
    config = transformers.Wav2Vec2Config(
        **TINY, conv_dim=(8, 8), conv_kernel=(10, 3), conv_stride=(5, 2), num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2, num_feat_extract_layers=2, classifier_proj_size=8,
        label2id={"no": 0, "yes": 1}, id2label={0: "no", 1: "yes"},
    )  # fmt: skip
    pipe = transformers.pipeline(
        "audio-classification", model=transformers.Wav2Vec2ForSequenceClassification(config).eval(),
        feature_extractor=transformers.Wav2Vec2FeatureExtractor(),
    )  # fmt: skip
    sound = np.random.default_rng(0).normal(size=(2, 400)).astype(np.float32)
    e = hw.explain(pipe, list(sound), target="yes")
    assert e.relevance["input_values"].shape == (2, 400)
    raw = hw.explain(pipe, {"raw": sound[0], "sampling_rate": 16000}, target="yes")
    assert torch.allclose(raw.relevance["input_values"][0], e.relevance["input_values"][0], atol=1e-5)
    with pytest.raises(hw.InvalidInput, match="different shapes"):
        hw.explain(pipe, [sound[0], sound[1][:300]])


def test_a_plan_and_the_network_left_as_it_was() -> None:
    pipe = classifier()
    before = {k: v.clone() for k, v in pipe.model.state_dict().items()}
    assert not hw.plan(pipe, "the film").gaps
    hw.explain(pipe, "the film", ledger=True)
    assert all(torch.equal(v, before[k]) for k, v in pipe.model.state_dict().items())
    half = classifier()
    half.model.to(torch.bfloat16)
    assert hw.explain(half, "the film").relevance["input_ids"].dtype == torch.bfloat16


def test_refusals() -> None:
    pipe = classifier()
    with pytest.raises(hw.InvalidTarget, match="choose from negative, neutral, positive"):
        hw.explain(pipe, "the film", target="great")
    with pytest.raises(hw.InvalidTarget, match="not one token"):
        hw.explain(generator(), "the film", target="good story")
    for bad in ("", [], ["the film", "  "]):
        with pytest.raises(hw.InvalidInput):
            hw.explain(pipe, bad)
    with pytest.raises(hw.InvalidInput, match="cannot prepare a int"):
        hw.explain(pipe, 3)
    with pytest.raises(hw.InvalidInput, match="at most 24: shorten"):
        hw.explain(pipe, "good " * 40)
    features = transformers.pipeline("feature-extraction", model=pipe.model.bert, tokenizer=pipe.tokenizer)
    with pytest.raises(hw.InvalidInput, match="no one score to explain"):
        hw.explain(features, "the film")
