"""What the user passed: the arguments of the model, and the bounds of their values."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headwater.errors import HeadwaterError, HeadwaterWarning, InputRefused, InvalidInput, NonFinite
from headwater.propagate.composites import Composite
from headwater.propagate.rules import Box, own_range
from headwater.propagate.soundness import finite


@dataclass
class Inputs:
    """The arguments of the model, in order, with the names under which they are passed.

    Attributes:
        values: tensors and whatever else the model takes; ``names``: keywords, or None for positions.
        single: the user passed one tensor, not a tuple or dict.
    """

    values: list[Any]
    names: list[str] | None
    single: bool

    @staticmethod
    def of(x: Any) -> Inputs:
        """Check and normalize what the user passed.

        Raises:
            InvalidInput: no tensor, an empty batch, values that are not finite.
        """
        single = isinstance(x, Tensor)
        names = [str(k) for k in x] if isinstance(x, Mapping) else None
        if single:
            values = [x]
        elif isinstance(x, Mapping):
            values = list(x.values())
        elif isinstance(x, (tuple, list)):
            values = list(x)
        else:
            raise InvalidInput(
                f"x must be a tensor, or a tuple or dict of tensors, not {type(x).__name__}: convert it first, "
                f"as torch.as_tensor does an array"
            )
        inputs = Inputs(values, names, single)
        if not any(isinstance(v, Tensor) for v in values):
            raise InvalidInput(
                "x holds no tensor: pass the model's input tensors, of a text what its tokenizer returns"
            )
        for i, value in enumerate(values):
            if isinstance(value, Tensor):
                inputs._check(i, value)
        return inputs

    def _check(self, i: int, value: Tensor) -> None:
        label = self.key(i)
        if value.is_meta:
            raise InvalidInput(f"{label} is on the meta device and holds no values: pass a tensor with data")
        if not value.dim():
            raise InvalidInput(f"{label} is a scalar: the first axis must hold the samples")
        if not value.numel() and not value.shape[0]:
            raise InvalidInput(f"{label} is an empty batch: pass at least one sample")
        if self.explained(i) and value.is_floating_point() and not finite(value):
            kind = "NaN" if bool(value.isnan().any()) else "infinity"
            raise NonFinite(f"{label} holds {kind}: clean the input before explaining it")

    @property
    def samples(self) -> int:
        """How many samples the first axis of the tensors holds."""
        return next(int(v.shape[0]) for v in self.values if isinstance(v, Tensor))

    @property
    def mask(self) -> Tensor | None:
        """The attention mask among the inputs, for the last token of a sequence."""
        if self.names and "attention_mask" in self.names:
            value = self.values[self.names.index("attention_mask")]
            return value if isinstance(value, Tensor) else None
        return None

    def explained(self, i: int) -> bool:
        """Whether an argument is explained: masks, flags and what is no tensor are passed on as they are."""
        value = self.values[i]
        if not isinstance(value, Tensor) or value.dtype == torch.bool or value.is_complex():
            return False
        if self.names and "mask" in self.names[i].lower():
            return False
        if not value.is_floating_point() or self.single:
            return True
        # Only zeros and minus infinity: an additive mask.
        return not (bool((value == -torch.inf).any()) and bool(((value == 0) | (value == -torch.inf)).all()))

    def select(self, rows: Tensor) -> Inputs:
        """The samples at these indices, ``[M]``; one may occur several times."""
        n = self.samples
        chosen = [_rows(v, rows) if isinstance(v, Tensor) and v.dim() and len(v) == n else v for v in self.values]
        return Inputs(chosen, self.names, self.single)

    def replaced(self, values: Sequence[Any]) -> Inputs:
        """Other values in the place of these."""
        return Inputs(list(values), self.names, self.single)

    def copies(self) -> list[Any]:
        """The values, detached and copied: a model may write to what it is called with."""
        return [v.detach().clone() if isinstance(v, Tensor) else v for v in self.values]

    def call(self, model: Callable[..., Any], values: Sequence[Any]) -> Any:
        """The model on these values, passed as the user's were."""
        return model(**dict(zip(self.names, values, strict=True))) if self.names is not None else model(*values)

    @contextmanager
    def taken_by(self, model: Callable[..., Any]) -> Iterator[None]:
        """Say so in one sentence where the model itself cannot take these inputs; what else fails stays as it is.

        Raises:
            InputRefused: in the place of the model's own error, which is its cause.
        """
        try:
            yield
        except (HeadwaterError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            try:
                with torch.no_grad():
                    self.call(model, self.copies())
            except (RuntimeError, ValueError, TypeError, IndexError) as own:
                if isinstance(own, (HeadwaterError, torch.OutOfMemoryError)):
                    raise
                reason = str(own).strip().partition("\n")[0]
                raise InputRefused(f"the model cannot take {self.told}: {reason}") from own
            raise error

    def key(self, i: int) -> str:
        """What an argument is called in messages."""
        return "x" if self.single else f"x[{self.names[i]!r}]" if self.names else f"x[{i}]"

    def refuse_a_lone_sample(self, output: Tensor) -> None:
        """Refuse values without an axis of samples where the answer tells them: ``[D]`` that became ``[C]``.

        Raises:
            InvalidInput: x has one axis, and the output another one.
        """
        tensors = [v for v in self.values if isinstance(v, Tensor)]
        if output.dim() == 1 and len(output) != self.samples and all(v.dim() == 1 for v in tensors):
            raise InvalidInput(
                f"x of shape {list(tensors[0].shape)} is read as {self.samples} samples, but the model returned "
                f"{list(output.shape)}: for a single sample pass x[None]"
            )

    def warn_of_series(self, output: Tensor, target: Any) -> None:
        """Warn where an output ``[N, K, T]`` looks like K scores at each of T steps, as it is read as ``[N, T, V]``."""
        if output.dim() != 3 or not (target is None or isinstance(target, int)):
            return
        series = (v for v in self.values if isinstance(v, Tensor) and v.is_floating_point() and v.dim() == 3)
        if any(v.shape[2] == output.shape[2] and v.shape[1] != output.shape[1] for v in series):
            warnings.warn(
                f"The output {list(output.shape)} is read as [N, steps, classes] and explained at its last step, but "
                f"its last axis is as long as the input's: for one class at one step pass target=(class, step).",
                HeadwaterWarning,
                stacklevel=4,
            )

    @property
    def told(self) -> str:
        """Shapes and types, for messages."""
        parts = [
            f"{self.key(i)} of shape {list(v.shape)} and type {str(v.dtype).removeprefix('torch.')}"
            for i, v in enumerate(self.values)
            if isinstance(v, Tensor)
        ]
        return ", ".join(parts)

    def pack(self, parts: Sequence[Any]) -> Any:
        """One value for each argument, shaped like what the user passed."""
        if self.single:
            return parts[0]
        return dict(zip(self.names, parts, strict=True)) if self.names is not None else tuple(parts)


def rule_bounds(composite: Composite) -> tuple[Any, Any] | None:
    """The bounds that a composite's own rule with a box brings."""
    given = next((r for r in composite.rules if isinstance(r, Box) and r.low is not None), None)
    return None if given is None else (given.low, given.high)


def bounds_of(bounds: Any, inputs: Inputs, i: int) -> Any:
    """The bounds of one argument, where they were passed by name or position, else those of all."""
    if isinstance(bounds, Mapping):
        return bounds.get(inputs.names[i] if inputs.names else i)
    return bounds


def box(bounds: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of the input as given, or each sample's own range (with a warning), as tensors broadcastable to ``x``.

    Raises:
        InvalidInput: bounds that do not fit ``x``, or that its values exceed.
    """
    if bounds is None:
        warnings.warn(
            "A rule with a box but without bounds: each sample's own range per channel is used; "
            "pass bounds=(low, high).",
            HeadwaterWarning,
            stacklevel=6,
        )
        return own_range(x)
    try:
        low, high = (torch.as_tensor(b, dtype=x.dtype, device=x.device) for b in bounds)
        torch.broadcast_shapes(low.shape, high.shape, x.shape)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidInput(
            f"bounds must be (low, high), scalars or broadcastable to {tuple(x.shape)}, not {bounds!r}"
        ) from None
    if bool((low >= high).any()):
        raise InvalidInput(f"bounds must be (low, high) with low below high everywhere, not {bounds!r}")
    slack = 1e-4 * (high - low).abs()
    if bool(((x < low - slack) | (x > high + slack)).any()):
        raise InvalidInput(
            f"x reaches from {float(x.min()):.4g} to {float(x.max()):.4g}, outside its bounds "
            f"{float(low.min()):.4g} to {float(high.max()):.4g}: pass the bounds of the values that the model gets"
        )
    return low, high


def select_bounds(bounds: Any, inputs: Inputs, rows: Tensor) -> Any:
    """The bounds of the samples at these indices, where there is one for each sample.

    Bounds with fewer axes than the argument they belong to broadcast over its samples, whatever their lengths.
    """
    if isinstance(bounds, Mapping):
        return {k: select_bounds(v, inputs, rows) for k, v in bounds.items()}
    if bounds is None:
        return None
    ranks, n = {v.dim() for v in inputs.values if isinstance(v, Tensor)}, inputs.samples

    def chosen(bound: Any) -> Any:
        value = torch.as_tensor(bound)
        return _rows(value, rows) if value.dim() in ranks and len(value) == n else bound

    return tuple(chosen(bound) for bound in bounds)


def _rows(value: Tensor, rows: Tensor) -> Tensor:
    """A view where the rows follow each other, else a copy."""
    first, count = int(rows[0]), len(rows)
    if int(rows[-1]) - first == count - 1 and bool((rows.diff() == 1).all()):
        return value[first : first + count]
    return value[rows.to(value.device)]
