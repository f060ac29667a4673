"""A Clever Hans planted in real data is repaired from SpRAy's cluster alone, by data, projection and penalty."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.repair import repaired

for package in ("zarr", "polars", "faiss", "sklearn", "matplotlib"):
    pytest.importorskip(package)


@pytest.mark.data
@pytest.mark.slow
def test_a_watermark_in_fashion_mnist_is_repaired(data: Path, tmp_path: Path) -> None:
    for way, found in repaired(data, tmp_path, "cross", ["augment", "p_clarc", "rrr"]).items():
        assert found["drop"] >= 0.2, way
        assert found["recovered"] >= 0.8, way
        assert found["accuracy"] >= -0.01, way
        assert found["relevance removed"] >= 0.8, way
