"""With the model at hand: explain a sample anew, audit a stored explanation, and flip its features."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import BoundedSemaphore, Event, Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater import target as targets
from headwater.arguments import Inputs
from headwater.dataset.fingerprint import of_model
from headwater.dataset.sources import place, stack
from headwater.errors import HeadwaterError, InvalidInput, InvalidTarget
from headwater.evaluate.flipping import Order, pixel_flipping
from headwater.explain import explain
from headwater.explanation import Explanation
from headwater.methods import methods
from headwater.propagate.composites import presets
from headwater.viewer.columns import title_of
from headwater.viewer.refusals import Busy, Conflict, NotThere
from headwater.viewer.shown import Shown
from headwater.viewer.stopping import stoppable, waiting
from headwater.viewer.viewed import Viewed

_KEPT = 64  # explanations, by their keys
_WAITING = 8  # requests for the model, one of which it serves
_TOP = 5
_ORDERS: tuple[Order, ...] = ("most", "least", "random")
_DIFFERS = 1e-3  # relative: a stored output that the model no longer gives


@dataclass(frozen=True)
class Answer:
    """One live explanation: its sample, what was found and how it is drawn."""

    row: int
    explanation: Explanation
    shown: Shown


class Live:
    """The model, used by one request at a time.

    Args:
        viewed: with a model.
    """

    def __init__(self, viewed: Viewed) -> None:
        self._viewed = viewed
        self._lock, self._waiting = Lock(), BoundedSemaphore(_WAITING)
        self._answers: OrderedDict[str, Answer] = OrderedDict()

    @property
    def model(self) -> Any:
        """The model.

        Raises:
            Conflict: none was given.
        """
        if self._viewed.model is None:
            raise Conflict("no model was given: open the viewer with one (headwater view STORE --model MODEL)")
        return self._viewed.model.model

    def facts(self) -> dict[str, Any] | None:
        """What the page needs to know of the model; None without one."""
        if self._viewed.model is None:
            return None
        name, fingerprint = self._viewed.store.manifest.model
        same = self._viewed.memory.get("same model", lambda: (of_model(self.model) == fingerprint,))[0]
        known = [row for row in methods() if row.run is not None]
        return {
            "name": getattr(self.model, "__name__", type(self.model).__name__), "same": same, "made_by": name,
            "methods": [
                {"name": row.name, "abbreviation": row.abbreviation, "family": row.family, "rules": row.rules}
                for row in known
            ],
            "composites": sorted(presets()),
        }  # fmt: skip

    def explain(
        self, row: int, method: str, composite: str | None, target: Any, options: dict[str, Any], gone: Event
    ) -> dict[str, Any]:
        """Explain a sample; its pictures are then at :meth:`answer`. ``gone`` ends it.

        Raises:
            HeadwaterError: whatever :func:`headwater.explain` refuses. Busy: too many wait. Stopped: by ``gone``.
        """
        started, wanted = time.perf_counter(), target_of(target)
        with self._turn(gone):
            x = self._input(row)
            found = self._explain(x, wanted, method, composite, **options)
            prediction = self._prediction(x)
            shown, key = self._shown(row, found), secrets.token_hex(8)
            self._answers[key] = Answer(row, found, shown)
            while len(self._answers) > _KEPT:
                self._answers.popitem(last=False)
        return {
            "key": key, "row": row, "method": found.method, "composite": found.composite,
            "target": self._told(found.target), "output": float(found.output[0]),
            "reference": float(found.reference[0]), "delta": None if found.delta is None else float(found.delta[0]),
            "limit": shown.limit(), "seconds": time.perf_counter() - started, "sources": list(found.sources),
            "prediction": prediction,
        }  # fmt: skip

    def answer(self, key: str) -> Answer:
        """An earlier explanation.

        Raises:
            NotThere: it was too long ago.
        """
        found = self._answers.get(key)
        if found is None:
            raise NotThere("this explanation is no longer kept: explain the sample again")
        return found

    def ledger(self, row: int, name: str | None, gone: Event) -> dict[str, Any]:
        """What each operator received, passed on and absorbed in a stored explanation, from the output to the input.

        Raises:
            Conflict: it was imported. Busy: too many wait. Stopped: by ``gone``.
        """
        if self._viewed.imported:
            raise Conflict("the relevance was computed by another program: there is no ledger of it")
        facts = self._viewed.explanation(name).facts
        composite, notices = self._composite(facts.composite), self._unknown(facts)
        target, stored = self._stored_target(row, name), self._viewed.columns[f"{facts.name}.output"].title_at(row)
        with self._turn(gone):
            found = self._explain(self._input(row), target, facts.method, composite, ledger=True)
        output = float(found.output[0])
        if not abs(output - stored) <= _DIFFERS * max(abs(stored), 1e-6):
            notices.append(f"the model says {output:.4g} now, the store {stored:.4g}: it is not what made the store")
        rows = [
            {
                "layer": booked.layer, "operator": booked.operator, "rule": booked.rule,
                "incoming": float(booked.incoming[0]), "outgoing": float(booked.outgoing[0]),
                "absorbed": {cause: float(amount[0]) for cause, amount in booked.absorbed.items()},
                "unexplained": float(booked.unexplained[0]),
            }
            for booked in found.ledger
        ]  # fmt: skip
        causes = {cause: float(amount[0]) for cause, amount in found.ledger.causes().items()}
        unexplained = max((abs(booked["unexplained"]) for booked in rows), default=0.0)
        return {
            "rows": rows, "output": output, "unexplained": unexplained, "causes": causes,
            "notice": "; ".join(notices) or None,
        }  # fmt: skip

    def flipping(self, rows: Sequence[int], name: str | None, key: str | None, gone: Event) -> dict[str, Any]:
        """Curves of pixel-flipping: most relevant first, least first and at random, with intervals over samples."""
        with self._turn(gone):
            if key is not None:
                answer = self.answer(key)
                x, relevance, target = self._input(answer.row), answer.explanation.relevance, answer.explanation.target
                count = 1
            else:
                x = stack([self._raw(row) for row in rows])
                x = self._placed(x)
                relevance = self._relevance(rows, name)
                each = [self._stored_target(row, name) for row in rows]
                target = None if each[0] is None else torch.tensor(each) if isinstance(each[0], int) else each[0]
                count = len(rows)
            curves, fractions, output = [], [], ""
            for order in _ORDERS:
                found = pixel_flipping(self.model, x, relevance, target, order=order, progress=False)
                low, high = found.interval() if count > 1 else (None, None)
                fractions, output = found.fractions.tolist(), found.settings["output"]
                curves.append({
                    "order": order, "curve": found.curve.tolist(), "area": found.area,
                    "low": None if low is None else low.tolist(), "high": None if high is None else high.tolist(),
                })  # fmt: skip
        by = str(found.settings["imputer"]).replace("inpaint", "inpainting")
        what = f"a {found.settings['features']} taken away is replaced by {by}"
        return {"fractions": fractions, "curves": curves, "output": output, "what": what, "n": count}

    # ------------------------------------------------------------------ of the model

    @contextmanager
    def _turn(self, gone: Event) -> Iterator[None]:
        """One request at a time, which ends when its client has gone; those beyond a few are sent away."""
        if not self._waiting.acquire(blocking=False):
            raise Busy(f"{_WAITING} requests wait for the model already: try again in a moment")
        try:
            with waiting(self._lock, gone), stoppable(gone):
                yield
        finally:
            self._waiting.release()

    def _explain(self, x: Any, target: Any, method: str, composite: str | None, **options: Any) -> Explanation:
        try:
            return explain(
                self.model, x, target, method, composite, self._viewed.extra.bounds, progress=False, **options
            )
        except HeadwaterError:
            raise
        except Exception as error:  # the model is the user's: it may raise anything
            raise Conflict(f"the model cannot be asked: {str(error).strip().partition(chr(10))[0]}") from error

    def _raw(self, row: int) -> Any:
        """A sample as tensors in the form that the model takes, without the axis of samples."""
        found = self._viewed.sample(self._viewed.row(row))
        if not isinstance(found, dict):
            return torch.as_tensor(np.array(found))
        parts = {k: torch.as_tensor(np.array(part)) for k, part in found.items()}
        numbered = all(k.isdecimal() for k in parts)
        return tuple(parts[k] for k in sorted(parts, key=int)) if numbered else parts

    def _input(self, row: int) -> Any:
        return self._placed(stack([self._raw(row)]))

    def _placed(self, x: Any) -> Any:
        return place(x, self.model)

    def _relevance(self, rows: Sequence[int], name: str | None) -> Any:
        """Stored relevance of some samples, in the form of the input."""
        parts = {part: [self._viewed.shown(row, name, part).relevance for row in rows]
                 for part in self._viewed.parts(name)}  # fmt: skip
        found = {part: torch.as_tensor(np.stack(values)) for part, values in parts.items()}
        if list(found) == [""]:
            return found[""]
        example = self._raw(rows[0])
        keys = list(example) if isinstance(example, dict) else [str(place) for place in range(len(example))]
        packed = {key: found.get(key) for key in keys}
        return packed if isinstance(example, dict) else tuple(packed.values())

    def _stored_target(self, row: int, name: str | None) -> Any:
        """What a stored explanation explained.

        Raises:
            Conflict: the store does not know enough of it.
        """
        facts = self._viewed.explanation(name).facts
        column = f"{facts.name}.target"
        if column not in self._viewed.columns:
            return None
        found = self._viewed._class(column, self._viewed.row(row))
        if found is None:
            raise Conflict(f"sample {row} was not explained")
        kinds: dict[str, Callable[[int], Any]] = {"LogOdds": targets.LogOdds, "Contrast": targets.Contrast}
        made = kinds.get(facts.target.partition("(")[0])
        return int(found["value"]) if made is None else made(int(found["value"]))

    def _composite(self, name: str) -> str | None:
        return name if name in presets() else None

    def _unknown(self, facts: Any) -> list[str]:
        found = []
        if facts.composite and facts.composite not in presets():
            found.append("the store's rules are the user's own: this is the method's default")
        if facts.options not in ("{}", ""):
            found.append(f"the store's job had options {facts.options}, which are not used here")
        return found

    def _shown(self, row: int, found: Explanation) -> Shown:
        relevance, given = found.relevance, found.inputs
        if isinstance(relevance, dict):
            key = next(k for k, part in relevance.items() if isinstance(part, Tensor))
            relevance, given = relevance[key], given[key]
        elif isinstance(relevance, tuple):
            at = next(i for i, part in enumerate(relevance) if isinstance(part, Tensor))
            relevance, given = relevance[at], given[at]
        values = relevance[0].detach().cpu()
        values = values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
        return self._viewed.as_shown(values.numpy(), given[0].detach().cpu().float().numpy()
                                     if given.is_floating_point() else given[0].cpu().numpy())  # fmt: skip

    def _prediction(self, x: Any) -> list[dict[str, Any]]:
        """The classes with the largest scores, where the output is one score a class."""
        with torch.no_grad():
            output = Inputs.of(x).call(self.model, Inputs.of(x).values)
        output = getattr(output, "logits", output)
        if not isinstance(output, Tensor) or output.dim() != 2 or output.shape[1] < 2:
            return []
        scores, classes = output[0].float().topk(min(_TOP, output.shape[1]))
        return [
            {"class": c, "title": title_of(c, self._viewed.classes), "score": score}
            for c, score in zip(classes.tolist(), scores.tolist(), strict=True)
        ]

    def _told(self, target: Any) -> dict[str, Any] | None:
        chosen = getattr(target, "c", target)
        if isinstance(chosen, Tensor) and chosen.dim() == 1:
            value = int(chosen[0])
            return {"value": value, "title": title_of(value, self._viewed.classes)}
        return None if target is None else {"value": None, "title": type(target).__name__}


def target_of(value: Any) -> Any:
    """A target as the page writes it: null, a class, or ``{"kind": "log_odds", "c": 3}`` and the like.

    Raises:
        InvalidTarget: it is none of these.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    try:
        match value["kind"]:
            case "log_odds":
                return targets.LogOdds(_whole(value.get("c")))
            case "contrast":
                return targets.Contrast(_whole(value.get("c")))
            case "margin":
                return targets.Margin(int(value["a"]), int(value["b"]))
            case "sum":
                return targets.Sum()
    except (TypeError, KeyError, ValueError, AttributeError):
        pass
    raise InvalidTarget('target must be null, a class, or {"kind": "log_odds" | "contrast" | "margin" | "sum", ...}')


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def check_options(options: Any) -> dict[str, Any]:
    """The options of a method as the page sends them: numbers, texts and booleans by name.

    Raises:
        InvalidInput: anything else.
    """
    if not isinstance(options, dict) or not all(
        isinstance(v, (int, float, str, bool)) or v is None for v in options.values()
    ):
        raise InvalidInput("options must be a dictionary of numbers, texts and booleans")
    return options
