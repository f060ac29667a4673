"""One line on whether an explanation can be relied on, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from headwater.errors import HeadwaterError, InvalidInput
from headwater.evaluate.complexity import cancellation
from headwater.explain import explain
from headwater.explanation import Explanation, leaves
from headwater.methods import find
from headwater.propagate.composites import Composite, preset
from headwater.propagate.rules import Epsilon

Verdict = Literal["trust", "read with care", "do not use"]
VERDICTS: tuple[Verdict, ...] = ("trust", "read with care", "do not use")

# From which value on a figure asks for care, and from which on the map is not to be used.
LIMITS = {
    "delta": (0.1, 1.0),
    "unexplained": (1e-3, 1e-2),
    "cancellation": (10.0, 100.0),
    "epsilon_change": (0.1, 0.5),
}


@dataclass(frozen=True)
class Health:
    """How healthy the maps of N samples are.

    Attributes:
        verdicts: for each sample "trust", "read with care" or "do not use": the worst of its reasons.
        reasons: for each sample what speaks against it, in words; empty where nothing does.
        delta: ``(output - reference - Σ relevance) / |output - reference|``, ``[N]``, or None.
        absorbed: share of ``|output|`` absorbed by each named cause, ``[N]`` each; None without a ledger.
        unexplained: share of ``|output| + Σ|R|`` without a name, ``[N]``; None without a ledger.
        cancellation: ``Σ|R| / |ΣR|``, ``[N]``.
        epsilon_change: ``‖R' - R‖ / ‖R‖`` under ten times every ε, ``[N]``; None where that was not measured.
        unknown: what was not measured, and how to have it measured.
    """

    verdicts: tuple[Verdict, ...]
    reasons: tuple[tuple[str, ...], ...]
    delta: Tensor | None
    absorbed: dict[str, Tensor] | None
    unexplained: Tensor | None
    cancellation: Tensor
    epsilon_change: Tensor | None
    unknown: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of the samples' verdicts."""
        return max(self.verdicts, key=VERDICTS.index)

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {_summary(self)}"]
        for i, (verdict, reasons) in enumerate(zip(self.verdicts, self.reasons, strict=True)):
            if reasons and len(self.verdicts) > 1:
                lines.append(f"  sample {i}: {verdict}: {'; '.join(reasons)}")
        lines += [f"  not measured: {what}" for what in self.unknown]
        return "\n".join(lines)

    __repr__ = __str__


def check(explanation: Explanation, model: Any = None, *, bounds: Any = None) -> Health:
    """Is this explanation fit to be read?

    Four figures, each with a limit from which on it asks for care and one from which on the map is not to be used
    (``headwater.evaluate.health.LIMITS``): the gap of completeness; the relevance that no named cause absorbed; the
    cancellation of positive and negative relevance; the change of the map under ten times every ε of its composite.
    A map of zeros is not to be used either. What a named cause absorbed is told, not judged: biases may take a share.

    Args:
        explanation: of N samples. With a ledger it tells what absorbed its relevance.
        model: the model that was explained: with it ε is tried, and the ledger kept where there is none.
        bounds: as they were passed to ``hw.explain``.

    Raises:
        InvalidInput: an explanation without relevance.
        HeadwaterError: as ``hw.explain``, where the model is given.
    """
    maps = [r.detach() for r in leaves(explanation.relevance)]
    if not maps:
        raise InvalidInput("this explanation holds no relevance: nothing can be checked")
    n = len(explanation.output)
    rows = torch.cat([r.double().cpu().reshape(n, -1) for r in maps], 1)
    unknown: list[str] = []
    ledger = explanation.ledger
    if ledger is None and model is not None and _repeatable(explanation):
        ledger = _again(explanation, model, None, bounds, ledger=True).ledger
    if ledger is None:
        unknown.append("what was absorbed, by cause (explain with ledger=True)")
    output = explanation.output.detach().double().cpu().abs()
    absorbed = unexplained = None
    if ledger is not None and len(ledger):
        absorbed = {cause: amount.cpu() / output for cause, amount in ledger.causes().items()}
        unexplained = ledger.unexplained().cpu() / (output + rows.abs().sum(1))
    change = _epsilon_change(explanation, model, rows, bounds, unknown)
    delta = explanation.delta
    figures = {
        "delta": None if delta is None else delta.detach().double().cpu().abs(),
        "unexplained": unexplained,
        "cancellation": cancellation(rows) if explanation.complete else None,
        "epsilon_change": change,
    }
    verdicts, reasons = zip(*(_judge(figures, rows, i) for i in range(n)), strict=True)
    return Health(verdicts, reasons, delta, absorbed, unexplained, cancellation(rows), change, tuple(unknown))


