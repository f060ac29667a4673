from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from headwater import demo
from headwater.errors import MissingExtra


@pytest.mark.slow
def test_the_demonstration_recognizes_explains_and_audits_the_photographs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = demo.main(tmp_path / "demo")
    printed = capsys.readouterr().out
    assert {path.name for path in paths} == {"index.html", "methods.png", *(f"{name}.png" for name in demo.PHOTOGRAPHS)}
    for path in paths:
        assert str(path) in printed
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
    for label in ("Egyptian cat", "espresso", "missile"):
        assert label in printed
    unexplained = re.search(r"at most ([0-9.e+-]+) of the relevance", printed)
    assert unexplained is not None
    assert float(unexplained[1]) < 1e-4  # float32
    page = paths[0].read_text(encoding="utf-8")
    assert page.count("<img ") == 5 * 5 + 5 * (1 + len(demo.METHODS))
    assert not re.search(r"https?:|<script|url\(", page)
    for words in ("against the rest", "absorbed by: bias", "Gamma(gamma=10)", *demo.METHODS.values()):
        assert words in page


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(
        MissingExtra, match=r"efficientnet-lite-pytorch is not installed: pip install 'headwater\[demo\]'"
    ):
        demo.load_model()
