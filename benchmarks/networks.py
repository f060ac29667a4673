"""The measured networks, with random weights and the in-place activations that users' models have.

VGG-16 and ResNet-50 are those of their papers (Simonyan and Zisserman 2015, configuration D; He et al. 2016, with the
stride in the 3x3 convolution), written in plain torch. ConvNeXt, ViT and BERT are those of transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.mend import mend_torchvision

VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
BOUND = 2.0  # inputs are drawn between -BOUND and BOUND, about as wide as normalized images


class VGG(nn.Module):
    """VGG-16; input ``[N, 3, H, W]``, output ``[N, 1000]``.

    Args:
        blocks: channels and number of convolutions of each block.
        hidden: width of the dense layers.
    """

    def __init__(self, blocks: tuple[tuple[int, int], ...] = VGG16, hidden: int = 4096) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for channels, count in blocks:
            for _ in range(count):
                layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = channels
            layers.append(nn.MaxPool2d(2))
        self.features, self.pool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(7)
        dense: list[nn.Module] = []
        for width in (49 * inputs, hidden):
            dense += [nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Dropout()]
        self.classifier = nn.Sequential(*dense, nn.Linear(hidden, 1000))

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes."""
        scores: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return scores


class Bottleneck(nn.Module):
    """A residual block of ResNet-50: ``[N, inputs, H, W]`` to ``[N, 4 * width, H / stride, W / stride]``."""

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            *_convolution(inputs, width, 1), nn.ReLU(inplace=True),
            *_convolution(width, width, 3, stride), nn.ReLU(inplace=True),
            *_convolution(width, outputs, 1),
        )  # fmt: skip
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else nn.Sequential(*_convolution(inputs, outputs, 1, stride))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """The block's body beside its skip connection."""
        out: Tensor = self.body(x)
        out += self.skip(x)
        self.relu(out)  # in place
        return out


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


class ResNet(nn.Sequential):
    """A chain of residual blocks."""


def resnet50(blocks: tuple[int, ...] = (3, 4, 6, 3), width: int = 64) -> ResNet:
    """ResNet-50; input ``[N, 3, H, W]``, output ``[N, 1000]``.

    Args:
        blocks: residual blocks of each stage.
        width: channels of the stem; each stage doubles those of the one before.
    """
    layers: list[nn.Module] = [*_convolution(3, width, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inputs = width
    for stage, count in enumerate(blocks):
        for block in range(count):
            layers.append(Bottleneck(inputs, width << stage, 2 if stage and not block else 1))
            inputs = 4 * width << stage
    return ResNet(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))


class Scores(nn.Module):
    """The class scores of a model of transformers, ``[N, C]``, of an input that it takes by this name."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes."""
        scores: Tensor = self.model(**{self.name: x}).logits
        return scores


def convnext() -> nn.Module:
    """ConvNeXt-T (Liu et al. 2022); input ``[N, 3, H, W]``, output ``[N, 1000]``."""
    mend_torchvision()
    from transformers import ConvNextConfig, ConvNextForImageClassification

    return Scores(ConvNextForImageClassification(ConvNextConfig(num_labels=1000)), "pixel_values")


def vit() -> nn.Module:
    """ViT-B/16 (Dosovitskiy et al. 2021); input ``[N, 3, 224, 224]``, output ``[N, 1000]``."""
    mend_torchvision()
    from transformers import ViTConfig, ViTForImageClassification

    return Scores(ViTForImageClassification(ViTConfig(num_labels=1000)), "pixel_values")


def bert() -> nn.Module:
    """BERT-base (Devlin et al. 2019) from word embeddings ``[N, T, 768]`` to two classes ``[N, 2]``."""
    mend_torchvision()
    from transformers import BertConfig, BertForSequenceClassification

    return Scores(BertForSequenceClassification(BertConfig()), "inputs_embeds")


class LSTM(nn.Module):
    """One layer of LSTM and a dense one on its last state: ``[N, T, 256]`` to ``[N, 10]``."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(width, width, batch_first=True), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes."""
        scores: Tensor = self.out(self.lstm(x)[0][:, -1])
        return scores


def _scaled(model: nn.Module) -> nn.Module:
    """The network with random weights that keep the size of activations."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.01)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.01)
    return model


def uniform(batch: int, *shape: int) -> Tensor:
    """Random inputs ``[batch, *shape]``, values between -BOUND and BOUND."""
    return torch.empty(batch, *shape).uniform_(-BOUND, BOUND)


@dataclass(frozen=True)
class Network:
    """A network to be measured.

    Attributes:
        build: makes it; ``inputs``: makes so many samples for it.
        small: makes one small sample, at which every library loads what it loads at its first call.
        signed: whether its layers see negative activations, behind the input.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int], Tensor]
    small: Callable[[], Tensor]
    signed: bool = False


def _of_pictures(build: Callable[[], nn.Module], side: int = 224, small: int = 32, signed: bool = False) -> Network:
    return Network(build, partial(_pictures, side), partial(_pictures, small, 1), signed)


def _pictures(side: int, batch: int) -> Tensor:
    return uniform(batch, 3, side, side)


def _of_sequences(build: Callable[[], nn.Module], length: int, width: int) -> Network:
    return Network(build, partial(_sequences, length, width), partial(_sequences, 4, width, 1), signed=True)


def _sequences(length: int, width: int, batch: int) -> Tensor:
    return uniform(batch, length, width)


NETWORKS = {
    "vgg16": _of_pictures(lambda: _scaled(VGG())),
    "resnet50": _of_pictures(lambda: _scaled(resnet50())),
    "convnext": _of_pictures(convnext, signed=True),
    "vit": _of_pictures(vit, small=224, signed=True),
    "bert": _of_sequences(bert, 128, 768),
    "lstm": _of_sequences(LSTM, 64, 256),
}
TOYS = {
    "toy_vgg": _of_pictures(lambda: _scaled(VGG(((8, 1), (8, 1)), 16)), 160),
    "toy_resnet": _of_pictures(lambda: _scaled(resnet50((1, 1), 8)), 160),
    "toy_lstm": _of_sequences(lambda: LSTM(16), 8, 16),
}


def find(name: str) -> Network:
    """A network by name, the toys of the tests among them."""
    return (NETWORKS | TOYS)[name]


def build(name: str) -> nn.Module:
    """A network by name: frozen, in evaluation mode, with random weights."""
    torch.manual_seed(0)
    return find(name).build().requires_grad_(False).eval()
