"""The operator behind a torch function, whatever its spelling.

``torch.add``, ``Tensor.add``, ``Tensor.__add__`` and ``Tensor.add_`` are one operator, found by its bare name. A
function of ``torch.nn.functional`` that is written in Python is taken apart: its body runs under the engine. What has
no row in the class table is an error that names it; :func:`register` adds a row.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch._ops import OpOverload

from headwater.propagate import aten
from headwater.propagate.kinds import Handler, Operator, native
from headwater.propagate.pointwise import BENT, elementwise
from headwater.propagate.table import rows
from headwater.propagate.treatments import constant, embedding

_ROWS = rows()
_FOUND: dict[Any, Operator] = {}
_ALIASES = {
    "truediv": "div", "special_expit": "sigmoid", "log_sigmoid": "logsigmoid",
    "concat": "cat", "concatenate": "cat", "subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div",
    "negative": "neg", "absolute": "abs", "clip": "clamp", "arctan": "atan", "and": "logical_and", "or": "logical_or",
    "xor": "logical_xor", "invert": "logical_not", "floordiv": "floor_divide", "linalg_matmul": "matmul",
    "pinverse": "linalg_pinv", "special_psi": "digamma", "special_gammaln": "lgamma",
    "special_multigammaln": "mvlgamma",
    **{f"special_{name}": name for name in ("digamma", "erfc", "erfinv", "exp2", "expm1", "log1p", "logit", "polygamma",
                                            "sinc", "xlogy")},
}  # fmt: skip
_DISPATCHED = {
    getattr(F, name): name
    for n in (1, 2, 3)
    for name in (f"max_pool{n}d", f"adaptive_max_pool{n}d", f"fractional_max_pool{n}d")
    if hasattr(F, name)
}
_WHOLE = {F.layer_norm, F.rms_norm}  # written in Python, but with the arguments of the one operator within


def names() -> list[str]:
    """Names of all operators with a treatment."""
    return sorted(name for name, row in _ROWS.items() if not row.metadata)


def register(name: str, treatment: str | Handler = "homogeneous") -> None:
    """Give an operator a treatment.

    Args:
        name: bare name of the torch function, without underscores.
        treatment: "homogeneous" (its gradient is right), "pointwise" (secant from zero), "constant" (no relevance
            passes), or a function ``(engine, call) -> output``.

    Raises:
        ValueError: for an unknown treatment.
    """
    known: dict[str, Operator] = {
        "homogeneous": Operator(name, "homogeneous", native),
        "pointwise": Operator(name, "pointwise", elementwise, elementwise=True, degree=BENT),
        "constant": Operator(name, "constant", constant),
    }
    if callable(treatment):
        _ROWS[name] = Operator(name, "custom", treatment)
    elif treatment in known:
        _ROWS[name] = known[treatment]
    else:
        raise ValueError(f"Unknown treatment {treatment!r}: choose from {', '.join(known)} or pass a function")
    _FOUND.clear()


def classify(func: Any) -> Operator:
    """The operator of a torch function, method or property, in any spelling."""
    found = _FOUND.get(func)
    if found is None:
        found = _FOUND[func] = _classify(func)
    return found


def _classify(func: Any) -> Operator:
    if func in _DISPATCHED:
        return _ROWS[_DISPATCHED[func]]
    if isinstance(func, OpOverload):
        return _exported(func)
    plain = inspect.unwrap(func)
    if type(func).__name__ == "method-wrapper":  # a property of Tensor
        raw = "set" if func.__name__ == "__set__" else func.__self__.__name__
    else:
        raw = getattr(plain, "__name__", str(plain))
    name = raw.strip("_") if raw.startswith("__") else raw.removesuffix("_")
    inplace = raw == "__setitem__" or (raw.endswith("_") and not raw.endswith("__") and raw != "requires_grad_")
    if raw.startswith("__i") and raw.endswith("__") and name[1:] in _ROWS and name not in ("invert", "int", "index"):
        name, inplace = name[1:], True
    name = {"bool": "bool", "float": "item", "index": "item"}.get(name, name) if raw.startswith("__") else name
    name = _ALIASES.get(name, name)
    row = _ROWS.get(name, Operator(name))
    written_in_python = isinstance(plain, types.FunctionType)
    if (
        written_in_python
        and func not in _WHOLE
        and not row.metadata
        and row.handler not in (native, constant, embedding)
        and row.kind != "custom"
    ):
        return replace(
            row, body=_body(plain), short=torch.relu if plain is inspect.unwrap(F.relu) else None,
            idle=_not_training if func is F.dropout else None,
        )  # fmt: skip
    return replace(row, inplace=inplace) if inplace else row


def _exported(operator: OpOverload) -> Operator:
    """An operator as an exported program calls it: what its torch spelling is, and run as such."""
    name = aten.name_of(operator)
    row = _ROWS.get(name.removesuffix("_").removeprefix("__"), Operator(name))
    spelled = aten.spelling(operator)
    if spelled is None or row.metadata:
        return row
    known = row if name in aten.WRITTEN else classify(spelled)
    return replace(known, body=spelled, short=None)


def _never(*_: Any, **__: Any) -> bool:
    return False


def _not_training(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> bool:
    """Whether a dropout with these arguments, named as torch names them, lets everything pass."""
    return not training


def _body(function: types.FunctionType) -> Callable[..., Any]:
    """A copy of a Python function of torch that does not ask for overrides again (which would recurse for ever)."""
    names = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    scope = {**function.__globals__, **dict.fromkeys(names, _never)}
    copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
