from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from headwater.errors import InvalidInput, NonFinite
from headwater.show import TextMap, merge_pieces, text_html, text_terminal

ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Reader(HTMLParser):
    """What a browser makes of a fragment: its tags and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["[CLS]", "un", "##believ", "##able", ".", "[SEP]"], ["[CLS]", "unbelievable", ".", "[SEP]"]),
        (["<|endoftext|>", "The", "Ġun", "believ", "able"], ["<|endoftext|>", "The", "unbelievable"]),
        (["<s>", "▁The", "▁un", "believ", "able", "</s>"], ["<s>", "The", "unbelievable", "</s>"]),
        (["▁", "8", "Ġ"], ["8Ġ"]),
        (["plain", "words", "stay"], ["plain", "words", "stay"]),
        (["[CLS]", "##s"], ["[CLS]", "##s"]),
        (["Ġcaf", "Ã©", "Ċ"], ["café\n"]),
        (["Ġna", "Ã", "¯ve"], ["naïve"]),
        ([], []),
    ],
)
def test_pieces_become_words_and_the_sum_stays(tokens: list[str], words: list[str]) -> None:
    if not tokens:
        with pytest.raises(InvalidInput, match="empty"):
            merge_pieces(tokens, torch.zeros(0))
        return
    relevance = torch.randn(len(tokens))
    merged, sums = merge_pieces(tokens, relevance)
    assert merged == words
    assert len(sums) == len(words)
    assert sums.sum() == pytest.approx(float(relevance.double().sum()), abs=1e-12)


def test_the_relevance_of_a_word_is_that_of_its_pieces() -> None:
    _, sums = merge_pieces(["a", "bet", "##ter", "##ed", "b"], torch.tensor([1.0, 2.0, -3.0, 4.0, 5.0]))
    assert sums.tolist() == [1.0, 3.0, 5.0]


def test_html_from_outside_is_text() -> None:
    hostile = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a&b", "'quote'", "\x1b[2J"]
    fragment = text_html(hostile, torch.tensor([1.0, -1.0, 0.5, 0.0, 0.1]))
    read = Reader(fragment)
    assert set(read.tags) == {"div", "span"}
    for token in hostile[:-1]:
        assert token in read.text
    assert "\x1b" not in fragment


def test_html_has_a_ground_for_each_word_on_a_scale_about_zero() -> None:
    fragment = text_html(["good", "none", "bad"], torch.tensor([2.0, 0.0, -2.0]))
    grounds = re.findall(r"background:(#\w{6});color:(#\w{6});padding:0.1em", fragment)
    assert grounds == [("#b2182b", "#ffffff"), ("#ffffff", "#000000"), ("#2166ac", "#ffffff")]
    assert "scale −2 (blue) to +2 (red)" in fragment
    assert "no relevance" in text_html(["a"], torch.zeros(1))


def test_the_terminal_has_colours_and_signs_that_survive_without() -> None:
    tokens, relevance = ["good", "bad", "fair", "none"], torch.tensor([3.0, -3.0, 0.5, 0.0])
    coloured = text_terminal(tokens, relevance)
    plain = text_terminal(tokens, relevance, colour=False)
    assert ANSI.search(coloured)
    assert not ANSI.search(plain)
    assert ANSI.sub("", coloured) == plain
    assert plain.splitlines()[0].split() == ["good⁺⁺⁺", "bad⁻⁻⁻", "fair⁺", "none"]
    assert "scale −3 to +3" in plain


def test_a_text_cannot_steer_the_terminal() -> None:
    shown = text_terminal(["\x1b]0;title\x07", "a\nb", "\x9b2J"], torch.ones(3), colour=False)
    assert not any(letter in shown for letter in "\x1b\x07\x9b")
    assert "a\\nb" in shown


def test_long_texts_are_not_broken_by_the_width_of_some_terminal() -> None:
    words = text_terminal(["word"] * 500, torch.zeros(500), colour=False).splitlines()[0].split()
    assert words == ["word"] * 500


def test_texts_in_a_map_share_one_scale() -> None:
    both = TextMap([["a"], ["b"]], [np.array([1.0]), np.array([4.0])], 4.0)
    assert both.to_html().count("+4 (red)") == 2
    assert str(both).count("+4") == 2
    assert both._repr_html_() == both.to_html()
    nothing = TextMap([["a"]], [np.zeros(1)], 0.0)
    assert "no relevance" in str(nothing)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"got 1 tokens and relevance of shape \[2\]"):
        text_html(["a"], torch.ones(2))
    with pytest.raises(InvalidInput, match="sums over the dimensions"):
        text_terminal(["a"], torch.ones(1, 3))
    with pytest.raises(NonFinite):
        text_html(["a"], torch.tensor([float("nan")]))
