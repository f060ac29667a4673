"""Raw text as the input: words become numbers that a reader turns back into text for the model."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from headwater.errors import InvalidInput
from headwater.method import Method
from headwater.remove.predict import as_scores


@dataclass(frozen=True, eq=False)
class Reader:
    """A model of texts as a function of their words' numbers.

    Args:
        model: ``list[str] -> scores``.
        words: of each text, without the white space between them.
        pieces: by number, what each word stands for in its text, with the white space that follows it; 0 is nothing.
    """

    model: Callable[[list[str]], Any]
    words: list[list[str]]
    pieces: list[str] = field(repr=False)

    def __call__(self, ids: Tensor) -> Tensor:
        """The model's scores of the texts that these numbers ``[N, W]`` spell."""
        return as_scores(self.model(self.texts(ids)), len(ids), ids.device)

    def texts(self, ids: Tensor) -> list[str]:
        """The texts that numbers ``[N, W]`` spell."""
        return ["".join([self.pieces[i] for i in row]) for row in ids.tolist()]

    def id_of(self, word: str) -> int:
        """The number of a word that takes the place of others."""
        piece = f"{word} "
        if piece not in self.pieces:
            self.pieces.append(piece)
        return self.pieces.index(piece)


def is_text(x: Any) -> bool:
    """Whether an input is raw text: a string or a list of strings."""
    return isinstance(x, str) or (isinstance(x, (list, tuple)) and bool(x) and all(isinstance(t, str) for t in x))


def reader(model: Callable[[list[str]], Any], x: str | list[str], method: Method) -> tuple[Reader, Tensor]:
    """A model of texts and its texts as a model of numbers and its numbers.

    Args:
        model: ``list[str] -> scores``, ``[N]`` or ``[N, C]``, as a tensor, an array or a list.
        x: one text or several.
        method: that is to explain it.

    Returns:
        the reader, and ``[N, W]`` numbers of the words, padded with zeros.

    Raises:
        InvalidInput: for a text without words, or a method that does not remove.
    """
    texts = [x] if isinstance(x, str) else list(x)
    if method.family != "remove":
        raise InvalidInput(
            f"Method {method.name!r} cannot explain raw text: choose a method of the family remove, such as "
            "'shapley_sampling' or 'lime', or pass token ids, or a pipeline of transformers"
        )
    split = [re.findall(r"^\s*\S+\s*|\S+\s*", text) for text in texts]
    empty = next((i for i, words in enumerate(split) if not words), None)
    if empty is not None:
        raise InvalidInput(f"text {empty} holds no words: leave it out")
    pieces, ids = [""], torch.zeros(len(texts), max(map(len, split)), dtype=torch.long)
    for i, words in enumerate(split):
        ids[i, : len(words)] = torch.arange(len(pieces), len(pieces) + len(words))
        pieces.extend(words)
    return Reader(model, [[word.strip() for word in words] for words in split], pieces), ids
