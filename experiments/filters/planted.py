"""A truth that is planted: labels by the toss of a coin, and a mark on the images of one class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from experiments.filters.data import Digits, prepare
from experiments.filters.masks import CONTROL, treated
from experiments.filters.networks import SUBJECTS
from experiments.filters.training import BATCH, RATE
from experiments.reproduction import Reproduction
from headwater.evaluate import bootstrap_interval, mass_accuracy, watermarked
from headwater.evaluate.truth import Planted


def report(run: Reproduction, data: Digits) -> None:
    """How much of the positive relevance lies on the mark, under every filter."""
    found = run.step("planted", lambda: _measure(run, data))
    rows: list[dict[str, Any]] = []
    for name, share in found["shares"].items():
        low, high = (float(end) for end in bootstrap_interval(share - found["shares"]["none"]))
        rows.append({
            "filter": name, "on the mark": float(share.mean()),
            "more than unfiltered": f"{float((share - found['shares']['none']).mean()):+.3f}",
            "95 %": f"{low:+.3f} to {high:+.3f}",
        })  # fmt: skip
    run.table(
        "planted", rows,
        "Share of the positive relevance on a planted mark of 3x3 pixels, which alone decides (S1, accuracy "
        f"{found['accuracy']:.1%}; the mark is {found['area']:.1%} of the pixels).",
    )  # fmt: skip
    filtered = [row for row in rows[1:] if row["filter"] != CONTROL]
    best = max(filtered, key=lambda row: row["on the mark"])
    raised = [row for row in rows if str(row["filter"]).startswith("amplify") and "only" not in str(row["filter"])]
    run.claim(
        "planted",
        source="5",
        text="filters can reduce the errors of heatmaps, where a ground truth is at hand to choose them by",
        paper="expected",
        verdict="reproduced" if float(best["95 %"].split()[0]) > 0 else "not reproduced",
        ours=f"on the mark unfiltered {rows[0]['on the mark']:.3f}; best {best['filter']}: {best['on the mark']:.3f}; "
        + ", ".join(f"{row['filter']}: {row['on the mark']:.3f}" for row in raised),
        why=f"R|R| without a filter: {rows[-1]['on the mark']:.3f}",
    )


def marked(images: Tensor, seed: int) -> Planted:
    """Digits whose label is a coin's, with the mark where it says 1."""
    coin = torch.randint(2, (len(images),), generator=torch.Generator().manual_seed(seed))
    return watermarked(prepare(images, images.shape[-1]), coin, 1, seed=seed)


def _measure(run: Reproduction, data: Digits) -> dict[str, Any]:
    steps = run.pick(quick=1500, full=2_000)
    sample = marked(data.train[: steps * BATCH], run.seed)
    model = SUBJECTS["S1"].network()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    for rows in run.progress(torch.randperm(len(sample.x)).split(BATCH), "training on marks"):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(sample.x[rows]), sample.y[rows]).backward()
        optimizer.step()
    model.eval().requires_grad_(False)
    test = marked(data.test[: run.pick(quick=200, full=1000)], run.seed + 1)
    right = model(test.x).argmax(1) == test.y
    chosen = (right & (test.y == 1)).nonzero().flatten()[: run.pick(quick=40, full=240)]
    x, mask = test.x[chosen], test.truth[chosen]
    shares = {name: mass_accuracy(relevance, mask) for name, relevance in treated(model, x).items()}
    return {"shares": shares, "accuracy": float(right.double().mean()), "area": float(mask.double().mean())}
