"""The measured networks, with random weights and the in-place activations that users' models have.

VGG-16 and ResNet-50 are those of their papers (Simonyan and Zisserman 2015, configuration D; He et al. 2016, with the
stride in the 3x3 convolution), written in plain torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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


def resnet50(blocks: tuple[int, ...] = (3, 4, 6, 3), width: int = 64) -> nn.Sequential:
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
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))


@dataclass(frozen=True)
class Network:
    """A network to be measured: how to build it, and the side of its square input in pixels."""

    build: Callable[[], nn.Module]
    side: int = 224


NETWORKS = {"vgg16": Network(VGG), "resnet50": Network(resnet50)}
TOYS = {
    "toy_vgg": Network(lambda: VGG(((8, 1), (8, 1)), 16), 160),
    "toy_resnet": Network(lambda: resnet50((1, 1), 8), 160),
}


def find(name: str) -> Network:
    """A network by name, the toys of the tests among them."""
    return (NETWORKS | TOYS)[name]


def build(name: str) -> nn.Module:
    """A network by name: frozen, in evaluation mode, with random weights that keep the size of activations."""
    torch.manual_seed(0)
    model = find(name).build().requires_grad_(False).eval()
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.01)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.01)
    return model


def pictures(batch: int, side: int) -> Tensor:
    """A batch of random pictures ``[batch, 3, side, side]``, values between -BOUND and BOUND."""
    return torch.empty(batch, 3, side, side).uniform_(-BOUND, BOUND)
