"""A method to be judged: anything that turns a model, an input and a target into relevance."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from headwater.arguments import Inputs
from headwater.errors import InvalidInput
from headwater.evaluate.maps import relevance_of
from headwater.explain import explain
from headwater.methods import check_options, find

_COMMON = frozenset(inspect.signature(explain).parameters)
_QUIET = ("batch_size", "progress")  # options that change no result


@dataclass(frozen=True)
class Explainer:
    """A method with its options.

    Args:
        name: for tables and pictures.
        options: of :func:`headwater.explain`, ``method`` among them; or
        function: the user's own ``(model, x, target) -> relevance``.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    function: Callable[[Any, Any, Any], Any] | None = None

    @staticmethod
    def of(method: Method, name: str | None = None, **more: Any) -> Explainer:
        """An explainer of a method's name, of a dict of options of ``hw.explain``, or of the user's own function.

        Args:
            method: as above; ``name``: what it is called, by default what the method is.
            more: options that fill in for those the dict leaves out.

        Raises:
            InvalidInput: an unknown method or option, or anything else.
        """
        if isinstance(method, Explainer):
            return method
        if isinstance(method, str):
            method = {"method": method}
        if isinstance(method, Mapping):
            options = {"method": "lrp", **more, **method}
            row = find(options["method"])
            check_options(row, [option for option in options if option not in _COMMON])
            label = row.name + (f" {options['composite']}" if isinstance(options.get("composite"), str) else "")
            return Explainer(name or label, options)
        if callable(method):
            return Explainer(name or str(getattr(method, "__name__", type(method).__name__)), function=method)
        raise InvalidInput(
            f"A method is a name, a dict of options of explain, or a function (model, x, target) -> relevance, not "
            f"{type(method).__name__}"
        )

    @property
    def told(self) -> str:
        """The options in words."""
        if self.function is not None:
            return f"own function {self.name}"
        return ", ".join(f"{k}={v!r}" for k, v in self.options.items() if v is not None and k not in _QUIET)

    def run(self, model: Any, x: Any, target: Any, **more: Any) -> Any:
        """An explanation, or what the user's own function returns.

        Args:
            model, x, target: as for ``hw.explain``; ``more``: options that go before the method's own.
        """
        if self.function is not None:
            return self.function(model, x, target)
        return explain(model, x, target, **{**self.options, **more})

    def maps(self, model: Any, x: Any, target: Any) -> Tensor:
        """Relevance ``[N, ...]``, checked; one value a token."""
        relevance = relevance_of(self.run(model, x, target), f"the relevance of {self.name}")
        samples = Inputs.of(x).samples
        if len(relevance) != samples:
            raise InvalidInput(f"{self.name} returned relevance of {len(relevance)} samples for {samples}")
        return relevance


Method = str | Mapping[str, Any] | Callable[[Any, Any, Any], Any] | Explainer


def random_relevance(x: Tensor, seed: int = 0) -> Tensor:
    """The baseline that every method has to beat: relevance drawn at random, ``[N, ...]`` uniform in 0 to 1."""
    draw = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return draw.to(x.device, x.dtype if x.is_floating_point() else torch.get_default_dtype())
