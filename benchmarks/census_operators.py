"""The census's operators of torch.nn one by one, each between two linear layers or convolutions."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.census_subjects import Built, Subject

# Modules of torch.nn on [N, 6], on [N, 4, 8], on [N, 4, 8, 8] and on [N, 4, 4, 4, 4].
_DENSE = """
ReLU; ReLU6; LeakyReLU; PReLU; RReLU; ELU; CELU; SELU; GELU; GELU(approximate='tanh'); SiLU; Mish; Softplus; Softsign;
Tanh; Tanhshrink; Softshrink; Hardshrink; Hardtanh; Hardswish; Hardsigmoid; Sigmoid; LogSigmoid; Threshold(0.1, 20.0);
GLU; Softmax(1); LogSoftmax(1); Softmin(1); Identity; Dropout; AlphaDropout; FeatureAlphaDropout; BatchNorm1d(6);
LayerNorm(6); RMSNorm(6); GroupNorm(2, 6); Linear(6, 4); Flatten; Unflatten(1, (2, 3)); NLLLoss; Softmax2d
"""
_SERIES = """
Conv1d(4, 6, 3); Conv1d(4, 6, 3, padding='same', dilation=2);
Conv1d(4, 4, 3, groups=2, padding_mode='circular', padding=1); ConvTranspose1d(4, 6, 3, stride=2); MaxPool1d(2);
AvgPool1d(2); LPPool1d(2, 2); AdaptiveAvgPool1d(3); AdaptiveMaxPool1d(3); ReflectionPad1d(1); ReplicationPad1d(1);
ConstantPad1d(1, 0.5); ZeroPad1d(1); CircularPad1d(1); BatchNorm1d(4); InstanceNorm1d(4, affine=True);
LocalResponseNorm(2); CrossMapLRN2d(2); Dropout1d; Upsample(scale_factor=2); Upsample(scale_factor=2, mode='linear');
GroupNorm(2, 4); LSTM(8, 5); GRU(8, 5); RNN(8, 5); LSTM(8, 5, bidirectional=True); LSTM(8, 5, proj_size=3);
MultiheadAttention; TransformerEncoderLayer(8, 2, 16); TransformerDecoderLayer(8, 2, 16); Transformer(8, 2, 1, 1, 16);
Bilinear(8, 8, 5); CosineSimilarity; PairwiseDistance; LSTMCell(8, 5); GRUCell(8, 5); RNNCell(8, 5)
"""
_MAPS = """
Conv2d(4, 6, 3); Conv2d(4, 8, 3, groups=4, stride=2, padding=1); Conv2d(4, 6, 3, padding=1, padding_mode='reflect');
ConvTranspose2d(4, 6, 3, stride=2, output_padding=1); MaxPool2d(2); AvgPool2d(2);
AvgPool2d(3, 2, 1, count_include_pad=False); LPPool2d(2, 2); FractionalMaxPool2d(2, output_size=3);
AdaptiveAvgPool2d(3); AdaptiveMaxPool2d(3); ReflectionPad2d(1); ReplicationPad2d(1); ZeroPad2d(1);
ConstantPad2d(1, 0.5); CircularPad2d(1); BatchNorm2d(4); InstanceNorm2d(4); LocalResponseNorm(2); GroupNorm(2, 4);
Dropout2d; ChannelShuffle(2); PixelShuffle(2); PixelUnshuffle(2); Upsample(scale_factor=2, mode='bilinear');
Upsample(scale_factor=2, mode='bicubic'); UpsamplingNearest2d(scale_factor=2); UpsamplingBilinear2d(scale_factor=2);
Unfold(3); Softmax2d; LayerNorm((4, 8, 8)); PReLU(4)
"""
_VOLUMES = """
Conv3d(4, 6, 3); ConvTranspose3d(4, 6, 2); MaxPool3d(2); AvgPool3d(2); LPPool3d(2, 2); AdaptiveAvgPool3d(2);
AdaptiveMaxPool3d(2); FractionalMaxPool3d(2, output_size=2); BatchNorm3d(4); InstanceNorm3d(4); Dropout3d;
Upsample(scale_factor=2, mode='trilinear'); ReflectionPad3d(1); ReplicationPad3d(1); ConstantPad3d(1, 0.5);
GroupNorm(2, 4)
"""
# What has no module of its own, on [N, 4, 8, 8].
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.normalize": lambda v: F.normalize(v, dim=1),
    "F.grid_sample": lambda v: F.grid_sample(v, torch.tanh(v[:, :2].permute(0, 2, 3, 1))),
    "F.affine_grid": lambda v: F.grid_sample(v, F.affine_grid(v[:, 0, :2, :3], v.shape, False), align_corners=False),
    "F.fold": lambda v: F.fold(F.unfold(v, 2), (8, 8), 2),
    "F.gumbel_softmax": lambda v: v * F.softmax(v, 1),
    "F.scaled_dot_product_attention": lambda v: F.scaled_dot_product_attention(v, v.flip(1), v.flip(2), is_causal=True),
    "F.max_unpool2d": lambda v: F.max_unpool2d(*F.max_pool2d(v, 2, return_indices=True), 2),
    "F.one_hot": lambda v: v * F.one_hot(v.argmax(1), 4).movedim(-1, 1),
    "F.interpolate antialias": lambda v: F.interpolate(v, size=5, mode="bilinear", antialias=True),
    "F.pdist": lambda v: F.pdist(v.flatten(2)[0])[None],
    "F.layer_norm": lambda v: F.layer_norm(v, v.shape[-1:]),
    "F.conv2d with a live filter": lambda v: torch.stack([F.conv2d(one[None], one[None, :, :3, :3])[0] for one in v]),
    "torch.fft": lambda v: torch.fft.irfft2(torch.fft.rfft2(v) * torch.linspace(0, 1, 5)),
    "torch.fft magnitude": lambda v: torch.fft.rfft(v).abs(),
    "torch.stft": lambda v: torch.stft(
        v.flatten(1), 16, window=torch.ones(16, dtype=v.dtype), return_complex=True
    ).abs(),
    "torch.cumsum": lambda v: v.cumsum(2),
    "torch.logcumsumexp": lambda v: v.logcumsumexp(2),
    "torch.cumprod": lambda v: v.cumprod(2),
    "torch.logsumexp": lambda v: v.logsumexp(1),
    "torch.einsum": lambda v: torch.einsum("nchw,ncwk->nchk", v, v),
    "torch.cdist": lambda v: torch.cdist(v.flatten(2), v.flatten(2).flip(1)),
    "torch.topk": lambda v: v.topk(3, 1).values,
    "torch.var": lambda v: v.var(1),
    "torch.std_mean": lambda v: torch.cat(torch.std_mean(v, 1), 1),
    "torch.quantile": lambda v: v.quantile(0.3, 1),
    "torch.linalg.norm": lambda v: torch.linalg.norm(v, dim=1),
    "torch.linalg.solve": lambda v: torch.linalg.solve(v[:, :, :4, :4] + 3 * torch.eye(4), v[:, :, :4, 4:]),
    "torch.linalg.det": lambda v: torch.linalg.det(v),
    "torch.linalg.cross": lambda v: torch.linalg.cross(v[:, :3], v[:, 1:], dim=1),
    "torch.linalg.matrix_exp": lambda v: torch.linalg.matrix_exp(v / 8),
    "torch.linalg.svd": lambda v: torch.linalg.svdvals(v),
    "torch.linalg.inv": lambda v: torch.linalg.inv(v + 9 * torch.eye(8)),
    "torch.pow with a live exponent": lambda v: (v.abs() + 0.1) ** v.flip(1),
    "torch.atan2": lambda v: torch.atan2(v, v.flip(1)),
    "torch.xlogy": lambda v: torch.xlogy(v, v.flip(1).abs() + 1),
    "torch.logaddexp": lambda v: torch.logaddexp(v, v.flip(1)),
    "torch.copysign": lambda v: torch.copysign(v, v.flip(1)),
    "torch.renorm": lambda v: torch.stack([one.renorm(2, 0, 0.5) for one in v]),
    "torch.frexp": lambda v: torch.frexp(v).mantissa,
    "torch.ldexp": lambda v: torch.ldexp(v, torch.tensor(2)),
    "torch.cross entropy": lambda v: -F.log_softmax(v, 1)[:, 0],
    "torch.segment_reduce": lambda v: torch.stack(
        [torch.segment_reduce(one, "mean", lengths=torch.tensor([1, 3])) for one in v]
    ),
    "torch.vmap": lambda v: torch.vmap(lambda one: one.relu() * 2)(v),
    "complex product": lambda v: torch.view_as_real(torch.view_as_complex(v.unflatten(3, (4, 2))) * (0.6 + 0.8j)),
}


class Between(nn.Module):
    """A part between two linear maps of channels; what comes out is flattened to class scores."""

    def __init__(self, first: nn.Module, part: nn.Module | None, call: Callable[[Any, Tensor], Any], x: Tensor) -> None:
        super().__init__()
        self.first, self.part, self.call = first, part, call
        features = self._features(x)
        self.last = nn.Linear(features.shape[1], 3)

    def _features(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.features(x)

    def features(self, x: Tensor) -> Tensor:
        """What the part makes of a sample, ``[N, F]``."""
        found = self.call(self.part, self.first(x))
        found = found[0] if isinstance(found, tuple) else found
        return found.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores ``[N, 3]``."""
        return self.last(self.features(x))


