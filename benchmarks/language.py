"""What an explanation of a language model costs beside a checkpointed forward and backward pass.

Each contestant runs in a process of its own, whose largest resident set is read at its end:

    python -m benchmarks.language --hidden 2048 --layers 16 --tokens 4096
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.mend import mend_torchvision

CONTESTANTS = ("load", "forward", "backward", "explain")


def build(hidden: int, layers: int, tokens: int) -> nn.Module:
    """A causal language model of Llama's kind in bfloat16, with random weights and without gradients of them."""
    mend_torchvision()
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32000, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, num_key_value_heads=max(1, hidden // 256), max_position_embeddings=tokens,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(before)
    return model.requires_grad_(False)


def backward(model: Any, ids: Tensor) -> None:
    """Forward and backward to the embeddings; every block is checkpointed."""
    from torch.utils.checkpoint import checkpoint

    for layer in model.model.layers:
        layer.forward = _checkpointed(checkpoint, layer.forward)
    embeddings = model.get_input_embeddings()(ids).requires_grad_()
    logits = model(inputs_embeds=embeddings, use_cache=False).logits
    torch.autograd.grad(logits[:, -1].max(), embeddings)


def _checkpointed(checkpoint: Any, forward: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run


def contestant(name: str, hidden: int, layers: int, tokens: int) -> dict[str, float]:
    """Seconds, and the largest resident set in bytes, of one pass."""
    import headwater as hw

    model = build(hidden, layers, tokens)
    ids = torch.randint(0, 32000, (1, tokens), generator=torch.Generator().manual_seed(0))
    started = time.perf_counter()
    if name == "forward":
        with torch.no_grad():
            model(ids, use_cache=False)
    elif name == "backward":
        backward(model, ids)
    elif name == "explain":
        hw.explain(model, {"input_ids": ids, "use_cache": False}, checkpoint=True)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every contestant and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--only", choices=CONTESTANTS, help="run one contestant here and print its figures")
    options = parser.parse_args(arguments)
    sizes = (options.hidden, options.layers, options.tokens)
    if options.only:
        print(json.dumps(contestant(options.only, *sizes)))
        return
    found = {}
    for name in CONTESTANTS:
        flags = [f"--{key}={value}" for key, value in zip(("hidden", "layers", "tokens"), sizes, strict=True)]
        command = [sys.executable, "-m", "benchmarks.language", "--only", name, *flags]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        beside = (found[name]["peak"] - found["load"]["peak"]) / 2**20
        print(f"{name:9} {found[name]['seconds']:8.1f} s, {beside:8.0f} MiB beside the model", flush=True)
    extra = [found[name]["peak"] - found["load"]["peak"] for name in ("explain", "backward")]
    print(
        f"explain / checkpointed backward: time {found['explain']['seconds'] / found['backward']['seconds']:.2f}, ",
        end="",
    )
    print(f"memory {extra[0] / extra[1]:.2f}")


if __name__ == "__main__":
    main()
