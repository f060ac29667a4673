"""What a call costs where the arithmetic is small: one sample through small networks.

    python -m benchmarks.small --rounds 300 --threads 1

In every round each contestant runs five times in a row: eager forward and backward to the input, parameters frozen, and
``hw.explain`` with each composite. The figure is the ratio of the best calls, in time of the processor where there is
one thread: on a busy machine a median of calls as short as these tells what else it did.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import headwater as hw
from benchmarks.mend import mend_torchvision
from benchmarks.networks import LSTM, Scores

Case = Callable[[], tuple[nn.Module, Tensor]]
COMPOSITES = ("epsilon", "default")
CALLS = 5  # in a row, so that each contestant finds its own code in the caches


def mlp() -> tuple[nn.Module, Tensor]:
    """Three dense layers."""
    layers = [nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)]
    return nn.Sequential(*layers), torch.randn(1, 64)


def cnn() -> tuple[nn.Module, Tensor]:
    """Two convolutions with pooling and a dense layer, on pictures of 28 x 28."""
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(400, 10)), torch.randn(1, 1, 28, 28)


class Encoder(nn.Module):
    """Two layers of a transformer encoder, and a dense one on their mean: ``[N, T, 64]`` to ``[N, 10]``."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, activation="gelu")
        self.body, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes."""
        scores: Tensor = self.head(self.body(x).mean(1))
        return scores


def encoder() -> tuple[nn.Module, Tensor]:
    """A transformer encoder of torch's on 16 places."""
    return Encoder(), torch.randn(1, 16, 64)


def bert() -> tuple[nn.Module, Tensor]:
    """BERT with two layers of width 64, from embeddings of 16 tokens."""
    mend_torchvision()
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, vocab_size=100
    )
    return Scores(BertForSequenceClassification(config), "inputs_embeds"), torch.randn(1, 16, 64)


def gpt2() -> tuple[nn.Module, Tensor]:
    """GPT-2 with two layers of width 64, from embeddings of 16 tokens."""
    mend_torchvision()
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=100, use_cache=False)
    return Scores(GPT2LMHeadModel(config), "inputs_embeds"), torch.randn(1, 16, 64)


def vit() -> tuple[nn.Module, Tensor]:
    """ViT with two layers of width 64, on pictures of 32 x 32 in patches of 8."""
    mend_torchvision()
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, image_size=32, patch_size=8,
        num_labels=10,
    )  # fmt: skip
    return Scores(ViTForImageClassification(config), "pixel_values"), torch.randn(1, 3, 32, 32)


def lstm() -> tuple[nn.Module, Tensor]:
    """One LSTM of width 64 over 16 steps."""
    return LSTM(64), torch.randn(1, 16, 64)


CASES: dict[str, Case] = {f.__name__: f for f in (mlp, cnn, encoder, bert, gpt2, vit, lstm)}


def both(model: nn.Module, x: Tensor) -> Tensor:
    """Eager forward and backward, of the largest score to the input."""
    x = x.detach().requires_grad_()
    scores = model(x)
    last = scores if scores.dim() == 2 else scores[:, -1]
    return torch.autograd.grad(last.amax(1).sum(), x)[0]


def measured(name: str, rounds: int, composites: tuple[str, ...] = COMPOSITES) -> dict[str, list[float]]:
    """Seconds of the best call of each round, by contestant, the first of which is forward and backward."""
    torch.manual_seed(0)
    model, x = CASES[name]()
    model.requires_grad_(False).eval()
    contestants: dict[str, Callable[[], Any]] = {"F+B": partial(both, model, x)}
    contestants |= {name: partial(hw.explain, model, x, composite=name) for name in composites}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for call in contestants.values():
        for _ in range(5):
            call()
    gc.collect()
    for _ in range(rounds):
        for contestant, call in contestants.items():
            taken = []
            for _ in range(CALLS):
                start = clock()
                call()
                taken.append(clock() - start)
            seconds[contestant].append(min(taken))
    return seconds


def row(name: str, seconds: dict[str, list[float]]) -> str:
    """One line of the table."""
    base = min(seconds["F+B"])
    own = [min(taken) for contestant, taken in seconds.items() if contestant != "F+B"]
    cells = [name, f"{base * 1e6:.0f}", *(f"{best / base:.2f} ({best * 1e6:.0f})" for best in own)]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="how often each contestant is timed (default: 300)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--models", default=",".join(CASES), help="comma-separated (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, best of {options.rounds} rounds; (microseconds)")
    print(f"| | F+B | {' | '.join(COMPOSITES)} |\n| --- | ---: | {' | '.join('---:' for _ in COMPOSITES)} |")
    for name in options.models.split(","):
        print(row(name, measured(name, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
