"""``checkpoint=True``: blocks that run again in the walk give the same relevance, and the model is as before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import headwater as hw
from headwater.propagate.segments import blocks
from tests.reference.audit import assert_same, assert_unchanged, fingerprint

IDS = torch.arange(34).view(2, 17) * 7 % 100
BOTH = {"input_ids": IDS, "decoder_input_ids": IDS, "use_cache": False}


def llama(**options: Any) -> nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, **options,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).double().eval()


def t5() -> nn.Module:
    config = transformers.T5Config(vocab_size=100, d_model=32, d_ff=64, num_layers=2, num_heads=4, d_kv=8)
    torch.manual_seed(0)
    return transformers.T5ForConditionalGeneration(config).double().eval()


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.norm(self.convolution(x)).add_(x))


def residual() -> nn.Module:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    net = nn.Sequential(stem, nn.Sequential(*[Residual() for _ in range(3)]), nn.Flatten(), nn.Linear(144, 3))
    return net.double().eval()


PICTURES = torch.linspace(-1, 1, 2 * 3 * 64, dtype=torch.float64).view(2, 3, 8, 8)


def first(relevance: Any) -> Tensor:
    values = relevance.values() if isinstance(relevance, dict) else [relevance]
    return next(v for v in values if isinstance(v, Tensor))


@pytest.mark.parametrize(
    ("build", "x", "options"),
    [
        (llama, {"input_ids": IDS, "use_cache": False}, {}),
        (llama, {"input_ids": IDS, "use_cache": False}, {"composite": "cplrp"}),
        (llama, {"input_ids": IDS, "use_cache": False}, {"layers": ["model.layers.1", "model.layers.2.mlp"]}),
        (llama, {"input_ids": IDS, "use_cache": False}, {"method": "gradient"}),
        (t5, BOTH, {}),
        (residual, PICTURES, {}),
        (residual, PICTURES, {"composite": "epsilon_gamma_box", "bounds": (-1.0, 1.0)}),
        (residual, PICTURES, {"composite": "cmp", "bounds": (-1.0, 1.0)}),
    ],
)
def test_the_same_relevance(build: Any, x: Any, options: dict[str, Any]) -> None:
    model = build()
    before = fingerprint(model)
    expected, found = hw.explain(model, x, **options), hw.explain(model, x, checkpoint=True, **options)
    assert_same(first(found.relevance), first(expected.relevance), 1e-10)
    assert_same(found.output, expected.output, 0.0)
    for name, value in expected.layers.items():
        assert_same(found.layers[name], value, 1e-10)
    assert_unchanged(before, model)
    assert not any("forward" in vars(module) for module in model.modules())


def test_dropout_falls_on_the_same_units_again() -> None:
    block = [nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8), nn.GELU()]
    model = nn.Sequential(nn.Sequential(*block), nn.Sequential(*block), nn.Linear(8, 3)).train()
    x = torch.linspace(-1, 1, 24).view(3, 8)
    options = {"allow_training": True, "seed": 3, "target": 1}
    found = hw.explain(model, x, checkpoint=True, **options)
    assert_same(found.relevance, hw.explain(model, x, **options).relevance, 1e-6)


def test_a_cache_is_refused_by_name() -> None:
    with pytest.raises(hw.UnsupportedModel, match="use_cache=False"):
        hw.explain(llama(), IDS, checkpoint=True)


@pytest.mark.parametrize("option", ["ledger", "differentiable"])
def test_what_needs_the_graph_is_refused(option: str) -> None:
    with pytest.raises(hw.HeadwaterError, match=option):
        hw.explain(residual(), PICTURES, checkpoint=True, **{option: True})


def test_blocks_are_the_members_of_the_outermost_containers() -> None:
    assert list(blocks(llama())) == [f"model.layers.{i}" for i in range(3)]
    assert list(blocks(llama(), ["model.layers.1.mlp"])) == ["model.layers.0", "model.layers.2"]
    assert list(blocks(residual())) == ["0", "1"]


def test_a_failing_model_is_given_back() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2)])

        def forward(self, x: Tensor) -> Tensor:
            raise ValueError(f"not for {self.body[0](x).shape}")

    model = Failing()
    with pytest.raises(ValueError, match="not for"):
        hw.explain(model, torch.ones(2, 4), checkpoint=True)
    assert not any("forward" in vars(module) for module in model.modules())
