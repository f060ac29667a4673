"""Trained networks with published weights, rebuilt in plain torch; each function takes the folder of real data.

The weights are kept as their authors published them: the names and layouts are Caffe's, torchvision's, TensorFlow's.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def weights(path: Path) -> dict[str, Tensor]:
    """A checkpoint of tensors alone, in float32."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    return {k: v.float() if v.is_floating_point() else v for k, v in checkpoint.items()}


# ---------------------------------------------------------------------- photographs


def photographs(data: Path, every: int, size: int) -> tuple[Tensor, Tensor]:
    """One photograph of every ``every``-th ImageNet class, its central square scaled to ``size``.

    Returns pixels ``[N, 3, size, size]`` in 0 to 1 and labels ``[N]``.
    """
    files = sorted((data / "imagenet_sample_1000").glob("*.JPEG"))
    return torch.stack([photograph(file, size) for file in files[::every]]), torch.arange(len(files))[::every]


def photograph(file: Path, size: int) -> Tensor:
    """The central square of a picture's file, scaled to ``size``; ``[3, size, size]`` in 0 to 1."""
    from PIL import Image

    picture = Image.open(file).convert("RGB")
    side, (width, height) = min(picture.size), picture.size
    left, top = (width - side) // 2, (height - side) // 2
    square = picture.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(square)).movedim(-1, 0).float() / 255


class Fire(nn.Module):
    """SqueezeNet's module: a narrow 1x1 convolution, then 1x1 and 3x3 side by side."""

    def __init__(self, inputs: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(inputs, narrow, 1)
        self.expand1x1 = nn.Conv2d(narrow, wide, 1)
        self.expand3x3 = nn.Conv2d(narrow, wide, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze1x1(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], dim=1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.0 as its prototxt has it; blue, green and red less their means, 0 to 255."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 7, stride=2)
        sizes = [(96, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128)]
        sizes += [(256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256)]
        for number, (inputs, narrow, wide) in enumerate(sizes, 2):
            self.add_module(f"fire{number}", Fire(inputs, narrow, wide))
        self.conv10 = nn.Conv2d(512, 1000, 1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x), inplace=True)
        for number in range(2, 10):
            if number in (2, 5, 9):
                x = F.max_pool2d(x, 3, stride=2, ceil_mode=True)
            x = self.get_submodule(f"fire{number}")(x)
        return F.relu(self.conv10(x)).mean((2, 3))


def squeezenet(data: Path) -> nn.Module:
    model = SqueezeNet()
    checkpoint = weights(data / "squeezenet10_deepcomp" / "squeezenet10_decoded_fp16.pt")
    model.load_state_dict({k.replace("/", "."): v for k, v in checkpoint.items()})
    return model.eval()


def caffe_pixels(pictures: Tensor) -> Tensor:
    """Pixels in 0 to 1 as Caffe's networks want them."""
    return pictures.flip(1) * 255 - torch.tensor([104.0, 117.0, 123.0])[:, None, None]


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """MobileNetV2's module: widen, convolve each channel, narrow, and add the input where the shape is kept."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inputs * expand
        widen = [_convolution(inputs, wide, 1)] if expand > 1 else []
        narrow = [nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*widen, _convolution(wide, wide, 3, stride, wide), *narrow)
        self.keeps_shape = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.keeps_shape else self.conv(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 under torchvision's names; pixels normalized with ImageNet's mean and deviation."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, 32, 3, 2)]
        inputs = 32
        table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)]
        table += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
        for expand, outputs, repeats, stride in table:
            for repeat in range(repeats):
                layers.append(InvertedResidual(inputs, outputs, stride if repeat == 0 else 1, expand))
                inputs = outputs
        self.features = nn.Sequential(*layers, _convolution(320, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


def mobilenet_v2(data: Path) -> nn.Module:
    model = MobileNetV2()
    model.load_state_dict(weights(data / "mobilenet_v2" / "mobilenet_v2-b0353104.pth"))
    return model.eval()


def normalized(pictures: Tensor) -> Tensor:
    """Pixels in 0 to 1 less ImageNet's mean, over its deviation."""
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    return (pictures - mean) / deviation


def digits(data: Path, count: int) -> tuple[Tensor, Tensor]:
    """MNIST's first test digits, padded to 32x32, in -1 to 1; ``[count, 1, 32, 32]`` and labels ``[count]``."""
    folder = data / "mnist"
    pixels = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    images = torch.from_numpy(pixels.reshape(-1, 1, 28, 28)[:count].copy()).float()
    return F.pad(images, (2, 2, 2, 2)) / 127.5 - 1, torch.from_numpy(labels[:count].astype(np.int64))


# ---------------------------------------------------------------------- a game


class BreakoutAgent(nn.Module):
    """An actor with a memory: a frame ``[N, 1, 80, 80]`` and a state ``[N, 256]`` to logits ``[N, 4]``."""

    def __init__(self) -> None:
        super().__init__()
        for number in range(1, 5):
            self.add_module(f"conv{number}", nn.Conv2d(1 if number == 1 else 32, 32, 3, stride=2, padding=1))
        self.gru = nn.GRUCell(32 * 5 * 5, 256)
        self.critic_linear, self.actor_linear = nn.Linear(256, 1), nn.Linear(256, 4)

    def remember(self, frame: Tensor, state: Tensor) -> Tensor:
        for number in range(1, 5):
            frame = F.elu(self.get_submodule(f"conv{number}")(frame))
        return self.gru(frame.view(-1, 32 * 5 * 5), state)

    def forward(self, frame: Tensor, state: Tensor) -> Tensor:
        return self.actor_linear(self.remember(frame, state))


def breakout_agent(data: Path) -> BreakoutAgent:
    model = BreakoutAgent()
    model.load_state_dict(weights(data / "breakout_a3c" / "model.80.tar"))
    return model.eval()


def frame_of(screen: np.ndarray[Any, Any]) -> Tensor:
    """The game's screen ``[210, 160, 3]``, 0 to 255, as the agent sees it: grey, halved, 0 to 1; ``[1, 1, 80, 80]``."""
    grey = torch.from_numpy(screen[35:195].mean(2)).float()[None, None]
    return F.avg_pool2d(grey, 2) / 255
