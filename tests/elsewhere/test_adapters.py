"""Adapters of PEFT on a language model, and modules of Lightning with their checkpoints."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headwater.errors import InvalidInput
from headwater.loaders import load_model
from tests.elsewhere.checks import Convolutional, assert_as, assert_explained, given


def llama() -> Any:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=50,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def adapters() -> dict[str, Any]:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    made: dict[str, Any] = {"init_lora_weights": False, "r": 4}
    language: dict[str, Any] = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 3}
    return {
        "LoRA": peft.LoraConfig(target_modules=["q_proj", "v_proj", "down_proj"], lora_dropout=0.1, **made),
        "LoRA, embedding": peft.LoraConfig(target_modules=["q_proj", "embed_tokens"], **made),
        "DoRA": peft.LoraConfig(target_modules=["q_proj", "v_proj"], use_dora=True, **made),
        "IA3": peft.IA3Config(
            target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], init_ia3_weights=False
        ),
        "prompt": peft.PromptTuningConfig(**language),
        "prefix": peft.PrefixTuningConfig(**language),
    }


@pytest.mark.parametrize("name", ["LoRA", "LoRA, embedding", "DoRA", "IA3", "prompt", "prefix"])
def test_adapters_on_a_language_model(name: str) -> None:
    config, ids = adapters()[name], torch.randint(0, 50, (2, 6))
    import peft

    e = assert_explained(peft.get_peft_model(llama(), config).eval(), ids)
    assert e.relevance.shape[:2] == (2, 6)


def test_an_adapter_that_was_saved(tmp_path: Path) -> None:
    config, ids = adapters()["LoRA"], torch.randint(0, 50, (2, 6))
    import peft

    base = llama()
    base.save_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(copy.deepcopy(base), config).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(tmp_path / "base")}))
    loaded = load_model(f"hf:{tmp_path / 'adapter'}").model
    torch.testing.assert_close(
        assert_explained(loaded, ids).relevance, assert_explained(adapted, ids).relevance, atol=1e-5, rtol=1e-4
    )
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(InvalidInput, match="safetensors"):
        load_model(f"hf:{tmp_path / 'adapter'}")


def test_a_module_of_lightning_and_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lightning = pytest.importorskip("pytorch_lightning", reason="pytorch_lightning is not installed")

    class Classifier(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, width: int = 3) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net: nn.Module = Convolutional()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    model, x = Classifier().eval(), given(Convolutional)[1]
    assert_as(model, model.net, x)
    trainer = lightning.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    monkeypatch.setitem(sys.modules, "made_up_lightning", SimpleNamespace(Classifier=Classifier))
    loaded = load_model("made_up_lightning:Classifier", tmp_path / "last.ckpt").model
    assert_as(loaded, model, x)
