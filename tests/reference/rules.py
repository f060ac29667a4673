"""Every propagation rule in plain loops, in float64, from its paper's formula: slow, and apart from the library.

A layer is a list of neurons. Neuron ``k`` of the layer above holds its taps, the pairs ``(j, w_jk)`` of an input's
flat index and the weight on it, and its bias ``b_k``. Padding is no tap, so that sums run over existing inputs. A rule
answers for one neuron: from the activations and weights of its taps and its bias, the share of ``R_k`` that each tap
receives. ``redistribute`` adds the messages up.

Papers: "review" is Samek et al., Toward Interpretable Machine Learning (2020); "thesis" is Chormai, Designing
Recurrent Neural Networks for Explainability (2018); "earthquake paper" is Majstorovic et al. (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Tap:
    """One connection as a rule sees it: the input's flat index, its activation, and the weight on it."""

    index: int
    a: float
    w: float


@dataclass(frozen=True)
class Neuron:
    taps: list[tuple[int, float]]
    bias: float


@dataclass(frozen=True)
class Layer:
    """Neurons in the order of the flattened output; shapes are without the batch."""

    neurons: list[Neuron]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


Rule = Callable[[list[Tap], float], list[float]]


def positive(value: float) -> float:
    return max(0.0, value)


def negative(value: float) -> float:
    return min(0.0, value)


def ratio(part: float, whole: float) -> float:
    """A share of nothing is nothing."""
    return part / whole if whole != 0.0 else 0.0


# Rules ------------------------------------------------------------------------------------------------------


def zero(taps: list[Tap], bias: float) -> list[float]:
    """LRP-0: a_j w_jk / sum_0j a_j w_jk (review, Eq. 2 with gamma = 0)."""
    z = sum(t.a * t.w for t in taps) + bias
    return [ratio(t.a * t.w, z) for t in taps]


def epsilon(eps: float) -> Rule:
    """LRP-epsilon: a_j w_jk / (z_k + eps sign(z_k)) (review, Algorithm 6; eps takes the sign of z)."""

    def share(taps: list[Tap], bias: float) -> list[float]:
        z = sum(t.a * t.w for t in taps) + bias
        stabilized = z + eps if z >= 0.0 else z - eps
        return [t.a * t.w / stabilized for t in taps]

    return share


def gamma(g: float) -> Rule:
    """LRP-gamma for non-negative inputs and a rectified output: rho(w) = w + g w+, also of the bias (review, Eq. 2)."""

    def rho(w: float) -> float:
        return w + g * positive(w)

    def share(taps: list[Tap], bias: float) -> list[float]:
        z = sum(t.a * rho(t.w) for t in taps) + rho(bias)
        return [ratio(t.a * rho(t.w), z) for t in taps]

    return share


def generalized_gamma(g: float) -> Rule:
    """LRP-gamma for inputs of any sign: parts of the output's own sign count 1 + g times (Andeol et al., 2021)."""

    def share(taps: list[Tap], bias: float) -> list[float]:
        z = sum(t.a * t.w for t in taps) + bias
        if z == 0.0:
            return [0.0 for _ in taps]
        favoured = positive if z > 0.0 else negative
        whole = sum(t.a * t.w + g * favoured(t.a * t.w) for t in taps) + bias + g * favoured(bias)
        return [ratio(t.a * t.w + g * favoured(t.a * t.w), whole) for t in taps]

    return share


def alpha_beta(alpha: float, beta: float, with_bias: bool) -> Rule:
    """LRP-alpha-beta on (a w)+ and (a w)- (thesis, 3.34, signed); with_bias adds b+ and b- to the two sums."""

    def share(taps: list[Tap], bias: float) -> list[float]:
        above = sum(positive(t.a * t.w) for t in taps) + (positive(bias) if with_bias else 0.0)
        below = sum(negative(t.a * t.w) for t in taps) + (negative(bias) if with_bias else 0.0)
        return [alpha * ratio(positive(t.a * t.w), above) - beta * ratio(negative(t.a * t.w), below) for t in taps]

    return share


def lrp_beta(beta: float) -> Rule:
    """(1 + beta) a w+ / sum a w+  -  beta a w- / sum a w-, for non-negative inputs (earthquake paper, Eq. 4)."""

    def share(taps: list[Tap], bias: float) -> list[float]:
        above = sum(t.a * positive(t.w) for t in taps)
        below = sum(t.a * negative(t.w) for t in taps)
        return [(1 + beta) * ratio(t.a * positive(t.w), above) - beta * ratio(t.a * negative(t.w), below) for t in taps]

    return share


