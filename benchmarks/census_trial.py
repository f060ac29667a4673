"""One architecture on trial: is it built, is it explained unedited, and does its ledger balance?"""

from __future__ import annotations

import re
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import headwater as hw
from benchmarks.census_subjects import DOUBLE, SINGLE, Built, NotBuilt, Subject, converted, enliven, runs
from headwater.explanation import leaves
from headwater.target import select_output

STATUSES = ("balanced", "unbalanced", "refused", "crashed", "not built")


@dataclass
class Row:
    """What became of one architecture.

    Attributes:
        status: one of ``STATUSES``; reason: why, where it is not balanced.
        operator: the operator that was refused, or that leaves most unexplained.
        single, double: the largest unexplained amount at an operator, relative to ``|f| + sum |R|``, in float32 and
            float64; None where the model does not run in that type.
        rounds: under float64, the model itself computes in float32, so that rounding is that of float32.
        softmax, bias: absorbed by these causes, relative to ``|f| + sum |R|``.
        oracle: what an independent check said, where one was made.
    """

    source: str
    name: str
    status: str
    reason: str = ""
    operator: str = ""
    single: float | None = None
    double: float | None = None
    rounds: bool = False
    softmax: float | None = None
    bias: float | None = None
    operators: int = 0
    parameters: int = 0
    inputs: str = ""
    target: str = ""
    oracle: str = ""
    seconds: float = 0.0
    trace: str = field(default="", repr=False)

    @property
    def key(self) -> str:
        return f"{self.source}:{self.name}"


@dataclass(frozen=True)
class Books:
    """What a ledger says of one explanation, relative to ``|f| + sum |R|``."""

    unexplained: float
    operator: str
    absorbed: dict[str, float]
    operators: int


def whole(raw: Any) -> Tensor:
    """The sum of a model's first output as the one score of a batch of one, whatever its shape."""
    return select_output(raw).flatten().sum()[None]


def books(e: hw.Explanation) -> Books:
    """Read the ledger of an explanation."""
    size = e.output.detach().abs().double().cpu()
    for r in leaves(e.relevance):
        total = r.detach().double().abs().cpu()
        size = size + (total.reshape(len(total), -1).sum(1) if len(total) == len(size) else total.sum())
    size = size.clamp(min=torch.finfo(torch.float64).tiny)
    worst = max(e.ledger, key=lambda row: float((row.unexplained.abs() / size).max()))
    absorbed = {cause: float((amount.abs() / size).max()) for cause, amount in e.ledger.causes().items()}
    unexplained = float((worst.unexplained.abs() / size).max())
    return Books(unexplained, f"{worst.operator} in {worst.layer!r}", absorbed, len(e.ledger))


def explained(built: Built) -> tuple[hw.Explanation, Any]:
    """Explain a model unedited; where its output has no obvious target, and none is named, its sum."""
    if built.target is not None:
        return hw.explain(built.model, built.inputs, target=built.target, ledger=True), built.target
    try:
        return hw.explain(built.model, built.inputs, ledger=True), None
    except hw.errors.InvalidTarget:
        return hw.explain(built.model, built.inputs, target=whole, ledger=True), whole


class _Rounding(torch.overrides.TorchFunctionMode):
    """Sees whether a model that was converted to float64 computes in float32 all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.found = self.found or (isinstance(out, Tensor) and out.dtype in (torch.float32, torch.complex64))
        return out


def in_double(built: Built) -> tuple[Built | None, bool]:
    """The same model and input in float64, and whether it rounds to float32; None where it does not run so."""
    try:
        double = replace(built, model=built.model.double(), inputs=converted(built.inputs, torch.float64))
        with _Rounding() as seen:
            output = double.output(runs(double.model, double.inputs))
    except Exception:  # many a model makes float32 tensors of its own, which do not meet float64 ones
        return None, False
    return (double if bool(output.isfinite().all()) else None), seen.found


def trial(
    subject: Subject,
    oracle: Callable[[Built, Any], str] | None = None,
    on_built: Callable[[], None] = lambda: None,
) -> Row:
    """Build and explain one architecture; never raises."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    row = Row(subject.source, subject.name, "not built")
    try:
        built = subject.build()
        enliven(built.model)
        output = built.output(runs(built.model, built.inputs))
    except Exception as error:
        row.reason = _short(error)
        return row
    on_built()
    row.inputs = built.note
    row.parameters = sum(p.numel() for p in built.model.parameters())
    if not bool(output.isfinite().all()):
        row.reason = "with random weights its output is not finite"
        return row
    try:
        _judge(row, built, oracle)
    except hw.HeadwaterError as error:
        row.status, row.reason = "refused", f"{type(error).__name__}: {_short(error)}"
        named = re.search(r"operator '([^']+)'|cannot be seen \((\w+)\)", str(error))
        row.operator = next(filter(None, named.groups()), "") if named else type(error).__name__
        row.trace = _trace(error)
    except Exception as error:
        row.status, row.reason, row.trace = "crashed", _short(error), _trace(error)
    return row


def _judge(row: Row, built: Built, oracle: Callable[[Built, Any], str] | None) -> None:
    e, target = explained(built)
    row.target = "default" if target is None else "sum" if target is whole else target.__name__.replace("_", " ")
    found = first = books(e)
    row.status, row.single, row.operators = "balanced", first.unexplained, first.operators
    row.softmax, row.bias = first.absorbed.get("softmax", 0.0), first.absorbed.get("bias", 0.0)
    if oracle is not None:
        try:
            row.oracle = oracle(built, target)
        except Exception as error:  # an oracle that cannot be asked is no agreement, and no crash of the engine
            row.oracle = f"FAILS: {_short(error)}"
    double, row.rounds = in_double(built)
    if double is not None:
        found = books(explained(double)[0])
        row.double = found.unexplained
    exact = row.double is not None and not row.rounds  # what rounds to float32 within is judged in float32
    judged, allowed = (row.double, DOUBLE) if exact else (row.single, SINGLE)
    row.operator = (found if exact else first).operator
    if judged > allowed:
        row.status, row.reason = "unbalanced", f"{row.operator} leaves {judged:.1e} unexplained"
    else:
        row.operator = ""


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    for folder in (Path(torch.__file__).parents[1], Path(__file__).parents[1]):
        text = text.replace(f"{folder}/", "")
    kind = type(error).__name__
    return (text if isinstance(error, (NotBuilt, hw.HeadwaterError)) else f"{kind}: {text}")[:400]


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-3000:]


def as_dict(row: Row) -> dict[str, Any]:
    """A row as JSON takes it."""
    return asdict(row)
