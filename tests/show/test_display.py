"""What notebooks and terminals show of results: everything that is asked for, escaped, and never an error."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import headwater as hw

SCRIPT = "<script>alert('x')</script>"


def html_of(shown: Any) -> str:
    """The HTML, which must be well formed and hold no element from outside."""
    text: str = shown._repr_html_()
    open_tags: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            assert tag in {"div", "p", "table", "thead", "tbody", "tr", "th", "td", "img", "span"}, tag
            if tag != "img":
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Checker().feed(text)
    assert not open_tags
    return text


def terminal_of(shown: Any, width: int = 100) -> str:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def visual() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


def test_pictures_with_a_ledger() -> None:
    e = hw.explain(visual(), torch.rand(2, 3, 8, 8), ledger=True)
    text = html_of(e)
    assert "data:image/png;base64," in text
    assert "lrp, rules default: 2 samples" in text
    assert "bias" in text
    assert "Bach" in text
    plain = terminal_of(e)
    assert all(word in plain for word in ("sample", "target", "delta", "absorbed"))


def test_many_samples_are_listed_in_part() -> None:
    e = hw.explain(nn.Sequential(nn.Linear(3, 2)).eval(), torch.randn(40, 3))
    assert "and 32 more" in html_of(e)
    assert "and 32 more" in terminal_of(e)


def test_texts_are_escaped() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    e = hw.explain(model, torch.randint(0, 9, (2, 3)))
    e.details["words"] = [["a", SCRIPT, "c"], ["\x1b[2J", "d", "&amp;"]]
    text = html_of(e)
    assert "&lt;script&gt;" in text
    assert "\x1b" not in text
    assert "\x1b[2J" not in terminal_of(e)


@pytest.mark.parametrize(
    "x",
    [torch.rand(1, 2, 3, 4, 5), torch.rand(2, 5, 40), (torch.rand(1, 3), torch.rand(1, 3)), {"a": torch.rand(3, 2)}],
    ids=["volume", "series", "tuple", "dict"],
)
def test_inputs_of_any_shape(x: Any) -> None:
    def model(*args: Any, **named: Any) -> torch.Tensor:
        return sum(part.flatten(1).sum(1) for part in (*args, *named.values()))  # type: ignore[return-value]

    e = hw.explain(model, x)
    html_of(e)
    terminal_of(e)


def test_what_cannot_be_drawn_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    e = hw.explain(visual(), torch.rand(1, 3, 8, 8))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    from headwater.show import figure

    figure._figure_class.cache_clear()
    assert "Not drawn: matplotlib is not installed" in html_of(e)
    monkeypatch.undo()
    figure._figure_class.cache_clear()
    e.relevance = torch.full_like(e.relevance, torch.nan)
    assert "Not drawn" in html_of(e)
    e.relevance = None
    assert "Not drawn: only a hidden layer" in html_of(e)
    terminal_of(e)


def test_a_target_that_is_a_function_or_a_dataclass() -> None:
    model, x = visual(), torch.rand(2, 3, 8, 8)
    assert "Margin(0, 1)" in html_of(hw.explain(model, x, target=hw.target.Margin(0, 1)))
    assert "lambda" in html_of(hw.explain(model, x, target=lambda output: output[:, 0]))


def test_a_plan_marks_its_gaps() -> None:
    class Gap(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.qr(x[:, :, None] * x[:, None]).Q

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleDict({SCRIPT.replace(".", ""): nn.Linear(4, 4)})
            self.gap = Gap()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gap(next(iter(self.parts.values()))(x))

    plan = hw.plan(Named(), torch.rand(2, 4))
    text = html_of(plan)
    assert "&lt;script&gt;" in text
    assert [row.operator for row in plan.gaps] == ["linalg_qr"]
    assert "color:#d04a35" in text
    assert "1 call without a treatment" in text
    assert "1 call without a treatment" in terminal_of(plan, 160)
    assert plan.rows[0].operator in str(plan)


def test_a_comparison() -> None:
    found = hw.compare(visual(), torch.rand(3, 3, 8, 8), methods=["lrp", "gradient"], progress=False)
    text = html_of(found)
    assert "data:image/png" in text
    assert all(word in text for word in ("lrp", "gradient", "random", "area"))
    plain = terminal_of(found, 160)
    assert "gradient" in plain
    assert found.recommendation.split()[0] in plain
