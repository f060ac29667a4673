"""What :func:`headwater.explain` returns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headwater.errors import HeadwaterError, InvalidInput
from headwater.propagate.ledger import Ledger, Row

FORMAT = 1
Nested = Any  # a tensor, or a tuple or dict of tensors and None, shaped like the explained input


@dataclass
class Explanation:
    """Which parts of an input carried a decision.

    Attributes:
        relevance: shaped like the input (a tuple or dict where that is one); token ids have ``[N, T, D]``. For the
            methods that are gradients it is the factor itself.
        output: the explained scalar, ``[N]``.
        reference: ``[N]``, what a complete method sums down to.
        target: as resolved: classes ``[N]`` where classes were chosen.
        method: its name; ``composite``: the rules it used.
        complete: whether relevance should sum to ``output - reference``.
        inputs: what was explained, detached, shaped like ``relevance``.
        layers: relevance of the outputs of the modules asked for.
        ledger: what each operator absorbed, or None.
        details: what else the method found, by name (a standard error, scores of features, the quality of a fit).
    """

    relevance: Nested
    output: Tensor
    reference: Tensor
    target: Any
    method: str
    composite: str = ""
    complete: bool = True
    inputs: Nested = None
    layers: dict[str, Any] = field(default_factory=dict)
    ledger: Any = None
    details: dict[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    @property
    def delta(self) -> Tensor | None:
        """``(output - reference - Σ relevance) / |output - reference|``, ``[N]``; None if a method is not complete."""
        if not self.complete:
            return None
        gap = self.output.detach() - self.reference
        parts = leaves(self.relevance) or leaves(self.layers)  # a hidden layer may be all that was explained
        total = sum((per_sample(r.detach(), len(gap)) for r in parts), torch.zeros_like(gap))
        return torch.where(gap == total, torch.zeros_like(gap), (gap - total) / gap.abs())

    def tokens(self) -> Nested:
        """Relevance of each token, ``[N, T]``: summed over the embedding axis where there is one, for token inputs.

        Raises:
            InvalidInput: where the input was no token ids.
        """
        if isinstance(self.relevance, Tensor):
            if self.inputs is None or self.inputs.is_floating_point():
                raise InvalidInput("tokens() needs an explanation of token ids; this input holds floats")
            return _per_token(self.relevance, self.inputs)
        pairs = _paired(self.relevance, self.inputs)
        ids = [(k, r, x) for k, r, x in pairs if r is not None and x is not None and not x.is_floating_point()]
        found = {k: _per_token(r, x) for k, r, x in ids}
        if not found:
            raise InvalidInput("tokens() needs an explanation of token ids; none of these inputs is")
        return next(iter(found.values())) if len(found) == 1 else found

    def plot(self, **options: Any) -> Any:
        """A figure of the relevance; see ``headwater.show.plot``. Needs the extra ``headwater[plot]``."""
        from headwater.show import plot

        return plot(self, **options)

    def check(self, model: Any = None, *, bounds: Any = None) -> Any:
        """Is this explanation fit to be read: trust, read with care, or do not use? See ``headwater.evaluate.check``.

        Args:
            model: measures the change under ten times the stabilizer, and what is absorbed where there is no ledger;
                without it these are listed as not measured.
            bounds: of the input, as they were given to ``explain``.
        """
        from headwater.evaluate.health import check

        return check(self, model, bounds=bounds)

    def cite(self) -> str:
        """The sources of the method, one a line."""
        return "\n".join(self.sources)

    def save(self, path: str | Path) -> Path:
        """Save without pickle: a safetensors file whose header holds the rest. The ledger is saved too.

        Raises:
            HeadwaterError: for a target that is a function.
        """
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {"output": self.output, "reference": self.reference}
        shape: dict[str, Any] = {}
        for name in ("relevance", "inputs", "layers", "details"):
            shape[name] = _flatten(name, getattr(self, name), tensors)
        shape["target"] = _flatten("target", _plain_target(self.target), tensors)
        rows = []
        for i, row in enumerate(self.ledger or ()):
            tensors[f"ledger.{i}.incoming"], tensors[f"ledger.{i}.outgoing"] = row.incoming, row.outgoing
            tensors |= {f"ledger.{i}.absorbed.{j}": v for j, v in enumerate(row.absorbed.values())}
            rows.append([row.layer, row.operator, row.rule, list(row.absorbed)])
        shape["ledger"] = None if self.ledger is None else rows
        facts = {k: getattr(self, k) for k in ("method", "composite", "complete", "sources")}
        path = Path(path)
        saved = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
        save_file(saved, path, {"headwater": json.dumps({"format": FORMAT, **facts, **shape})})
        return path

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(r.shape)) for r in leaves(self.relevance))
        delta = self.delta
        gap = "" if delta is None else f", delta={float(delta.abs().max()):.2g}"
        return f"Explanation({self.method}, {self.composite}, relevance {shapes}{gap})"

    def _repr_html_(self) -> str:
        from headwater.show.display import explanation_html

        return explanation_html(self)

    def __rich__(self) -> Any:
        from headwater.show.display import explanation_rich

        return explanation_rich(self)


def load(path: str | Path) -> Explanation:
    """Load an explanation saved by :meth:`Explanation.save`.

    Raises:
        InvalidInput: where the file is missing, is no explanation, or has a newer format than this version reads.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            header = (file.metadata() or {}).get("headwater")
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except (SafetensorError, OSError) as error:
        raise InvalidInput(f"{path} cannot be read as a saved explanation: {error}") from None
    if header is None:
        raise InvalidInput(f"{path} is a safetensors file, but not a saved explanation")
    facts = json.loads(header)
    if facts["format"] > FORMAT:
        raise InvalidInput(f"{path} has format {facts['format']}, this version reads up to {FORMAT}: update headwater")
    rows = facts["ledger"]
    ledger = None
    if rows is not None:
        ledger = Ledger(
            Row(
                layer,
                operator,
                rule,
                tensors[f"ledger.{i}.incoming"],
                tensors[f"ledger.{i}.outgoing"],
                {cause: tensors[f"ledger.{i}.absorbed.{j}"] for j, cause in enumerate(causes)},
            )
            for i, (layer, operator, rule, causes) in enumerate(rows)
        )
    parts = {k: _unflatten(facts[k], tensors) for k in ("relevance", "inputs", "layers", "details", "target")}
    return Explanation(
        output=tensors["output"], reference=tensors["reference"], ledger=ledger, method=facts["method"],
        composite=facts["composite"], complete=facts["complete"], sources=tuple(facts["sources"]), **parts,
    )  # fmt: skip


