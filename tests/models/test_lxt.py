"""AttnLRP and CP-LRP beside LXT, whose results ``tests/reference/lxt_oracle.py`` has written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors import safe_open

import headwater as hw

FILE = Path(__file__).parents[1] / "reference" / "lxt.safetensors"
CLASSES: dict[str, tuple[Any, Any]] = {
    "bert": (transformers.BertForSequenceClassification, transformers.BertConfig),
    "gpt2": (transformers.GPT2LMHeadModel, transformers.GPT2Config),
    "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig),
}


class Constant(torch.nn.Module):
    """An activation that carries no relevance."""

    def forward(self, gate: torch.Tensor) -> torch.Tensor:
        return F.silu(gate).detach()


def read(family: str, rules: str) -> tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The network, the token ids, LXT's relevance of each token and the logits."""
    with safe_open(str(FILE), "pt") as file:
        sizes = json.loads(file.metadata()["sizes"])[family]
        start = f"{family}.weight."
        weights = {k[len(start) :]: file.get_tensor(k) for k in file.keys() if k.startswith(start)}  # noqa: SIM118
        ids, expected, logits = (file.get_tensor(f"{family}.{k}") for k in ("ids", rules, "logits"))
    build, config = CLASSES[family]
    model = build(config(**sizes)).eval()
    model.load_state_dict(weights, strict=False)
    return model, ids, expected, logits


@pytest.mark.parametrize(
    ("family", "rules"), [("bert", "attnlrp"), ("gpt2", "attnlrp"), ("gpt2", "cplrp"), ("llama", "attnlrp")]
)
def test_as_lxt(family: str, rules: str) -> None:
    model, ids, expected, logits = read(family, rules)
    e = hw.explain(model, ids, composite=rules)
    assert torch.allclose(e.output, logits.max(), rtol=1e-4, atol=1e-5)  # the same model in another transformers
    assert float(F.cosine_similarity(e.tokens(), expected)) >= 0.99999


def test_where_cp_lrp_differs_from_lxt() -> None:
    """In gated layers LXT holds the activated half constant, which Ali et al. do not speak of; ours take half each."""
    model, ids, expected, _ = read("llama", "cplrp")
    assert float(F.cosine_similarity(hw.explain(model, ids, composite="cplrp").tokens(), expected)) < 0.999
    for layer in model.model.layers:
        layer.mlp.act_fn = Constant()
    with pytest.warns(hw.HeadwaterWarning, match="ends the relevance"):
        e = hw.explain(model, ids, composite="cplrp")
    assert float(F.cosine_similarity(e.tokens(), expected)) >= 0.99999