_WORDS = {
    "delta": "relevance misses the output by {0:.1%} (delta)",
    "unexplained": "{0:.2%} of the relevance is lost without a name at one operator: a rule is wrong there",
    "cancellation": "positive and negative relevance cancel: Σ|R| is {0:.0f} times |ΣR|",
    "epsilon_change": "the map changes by {0:.0%} under ten times ε: weak denominators decide it",
}


def _judge(figures: dict[str, Tensor | None], rows: Tensor, i: int) -> tuple[Verdict, tuple[str, ...]]:
    if not bool(rows[i].any()):
        return "do not use", ("the map is zero everywhere",)
    worst, reasons = 0, []
    for name, values in figures.items():
        if values is None:
            continue
        value = float(values[i])
        level = 2 if not value <= LIMITS[name][1] else int(value > LIMITS[name][0])  # NaN is the worst
        if level:
            reasons.append(_WORDS[name].format(value))
        worst = max(worst, level)
    return VERDICTS[worst], tuple(reasons)


def _epsilon_change(
    explanation: Explanation, model: Any, rows: Tensor, bounds: Any, unknown: list[str]
) -> Tensor | None:
    """How much the map changes under ten times ε; None, with the reason noted, where it cannot be told."""
    if model is None:
        unknown.append("the change under ten times ε (pass the model)")
        return None
    if not _repeatable(explanation):
        unknown.append("the change under ten times ε (its composite, target or input is not at hand as a whole)")
        return None
    composite = preset(explanation.composite)
    if not find(explanation.method).rules or not any(isinstance(rule, Epsilon) for rule in composite.rules):
        return None  # no ε to change
    again = _again(explanation, model, stabilized(composite, 10.0), bounds)
    other = torch.cat([r.detach().double().cpu().reshape(len(rows), -1) for r in leaves(again.relevance)], 1)
    return (other - rows).norm(dim=1) / rows.norm(dim=1)


def _repeatable(explanation: Explanation) -> bool:
    """Whether the explanation is one walk back and tells enough of itself to be walked again; masks are not kept."""
    if any(v is None for v in _values(explanation.inputs)):
        return False
    try:
        preset(explanation.composite)
        return find(explanation.method).family == "propagate"
    except HeadwaterError:
        return False


def _values(inputs: Any) -> list[Any]:
    if isinstance(inputs, dict):
        return list(inputs.values())
    return list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]


def _again(explanation: Explanation, model: Any, composite: Any, bounds: Any, ledger: bool = False) -> Explanation:
    method = explanation.method
    if composite is None and find(method).composite != explanation.composite:
        composite = explanation.composite
    return explain(
        model, explanation.inputs, explanation.target, method=method, composite=composite, bounds=bounds, ledger=ledger
    )


def stabilized(composite: Composite, factor: float) -> Composite:
    """The same composite with every ε multiplied by ``factor``."""

    def scaled(value: Any) -> Any:
        if isinstance(value, tuple):
            return (scaled(value[0]), *value[1:])
        return replace(value, epsilon=factor * value.epsilon) if isinstance(value, Epsilon) else value

    rows = {selector: scaled(value) for selector, value in composite.rows.items()}
    return Composite(rows, plain=composite.plain)


def _summary(health: Health) -> str:
    reasons = [reason for sample in health.reasons for reason in sample]
    if len(health.verdicts) == 1 and reasons:
        return "; ".join(reasons)
    parts = [
        f"{count} of {len(health.verdicts)} samples: {name}" for name in VERDICTS if (count := _count(health, name))
    ]
    found = [f"cancellation up to {float(health.cancellation.max()):.3g}"]
    if health.delta is not None:
        found.insert(0, f"delta up to {float(health.delta.abs().max()):.2g}")
    if health.absorbed:
        shares = {cause: float(share.abs().max()) for cause, share in health.absorbed.items()}
        most = sorted(shares, key=shares.__getitem__, reverse=True)[:3]
        found.append("absorbed " + ", ".join(f"{cause} up to {shares[cause]:.1%}" for cause in most))
    if health.epsilon_change is not None:
        found.append(f"change under ten times ε up to {float(health.epsilon_change.max()):.2g}")
    return f"{', '.join(parts)} ({', '.join(found)})" if len(health.verdicts) > 1 else ", ".join(found)


def _count(health: Health, verdict: Verdict) -> int:
    return sum(v == verdict for v in health.verdicts)
