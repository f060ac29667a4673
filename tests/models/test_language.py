"""Language models: relevance of every token, layer and head, of one token and of a whole continuation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import headwater as hw

IDS = torch.arange(24).view(2, 12) * 5 % 60
SMALL = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 32, "pad_token_id": 0,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {}, "Qwen2": {}, "Qwen3": {}, "Gemma2": {}, "Mistral": {}, "Phi3": {},
    "OlmoE": {"num_experts": 4, "num_experts_per_tok": 2},
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen2Moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                 "shared_expert_intermediate_size": 16},
}  # fmt: skip


def build(family: str) -> Any:
    name = "Olmoe" if family == "OlmoE" else family
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SMALL, **FAMILIES[family])
    return getattr(transformers, f"{name}ForCausalLM")(config).double().eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_families_balance(family: str) -> None:
    e = hw.explain(build(family).float(), IDS, ledger=True)  # grouped products of experts have no float64
    assert e.relevance.shape == (2, 12, 32)
    scale = e.output.abs() + e.relevance.abs().flatten(1).sum(1)
    assert bool((e.ledger.unexplained().abs() <= 1e-4 * scale).all())


def test_relevance_of_layers_and_heads_sums_to_the_same() -> None:
    model = build("Llama")
    names = ["model.layers.*.self_attn.o_proj:input", "model.layers.*.self_attn.o_proj", "model.layers.?"]
    e = hw.explain(model, IDS, target=hw.target.Token(-1, 7), composite="cplrp", layers=names)
    assert len(e.layers) == 6
    for i in range(2):
        given, returned = (e.layers[f"model.layers.{i}.self_attn.o_proj{end}"] for end in (":input", ""))
        heads = given.unflatten(-1, (4, 8)).sum(-1)
        assert heads.shape == (2, 12, 4)
        # The projection has no bias: up to the stabilizer, what it returns is shared out among the heads.
        assert torch.allclose(heads.sum(-1), returned.sum(-1), rtol=5e-3, atol=1e-6)
    last = e.layers["model.layers.1"]
    assert torch.allclose(last[:, -1].sum(-1), e.output, rtol=1e-4)
    assert not last[:, :-1].any()  # only the last position is read


def test_a_continuation_in_several_batches() -> None:
    model, ids = build("Llama"), IDS
    target = hw.target.Continuation(ids[:, -3:])
    whole = hw.explain(model, ids, target=target)
    with torch.no_grad():
        logits = model(ids).logits
    expected = logits[:, -4:-1].gather(2, ids[:, -3:, None]).sum((1, 2))
    assert torch.allclose(whole.output, expected)
    single = hw.explain(model, ids, target=target, batch_size=1)
    assert torch.allclose(single.relevance, whole.relevance)


def test_padding_takes_nothing() -> None:
    model = build("Llama")
    mask = torch.ones_like(IDS)
    mask[0, :4] = 0
    e = hw.explain(model, {"input_ids": IDS, "attention_mask": mask, "use_cache": False})
    tokens = e.tokens()
    assert isinstance(tokens, Tensor)
    assert float(tokens[0, :4].abs().max()) == 0.0


def test_bfloat16_agrees_with_float32() -> None:
    model = build("Llama").float()
    expected = hw.explain(model, IDS, target=5).tokens()
    found = hw.explain(model.bfloat16(), IDS, target=5)
    assert found.relevance.dtype == torch.bfloat16
    assert float(torch.cosine_similarity(found.tokens().float().flatten(), expected.flatten(), 0)) > 0.99


@pytest.mark.parametrize("name", ["model.layers.9", "model.layers.*.nothing", "lm_head.*:input"])
def test_a_layer_that_is_not_there(name: str) -> None:
    with pytest.raises(hw.InvalidInput, match="module"):
        hw.explain(build("Llama"), IDS, layers=[name])