_CALLS: dict[str, Callable[[Any, Tensor], Any]] = {
    "MultiheadAttention": lambda part, v: part(v, v, v),
    "TransformerDecoderLayer": lambda part, v: part(v, v.flip(1)),
    "Transformer": lambda part, v: part(v, v.flip(1)),
    "Bilinear": lambda part, v: part(v, v.flip(1)),
    "CosineSimilarity": lambda part, v: part(v, v.flip(1)),
    "PairwiseDistance": lambda part, v: part(v, v.flip(1)),
    "LSTMCell": lambda part, v: part(v[:, 0]),
    "GRUCell": lambda part, v: part(v[:, 0]),
    "RNNCell": lambda part, v: part(v[:, 0]),
    "CrossMapLRN2d": lambda part, v: part(v.unsqueeze(2)),
    "NLLLoss": lambda part, v: F.cross_entropy(v, torch.zeros(len(v), dtype=torch.long), reduction="none")[:, None],
    "Softmax2d": lambda part, v: part(v if v.dim() > 2 else v[:, :, None, None]),
}


def _module(text: str, first: Callable[[], nn.Module], shape: tuple[int, ...]) -> Built:
    name = re.match(r"\w+", text)
    assert name is not None, f"{text!r} names no module"
    kind = name.group()
    if kind == "MultiheadAttention":
        part: nn.Module = nn.MultiheadAttention(8, 2, batch_first=True)
    elif kind.startswith("Transformer") or kind in ("LSTM", "GRU", "RNN"):
        part = eval(f"nn.{text[:-1]}, batch_first=True)", {"nn": nn})
    else:
        part = eval(f"nn.{text}" if "(" in text else f"nn.{text}()", {"nn": nn})
    call = _CALLS.get(kind, lambda part, v: part(v))
    x = torch.randn(2, *shape)
    sizes = "x".join(map(str, x.shape))
    return Built(Between(first().eval(), part.eval(), call, x), x, f"between linear maps, {sizes}")


def _function(name: str) -> Built:
    function, x = _FUNCTIONS[name], torch.randn(2, 3, 8, 8)
    return Built(Between(nn.Conv2d(3, 4, 1), None, lambda part, v: function(v), x), x, "between linear maps, 2x3x8x8")


def subjects() -> list[Subject]:
    """Modules and functions, each a subject."""
    places: list[tuple[str, Callable[[], nn.Module], tuple[int, ...]]] = [
        (_DENSE, lambda: nn.Linear(5, 6), (5,)),
        (_SERIES, lambda: nn.Conv1d(3, 4, 1), (3, 8)),
        (_MAPS, lambda: nn.Conv2d(3, 4, 1), (3, 8, 8)),
        (_VOLUMES, lambda: nn.Conv3d(3, 4, 1), (3, 4, 4, 4)),
    ]
    found = {}
    for text, first, shape in places:
        for part in (p.strip() for p in text.replace("\n", " ").split(";")):
            key = part if part not in found else f"{part} on {len(shape)} axes"
            found[key] = Subject("torch.nn", key, partial(_module, part, first, shape))
    for name in _FUNCTIONS:
        found[name] = Subject("torch.nn", name, partial(_function, name))
    return list(found.values())
