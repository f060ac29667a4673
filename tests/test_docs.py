"""The examples of the README and of the documentation run: each page's ``python`` blocks in one namespace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import headwater as hw
from headwater.cli import app

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if BLOCK.search(page.read_text())], ids=lambda page: str(page.relative_to(ROOT))
)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    text = page.read_text()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        lines_above = text.count("\n", 0, block.start(1))  # so that a traceback names the page's own line
        exec(compile("\n" * lines_above + block.group(1), str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing, f"{page.name} links to files that do not exist: {missing}"


def test_every_method_and_option_is_listed() -> None:
    page = (ROOT / "docs" / "methods.md").read_text()
    for method in hw.methods():
        row = next((line for line in page.splitlines() if line.startswith(f"| `{method.name}` |")), None)
        assert row is not None, f"{method.name} is missing in docs/methods.md"
        assert all(f"`{option}`" in row or option in row for option in method.options), f"options of {method.name}"


def test_the_page_of_errors_quotes_the_source_and_has_every_class() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    kinds = {
        name for name in hw.__all__ if isinstance(getattr(hw, name), type) and issubclass(getattr(hw, name), Exception)
    }
    assert all(f"## {name}" in page for name in kinds - {"HeadwaterError", "HeadwaterWarning"})
    source = "".join(path.read_text() for path in sorted((ROOT / "src").rglob("*.py")))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # a text over several lines
    quoted = [
        cell for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for cell in re.findall(r"`([^`]+)`", row)
    ]
    assert len(quoted) > 25
    assert [text for text in quoted if text not in source] == []


def commands(page: Path) -> list[list[str]]:
    """The words of each command line of this package on a page, in blocks and in the text."""
    text = page.read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.partition("  #")[0] for block in blocks for line in block.splitlines()]
    lines += [" ".join(span.split()) for span in re.findall(r"`(headwater [^`]+)`", text)]
    return [line.split() for line in lines if line.startswith("headwater ")]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_commands_and_their_options_exist(page: Path) -> None:
    group = get_command(app)
    for _, name, *words in commands(page):
        command = group if name.startswith("-") else group.commands.get(name)
        assert command is not None, f"{page.name}: headwater {name}"
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        given = {word.partition("=")[0] for word in [name, *words] if word.startswith("--")}
        assert given <= known, f"{page.name}: headwater {name} has no {', '.join(sorted(given - known))}"
