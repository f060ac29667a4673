"""What the package promises about itself: its public names, a light import, one version."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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
    code = f"import sys, headwater; print([name for name in {heavy!r} if name in sys.modules])"
    environment = {"PYTHONPATH": str(ROOT / "src")}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert found.stdout.strip() == "[]"


def test_version_is_the_changelogs_newest() -> None:
    entries = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(entry for entry in entries if entry != "Unreleased") == hw.__version__
