"""How far can a map be changed while the output stays? By the input, and by fine-tuning the model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from headwater.errors import InvalidInput
from headwater.evaluate.agreement import cosine
from headwater.evaluate.asking import settled_target
from headwater.evaluate.explainer import Explainer, Method
from headwater.target import select_output


@dataclass(frozen=True)
class Manipulation:
    """The largest change of the maps that was reached.

    Attributes:
        similarity: cosine of the maps before and after, ``[N]``: 1 unchanged, 0 or below: something else entirely.
        output_change: ``max |f' - f| / max |f|`` over all outputs of each sample, ``[N]``.
        relevance: the maps after, ``[N, ...]``.
        changed: the manipulated input ``[N, ...]``, or the manipulated model.
        settings: how it was sought.
    """

    similarity: Tensor
    output_change: Tensor
    relevance: Tensor
    changed: Any
    settings: dict[str, Any]


def manipulate_input(
    model: Callable[..., Any], x: Tensor, method: Method = "lrp", target: Any = None, *, goal: Any = None,
    radius: float = 0.05, keep: float = 0.05, steps: int = 100, rate: float | None = None,
    softness: float | None = 30.0, bounds: tuple[float, float] | None = None, seed: int = 0,
) -> Manipulation:  # fmt: skip
    """Seek an input that looks the same to the model and is explained quite differently.

    Adam on ``cos(R(x'), R(x)) + max(0, 2 drift / keep - 1)²``, or on ``1 - cos(R(x'), goal)`` in place of the first;
    after each step x' is put back into the box around x. The answer is the best step whose output drifted by at most
    ``keep``; where none moved the map, x itself. All figures are measured on the model as it is.

    Args:
        model: a function of one tensor; it is left as it was.
        x: floats ``[N, ...]``.
        method: a name or a dict of options of ``hw.explain``, which must be differentiable.
        target: as for ``hw.explain``.
        goal: a map ``[N, ...]`` to move to; by default away from the present one.
        radius: how far each value may move, in units of x's range.
        keep: how far outputs may move, relative to the largest of the sample.
        steps, rate: of Adam; the rate is a twentieth of the radius by default, in the same units.
        softness: ReLU is replaced by softplus of this sharpness while seeking, without which gradients of ReLU networks
            have no slope; None leaves it.
        bounds: of valid inputs.
        seed: of the noise that the search starts from, as large as one step.

    Raises:
        InvalidInput: no floats, or a method that cannot be differentiated.

    Source: Dombrowski et al.: Explanations Can Be Manipulated and Geometry Is to Blame, NeurIPS 2019; review, Section
    IX.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point() or radius <= 0 or keep <= 0 or steps < 1:
        raise InvalidInput("manipulation needs a tensor of floats x, and radius, keep and steps above 0")
    explainer = _differentiable(method)
    chosen = settled_target(model, x, target)
    before = explainer.maps(model, x, chosen)
    reach = radius * float(x.max() - x.min())
    low, high = x - reach, x + reach
    if bounds is not None:
        low, high = low.clamp(*bounds), high.clamp(*bounds)
    step = reach / 20 if rate is None else rate * float(x.max() - x.min())
    with torch.no_grad():
        outputs = _outputs(model, x)
    soft = model if softness is None else _Softened(model, softness)
    # Away from where it is, a map has no direction: a little noise gives it one.
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)
    moved = (x.detach() + step * noise).requires_grad_()
    best, found = x.detach().clone(), _distance(before, before, goal)
    optimizer = torch.optim.Adam([moved], lr=step)
    for _ in range(steps):
        optimizer.zero_grad()
        drift = _drift(_outputs(model, moved), outputs)
        (_distance(_maps(explainer, soft, moved, chosen), before, goal) + _penalty(drift, keep)).sum().backward()
        optimizer.step()
        with torch.no_grad():
            moved.copy_(torch.minimum(torch.maximum(moved, low), high))
        at = moved.detach().clone()
        distance = _distance(explainer.maps(model, at, chosen), before, goal)
        with torch.no_grad():
            better = (distance < found) & (_drift(_outputs(model, at), outputs) <= keep)
        found = torch.where(better, distance, found)
        best[better] = at[better]
    settings = {"method": explainer.name, "radius": radius, "keep": keep, "steps": steps, "softness": softness}
    return _result(explainer, model, best, best, before, outputs, chosen, settings)


