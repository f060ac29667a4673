"""Relevances by LXT, written to a file that ``tests/models/test_lxt.py`` compares with ours.

LXT patches transformers 4.52, which Headwater's own development environment does not have. Run this script in an
environment of its own: ``pip install torch lxt transformers==4.52.4 safetensors``, then ``python lxt_oracle.py``.
Networks are tiny and random; the file holds their weights, the token ids and LXT's relevance of every token.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

# A torchvision that does not fit this torch fails to import without these.
for operator in ("nms", "qnms"):
    torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

OUT = Path(__file__).with_name("lxt.safetensors")
SIZES = {
    "bert": {
        "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "max_position_embeddings": 16, "num_labels": 3,
    },
    "gpt2": {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16},
    "llama": {
        "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 16,
    },
}  # fmt: skip
RULES = {"bert": ("attnlrp",), "gpt2": ("attnlrp", "cplrp"), "llama": ("attnlrp", "cplrp")}
TOKENS = 11


def main(family: str, rules: str) -> None:
    """Explain one network with one set of rules: LXT's patches cannot be taken back within a process."""
    import lxt.efficient.models.bert as bert
    import lxt.efficient.models.gpt2 as gpt2
    import lxt.efficient.models.llama as llama
    import transformers
    from lxt.efficient import monkey_patch

    patches = {"bert": bert, "gpt2": gpt2, "llama": llama}[family]
    patch_map = getattr(patches, {"attnlrp": "attnLRP", "cplrp": "cp_LRP"}[rules])
    modeling = sys.modules[f"transformers.models.{family}.modeling_{family}"]
    monkey_patch(modeling, patch_map)
    torch.manual_seed(0)
    model = {
        "bert": lambda: modeling.BertForSequenceClassification(transformers.BertConfig(**SIZES["bert"])),
        "gpt2": lambda: modeling.GPT2LMHeadModel(transformers.GPT2Config(**SIZES["gpt2"])),
        "llama": lambda: modeling.LlamaForCausalLM(transformers.LlamaConfig(**SIZES["llama"])),
    }[family]().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1 and not name.endswith("norm.weight"):
                weight.add_(torch.randn_like(weight) * 0.1)  # biases are born zero
            elif weight.dim() > 1:
                weight.mul_(5)  # attention that is not flat
    ids = torch.randint(0, 40, (1, TOKENS))
    embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=embeddings).logits
    scores = logits[0] if family == "bert" else logits[0, -1]
    scores.max().backward()
    found = {f"{family}.weight.{k}": v for k, v in model.state_dict().items()}
    found |= {f"{family}.ids": ids, f"{family}.{rules}": (embeddings * embeddings.grad).sum(-1).detach()}
    found[f"{family}.logits"] = scores.detach()
    torch.save(found, sys.argv[3])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(*sys.argv[1:3])
    else:
        import subprocess
        import tempfile

        from safetensors.torch import save_file

        everything: dict[str, torch.Tensor] = {}
        for family in SIZES:
            for rules in RULES[family]:
                with tempfile.NamedTemporaryFile() as file:
                    subprocess.run([sys.executable, __file__, family, rules, file.name], check=True)
                    everything |= torch.load(file.name)
        save_file({k: v.clone().contiguous() for k, v in everything.items()}, OUT, {"sizes": json.dumps(SIZES)})
