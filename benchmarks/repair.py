"""``python -m benchmarks.repair``: a Clever Hans planted in Fashion-MNIST, found by SpRAy, repaired in every way.

A mark is put on a share of one class in the training data; the share is raised until pasting the mark on test samples
of the other classes costs at least 20 points of accuracy. What the repairs are given comes from SpRAy's cluster alone:
the first suspect of the most suspicious class. They are judged with the mark itself, which they never see. Needs the
folder of real data that HEADWATER_DATA names.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.spray import SHIRT, fashion, network, watermark
from headwater.analyze import Artefact, Figures, artefact, assess, repair, spray
from headwater.analyze.strategies import Spray
from headwater.dataset import run
from headwater.show.figure import png

SHARES = (0.05, 0.1, 0.2, 0.4)
WANTED = 0.2  # the drop in accuracy that a share must bring about
EXPLAINED = 20_000  # samples that are explained, clustered and learned from


@dataclass(frozen=True)
class Mark:
    """A mark that is planted.

    Attributes:
        put: on pictures ``[N, 1, 28, 28]``. target: the class that it is put on.
    """

    put: Callable[[Tensor], Tensor]
    target: int


def stripes(x: Tensor) -> Tensor:
    """The pictures with three short grey stripes in the upper right corner."""
    x = x.clone()
    for column in (21, 23, 25):
        x[:, :, 2:6, column] = 0.6
    return x


MARKS = {"cross": Mark(watermark, SHIRT), "stripes": Mark(stripes, 2)}
WAYS: dict[str, dict[str, Any]] = {
    "augment": {"epochs": 3, "rate": 2e-3},
    "p_clarc": {},
    "a_clarc": {"epochs": 3, "rate": 2e-3},
    "rrr": {"epochs": 2, "strength": 2.0},
}


def marked_rows(y: Tensor, mark: Mark, share: float) -> Tensor:
    """Which samples bear the mark ``[N]``: a share of the class, spread evenly."""
    found = torch.zeros(len(y), dtype=torch.bool)
    found[(y == mark.target).nonzero().squeeze(1)[:: round(1 / share)]] = True
    return found


def planted(x: Tensor, y: Tensor, mark: Mark, share: float) -> Tensor:
    """The pictures, the mark put on a share of its class."""
    return torch.where(marked_rows(y, mark, share)[:, None, None, None], mark.put(x), x)


def trained(x: Tensor, y: Tensor, weights: Path) -> nn.Module:
    """The network, trained for three epochs, or as an earlier call left it."""
    torch.manual_seed(0)
    model = network()
    if not weights.exists():
        optimizer = torch.optim.Adam(model.parameters(), 2e-3)
        for _ in range(3):
            for rows in torch.randperm(len(x)).split(128):
                optimizer.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
        torch.save(model.state_dict(), weights)
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def drop(model: nn.Module, x: Tensor, y: Tensor, mark: Mark) -> float:
    """The accuracy that the mark costs on samples of the other classes."""
    others = y != mark.target
    with torch.no_grad():
        plain, pasted = (model(part).argmax(1) == y[others] for part in (x[others], mark.put(x[others])))
    return float(plain.double().mean() - pasted.double().mean())


def clever_hans(data: Path, out: Path, mark: Mark, name: str) -> tuple[nn.Module, float]:
    """A model that the mark misleads, and the share of its class that it took."""
    x, y = fashion(data)
    held = fashion(data, "t10k")
    for share in SHARES:
        model = trained(planted(x, y, mark, share), y, out / f"{name}-{share}.pt")
        lost = drop(model, *held, mark)
        print(f"{share:.0%} of class {mark.target} marked: the mark costs {lost:.1%} of accuracy", flush=True)
        if lost >= WANTED:
            return model, share
    raise SystemExit("no share misleads the model enough")


def first_suspect(found: Spray) -> Any:
    """The cluster most unlike the rest of its class, in the class that holds the most unlike clusters."""
    group = found.suspicious_groups[0][0]
    return next(cluster for cluster in found.suspects if cluster.group == group)


def truth(found: Artefact, mark: Mark) -> Artefact:
    """The mark itself, to judge by."""
    blank = mark.put(torch.zeros(1, *found.members.shape[1:]))
    return replace(found, members=blank, region=(blank[0] > 0).float(), target=mark.target)


def figures(before: Figures, after: Figures) -> dict[str, float]:
    """What must hold, as shares: the drop, the part of it recovered, the change of accuracy, the relevance gone."""
    lost = before.others - before.others_pasted
    return {
        "drop": lost,
        "recovered": (after.others_pasted - before.others_pasted) / lost,
        "accuracy": after.accuracy - before.accuracy,
        "relevance removed": 1 - after.relevance / before.relevance,
    }


def repaired(data: Path, out: Path, name: str, ways: list[str]) -> dict[str, dict[str, float]]:
    """Find the mark and repair the model in each way; the figures, judged with the mark itself."""
    mark = MARKS[name]
    model, share = clever_hans(data, out, mark, name)
    x, y = (part[:EXPLAINED] for part in fashion(data))
    x, bearing = planted(x, y, mark, share), marked_rows(y, mark, share).numpy()
    held = fashion(data, "t10k")
    store = run(model, (x, y), out / f"{name}-store", batch_size=250, threads=torch.get_num_threads())
    found = spray(store)
    suspect = first_suspect(found)
    members = found.members(suspect.label)
    purity, holds = bearing[members].mean(), bearing[members].sum() / bearing.sum()
    print(f"the first suspect: class {suspect.group}, {len(members)} samples; {purity:.1%} marked, {holds:.1%} of all")
    seen = artefact(found, suspect, (x, y))
    print(seen, flush=True)
    (out / f"{name}.png").write_bytes(png(seen.plot()))
    real = truth(seen, mark)
    before = assess(model, held, real, batch_size=250)
    results = {}
    for way in ways:
        mended = repair(model, (x, y), seen, way, test=tuple(part[::5] for part in held), batch_size=128, **WAYS[way])
        results[way] = figures(before, assess(mended.model, held, real, batch_size=250))
        print(f"\n{mended}\nwith the mark itself: {in_per_cent(results[way])}", flush=True)
        (out / f"{name}-{way}.png").write_bytes(png(mended.plot()))
    return results


def in_per_cent(values: dict[str, float]) -> str:
    """Shares in per cent, one after the other."""
    return ", ".join(f"{key} {value:+.1%}" for key, value in values.items())


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.repair", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a folder for models, stores, pictures and figures")
    parser.add_argument("--mark", choices=list(MARKS), default="cross")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = repaired(Path(os.environ["HEADWATER_DATA"]), options.out, options.mark, options.ways)
    (options.out / f"{options.mark}.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
