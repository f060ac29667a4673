"""What a rule is, and the quotients that rules are made of."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.errors import InvalidComposite

if TYPE_CHECKING:
    from headwater.propagate.affine import Affine
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation


class Rule:
    """Base of all rules. A rule for affine operators overrides :meth:`factor`, or :meth:`split` if it is no factor."""

    native: ClassVar[bool] = False  # the ordinary gradient is already this rule
    at_input: ClassVar[bool] = False  # gives relevance to inputs that are zero
    uses_linear: ClassVar[bool] = True  # asks a folded call for its sums without bias
    uses_input: ClassVar[bool] = True  # asks a call for the values of its input
    needs_places: ClassVar[bool] = False  # asks a call for its place in the model

    def __init_subclass__(cls) -> None:
        # What a rule can do without is true of the factor it was said of: one that has its own must say it again.
        if "factor" in vars(cls) or "split" in vars(cls):
            for name, careful in (("native", False), ("scales", False), ("uses_linear", True), ("uses_input", True)):
                if name not in vars(cls):
                    setattr(cls, name, careful)

    def __str__(self) -> str:
        """As plans and ledgers name it: without the switches and bounds that are as they are by default."""
        if not is_dataclass(self):
            return repr(self)
        given = [(field, getattr(self, field.name)) for field in fields(self)]
        told = [f"{f.name}={v!r}" for f, v in given if not (isinstance(f.default, bool | None) and v is f.default)]
        return f"{type(self).__name__}({', '.join(told)})"

    @property
    def per_sample(self) -> bool:
        """Looks at a whole sample at once (a norm, a maximum)."""
        return False

    scales: ClassVar[bool] = False  # the ordinary gradient of what :meth:`scaled` makes of the factor is this rule

    def scaled(self, z: Tensor, c: Tensor) -> Tensor:
        """The factor ``c`` of an output ``z``, scaled, for rules that are a gradient but for that."""
        return c

    def factor(self, op: Affine, c: Tensor) -> Tensor:
        """Factor of the input (shape of ``op.x``) from the factor ``c`` of the output (shape of ``op.z``)."""
        raise InvalidComposite(f"{self!r} is no rule for affine operators such as {op.call.operator.name!r}")

    def split(self, op: Affine, c: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Factor of the input and, from rules that are no factor, relevance of the input."""
        return self.factor(op, c), None

    def local(self, engine: Propagation, call: Call) -> Any:
        """Treat a call under a preset of plain gradients (guided backprop and its kin)."""
        return engine.native(call)


def divide(a: Tensor, b: Tensor) -> Tensor:
    """``a / b``, and 0 where ``b`` is 0, in the derivative too. ``a`` must be a temporary: it may be overwritten."""
    none = b == 0
    if torch.is_grad_enabled():
        return torch.where(none, torch.zeros_like(a), a / torch.where(none, torch.ones_like(b), b))
    return a.div_(b).masked_fill_(none, 0)


def solid(total: Tensor) -> Tensor:
    """A total that is never negative (a temporary), with infinity in place of 0: what is divided by it is then 0."""
    return F.threshold(total, 0.0, torch.inf) if torch.is_grad_enabled() else torch.threshold_(total, 0.0, torch.inf)


def share(a: Tensor, total: Tensor) -> Tensor:
    """``a / total`` for a total that is never negative, and 0 where it is 0; both must be temporaries."""
    return a.div_(solid(total))  # one pass for the zeros where a mask takes three