def z_plus(taps: list[Tap], bias: float) -> list[float]:
    """z+ : a_j w_jk+ / sum_j a_j w_jk+ for non-negative inputs (thesis, 3.63); (a w)+ for signed ones."""
    whole = sum(positive(t.a * t.w) for t in taps)
    return [ratio(positive(t.a * t.w), whole) for t in taps]


def box(low: Sequence[float], high: Sequence[float], pixels: Sequence[bool] | None = None) -> Rule:
    """z^B: v_j w_jk / sum_j v_j w_jk with v_j = a_j - l_j 1[w >= 0] - h_j 1[w <= 0] (thesis, 3.70).

    Args:
        low: lowest value of each input, flattened.
        high: highest value of each input, flattened.
        pixels: which inputs live in the box; the others are non-negative activations with v_j = a_j 1[w >= 0]
            (thesis, 3.61), all under one denominator. Absent: all.
    """

    def part(t: Tap) -> float:
        if pixels is None or pixels[t.index]:
            return t.a * t.w - low[t.index] * positive(t.w) - high[t.index] * negative(t.w)
        return t.a * positive(t.w)

    def share(taps: list[Tap], bias: float) -> list[float]:
        whole = sum(part(t) for t in taps)
        return [ratio(part(t), whole) for t in taps]

    return share


def w_squared(taps: list[Tap], bias: float) -> list[float]:
    """w^2: w_jk^2 / sum_j w_jk^2, for inputs of any value (thesis, 3.55 with v_j = w_jk)."""
    whole = sum(t.w**2 for t in taps)
    return [ratio(t.w**2, whole) for t in taps]


def flat(taps: list[Tap], bias: float) -> list[float]:
    """flat: every existing input of the neuron receives the same."""
    return [1.0 / len(taps) for _ in taps]


def passing(taps: list[Tap], bias: float) -> list[float]:
    """pass: the only tap of a neuron receives everything."""
    return [1.0 for _ in taps]


def redistribute(layer: Layer, rule: Rule, a: Tensor, relevance: Tensor) -> Tensor:
    """R_j = sum_k share_jk R_k.

    Args:
        layer: the connections.
        rule: the share that each tap of one neuron receives.
        a: activations of the layer below, shape ``[N, *input_shape]``.
        relevance: relevance of the layer above, shape ``[N, *output_shape]``.

    Returns:
        Relevance of the layer below, shape of ``a``.
    """
    received = [[0.0] * prod(layer.input_shape) for _ in range(len(a))]
    for n in range(len(a)):
        values, above = a[n].flatten().tolist(), relevance[n].flatten().tolist()
        for neuron, r in zip(layer.neurons, above, strict=True):
            taps = [Tap(j, values[j], w) for j, w in neuron.taps]
            for tap, share in zip(taps, rule(taps, neuron.bias), strict=True):
                received[n][tap.index] += share * r
    return torch.tensor(received, dtype=torch.float64).reshape(a.shape)


def redistribute_relative_epsilon(layer: Layer, eps: float, a: Tensor, relevance: Tensor) -> Tensor:
    """LRP-epsilon with ``eps`` times the root mean square of each sample's own z (review, IV, after its [98])."""
    samples = []
    for n in range(len(a)):
        z = forward(layer, a[n : n + 1]).flatten().tolist()
        rms = (sum(v * v for v in z) / len(z)) ** 0.5
        samples.append(redistribute(layer, epsilon(eps * rms), a[n : n + 1], relevance[n : n + 1]))
    return torch.cat(samples)


def forward(layer: Layer, a: Tensor) -> Tensor:
    """z_k = sum_j a_j w_jk + b_k; shapes ``[N, *input_shape]`` to ``[N, *output_shape]``."""
    z = []
    for n in range(len(a)):
        values = a[n].flatten().tolist()
        z.append([sum(values[j] * w for j, w in neuron.taps) + neuron.bias for neuron in layer.neurons])
    return torch.tensor(z, dtype=torch.float64).reshape(len(a), *layer.output_shape)


# Layers -----------------------------------------------------------------------------------------------------


