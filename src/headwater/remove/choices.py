"""What a user names: which arguments lose features, which features, and what takes their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from headwater.arguments import bounds_of
from headwater.errors import InvalidInput
from headwater.question import Question
from headwater.remove.features import Features, features_of, in_columns
from headwater.remove.imputers import Blur, Constant, Delete, Imputer, Mean, Noise, Uniform
from headwater.remove.inpainting import Biharmonic, Inpaint, NoisyLinear
from headwater.remove.references import Average, Conditional, Marginal
from headwater.remove.text import Reader

OWN: dict[str, type] = {
    "zero": Constant, "mean": Mean, "blur": Blur, "noise": Noise, "inpaint": Inpaint, "biharmonic": Biharmonic,
    "noisy_linear": NoisyLinear, "delete": Delete,
}  # fmt: skip
REFERRING: dict[str, type] = {"marginal": Marginal, "average": Average, "conditional": Conditional}


def places_of(question: Question, argument: Any) -> tuple[int, ...]:
    """The positions of the arguments that lose features.

    Args:
        argument: a name or position, or several; None: all that are explained.

    Raises:
        InvalidInput: for arguments that there are not.
    """
    explained = question.explained
    if argument is None:
        if not explained:
            raise InvalidInput("x holds masks and flags alone: no argument can be explained")
        return tuple(explained)
    keys: list[Any] = list(question.inputs.names or range(len(question.inputs.values)))
    wanted = [argument] if isinstance(argument, (str, int)) else list(argument)
    unknown = [key for key in wanted if key not in keys or keys.index(key) not in explained]
    if unknown or not wanted:
        choices = ", ".join(repr(keys[i]) for i in explained)
        raise InvalidInput(f"argument={argument!r} names none that can be changed: choose from {choices}")
    return tuple(keys.index(key) for key in wanted)


def by_argument(value: Any, question: Question, place: int) -> Any:
    """An option for one argument, where it was given by name or position, else that for all."""
    if isinstance(value, Mapping):
        return value.get(question.inputs.names[place] if question.inputs.names else place)
    return value


def chosen_features(question: Question, place: int, features: Any, cells: str) -> Features:
    """The features of an argument; by default ``cells``, or the words of a text without what pads it."""
    x, mask = in_columns(question.inputs.values[place]), question.inputs.mask
    if isinstance(question.model, Reader):
        mask = x
    if features is None and not x.is_floating_point() and mask is not None and mask.shape == x.shape:
        places = torch.arange(x[0].numel()).view(x.shape[1:])
        features = torch.where(mask.cpu() != 0, places, -1)
    return features_of(x, cells if features is None else features)


def imputer_of(imputer: Any, question: Question, place: int, references: Any = None, default: Any = 0) -> Imputer:
    """The imputer that an option means.

    Args:
        imputer: an imputer; a number, token id or tensor that takes the place; a name: "zero", "mean", "blur", "noise",
            "uniform" (within the bounds), "inpaint", "biharmonic", "noisy_linear", "delete" (words), or with a
            reference set "marginal", "average" and "conditional"; for raw text another word; None: marginal with a
            reference set, else ``default`` (of token ids: the id that the model's embedding pads with, else 0).
        references: examples ``[M, ...]``, or a dict of them by argument.

    Raises:
        InvalidInput: an unknown name, or one that lacks its reference set.
    """
    examples = by_argument(references, question, place)
    if isinstance(examples, Tensor) and question.inputs.values[place].dim() == 1:
        examples = in_columns(examples)
    if imputer is None:
        ids = not question.inputs.values[place].is_floating_point()
        imputer = "marginal" if examples is not None else _padding(question.model) if ids else default
    if isinstance(imputer, str):
        if isinstance(question.model, Reader) and imputer not in OWN:
            return Constant(question.model.id_of(imputer))
        if imputer == "uniform":
            low, high = bounds_of(question.bounds, question.inputs, place) or (None, None)
            return Uniform(low, high)
        if imputer in REFERRING:
            if examples is None:
                raise InvalidInput(f"imputer {imputer!r} needs examples to take from: pass references=, [M, ...]")
            return REFERRING[imputer](examples)
        if imputer not in OWN:
            raise InvalidInput(f"Unknown imputer {imputer!r}: choose from {', '.join([*OWN, 'uniform', *REFERRING])}")
        return OWN[imputer]()
    if isinstance(imputer, (int, float, Tensor)) or hasattr(imputer, "__array__"):
        return Constant(imputer)
    if not hasattr(imputer, "prepare"):
        raise InvalidInput(f"imputer must be a name, a value or an imputer, not {type(imputer).__name__}")
    return imputer


def _padding(model: Any) -> int:
    """The token id that stands for nothing in the first embedding of the model that has one."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    found = (m.padding_idx for m in modules if isinstance(m, nn.Embedding) and m.padding_idx is not None)
    return next(found, 0)
