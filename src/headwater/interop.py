"""Methods in the forms that other libraries take: Captum's class of an attribution, Quantus's function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headwater.dataset.sources import place
from headwater.errors import InvalidInput, MissingExtra
from headwater.explain import explain
from headwater.explanation import Explanation, leaves, per_sample
from headwater.method import Method
from headwater.methods import find


def as_captum(method: str = "lrp", **options: Any) -> type:
    """A method as a class of Captum's, to be used where Captum's own are: ``hw.as_captum("lrp")(model).attribute(x)``.

    Its ``attribute`` takes ``inputs`` (a tensor or a tuple of them), ``baselines``, ``target``,
    ``additional_forward_args``, ``return_convergence_delta`` and further options of the method, and returns relevance
    shaped like the inputs. ``target=None`` is the predicted class. ``NoiseTunnel`` and the measures in
    ``captum.metrics`` take it as they take Captum's own. Where there are additional arguments, the names of layers
    begin with ``model.``.

    Args:
        method: a name from :func:`headwater.methods`.
        **options: of :func:`headwater.explain` and of the method (``composite``, ``bounds``, ``steps`` ...).

    Returns:
        a subclass of ``captum.attr.Attribution``; its instances are made with the model alone.

    Raises:
        InvalidInput: an unknown method, or one that is no single explanation.
        MissingExtra: captum is not installed.
    """
    row = _explaining(method)
    try:
        from captum.attr import Attribution, GradientAttribution
        from captum.log import log_usage
    except ModuleNotFoundError as error:
        raise MissingExtra("captum", "captum") from error

    def attribute(
        self: Any, inputs: Any, baselines: Any = None, target: Any = None, additional_forward_args: Any = None,
        return_convergence_delta: bool = False, **more: Any,
    ) -> Any:  # fmt: skip
        if return_convergence_delta and not row.complete:
            raise InvalidInput(f"Method {row.name!r} does not promise to sum up: it has no convergence delta")
        asked = options | _baselines(row, baselines) | more
        found = _explained(self.forward_func, inputs, target, additional_forward_args, row, asked)
        several = isinstance(inputs, tuple)
        parts = found.relevance if several else (found.relevance,)
        if isinstance(found.relevance, Mapping):
            parts = tuple(found.relevance.values())[: len(inputs) if several else 1]
        attributions = parts if several else parts[0]
        return (attributions, _captum_delta(found)) if return_convergence_delta else attributions

    attribute.__doc__ = f"Relevance by {row.name}, shaped like ``inputs``; see :func:`headwater.as_captum`."
    members = {
        "__doc__": f"{row.name} of Headwater as an attribution of Captum's.",
        "attribute": log_usage()(attribute),  # wrapped as Captum's own are: NoiseTunnel reaches for what is within
        "has_convergence_delta": lambda self: row.complete,
        "multiplies_by_inputs": property(lambda self: row.complete),
        "compute_convergence_delta": GradientAttribution.compute_convergence_delta,
    }
    return type("".join(word.capitalize() for word in row.name.split("_")), (Attribution,), members)


def as_quantus(method: str = "lrp", **options: Any) -> Callable[..., NDArray[Any]]:
    """A method as the ``explain_func`` that Quantus takes: ``metric(..., explain_func=hw.as_quantus("lrp"))``.

    Args:
        method: a name from :func:`headwater.methods`.
        **options: of :func:`headwater.explain` and of the method; Quantus's ``explain_func_kwargs`` go before them.

    Returns:
        a function of ``model``, ``inputs`` (array ``[N, ...]``) and ``targets`` (``[N]`` classes, or None for the
        predicted ones) that returns relevance ``[N, ...]``, shaped like the inputs, with its sign and scale.

    Raises:
        InvalidInput: an unknown method, or one that is no single explanation.
    """
    default = _explaining(method)

    def explain_func(
        model: Any, inputs: Any, targets: Any = None, device: Any = None, **more: Any
    ) -> NDArray[Any]:  # fmt: skip
        row = _explaining(more.pop("method", default.name))
        x = torch.as_tensor(np.array(inputs) if not isinstance(inputs, Tensor) else inputs)
        x = place(x if device is None else x.to(device), model)
        target = targets if targets is None else torch.as_tensor(np.asarray(targets)).reshape(len(x)).long()
        found = explain(model, x, target=target, method=row.name, **(options | more))
        relevance: NDArray[Any] = found.relevance.cpu().numpy()
        return relevance

    return explain_func


def _explaining(name: str) -> Method:
    row = find(name)
    if row.run is None:
        raise InvalidInput(f"{row.name!r} is no single explanation: it is run by {row.call}")
    return row


def _baselines(row: Method, baselines: Any) -> dict[str, Any]:
    """Captum's baselines as the option that means the same for this method."""
    if baselines is None:
        return {}
    for option in ("baselines", "references", "imputer"):
        if option in row.options and (option != "references" or row.family == "average"):
            return {option: baselines}
    raise InvalidInput(f"Method {row.name!r} compares with no baseline: leave baselines= out")


def _explained(
    model: Callable[..., Any], inputs: Any, target: Any, additional: Any, row: Method, options: dict[str, Any]
) -> Explanation:  # fmt: skip
    if isinstance(target, list) and target and isinstance(target[0], tuple):
        raise InvalidInput("a list of tuples as targets: explain samples whose places differ one by one")
    if additional is None:
        return explain(model, inputs, target=target, method=row.name, **options)
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    others = additional if isinstance(additional, tuple) else (additional,)
    # arguments that are called masks are passed on, and cut with the samples, but not explained
    named = {f"input {i}": part for i, part in enumerate(parts)} | {f"mask {i}": a for i, a in enumerate(others)}
    if "baselines" in options:
        given = options["baselines"]
        given = given if isinstance(given, tuple) else (given,)
        options = options | {"baselines": dict(zip(named, (*given, *[None] * len(others)), strict=True))}
    wrapped = _ByName(model) if isinstance(model, nn.Module) else lambda **named: model(*named.values())
    return explain(wrapped, named, target=target, method=row.name, **options)


class _ByName(nn.Module):
    """A module that takes by name, in their order, what another takes by place."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, **named: Any) -> Any:
        """What the module returns."""
        return self.model(*named.values())


def _captum_delta(found: Explanation) -> Tensor:
    """Captum's convergence delta, ``[N]``: the sum of relevance less what it should be, not divided by anything."""
    should = found.output.detach() - found.reference
    total = sum((per_sample(part, len(should)) for part in leaves(found.relevance)), torch.zeros_like(should))
    return total - should
