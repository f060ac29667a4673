"""Does a map depend on what the model has learnt, and on the class it is asked for?"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from headwater.arguments import Inputs
from headwater.errors import InvalidInput, InvalidTarget
from headwater.evaluate.agreement import Measure, measure_of
from headwater.evaluate.asking import settled_target
from headwater.evaluate.explainer import Explainer, Method
from headwater.target import select_output

Redraw = Literal["reset", "normal", "permute"]


@dataclass(frozen=True)
class Randomization:
    """Similarity of the maps before and after layers were randomized.

    Attributes:
        layers: names, in the order in which they were randomized: from the output to the input.
        similarity: ``[layers, N]``, 1 for an unchanged map; NaN where a map became constant.
        settings: how it was measured.
    """

    layers: tuple[str, ...]
    similarity: Tensor
    settings: dict[str, Any]

    @property
    def mean(self) -> float:
        """Mean similarity over layers and samples: near 0 for a method that depends on what was learnt."""
        return float(self.similarity.nanmean())


def parameter_randomization(
    model: nn.Module, x: Tensor, method: Method = "lrp", target: Any = None, *,
    order: Literal["cascading", "independent"] = "cascading", how: Redraw = "reset",
    similarity: str | Measure = "rank_correlation", layers: list[str] | None = None, seed: int = 0,
) -> Randomization:  # fmt: skip
    """Compare a method's maps of the model with those of the model whose layers are randomized, from the top down.

    Args:
        model: a module; it is left as it was: a copy is randomized.
        x: ``[N, ...]``.
        method: a name, a dict of options of ``hw.explain``, or a function ``(model, x, target) -> relevance``.
        target: as for ``hw.explain``; chosen by the model as it is where it is left open.
        order: ``"cascading"`` randomizes all layers from the output down to each; ``"independent"`` each alone.
        how: ``"reset"``: each module's own initialization; ``"normal"``: normal numbers of each parameter's mean and
            deviation; ``"permute"``: each parameter's entries shuffled. A module without an initialization of its own
            is drawn as by ``"normal"``.
        similarity: a measure as for :func:`~headwater.evaluate.agreement`.
        layers: names of the modules to randomize, in order; by default all that hold parameters themselves, in the
            reverse of the order in which the model runs them.
        seed: of the random numbers.

    Raises:
        InvalidInput: no module, no parameters, an unknown layer, order or way.

    Source: Adebayo et al.: Sanity Checks for Saliency Maps, NeurIPS 2018.
    """
    if order not in ("cascading", "independent"):
        raise InvalidInput(f"order must be 'cascading' or 'independent', not {order!r}")
    explainer, of = Explainer.of(method), measure_of(similarity)
    names = running_order(model, x)[::-1] if layers is None else list(layers)
    chosen = settled_target(model, x, target)
    original = explainer.maps(model, x, chosen)
    changed = copy.deepcopy(model)
    rows = []
    for i, name in enumerate(names):
        if order == "independent":
            changed = copy.deepcopy(model)
        redraw(changed, [name], how, seed + i)
        rows.append(of(original, explainer.maps(changed, x, chosen)).double().cpu())
    settings = {"method": explainer.name, "order": order, "how": how, "similarity": _name(similarity), "seed": seed}
    return Randomization(tuple(names), torch.stack(rows), settings)


def logit_randomization(
    model: Callable[..., Any], x: Tensor, method: Method = "lrp", target: Any = None, *,
    similarity: str | Measure = "rank_correlation", seed: int = 0,
) -> Tensor:  # fmt: skip
    """Similarity of the maps of the explained class and of another one, drawn at random, ``[N]``.

    Near 1: the map says what the model sees, not why it chose this class.

    Args:
        model, x, method, similarity, seed: as for :func:`parameter_randomization`; an output ``[N, C]``, C > 1.
        target: the class, or one for each sample; by default the predicted one.

    Raises:
        InvalidTarget: a target that is no class.

    Source: Sixt, Granz, Landgraf: When Explanations Lie, ICML 2020.
    """
    explainer, of = Explainer.of(method), measure_of(similarity)
    if not isinstance(x, Tensor):
        raise InvalidInput(f"logit randomization explains one tensor x, not a {type(x).__name__}")
    with torch.no_grad():
        output = select_output(model(x.clone()))
    if output.dim() != 2 or output.shape[1] < 2:
        raise InvalidTarget(f"another class needs an output [N, C] with C > 1, not {list(output.shape)}")
    own = output.argmax(1) if target is None else torch.as_tensor(target, device=output.device).expand(len(output))
    if own.is_floating_point() or own.dtype == torch.bool:
        raise InvalidTarget("logit randomization compares classes: pass one, or one for each sample")
    classes = output.shape[1]
    steps = torch.randint(1, classes, (len(output),), generator=torch.Generator().manual_seed(seed))
    other = (own + steps.to(own.device)) % classes
    return of(explainer.maps(model, x, own), explainer.maps(model, x, other)).cpu()


def running_order(model: nn.Module, x: Any) -> list[str]:
    """Names of the modules that hold parameters themselves, in the order in which they first run on ``x``.

    A module that never runs itself, only lends its parameters to another (attention's output projection), comes last.

    Raises:
        InvalidInput: no module, or none with parameters.
    """
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"only a torch module has layers to randomize, not {type(model).__name__}")
    own = {name: m for name, m in model.named_modules() if any(True for _ in m.parameters(recurse=False))}
    if not own:
        raise InvalidInput("the model has no parameters to randomize")
    ran: list[str] = []
    hooks = [m.register_forward_pre_hook(lambda *_, name=n: ran.append(name)) for n, m in own.items()]
    try:
        with torch.no_grad():
            inputs = Inputs.of(x)
            inputs.call(model, inputs.copies())
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys([*ran, *own]))


def redraw(model: nn.Module, layers: list[str] | None = None, how: Redraw = "reset", seed: int = 0) -> nn.Module:
    """Randomize the parameters of layers in place, without touching torch's own random state; returns the model.

    Args:
        model: it is changed.
        layers: names of modules whose own parameters are drawn; all by default.
        how, seed: as for :func:`parameter_randomization`.

    Raises:
        InvalidInput: an unknown layer or way.
    """
    modules = dict(model.named_modules())
    wrong = [name for name in layers or () if name not in modules]
    if wrong or how not in ("reset", "normal", "permute"):
        raise InvalidInput(f"Unknown layers {wrong}" if wrong else f"how must be reset, normal or permute, not {how!r}")
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices), torch.no_grad():
        torch.manual_seed(seed)
        for module in modules.values() if layers is None else (modules[name] for name in layers):
            reset = getattr(module, "reset_parameters", None)
            if how == "reset" and callable(reset):
                reset()
                continue
            for parameter in module.parameters(recurse=False):
                parameter.copy_(_drawn(parameter, how))
    return model


def _drawn(parameter: Tensor, how: Redraw) -> Tensor:
    if how == "permute":
        return parameter.flatten()[torch.randperm(parameter.numel(), device=parameter.device)].reshape(parameter.shape)
    deviation = parameter.std() if parameter.numel() > 1 else parameter.abs().mean()
    return torch.randn_like(parameter) * deviation + parameter.mean()


def _name(similarity: str | Measure) -> str:
    return similarity if isinstance(similarity, str) else getattr(similarity, "__name__", "own")
