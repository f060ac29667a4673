"""Texts: news by topic and sentences of film reviews, as numbers of words."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from experiments.reproduction import Reproduction

PAD, RARE = 0, 1
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


@dataclass(frozen=True)
class Corpus:
    """Texts of known classes.

    Attributes:
        name: in words; ``classes``: their names.
        words: of each text, as many as are read.
        ids: ``[N, length]``; 0 pads, 1 stands for words that are rare in training.
        labels: ``[N]``; ``train``, ``test``: rows.
        vocabulary: the word of each id.
    """

    name: str
    classes: list[str]
    words: list[list[str]]
    ids: Tensor
    labels: Tensor
    train: Tensor
    test: Tensor
    vocabulary: list[str]


def topics(run: Reproduction, length: int) -> Corpus:
    """20 Newsgroups in its usual split where the data folder has ``20news-bydate-train`` and ``-test``, or BBC."""
    folders = [run.data / f"20news-bydate-{part}" for part in ("train", "test")]
    if all(folder.is_dir() for folder in folders):
        parts = [_folder(folder) for folder in folders]
        return _corpus("20 Newsgroups", [t for part in parts for t in part], length, held_out=len(parts[1]))
    texts = []
    with zipfile.ZipFile(run.path("text_bbc", "bbc.zip")) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".txt") and n.count("/") >= 2):
            texts.append((archive.read(name).decode("latin-1"), name.split("/")[-2]))
    return _corpus("BBC news", _shuffled(texts, run.seed), length, held_out=len(texts) // 4)


def sentences(run: Reproduction, length: int) -> Corpus:
    """Sentences of film reviews, for or against."""
    texts = []
    with zipfile.ZipFile(run.path("text_sentence_polarity", "sentence_polarity.zip")) as archive:
        for kind in ("neg", "pos"):
            lines = archive.read(f"sentence_polarity/rt-polarity.{kind}").decode("latin-1").splitlines()
            texts += [(line, kind) for line in lines if line.strip()]
    return _corpus("film reviews", _shuffled(texts, run.seed), length, held_out=2000, at_end=True)


def _folder(root: Path) -> list[tuple[str, str]]:
    files = sorted(file for file in root.glob("*/*") if file.is_file())
    return [(file.read_text("latin-1"), file.parent.name) for file in files]


def _shuffled(texts: Sequence[tuple[str, str]], seed: int) -> list[tuple[str, str]]:
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed)).tolist()
    return [texts[i] for i in order]


def _corpus(
    name: str, texts: Sequence[tuple[str, str]], length: int, held_out: int, *, size: int = 8000, at_end: bool = False
) -> Corpus:
    """Texts as ids; the last ``held_out`` are for test. Words stand at the end of a row (``at_end``) or the start."""
    words = [_WORD.findall(text.lower())[:length] for text, _ in texts]
    classes = sorted({kind for _, kind in texts})
    last = len(texts) - held_out
    counts = Counter(word for text in words[:last] for word in text)
    vocabulary = ["", "?", *(word for word, count in counts.most_common(size) if count > 2)]
    number = {word: i for i, word in enumerate(vocabulary)}
    ids = torch.full((len(texts), length), PAD)
    for row, text in zip(ids, words, strict=True):
        found = torch.tensor([number.get(word, RARE) for word in text], dtype=torch.long)
        if at_end and len(found):
            row[-len(found) :] = found
        else:
            row[: len(found)] = found
    labels = torch.tensor([classes.index(kind) for _, kind in texts])
    rows = torch.arange(len(texts))
    return Corpus(name, classes, words, ids, labels, rows[:last], rows[last:], vocabulary)


def log_odds(corpus: Corpus) -> Tensor:
    """How much more frequent a word is in a class's training texts than in others, ``[classes, words]``, smoothed."""
    size = len(corpus.vocabulary)
    counts = torch.zeros(len(corpus.classes), size, dtype=torch.float64)
    for label in range(len(corpus.classes)):
        rows = corpus.train[corpus.labels[corpus.train] == label]
        counts[label] = torch.bincount(corpus.ids[rows].flatten(), minlength=size).double()
    counts[:, PAD] = 0
    own, rest = counts + 0.5, counts.sum(0) - counts + 0.5
    return (own / own.sum(1, keepdim=True)).log() - (rest / rest.sum(1, keepdim=True)).log()
