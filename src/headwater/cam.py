"""Class activation maps: where in a hidden feature map the evidence for a class lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.answer import Answer
from headwater.errors import InvalidInput, UnsupportedModel
from headwater.method import REVIEW, Method
from headwater.propagate import feature_map
from headwater.propagate.feature_map import FeatureMap
from headwater.question import Question

Weigh = Callable[[Tensor, Tensor, FeatureMap], Tensor]

_POOLED = {"mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "sum", "dropout", "linear", "conv", "add", "pad"}
_POOLED |= {f"adaptive_avg_pool{n}d" for n in (1, 2, 3)}
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def cam(question: Question, *, layer: str | None = None) -> Answer:
    """``Σ_k w_k A_k`` with the weights of the class after global average pooling (Zhou et al. 2016, Eq. 2).

    Raises:
        UnsupportedModel: where more than global average pooling and one linear layer follow the feature map.
    """
    return _mapped(question, layer, _pooled_weights)


def grad_cam(question: Question, *, layer: str | None = None) -> Answer:
    """``relu(Σ_k α_k A_k)``, ``α_k`` the mean gradient of a channel (Selvaraju et al. 2017, Eq. 1 and 2)."""
    return _mapped(question, layer, _mean_gradient)


def grad_cam_plus_plus(question: Question, *, layer: str | None = None) -> Answer:
    """``relu(Σ_k w_k A_k)``, ``w_k`` a weighted mean of positive gradients (Chattopadhay et al. 2018, Eq. 6 and 19).

    The common positive factor ``exp(y)`` of all weights is left out: it would overflow and changes no map's form.
    """
    return _mapped(question, layer, _second_order)


def guided_grad_cam(question: Question, *, layer: str | None = None) -> Answer:
    """Guided backprop times the upsampled Grad-CAM map (Selvaraju et al. 2017, Section 3.2)."""

    def one(part: Question) -> Answer:
        coarse = grad_cam(part, layer=layer)
        fine = part.walk("guided_backprop", "factor")
        pairs = zip(fine.relevance, coarse.relevance, strict=True)
        fine.relevance = [None if g is None or m is None else g * _whole(m, g) for g, m in pairs]
        fine.details = coarse.details
        return fine

    return question.fixed().each(one)


def _mapped(question: Question, layer: str | None, weigh: Weigh) -> Answer:
    """The map of each sample, resized to its input: one forward, and a walk back that ends at the feature map."""
    if layer is not None and not isinstance(layer, str):
        raise InvalidInput(f"layer= takes a module's name, not a {type(layer).__name__}: {layer!r}")
    places = question.explained
    if len(places) != 1:
        raise InvalidInput(
            f"Class activation maps explain one input; this model gets {len(places)}: pass the others in a closure"
        )

    def one(part: Question) -> Answer:
        watch = FeatureMap(find=layer is None)
        part = replace(part, layers=(layer,) if layer is not None else ())
        answer = part.run(part.walker("gradient", "layers", move=part.move, parts=True, watch=watch))
        name = feature_map.NAME if layer is None else layer
        found = answer.layers.pop(name)
        value, factor = found[-1] if isinstance(found, list) else found
        x = part.inputs.values[places[0]]
        image = _spatial(x)
        value, factor = (watch.channels_first(t, image) for t in (value, factor))
        heat = (weigh(value, factor, watch) * value).sum(1)
        heat = heat if weigh is _pooled_weights else heat.clamp(min=0)
        answer.relevance = [_spread(heat, x) if i == places[0] else None for i in range(len(part.inputs.values))]
        answer.details["map"] = heat
        return answer

    return question.each(one)


def _mean_gradient(value: Tensor, factor: Tensor, watch: FeatureMap) -> Tensor:
    return factor.flatten(2).mean(2).view(*factor.shape[:2], *[1] * (factor.dim() - 2))


def _second_order(value: Tensor, factor: Tensor, watch: FeatureMap) -> Tensor:
    total = value.flatten(2).sum(2).view(*value.shape[:2], *[1] * (value.dim() - 2))
    below = 2 * factor.square() + total * factor.pow(3)
    alpha = torch.where(below == 0, torch.zeros_like(below), factor.square() / torch.where(below == 0, 1.0, below))
    weights = (alpha * factor.clamp(min=0)).flatten(2).sum(2)
    return weights.view(*factor.shape[:2], *[1] * (factor.dim() - 2))


def _pooled_weights(value: Tensor, factor: Tensor, watch: FeatureMap) -> Tensor:
    """The weights of the class: the gradient, the same at every place where average pooling follows, summed."""
    flat = factor.flatten(2)
    even = (flat - flat[..., :1]).abs().amax() <= 1e-4 * flat.abs().amax()
    several = sum(name in ("linear", "conv") for name in watch.after) > 1
    other = sorted(set(watch.after) - _POOLED)
    if not bool(even) or several or other:
        reason = f"{other[0]!r} follows" if other else "more than one linear layer follows"
        reason = reason if bool(even) else "the places of the map do not count alike"
        raise UnsupportedModel(
            "CAM needs a feature map from which global average pooling and one linear layer lead to the output; here "
            f"{reason}: use 'grad_cam', which needs neither."
        )
    return flat.sum(2).view(*factor.shape[:2], *[1] * (factor.dim() - 2))


def _spatial(x: Tensor) -> tuple[int, ...]:
    """The places of an input: ``T`` of token ids ``[N, T]``, the last axes of ``[N, C, ...]``."""
    shape = tuple(x.shape)
    return shape[1:2] if not x.is_floating_point() or len(shape) < 3 else shape[2:]


def _spread(heat: Tensor, x: Tensor) -> Tensor:
    """A map ``[N, *places]`` resized to the places of the input and spread evenly over its channels; shaped like x.

    Raises:
        UnsupportedModel: where map and input have not as many axes.
    """
    image = _spatial(x)
    if heat.dim() - 1 != len(image) or len(image) not in _MODES:
        raise UnsupportedModel(
            f"The layer's map has shape {tuple(heat.shape[1:])}, the input {image}: name a layer= whose places are "
            "those of the input"
        )
    wide = F.interpolate(heat[:, None], size=image, mode=_MODES[len(image)], align_corners=False)
    if x.dim() == 2 or not x.is_floating_point():
        return wide[:, 0]
    return (wide / x.shape[1]).expand_as(x).to(x.dtype).contiguous()


def _whole(spread: Tensor, like: Tensor) -> Tensor:
    """One value a place, for every channel (or embedding dimension) of a gradient, from a map spread over them."""
    if spread.dim() < like.dim():
        return spread[..., None]
    return spread * spread.shape[1] if spread.dim() > 2 else spread


_NEEDS = "a convolutional or token feature map"
_CHATTOPADHAY = "Chattopadhay et al.: Grad-CAM++, WACV 2018"
_SELVARAJU = "Selvaraju et al.: Grad-CAM, ICCV 2017"

ROWS = (
    Method(
        "cam", "CAM", "propagate", f"Zhou et al.: Learning Deep Features for Discriminative Localization, CVPR 2016; "
        f"{REVIEW}", "a feature map, global average pooling, one linear layer",
        "the last feature map, weighted by the class", cam, takes=(),
    ),
    Method(
        "grad_cam", "GC", "propagate", f"{_SELVARAJU}; {REVIEW}", _NEEDS,
        "the last feature map, weighted by its mean gradient", grad_cam, takes=(),
    ),
    Method(
        "grad_cam_plus_plus", "GC++", "propagate", _CHATTOPADHAY, _NEEDS,
        "the last feature map, weighted by its positive gradients", grad_cam_plus_plus, takes=(),
    ),
    Method(
        "guided_grad_cam", "GGC", "propagate", f"{_SELVARAJU}; {REVIEW}", f"{_NEEDS}; ReLU-like activations",
        "guided backprop times Grad-CAM", guided_grad_cam, takes=(),
    ),
)  # fmt: skip