def manipulate_model(
    model: nn.Module, x: Tensor, method: Method = "lrp", target: Any = None, *, goal: Any = None, keep: float = 0.05,
    steps: int = 100, rate: float = 1e-3,
) -> Manipulation:  # fmt: skip
    """Fine-tune a copy of the model so that it answers the same on ``x`` and is explained quite differently.

    Adam on the parameters with the objective of :func:`manipulate_input`; the answer is the best step at which no
    sample's output had drifted by more than ``keep``.

    Args:
        model: a module; it is left as it was. ``x``: ``[N, ...]``, what the copy is tuned on.
        method, target, goal, keep, steps: as for :func:`manipulate_input`.
        rate: of Adam.

    Raises:
        InvalidInput: no module with parameters, or a method that cannot be differentiated.

    Source: Heo, Joo, Moon: Fooling Neural Network Interpretations via Adversarial Model Manipulation, NeurIPS 2019;
    review, Section IX.
    """
    if not isinstance(model, nn.Module) or not any(True for _ in model.parameters()):
        raise InvalidInput("only a torch module with parameters can be fine-tuned")
    explainer = _differentiable(method)
    chosen = settled_target(model, x, target)
    before = explainer.maps(model, x, chosen)
    with torch.no_grad():
        outputs = _outputs(model, x)
    tuned = copy.deepcopy(model).requires_grad_(True)
    best, found = copy.deepcopy(model), float(_distance(before, before, goal).mean())
    optimizer = torch.optim.Adam(tuned.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        drift = _drift(_outputs(tuned, x), outputs)
        (_distance(_maps(explainer, tuned, x, chosen), before, goal) + _penalty(drift, keep)).mean().backward()
        optimizer.step()
        distance = float(_distance(explainer.maps(tuned, x, chosen), before, goal).mean())
        with torch.no_grad():
            kept = float(_drift(_outputs(tuned, x), outputs).max()) <= keep
        if kept and distance < found:
            best, found = copy.deepcopy(tuned), distance
    for old, new in zip(model.parameters(), best.parameters(), strict=True):
        new.grad = None
        new.requires_grad_(old.requires_grad)
    settings = {"method": explainer.name, "keep": keep, "steps": steps, "rate": rate}
    return _result(explainer, best, x, best, before, outputs, chosen, settings)


def _result(
    explainer: Explainer, model: Any, x: Tensor, changed: Any, before: Tensor, outputs: Tensor, target: Any,
    settings: dict[str, Any],
) -> Manipulation:  # fmt: skip
    after = explainer.maps(model, x, target)
    with torch.no_grad():
        drift = _drift(_outputs(model, x), outputs)
    return Manipulation(cosine(before, after).cpu(), drift.cpu(), after, changed, settings)


def _differentiable(method: Method) -> Explainer:
    explainer = Explainer.of(method)
    if explainer.function is not None:
        raise InvalidInput("manipulation differentiates the map: name the method, or pass a dict of options of explain")
    return explainer


def _maps(explainer: Explainer, model: Any, x: Tensor, target: Any) -> Tensor:
    relevance = explainer.run(model, x, target, differentiable=True).relevance
    if not isinstance(relevance, Tensor) or not relevance.requires_grad:
        raise InvalidInput(f"{explainer.name} gives no map that can be differentiated by what is manipulated")
    return relevance


def _outputs(model: Any, x: Tensor) -> Tensor:
    output = select_output(model(x.clone()))
    return output.reshape(len(x), -1)


def _drift(now: Tensor, before: Tensor) -> Tensor:
    """``[N]``: the largest change of an output, in units of the sample's largest."""
    return (now - before).abs().amax(1) / before.abs().amax(1).clamp(min=torch.finfo(before.dtype).tiny)


def _distance(maps: Tensor, before: Tensor, goal: Any) -> Tensor:
    """``[N]``: the cosine to what the map was, or 1 less that to the goal."""
    other = before if goal is None else torch.as_tensor(goal).to(before)
    if other.shape != before.shape:
        raise InvalidInput(f"a goal of shape {list(other.shape)} is no map of shape {list(before.shape)}")
    similarity = torch.nn.functional.cosine_similarity(maps.flatten(1), other.flatten(1), dim=1)
    return similarity if goal is None else 1 - similarity


def _penalty(drift: Tensor, keep: float) -> Tensor:
    """Nothing up to half of what is allowed, then growing fast."""
    return (2 * drift / keep - 1).clamp(min=0).square()


class _SoftReLU(TorchFunctionMode):
    """Within it every ReLU is a softplus."""

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _RELU:
            return torch.nn.functional.softplus(args[0], beta=self.sharpness)
        return func(*args, **(kwargs or {}))


_RELU = {torch.relu, torch.relu_, torch.nn.functional.relu, torch.nn.functional.relu_, Tensor.relu, Tensor.relu_}


class _Softened(nn.Module):
    """A model whose own calls of ReLU are softened while it runs."""

    def __init__(self, model: Callable[..., Any], sharpness: float) -> None:
        super().__init__()
        self.model, self.sharpness = model, sharpness
        self.eval()

    def forward(self, *args: Any) -> Any:
        with _SoftReLU(self.sharpness):
            return self.model(*args)
