"""Section VII-A on the paper's own faces: Adience, and IMDB-WIKI for the second pretraining, where a user has them.

``adience/`` holds ``fold_0_data.txt`` to ``fold_4_data.txt`` and ``aligned/`` with a folder a user; ``imdb_wiki/``
holds ``imdb.mat`` or ``wiki.mat`` or both, with the folders of pictures that they name. MobileNetV2 stands for VGG-16.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import headwater as hw
from experiments.reproduction import Reproduction
from headwater.show.image import images
from tests.models import shared

GROUPS = ((0, 2), (4, 6), (8, 13), (15, 20), (25, 32), (38, 43), (48, 53), (60, 100))  # years
FOLDS, SIDE, BATCH = 5, 224, 32
AGES = 101  # classes of the second pretraining, a year each


@dataclass(frozen=True)
class Face:
    """A picture's file, its class, and the fold that it belongs to."""

    path: Path
    label: int
    fold: int = 0


def group_of(age: str) -> int | None:
    """The group of an entry such as ``(25, 32)`` or ``36``: the one with the nearest middle; None where it fits none.

    Entries of the set differ by some years from the groups' names, as ``(8, 12)`` and ``(8, 13)``.
    """
    years = [int(word) for word in age.strip("()").split(",") if word.strip().isdigit()]
    if not years:
        return None
    middle = sum(years) / len(years)
    distance = [abs(middle - sum(group) / 2) if group[0] < 60 else max(0.0, 60 - middle) for group in GROUPS]
    nearest = min(range(len(GROUPS)), key=lambda k: distance[k])
    return nearest if distance[nearest] <= 5 else None


def faces(data: Path) -> list[Face]:
    """Adience's aligned faces that have a group of age and a file."""
    found = []
    for fold in range(FOLDS):
        with (data / "adience" / f"fold_{fold}_data.txt").open(newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                group = group_of(row["age"])
                name = f"landmark_aligned_face.{row['face_id']}.{row['original_image']}"
                path = data / "adience" / "aligned" / row["user_id"] / name
                if group is not None and path.exists():
                    found.append(Face(path, group, fold))
    return found


def celebrities(data: Path) -> list[Face]:
    """IMDB-WIKI's faces with an age of 0 to 100 years, no more of any age than of the median one."""
    from scipy.io import loadmat

    found: list[Face] = []
    for kind in ("imdb", "wiki"):
        if not (data / "imdb_wiki" / f"{kind}.mat").exists():
            continue
        entry = loadmat(data / "imdb_wiki" / f"{kind}.mat", squeeze_me=True)[kind]
        for born, taken, name in zip(*(entry[k].item() for k in ("dob", "photo_taken", "full_path")), strict=True):
            if born < 367:  # before Python's first day: no date
                continue
            age = (
                date(int(taken), 7, 1) - (date.min + timedelta(int(born) - 367))
            ).days // 365  # Matlab's day 1: year 0
            if 0 <= age < AGES:
                found.append(Face(data / "imdb_wiki" / kind / str(name), age))
    counts = torch.tensor([face.label for face in found]).bincount(minlength=AGES)
    most = int(counts[counts > 0].median()) if found else 0
    kept, seen = [], [0] * AGES
    for i in torch.randperm(len(found)).tolist():
        seen[found[i].label] += 1
        if seen[found[i].label] <= most:
            kept.append(found[i])
    return kept


def pixels(some: Sequence[Face]) -> tuple[Tensor, Tensor]:
    """Inputs ``[N, 3, 224, 224]`` and classes ``[N]``."""
    x = torch.stack([shared.photograph(face.path, SIDE) for face in some])
    return shared.normalized(x), torch.tensor([face.label for face in some])


def tuned(model: nn.Module, classes: int, some: Sequence[Face], epochs: int) -> nn.Module:
    """The network with a new last layer, trained by SGD with momentum on all weights."""
    model.get_submodule("classifier")[1] = nn.Linear(1280, classes)  # type: ignore[operator]
    model.train().requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), 5e-3, momentum=0.9, weight_decay=5e-4)
    for _ in range(epochs):
        for rows in torch.randperm(len(some)).split(BATCH):
            x, y = pixels([some[i] for i in rows.tolist()])
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


def study(run: Reproduction, further: bool, fold: int) -> dict[str, Any]:
    """One fold's accuracy and 1-off accuracy, and LRP-ε and the composite of four of the oldest."""
    own = faces(run.path("adience").parent)
    model = shared.mobilenet_v2(run.data)
    if further:
        model = tuned(model, AGES, celebrities(run.data), run.pick(quick=1, full=3))
    model = tuned(model, len(GROUPS), [face for face in own if face.fold != fold], run.pick(quick=1, full=8))
    held = [face for face in own if face.fold == fold]
    off = []
    with torch.inference_mode():
        for first in range(0, len(held), BATCH):
            x, y = pixels(held[first : first + BATCH])
            off.append((model(x).argmax(1) - y).abs())
    away = torch.cat(off)
    oldest = ([face for face in held if face.label == len(GROUPS) - 1] or held)[:4]
    x, _ = pixels(oldest)
    maps = {rules: hw.explain(model, x, len(GROUPS) - 1, composite=rules, bounds=(-2.2, 2.7)).relevance
            for rules in ("epsilon", "cmp")}  # fmt: skip
    return {"exact": float((away == 0).double().mean()), "near": float((away <= 1).double().mean()), "x": x, **maps}


def reproduce(run: Reproduction) -> None:
    """The paper's table on its own faces, and its figures 12 and 13, where Adience is there; else nothing."""
    if not (run.data / "adience" / "fold_0_data.txt").exists():
        return
    rows, first = [], {}
    for further in (False, True) if (run.data / "imdb_wiki").exists() else (False,):
        name = "ImageNet and IMDB-WIKI" if further else "ImageNet"
        found = [run.step(f"adience_{int(further)}_{fold}", partial(study, run, further, fold))
                 for fold in range(run.pick(quick=1, full=FOLDS))]  # fmt: skip
        first[name] = found[0]
        means = {k: 100 * sum(f[k] for f in found) / len(found) for k in ("exact", "near")}
        rows.append({"pretraining": name, "accuracy": f"{means['exact']:.1f}", "1-off": f"{means['near']:.1f}"})
    run.table("adience", rows, "Adience's official folds, MobileNetV2; the paper has 56.5 and 90.0, 63.0 and 96.0.")
    cells, over, heads = [], [], []
    for name, values in first.items():
        for rules in ("epsilon", "cmp"):
            cells += list(values[rules])
            over += list(values["x"])
            heads += [f"{name}, {rules}"] * len(values["x"])
    figure = images(cells, over, heads, limit="each", columns=len(next(iter(first.values()))["x"]))
    run.figure("figure_12_13_adience", figure, {f"{n} {r}": v[r] for n, v in first.items() for r in ("epsilon", "cmp")},
               "Figures 12 and 13 on Adience: relevance for the oldest group.")  # fmt: skip