def leaves(value: Nested) -> list[Tensor]:
    """The tensors of a nested value, in order."""
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [t for item in items for t in leaves(item)]


def per_sample(relevance: Tensor, n: int) -> Tensor:
    """Sums ``[N]`` of relevance ``[N, ...]``; with another first axis the sum if there is one sample, else NaN."""
    if relevance.shape[:1] == (n,):
        return relevance.flatten(1).sum(1) if relevance.dim() > 1 else relevance
    return relevance.sum().expand(n) if n == 1 else torch.full((n,), torch.nan, dtype=relevance.dtype)


def _per_token(relevance: Tensor, ids: Tensor) -> Tensor:
    """What removes tokens whole gives each one number, what walks back one for each dimension of its embedding."""
    return relevance.sum(-1) if relevance.dim() > ids.dim() else relevance


def _paired(relevance: Nested, inputs: Nested) -> list[tuple[Any, Any, Any]]:
    keys = relevance.keys() if isinstance(relevance, Mapping) else range(len(relevance))
    return [(k, relevance[k], inputs[k]) for k in keys]


def _plain_target(target: Any) -> Any:
    if callable(target) and not isinstance(target, Tensor):
        return getattr(target, "__qualname__", repr(target))
    return target if target is None or isinstance(target, (Tensor, int, str, list, tuple)) else repr(target)


def _flatten(name: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    """Move tensors into a flat dict; what remains is JSON that says where they were."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": {str(k): _flatten(f"{name}.{k}", v, tensors) for k, v in value.items()}}
    if isinstance(value, (list, tuple)):
        items = [_flatten(f"{name}.{i}", v, tensors) for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if value is None or isinstance(value, (int, float, str, bool)):
        return {"value": value}
    raise HeadwaterError(f"Cannot save a {type(value).__name__} within {name}")


def _unflatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {k: _unflatten(v, tensors) for k, v in content.items()}
    if kind in ("tuple", "list"):
        items = [_unflatten(v, tensors) for v in content]
        return tuple(items) if kind == "tuple" else items
    return content
