"""``hw.selfcheck``: does the engine serve this model rightly?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headwater.arguments import Inputs
from headwater.explain import explain
from headwater.explanation import Explanation, leaves, per_sample
from headwater.propagate import soundness
from headwater.propagate.composites import preset
from headwater.propagate.nested import equal
from headwater.target import select_output


@dataclass(frozen=True)
class Check:
    """One check: its name, the largest deviation found, the tolerance, and whether it applied."""

    name: str
    deviation: float
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        return self.deviation <= self.tolerance


class Report(tuple[Check, ...]):
    """The checks of one model; true where all passed."""

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self)

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        lines = [
            f"{'ok  ' if c.passed else 'FAIL'} {c.name:44} {c.deviation:9.2e} (tolerance {c.tolerance:.0e}) {c.note}"
            for c in self
        ]
        return "\n".join([*lines, "all checks passed" if self.passed else "some checks failed"])

    __repr__ = __str__


def selfcheck(model: Callable[..., Any], x: Any, target: Any = None) -> Report:
    """Check the engine on a model of one's own.

    Args:
        model, x, target: as for :func:`headwater.explain`.

    Returns:
        A report, true where all checks passed: the ledger balances at every operator; where nothing is absorbed and no
        share is split, LRP-0 equals gradient x input; a batch equals its samples; output, parameters, buffers, modes,
        hooks and gradients are as before. Deviations are relative to ``|f| + Σ|R|``.

    Raises:
        HeadwaterError: as :func:`headwater.explain`.
    """
    before = _state(model)
    inputs = Inputs.of(x)
    with torch.no_grad(), soundness.repeatable(0):
        own = _outputs(inputs.call(model, inputs.values))
    whole = explain(model, x, target, ledger=True)
    tolerance = 1e-9 if whole.output.dtype == torch.float64 else 1e-4 if whole.output.dtype == torch.float32 else 5e-2
    checks = [_balance(whole, tolerance), _gradient(model, x, target, tolerance)]
    if inputs.samples > 1:
        checks.append(_batch(model, inputs, target, whole, tolerance))
    with torch.no_grad(), soundness.repeatable(0):
        again = _outputs(inputs.call(model, inputs.values))
    changed = _changes(before, _state(model))
    checks.append(Check("the model's output is as before", _apart(own, again), 0.0))
    checks.append(Check("the model is as before", float(len(changed)), 0.0, ", ".join(changed)))
    return Report(checks)


def _size(e: Explanation) -> Tensor:
    size = e.output.detach().abs().double()
    for r in leaves(e.relevance):
        amount = r.detach().abs().double()
        size = size + (per_sample(amount, len(size)) if amount.shape[:1] == size.shape else amount.sum())
    return size.clamp(min=torch.finfo(torch.float64).tiny)


def _balance(e: Explanation, tolerance: float) -> Check:
    worst = max(e.ledger, key=lambda row: float((row.unexplained.abs() / _size(e).cpu()).max()))
    share = float((worst.unexplained.abs() / _size(e).cpu()).max())
    return Check(
        "the ledger balances at every operator", share, tolerance, f"worst: {worst.operator} in {worst.layer!r}"
    )


def _gradient(model: Any, x: Any, target: Any, tolerance: float) -> Check:
    name = "LRP-0 equals gradient x input"
    zero = explain(model, x, target, composite=preset("lrp_0"), ledger=True)
    if not bool((zero.ledger.absorbed() <= tolerance * _size(zero).cpu()).all()):
        return Check(name, 0.0, tolerance, "does not apply: something is absorbed")
    other = explain(model, x, target, method="gradient_x_input")
    gap = _difference(zero, other)
    gates = {row.operator for row in zero.ledger} & {
        "mul",
        "div",
        "matmul",
        "bmm",
        "einsum",
        "lstm",
        "gru",
        "rms_norm",
        "layer_norm",
    }
    if gates and gap > tolerance:
        return Check(name, 0.0, tolerance, f"does not apply: {', '.join(sorted(gates))} split or gate")
    return Check(name, gap, tolerance)


def _difference(a: Explanation, b: Explanation) -> float:
    pairs = zip(leaves(a.relevance), leaves(b.relevance), strict=True)
    gap = max(float((r - s).abs().max()) for r, s in pairs)
    return gap / float(_size(a).max())


def _batch(model: Any, inputs: Inputs, target: Any, whole: Explanation, tolerance: float) -> Check:
    name, alone = "a batch equals its samples", inputs.select(torch.tensor([0]))
    try:
        with torch.no_grad():
            alone.call(model, alone.values)
    except Exception:  # whatever a model raises that needs its whole batch: the nodes of a graph, say
        return Check(name, 0.0, tolerance, "does not apply: the model does not run on one sample alone")
    fixed = whole.target if isinstance(whole.target, Tensor) and target is None else target
    single = explain(model, inputs.pack(inputs.values), fixed, batch_size=1)
    return Check(name, _difference(whole, single), tolerance)


def _outputs(raw: Any) -> list[Tensor]:
    """All tensors that a model returns: a detector's dictionaries hold several, none of them the one output."""
    return [t.detach().clone() for t in leaves(raw) or [select_output(raw)]]


def _apart(own: list[Tensor], again: list[Tensor]) -> float:
    if [t.shape for t in own] != [t.shape for t in again]:
        return torch.inf
    pairs = [(a, b) if a.is_complex() else (a.double(), b.double()) for a, b in zip(own, again, strict=True)]
    gaps = [torch.where(a == b, 0, (a - b).abs()) for a, b in pairs if a.numel()]
    return max((float(gap.max()) for gap in gaps), default=0.0)


def _state(model: Any) -> dict[str, Any]:
    if not isinstance(model, nn.Module):
        return {}
    state: dict[str, Any] = {"dtype": torch.get_default_dtype()}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        state[f"value of {name}"] = tensor.detach().clone()
        state[f"requires_grad of {name}"] = tensor.requires_grad
        state[f"gradient of {name}"] = None if tensor.grad is None else tensor.grad.clone()
    for name, module in model.named_modules():
        state[f"mode of {name}"] = module.training
        state[f"hooks of {name}"] = (
            len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        )
    return state


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    def same(a: Any, b: Any) -> bool:
        return equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a is b or a == b

    return [key for key in before if key not in after or not same(before[key], after[key])]
