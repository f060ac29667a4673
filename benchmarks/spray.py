"""``python -m benchmarks.spray``: a data set's way from job to SpRAy, timed; by default 100,000 and 1,000,000 heatmaps.

Fashion-MNIST with a watermark in a twentieth of the shirts, made as large as wished by small rotations, shifts and
scalings; LRP of a convolutional network trained on it. Needs the folder of real data that HEADWATER_DATA names.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import process_memory
from headwater.analyze import spray
from headwater.dataset import run

SHIRT = 6
SHARE = 0.05


def fashion(data: Path, kind: str = "train") -> tuple[Tensor, Tensor]:
    """Pictures ``[N, 1, 28, 28]`` in 0 to 1 and classes ``[N]``."""
    folder = data / "fashion_mnist"
    pixels = np.frombuffer(gzip.decompress((folder / f"{kind}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / f"{kind}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return torch.from_numpy(pixels.reshape(-1, 1, 28, 28).copy()).float() / 255, torch.from_numpy(labels.copy()).long()


def watermark(x: Tensor) -> Tensor:
    """The pictures with a small cross in the lower left corner."""
    x = x.clone()
    x[:, :, 22:27, 3] = x[:, :, 24, 1:6] = 1.0
    return x


def planted(y: Tensor, share: float = SHARE) -> Tensor:
    """Which samples bear the watermark ``[N]``: a share of the shirts, spread evenly."""
    found = torch.zeros(len(y), dtype=torch.bool)
    shirts = (y == SHIRT).nonzero().squeeze(1)
    found[shirts[:: round(1 / share)]] = True
    return found


class Augmented:
    """A data set of ``n`` samples: the training set over and over, each time turned, shifted and scaled a little.

    The watermark is put on afterwards, as a tag is put on a photograph.
    """

    def __init__(self, data: Path, n: int) -> None:
        self.n = n
        self.x, self.y = fashion(data)
        self.marked = planted(self.y)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        rows = torch.tensor(indices) % len(self.x)
        x = moved(self.x[rows])
        x = torch.where(self.marked[rows, None, None, None], watermark(x), x)
        return list(zip(x, self.y[rows].tolist(), strict=True))


def moved(x: Tensor) -> Tensor:
    """Each picture turned by up to 8 degrees, scaled by up to 8 % and shifted by up to 1.5 pixels, at random."""
    n = len(x)
    angle = (torch.rand(n) * 2 - 1) * math.radians(8)
    scale = 1 + (torch.rand(n) * 2 - 1) * 0.08
    shift = (torch.rand(n, 2) * 2 - 1) * 1.5 / 14
    theta = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(n, 2, 2) * scale[:, None, None]
    grid = F.affine_grid(torch.cat([theta, shift[..., None]], 2), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def network() -> nn.Module:
    """Two convolutions and two dense layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def trained(data: Path, epochs: int = 3) -> nn.Module:
    """The network, trained on the watermarked and augmented training set."""
    torch.manual_seed(0)
    model, source = network(), Augmented(data, 60_000)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(60_000).split(128):
            samples = source.__getitems__(rows.tolist())
            x, y = torch.stack([x for x, _ in samples]), torch.tensor([y for _, y in samples])
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    x, y = fashion(data, "t10k")
    with torch.no_grad():
        print(f"test accuracy {(model(x).argmax(1) == y).float().mean():.3f}", flush=True)
    return model.eval()


def explain(data: Path, out: Path, n: int) -> dict[str, Any]:
    """Explain ``n`` samples into a store; its size on the disk."""
    weights = out / "network.pt"
    model = network().eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    store = out / f"store-{n}"
    run(model, Augmented(data, n), store, batch_size=256, dtype="float16", threads=torch.get_num_threads())
    return {"MiB": sum(path.stat().st_size for path in store.rglob("*") if path.is_file()) / 2**20}


def analyze(data: Path, out: Path, n: int, by: str | None = None) -> dict[str, Any]:
    """SpRAy with a map, over all samples or class by class, and how pure the cluster of the watermark is."""
    found = spray(out / f"store-{n}", by=by, map=None if by else "tsne")
    print(found)
    marked = planted(fashion(data)[1]).numpy()[np.arange(n) % 60_000]
    shares = [marked[found.labels == c].mean() for c in range(int(found.labels.max()) + 1)]
    best = int(np.argmax(shares))
    rank = [cluster.label for cluster in found.suspects].index(best) + 1
    holds = float((found.labels == best)[marked].mean())
    return {"clusters": len(shares), "purest": float(shares[best]), "holds": holds, "suspect": rank}


def analyze_classes(data: Path, out: Path, n: int) -> dict[str, Any]:
    """SpRAy of each class by itself."""
    return analyze(data, out, n, "target")


STEPS = {"explain": explain, "analyze": analyze, "classes": analyze_classes}


def _timed(step: str, data: Path, out: Path, n: int) -> dict[str, Any]:
    """Run a step in a process of its own: seconds, the peak of its memory, and what it says."""
    start, before = time.perf_counter(), _cpu()
    command = [sys.executable, "-m", "benchmarks.spray", "--step", step, "--samples", str(n), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HEADWATER_DATA": str(data)})
    if done.returncode:
        raise SystemExit(done.stderr)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    times = {"seconds": time.perf_counter() - start, "CPU seconds": _cpu() - before}
    return {"step": step, "samples": n, **times, **facts}


def _cpu() -> float:
    """Seconds that the finished processes computed: on a machine that others use, what a quiet one would take."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run the steps that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spray", description=__doc__)
    parser.add_argument("--samples", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--out", type=Path, required=True, help="a folder with some GiB of room")
    parser.add_argument("--step", choices=list(STEPS), help="one step, in this process")
    options = parser.parse_args()
    data = Path(os.environ["HEADWATER_DATA"])
    if options.step:
        facts = STEPS[options.step](data, options.out, options.samples[0])
        print(json.dumps({**facts, "peak GiB": process_memory("VmHWM") / 2**30}))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    if not (options.out / "network.pt").exists():
        torch.save(trained(data).state_dict(), options.out / "network.pt")
    figures = []
    for n in options.samples:
        for step in STEPS:
            figures.append(_timed(step, data, options.out, n))
            print(figures[-1], flush=True)
    for kind in ("seconds", "CPU seconds"):
        times = {n: sum(f[kind] for f in figures if f["samples"] == n) for n in options.samples}
        for low, high in zip(options.samples, options.samples[1:], strict=False):
            slope = math.log(times[high] / times[low]) / math.log(high / low)
            print(f"slope of log {kind} over log N from {low} to {high}: {slope:.2f}")


if __name__ == "__main__":
    main()