def layer_of(module: nn.Module, input_shape: tuple[int, ...]) -> Layer:
    """The connections of a linear, convolution or transposed convolution module; ``input_shape`` without the batch."""
    if isinstance(module, nn.Linear):
        return dense(module.weight, module.bias)
    if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return transposed_convolution(module, input_shape)
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return convolution(module, input_shape)


def dense(weight: Tensor, bias: Tensor | None = None) -> Layer:
    """Of a weight of shape ``[outputs, inputs]``."""
    biases = bias_list(bias, len(weight))
    neurons = [Neuron(list(enumerate(row.tolist())), b) for row, b in zip(weight.detach(), biases, strict=True)]
    return Layer(neurons, (weight.shape[1],), (weight.shape[0],))


def identity(shape: tuple[int, ...]) -> Layer:
    """One tap a neuron, itself, with weight 1."""
    return Layer([Neuron([(j, 1.0)], 0.0) for j in range(prod(shape))], shape, shape)


def convolution(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, input_shape: tuple[int, ...]) -> Layer:
    """Neuron (k, p) taps (c, p stride + o dilation - padding) for every channel c of its group and kernel offset o."""
    weight, sizes = module.weight.detach(), input_shape[1:]
    assert not isinstance(module.padding, str)
    strides, paddings, dilations = module.stride, module.padding, module.dilation
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(sizes, paddings, dilations, weight.shape[2:], strides, strict=True)
    ]
    biases, per_group = bias_list(module.bias, len(weight)), len(weight) // module.groups
    neurons = []
    for k in range(len(weight)):
        first = (k // per_group) * weight.shape[1]
        for position in product(*map(range, out)):
            taps = []
            for c, *offset in product(range(weight.shape[1]), *map(range, weight.shape[2:])):
                at = [
                    place(p * s + o * d - pad, n, module.padding_mode)
                    for p, s, o, d, pad, n in zip(position, strides, offset, dilations, paddings, sizes, strict=True)
                ]
                if None not in at:
                    taps.append((flat_index((first + c, *at), input_shape), weight[(k, c, *offset)].item()))
            neurons.append(Neuron(taps, biases[k]))
    return Layer(neurons, input_shape, (len(weight), *out))


def transposed_convolution(
    module: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d, input_shape: tuple[int, ...]
) -> Layer:
    """Input (c, p) feeds (k, p stride + o dilation - padding) for every channel k of its group and kernel offset o."""
    weight, sizes = module.weight.detach(), input_shape[1:]
    assert not isinstance(module.padding, str)
    strides, paddings, dilations = module.stride, module.padding, module.dilation
    out = [
        (n - 1) * s - 2 * p + d * (k - 1) + extra + 1
        for n, s, p, d, k, extra in zip(
            sizes, strides, paddings, dilations, weight.shape[2:], module.output_padding, strict=True
        )
    ]
    outputs = (weight.shape[1] * module.groups, *out)
    taps: list[list[tuple[int, float]]] = [[] for _ in range(prod(outputs))]
    for c, k, *offset in product(*map(range, weight.shape)):
        group = c // (len(weight) // module.groups)
        for position in product(*map(range, sizes)):
            at = [
                p * s + o * d - pad
                for p, s, o, d, pad in zip(position, strides, offset, dilations, paddings, strict=True)
            ]
            if all(0 <= i < n for i, n in zip(at, out, strict=True)):
                neuron = flat_index((group * weight.shape[1] + k, *at), outputs)
                taps[neuron].append((flat_index((c, *position), input_shape), weight[(c, k, *offset)].item()))
    biases, positions = bias_list(module.bias, outputs[0]), prod(out)
    return Layer([Neuron(t, biases[i // positions]) for i, t in enumerate(taps)], input_shape, outputs)


def place(i: int, n: int, padding_mode: str) -> int | None:
    """The input that coordinate ``i`` of an axis of ``n`` inputs stands for, or none where it is zero padding."""
    if 0 <= i < n:
        return i
    if padding_mode == "zeros":
        return None
    if padding_mode == "circular":
        return i % n
    if padding_mode == "replicate":
        return min(max(i, 0), n - 1)
    assert padding_mode == "reflect"
    return -i if i < 0 else 2 * (n - 1) - i


def flat_index(at: Sequence[int | None], shape: Sequence[int]) -> int:
    index = 0
    for i, n in zip(at, shape, strict=True):
        assert i is not None
        index = index * n + i
    return index


def bias_list(bias: Tensor | None, n: int) -> list[float]:
    return [0.0] * n if bias is None else bias.detach().tolist()
