"""What is measured: the bare model, Headwater, and the other libraries where they are installed.

A contestant opens on a model, which is not measured (hooks are registered, batch norm is merged), and then is called on
batches, which is. Other libraries get a copy of the model, for they change it.
"""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import headwater as hw
from benchmarks.mend import mend_torchvision
from benchmarks.networks import BOUND, LSTM, VGG, Bottleneck, ResNet

Call = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Budget:
    """At most ``both`` times forward and backward to the input, plus ``forward`` times the bare forward.

    Where activations may be negative, rules that mind signs do more: ``signed`` times the bare forward.
    """

    both: float
    forward: float = 0.0
    signed: float = 0.0

    def limit(self, share: float, signed: bool = False) -> float:
        """The budget in units of forward and backward, of which the bare forward is this share."""
        return self.both + (max(self.forward, self.signed) if signed else self.forward) * share


@dataclass(frozen=True)
class Contestant:
    """One thing to be measured.

    Attributes:
        name: as the tables have it.
        open: makes of a model a context, in which the value is called on a batch.
        budget: of its time, where this project has set one.
        serves: whether it can explain a model.
    """

    name: str
    open: Callable[[nn.Module], AbstractContextManager[Call]]
    budget: Budget | None = None
    serves: Callable[[nn.Module], bool] = lambda model: True


FORWARD, BOTH = "forward (F)", "forward + backward (F+B)"


@contextmanager
def forward(model: nn.Module) -> Iterator[Call]:
    """The bare model."""

    def run(x: Tensor) -> object:
        with torch.no_grad():
            return model(x)

    yield run


@contextmanager
def forward_backward(model: nn.Module) -> Iterator[Call]:
    """The model and the gradient of its largest scores with respect to the input."""

    def run(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(model(x).amax(1).sum(), x)[0]

    yield run


@contextmanager
def headwater(model: nn.Module, **options: Any) -> Iterator[Call]:
    """``hw.explain`` with these options."""
    yield partial(hw.explain, model, **options)


@contextmanager
def reused(model: nn.Module, **options: Any) -> Iterator[Call]:
    """A ``hw.Explainer`` with these options, which keeps the weights that its rules have prepared."""
    yield hw.Explainer(model, compile=False, **options)


# ---------------------------------------------------------------------- other libraries


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _one_hot(output: Tensor) -> Tensor:
    """The largest scores themselves: zennit explains what it is seeded with."""
    return output.detach() * F.one_hot(output.argmax(1), output.shape[1])


def _zennit_composite(name: str) -> Any:
    """A composite of zennit's with what it needs for ResNets: batch norm merged, the residual sum as a module."""
    from zennit import canonizers, composites, layer, rules, types  # type: ignore[import-untyped]

    def add(self: Any, x: Tensor) -> Tensor:
        return self.relu(self.canonizer_sum(torch.stack([self.skip(x), self.body(x)], dim=-1)))

    def replaced(_: str, module: nn.Module) -> dict[str, Any] | None:
        if not isinstance(module, Bottleneck):
            return None
        return {"forward": MethodType(add, module), "canonizer_sum": layer.Sum()}

    options = {"canonizers": [canonizers.SequentialMergeBatchNorm(), canonizers.AttributeCanonizer(replaced)]}
    if name == "epsilon":
        epsilon = rules.Epsilon(1e-6)
        table = [*composites.layer_map_base(), (types.Convolution, epsilon), (types.Linear, epsilon)]
        return composites.LayerMapComposite(table, **options)
    if name == "epsilon_gamma_box":
        return composites.EpsilonGammaBox(low=-BOUND, high=BOUND, **options)
    kind = {"epsilon_plus": composites.EpsilonPlus, "epsilon_alpha2_beta1": composites.EpsilonAlpha2Beta1}[name]
    return kind(**options)


@contextmanager
def zennit(model: nn.Module, composite: str) -> Iterator[Call]:
    """Zennit's composite of the same name."""
    mend_torchvision()
    from zennit.attribution import Gradient  # type: ignore[import-untyped]

    with Gradient(copy.deepcopy(model), _zennit_composite(composite), attr_output=_one_hot) as attributor:
        yield lambda x: attributor(x.detach().requires_grad_())


@contextmanager
def captum(model: nn.Module) -> Iterator[Call]:
    """Captum's LRP, whose default rule is epsilon, of the first class: the cost is that of any."""
    mend_torchvision()
    from captum.attr import LRP  # type: ignore[import-untyped]

    explainer = LRP(copy.deepcopy(model))
    yield lambda x: explainer.attribute(x.detach().requires_grad_(), target=0)


@contextmanager
def autolrp(model: nn.Module, rule: Any) -> Iterator[Call]:
    """autoLRP with this rule for convolutions and epsilon elsewhere."""
    import autolrp  # type: ignore[import-untyped]

    config = autolrp.LRPConfig(rule={**autolrp.BASE, "ConvolutionBackward": rule})

    def run(x: Tensor) -> Any:
        wrapped = autolrp.tensor(x.detach())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it runs in-place operators out of place
            model(wrapped).amax(1).sum().lrp(config=config)
        return wrapped.relevance

    yield run


def contestants() -> dict[str, Contestant]:
    """All contestants by name, in the order of the tables."""
    bounds = (-BOUND, BOUND)
    presets: dict[str, tuple[dict[str, Any], Budget]] = {
        "lrp_0": ({"composite": "lrp_0"}, Budget(1.05)),
        "epsilon": ({"composite": "epsilon"}, Budget(1.12)),
        "epsilon_plus": ({"composite": "epsilon_plus"}, Budget(1.0, 1.15, signed=2.1)),
        "epsilon_gamma_box": ({"composite": "epsilon_gamma_box", "bounds": bounds}, Budget(1.0, 1.15, signed=2.1)),
        "epsilon_alpha2_beta1": ({"composite": "epsilon_alpha2_beta1"}, Budget(1.0, 2.5)),
        "default": ({}, Budget(1.0, 1.15, signed=2.1)),
    }
    listed = [
        Contestant(FORWARD, forward),
        Contestant(BOTH, forward_backward),
        Contestant("gradient", partial(headwater, method="gradient"), Budget(1.05)),
        *(Contestant(name, partial(headwater, **options), budget) for name, (options, budget) in presets.items()),
        *(
            Contestant(f"{name} reused", partial(reused, **options), budget)
            for name, (options, budget) in presets.items()
            if name not in ("lrp_0", "epsilon")  # which change no weights
        ),
    ]
    if _installed("zennit"):
        names = ("epsilon", "epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1")
        # Zennit has no rules for attention, layer normalization and recurrent layers.
        listed += [
            Contestant(f"zennit {name}", partial(zennit, composite=name), serves=lambda m: isinstance(m, (VGG, ResNet)))
            for name in names
        ]
    if _installed("autolrp"):
        # autoLRP has no rules for recurrent layers.
        tables = {
            "epsilon": "epsilon",
            "epsilon_plus": "zplus",
            "gamma": ("gamma", {"gamma": 0.25}),
            "epsilon_alpha2_beta1": ("alpha_beta", {"alpha": 2.0, "beta": 1.0}),
        }
        listed += [
            Contestant(f"autolrp {name}", partial(autolrp, rule=rule), serves=lambda m: not isinstance(m, LSTM))
            for name, rule in tables.items()
        ]
    if _installed("captum"):
        # Captum sees modules alone, so that a residual sum makes it wrong without a word.
        listed.append(Contestant("captum epsilon", captum, serves=lambda model: isinstance(model, VGG)))
    return {c.name: c for c in listed}
