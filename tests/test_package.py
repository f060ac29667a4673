"""What the package promises about itself: its public names, a light import, one version."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import headwater as hw

ROOT = Path(__file__).parents[1]
PUBLIC = [
    "Composite",
    "Explainer",
    "Explanation",
    "HeadwaterError",
    "HeadwaterWarning",
    "InvalidComposite",
    "InvalidInput",
    "InvalidTarget",
    "MissingExtra",
    "NonFinite",
    "Patterns",
    "UnsupportedModel",
    "UnsupportedOperator",
    "analyze",
    "as_captum",
    "as_quantus",
    "black_box",
    "compare",
    "concepts",
    "counterfactual_tokens",
    "diff",
    "evaluate",
    "explain",
    "feature_maps",
    "filter_weights",
    "filters",
    "import_attributions",
    "load",
    "methods",
    "neuralize",
    "open_store",
    "optimize",
    "patterns",
    "plan",
    "propagating",
    "rules",
    "run",
    "selfcheck",
    "similarity",
    "target",
    "toolbox",
    "view",
]


def test_public_names_are_pinned() -> None:
    assert hw.__all__ == PUBLIC
    assert all(hasattr(hw, name) for name in PUBLIC)


def fresh(code: str, *arguments: str, **variables: str) -> str:
    """What a new process prints."""
    command = [sys.executable, "-c", code, *arguments]
    environment = {"PYTHONPATH": str(ROOT / "src"), **variables}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.strip()


def test_import_is_light() -> None:
    heavy = (
        "matplotlib",
        "PIL",
        "rich",
        "transformers",
        "torchvision",
        "typer",
        "skimage",
        "soundfile",
        "sklearn",
        "scipy",
        "pandas",
        "polars",
        "zarr",
        "ray",
        "umap",
        "shap",
    )
    code = f"import sys, headwater; headwater.explain; print([name for name in {heavy!r} if name in sys.modules])"
    assert fresh(code) == "[]"


def test_nothing_needs_torch_before_a_name_is_asked_for() -> None:
    assert fresh("import sys, headwater; print('torch' in sys.modules, headwater.HeadwaterError.__name__)") == (
        "False HeadwaterError"
    )


def test_a_functions_name_is_the_functions_whoever_imported_its_module() -> None:
    code = (
        "import headwater.compiled, headwater.explain, headwater.feature_maps, headwater.methods, headwater.neuralize, "
        "headwater.patterns, headwater.propagating, headwater.selfcheck, headwater as hw;"
        "print([n for n in ('explain', 'feature_maps', 'methods', 'neuralize', 'patterns', 'propagating', 'selfcheck')"
        "if not callable(getattr(hw, n))])"
    )
    assert fresh(code) == "[]"


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ([], {"_HEADWATER_COMPLETE": "complete_bash", "COMP_WORDS": "headwater exp", "COMP_CWORD": "1"}, "explain"),
        (["--help"], {}, "optimize"),
        (["spray", "--help"], {}, "--clusters"),
        (["--version"], {}, hw.__version__),
    ],
    ids=["tab", "help", "help-of-a-command", "version"],
)
def test_the_shell_is_answered_without_torch(arguments: list[str], variables: dict[str, str], said: str) -> None:
    code = (
        "import atexit, sys; from headwater.cli import app;"
        "atexit.register(lambda: print('torch' in sys.modules)); app(sys.argv[1:], prog_name='headwater')"
    )
    *answer, torch = fresh(code, *arguments, **variables).splitlines()
    assert torch == "False"
    assert any(said in line for line in answer)


def test_version_is_the_changelogs_newest() -> None:
    entries = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(entry for entry in entries if entry != "Unreleased") == hw.__version__
