"""Relevance of text: words on coloured ground, for the terminal and as escaped HTML."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import StringIO

import numpy as np
from numpy.typing import NDArray

from headwater.errors import InvalidInput
from headwater.show.colour import INK, PAPER, Array, finite, hexadecimal, ink_on, limit_of, rgb
from headwater.show.figure import signed

# how the tokenizers of WordPiece, byte-level BPE and SentencePiece mark their pieces
_CONTINUES, _BYTE_SPACE, _PIECE_SPACE = "##", "Ġ", "▁"
_FAINT = 0.02  # of the scale: below it a word is left as the page has it


@dataclass(frozen=True)
class TextMap:
    """Texts and the relevance of their tokens: ``print`` colours them in the terminal, a notebook shows HTML.

    Attributes:
        tokens: per text, its tokens.
        relevance: per text, shape ``[T]``.
        limit: the end of the scale that the texts share.
        merge: whether pieces of words are joined.
    """

    tokens: Sequence[Sequence[str]]
    relevance: Sequence[Array]
    limit: float
    merge: bool = True

    def __str__(self) -> str:
        return "\n".join(
            text_terminal(tokens, relevance, limit=self.limit or None, merge=self.merge)
            for tokens, relevance in zip(self.tokens, self.relevance, strict=True)
        )

    def to_html(self) -> str:
        """One HTML fragment with every text on the shared scale."""
        return "\n".join(
            text_html(tokens, relevance, limit=self.limit or None, merge=self.merge)
            for tokens, relevance in zip(self.tokens, self.relevance, strict=True)
        )

    def _repr_html_(self) -> str:
        return self.to_html()


def text_terminal(
    tokens: Sequence[str], relevance: Array, *, limit: float | None = None, merge: bool = True, colour: bool = True
) -> str:
    """Text for the terminal: coloured ground, and one to three signs after each word, which survive without colour.

    Control characters of the tokens are spelled out, so that a text cannot steer the terminal.

    Args:
        tokens: T of them.
        relevance: shape ``[T]``.
        limit: the end of the scale; by default the largest magnitude of a word.
        merge: join pieces of words, see ``merge_pieces``.
        colour: ``False`` for an output that shows no ANSI colours.

    Raises:
        InvalidInput: another number of tokens than of relevances, or a limit that is not positive.
        NonFinite: NaN or infinity in the relevance.
    """
    from rich.console import Console
    from rich.style import Style
    from rich.text import Text

    words, values = merge_pieces(tokens, relevance) if merge else _aligned(tokens, relevance)
    end = limit_of([values], limit)
    line = Text()
    for word, value, ground in zip(words, values, rgb(values, end or None), strict=True):
        faint = abs(value) <= _FAINT * end
        style = Style() if faint else Style(color=ink_on(ground), bgcolor=hexadecimal(ground))
        line.append(_visible(word) + _signs(float(value), end), style)
        line.append(" ")
    line.append(f"\nscale {signed(-end)} to {signed(end)}" if end else "\nno relevance")
    console = Console(
        file=StringIO(),
        force_terminal=colour,
        color_system="truecolor" if colour else None,
        no_color=not colour,
        _environ={},  # the caller has decided about colour
    )
    with console.capture() as capture:
        console.print(line, soft_wrap=True)
    return capture.get().rstrip("\n")


def text_html(tokens: Sequence[str], relevance: Array, *, limit: float | None = None, merge: bool = True) -> str:
    """Text as an HTML fragment: each word on a ground of its colour, its relevance shown on hovering; all escaped.

    Args:
        tokens: T of them.
        relevance: shape ``[T]``.
        limit: the end of the scale; by default the largest magnitude of a word.
        merge: join pieces of words, see ``merge_pieces``.

    Raises:
        InvalidInput: another number of tokens than of relevances, or a limit that is not positive.
        NonFinite: NaN or infinity in the relevance.
    """
    words, values = merge_pieces(tokens, relevance) if merge else _aligned(tokens, relevance)
    end = limit_of([values], limit)
    spans = [
        f'<span title="{signed(float(value))}" style="background:{hexadecimal(ground)};color:{ink_on(ground)};'
        f'padding:0.1em 0.15em;border-radius:0.2em">{html.escape(_visible(word))}</span>'
        for word, value, ground in zip(words, values, rgb(values, end or None), strict=True)
    ]
    scale = f"scale {signed(-end)} (blue) to {signed(end)} (red)" if end else "no relevance"
    return (
        f'<div style="background:{PAPER};color:{INK};padding:0.6em 0.8em;line-height:1.9;overflow-wrap:anywhere">'
        f'{" ".join(spans)}<div style="font-size:0.8em;color:#595959">{scale}</div></div>'
    )


def merge_pieces(tokens: Sequence[str], relevance: Array) -> tuple[list[str], NDArray[np.float64]]:
    """Join the pieces of words and add up their relevance, so that the sum over the text stays the same.

    WordPiece marks the pieces that continue a word (``##ing``); byte-level BPE (``Ġ``) and SentencePiece (``▁``) mark
    those that begin one. Tokens without any mark are words already. Special tokens (``[CLS]``, ``<s>``) stand alone.

    Args:
        tokens: T of them, as the tokenizer writes them.
        relevance: shape ``[T]``.

    Returns:
        The W words and their relevance, shape ``[W]``.

    Raises:
        InvalidInput: another number of tokens than of relevances.
        NonFinite: NaN or infinity in the relevance.
    """
    pieces, values = _aligned(tokens, relevance)
    mark = next((m for m in (_PIECE_SPACE, _BYTE_SPACE) if any(piece.startswith(m) for piece in pieces)), None)
    words: list[str] = []
    sums: list[float] = []
    may_grow = False  # whether the last word takes another piece
    for piece, value in zip(pieces, values, strict=True):
        special = _is_special(piece)
        continues = piece.startswith(_CONTINUES) if mark is None else not piece.startswith(mark)
        if continues and may_grow and not special:
            words[-1] += piece.removeprefix(_CONTINUES) if mark is None else piece
            sums[-1] += value
        else:
            words.append(piece if mark is None or special else piece.lstrip(mark))
            sums.append(value)
        may_grow = not special
    if mark == _BYTE_SPACE:  # only whole words: a letter's bytes may lie in two pieces
        words = [word if _is_special(word) else _from_bytes(word) for word in words]
    return words, np.array(sums)


def _aligned(tokens: Sequence[str], relevance: Array) -> tuple[list[str], NDArray[np.float64]]:
    values = finite(relevance)
    if values.ndim != 1 or len(values) != len(tokens):
        raise InvalidInput(
            f"one relevance for each token: got {len(tokens)} tokens and relevance of shape {list(values.shape)}; "
            "Explanation.tokens() sums over the dimensions of an embedding"
        )
    return [str(token) for token in tokens], values


def _is_special(token: str) -> bool:
    return len(token) > 2 and (token[0], token[-1]) in {("[", "]"), ("<", ">")}


def _visible(word: str) -> str:
    return "".join(repr(letter)[1:-1] if unicodedata.category(letter) == "Cc" else letter for letter in word)


def _signs(value: float, limit: float) -> str:
    strength = abs(value) / limit if limit else 0.0
    if strength <= _FAINT:
        return ""
    return ("⁺" if value > 0 else "⁻") * min(3, 1 + int(3 * strength))


@cache
def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE's letters for bytes (Radford et al., 2019): printable ones are themselves, the rest follow 255."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def _from_bytes(word: str) -> str:
    alphabet = _byte_alphabet()
    if not all(letter in alphabet for letter in word):
        return word
    return bytes(alphabet[letter] for letter in word).decode(errors="replace")
