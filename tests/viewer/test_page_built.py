"""The page that is shipped was built from the sources that lie here, and is fit for a strict policy."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

import headwater.viewer

SOURCES = Path(__file__).parents[2] / "viewer"
BUILT = Path(headwater.viewer.__file__).parent / "static"
MANIFEST = json.loads((BUILT / "manifest.json").read_text())


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_sources_are_those_that_were_built() -> None:
    if not SOURCES.is_dir():
        pytest.skip("an installed package has no sources of the page")
    named = {f"src/{path.name}" for path in (SOURCES / "src").iterdir()}
    assert {name for name in MANIFEST["sources"] if name.startswith("src/")} == named, "make viewer builds it anew"
    changed = [name for name, known in MANIFEST["sources"].items() if _hash(SOURCES / name) != known]
    assert not changed, "make viewer builds it anew"


def test_the_files_are_those_that_the_build_wrote() -> None:
    present = {path.relative_to(BUILT).as_posix() for path in BUILT.rglob("*") if path.is_file()}
    assert present == {*MANIFEST["files"], "manifest.json", "THIRD_PARTY.txt"}
    assert [name for name, known in MANIFEST["files"].items() if _hash(BUILT / name) != known] == []


def test_it_is_small_and_needs_no_network() -> None:
    assert sum(path.stat().st_size for path in BUILT.rglob("*") if path.is_file()) < 700_000
    page = (BUILT / "index.html").read_text()
    assert all(link.startswith("./") for link in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*src=)", page), (
        "nothing inline: the policy forbids it"
    )


def test_no_text_becomes_code() -> None:
    script = "".join(path.read_text() for path in BUILT.glob("assets/*.js"))
    for forbidden in (r"\beval\(", r"new Function\b", r"\.outerHTML\s*=", r"insertAdjacentHTML", r"document\.write\("):
        assert not re.search(forbidden, script), forbidden
    if SOURCES.is_dir():
        for source in (SOURCES / "src").glob("*.ts*"):
            assert not re.search(r"innerHTML|setAttribute\(|srcdoc", source.read_text()), source.name


def test_licences_are_named() -> None:
    told = (BUILT / "THIRD_PARTY.txt").read_text()
    for package in ("preact", "@preact/signals", "@preact/signals-core"):
        assert re.search(rf"^{re.escape(package)} \d+\.\d+\.\d+ \(MIT\)$", told, re.MULTILINE), package
