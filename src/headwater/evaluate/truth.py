"""Data of which the right answer is known: which blocks, pixels, samples or words decide, and by how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headwater.errors import InvalidInput


@dataclass(frozen=True)
class Planted:
    """Samples with their labels and with what decides them.

    Attributes:
        x: samples, ``[N, ...]``.
        y: labels, ``[N]``.
        truth: bool, where the evidence is: a mask ``[N, ...]`` of features, or marks ``[N, blocks]``.
    """

    x: Tensor
    y: Tensor
    truth: Tensor


@dataclass(frozen=True)
class Exact:
    """A model whose relevance is known in closed form.

    Attributes:
        model: in evaluation mode.
        x: samples, ``[N, F]``.
        relevance: the right answer, ``[N, F]``: against zeros as the baseline.
    """

    model: nn.Module
    x: Tensor
    relevance: Tensor


def majority_sequences(
    images: Tensor, labels: Tensor, *, count: int | None = None, blocks: int = 3, majority: int = 2, seed: int = 0
) -> Planted:
    """The thesis's majority-sample sequences: images side by side, most of them of one class, which is the label.

    Each sequence starts from one image: ``majority - 1`` others of its class and ``blocks - majority`` of other classes
    are drawn, and all are concatenated in random order along the last axis.

    Args:
        images: ``[M, ..., W]``; labels: ``[M]``, of at least two classes.
        count: of sequences; by default one for each image, in order.
        blocks, majority: images a sequence, and those of the label's class: more than half.
        seed: of the draws.

    Returns:
        samples ``[count, ..., blocks * W]`` and marks ``[count, blocks]``.

    Raises:
        InvalidInput: sizes that do not fit.

    Source: Chormai 2018 (thesis), Section 4.3.1 and Fig. 4.8.
    """
    n = len(images) if count is None else count
    if len(images) != len(labels) or len(labels.unique()) < 2 or n < 1 or not blocks < 2 * majority <= 2 * blocks:
        raise InvalidInput(
            "majority sequences need images with labels of at least two classes and majority > blocks / 2"
        )
    generator = torch.Generator().manual_seed(seed)
    classes, start = labels.cpu(), torch.arange(n) % len(images)
    by_class = classes.argsort(stable=True)
    kinds, sizes = classes.unique(return_counts=True)
    own = torch.searchsorted(kinds, classes[start])  # the class's number
    size, first = sizes[own][:, None], (sizes.cumsum(0) - sizes)[own][:, None]  # and where its samples are

    def drawn(count: int, below: Tensor) -> Tensor:
        return (torch.rand(n, count, generator=generator, dtype=torch.float64) * below).long()

    place = by_class.argsort()[start][:, None] - first
    same = drawn(majority - 1, (size - 1).clamp(min=1))
    same = first + torch.where(size > 1, same + (same >= place), 0)  # past the sample itself
    other = drawn(blocks - majority, len(images) - size)
    other = other + torch.where(other >= first, size, 0)  # past the class
    order = torch.rand(n, blocks, generator=generator).argsort(1)
    rows = torch.cat([start[:, None], by_class[same], by_class[other]], 1).gather(1, order)
    marks = order < majority
    chosen = images[rows.to(images.device)]  # [n, blocks, ..., W]
    return Planted(torch.cat(list(chosen.unbind(1)), -1), labels[start.to(labels.device)], marks)


def watermarked(
    images: Tensor, labels: Tensor, marked: int, *, mark: Tensor | None = None, share: float = 1.0, seed: int = 0
) -> Planted:
    """A watermark at a random place on the images of one class: what a Clever Hans learns.

    Args:
        images: ``[N, C, H, W]``; labels: ``[N]``.
        marked: the class that gets it.
        mark: ``[C, h, w]`` or ``[h, w]``, which replaces the pixels; by default a checkerboard of the images' own
            range, an eighth of the side.
        share: of the class's images that get it, 0 to 1.
        seed: of places and of the choice.

    Returns:
        masks ``[N, H, W]``, empty where there is no watermark.

    Raises:
        InvalidInput: shapes that do not fit.
    """
    if images.dim() != 4 or len(labels) != len(images):
        raise InvalidInput(f"a watermark needs images [N, C, H, W] and a label for each, not {list(images.shape)}")
    height, width = images.shape[2:]
    if mark is None:
        side = max(2, min(height, width) // 8)
        board = (torch.arange(side)[:, None] + torch.arange(side)) % 2
        mark = torch.where(board == 1, float(images.max()), float(images.min()))
    mark = mark.expand(images.shape[1], *mark.shape[-2:]).to(images)
    tall, wide = mark.shape[1:]
    if tall > height or wide > width:
        raise InvalidInput(f"a watermark of {tall}x{wide} does not fit images of {height}x{width}")
    generator = torch.Generator().manual_seed(seed)
    x, mask = images.clone(), torch.zeros(len(images), height, width, dtype=torch.bool)
    wanted = (labels.cpu() == marked) & (torch.rand(len(images), generator=generator) < share)
    for i in wanted.nonzero().flatten().tolist():
        top = int(torch.randint(height - tall + 1, (), generator=generator))
        left = int(torch.randint(width - wide + 1, (), generator=generator))
        x[i, :, top : top + tall, left : left + wide] = mark
        mask[i, top : top + tall, left : left + wide] = True
    return Planted(x, labels, mask)


def tones(
    count: int, *, length: int = 128, periods: tuple[float, ...] = (4.0, 8.0, 16.0), window: int = 32,
    loudness: float = 1.0, noise: float = 0.3, seed: int = 0,
) -> Planted:  # fmt: skip
    """Noise with one tone in a window at a random place; its pitch is the class.

    Args:
        count: of series, each ``[1, length]``.
        periods: of the tones, in samples, one a class.
        window: samples that a tone lasts.
        loudness, noise: amplitude of the tone and deviation of the noise.
        seed: of everything random.

    Returns:
        samples ``[count, 1, length]``, masks ``[count, length]``.

    Raises:
        InvalidInput: sizes that do not fit.
    """
    if count < 1 or len(periods) < 2 or not 1 <= window <= length:
        raise InvalidInput("tones need a count, at least two periods, and a window no longer than the series")
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(len(periods), (count,), generator=generator)
    begin = torch.randint(length - window + 1, (count, 1), generator=generator)
    phase = 6.2832 * torch.rand(count, 1, generator=generator)
    at = torch.arange(length)
    mask = (at >= begin) & (at < begin + window)
    tone = torch.sin(6.2832 * at / torch.tensor(periods)[y][:, None] + phase)
    x = noise * torch.randn(count, length, generator=generator) + loudness * tone * mask
    return Planted(x[:, None], y, mask)


def words(count: int, *, length: int = 12, vocabulary: int = 50, classes: int = 3, seed: int = 0) -> Planted:
    """Texts of filler words with one keyword at a random place; the keyword is the class.

    Args:
        count: of texts, each ``[length]`` ids; id 0 is left for padding, ids 1 to ``classes`` are the keywords.
        vocabulary: ids there are, more than ``classes + 1``.
        seed: of everything random.

    Returns:
        ids ``[count, length]``, masks ``[count, length]``.

    Raises:
        InvalidInput: sizes that do not fit.
    """
    if count < 1 or length < 1 or classes < 2 or vocabulary < classes + 2:
        raise InvalidInput("words need a count, a length, at least two classes, and a vocabulary with filler words")
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (count,), generator=generator)
    x = torch.randint(classes + 1, vocabulary, (count, length), generator=generator)
    mask = torch.arange(length) == torch.randint(length, (count, 1), generator=generator)
    return Planted(torch.where(mask, y[:, None] + 1, x), y, mask)


def linear(count: int, *, features: int = 8, bias: bool = False, seed: int = 0) -> Exact:
    """A linear model, of which ``R_i = w_i x_i`` is right by every axiom.

    Args:
        count: of samples; ``features``: of each; ``bias``: whether the model has one, which belongs to no feature.
        seed: of weights and samples.
    """
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(features, 1, bias=bias)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(count, features, generator=generator)
    return Exact(nn.Sequential(model, nn.Flatten(0)).eval(), x, (model.weight * x).detach())


def logic(count: int, *, seed: int = 0) -> Exact:
    """``(a and b) + (c or d) + (e xor g)`` of six bits as a ReLU network, with the Shapley values of each bit.

    A pair's values are ``φ_a = ½ (f(a, 0) - f(0, 0) + f(a, b) - f(0, b))`` and the same with the bits exchanged.

    Args:
        count: of samples, ``[count, 6]`` zeros and ones; ``seed``: of their draw.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(2, (count, 6), generator=generator).float()
    parts = []
    for gate, (a, b) in zip(_GATES, _pairs(x), strict=True):
        zero = torch.zeros_like(a)
        first = (gate(a, zero) - gate(zero, zero) + gate(a, b) - gate(zero, b)) / 2
        second = (gate(zero, b) - gate(zero, zero) + gate(a, b) - gate(a, zero)) / 2
        parts += [first, second]
    return Exact(_Logic().eval(), x, torch.stack(parts, 1))


def _pairs(x: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(x[:, i], x[:, i + 1]) for i in range(0, 6, 2)]


def _and(a: Tensor, b: Tensor) -> Tensor:
    return (a + b - 1).clamp(min=0)


_GATES: list[Any] = [_and, lambda a, b: a + b - _and(a, b), lambda a, b: a + b - 2 * _and(a, b)]


class _Logic(nn.Module):
    """The three gates as one hidden layer: the sums of the last two pairs, and ``relu(a + b - 1)`` of all three."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(6, 5), nn.Linear(5, 1, bias=False)
        pairs = torch.eye(3).repeat_interleave(2, 1)
        with torch.no_grad():
            self.hidden.weight.copy_(torch.cat([pairs, pairs[1:]]))
            self.hidden.bias.copy_(torch.tensor([-1.0, -1, -1, 0, 0]))
            self.out.weight.copy_(torch.tensor([[1.0, -1, -2, 1, 1]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(x))).squeeze(1)
