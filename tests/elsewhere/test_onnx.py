"""ONNX graphs of both exporters of torch: converted, and explained as the model that they were exported from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import headwater as hw
from headwater.errors import InvalidInput, UnsupportedModel
from headwater.loaders import load_model
from tests.elsewhere.checks import Attending, Convolutional, Recurrent, assert_as, given

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnx2torch", reason="onnx2torch is not installed")
OLD: dict[str, Any] = {"dynamo": False, "opset_version": 17}
NEW: dict[str, Any] = {"dynamo": True, "external_data": False, "verbose": False}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")


def written(model: nn.Module, x: Any, folder: Path, how: dict[str, Any]) -> str:
    if how["dynamo"]:
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    torch.onnx.export(model, (x,), folder / "model.onnx", **how)
    return str(folder / "model.onnx")


@pytest.mark.parametrize("how", [OLD, NEW], ids=["old", "new"])
@pytest.mark.parametrize("kind", [Convolutional, Attending])
def test_explained_as_the_original(kind: type[nn.Module], how: dict[str, Any], tmp_path: Path) -> None:
    model, x = given(kind)
    loaded = load_model(written(model, x, tmp_path, how))
    assert loaded.size == ((16, 16) if kind is Convolutional else None)
    assert_as(loaded.model, model, x)


def test_weights_of_products_take_rules(tmp_path: Path) -> None:
    """A linear layer of a sequence becomes a product with a constant and a sum."""
    model, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2, bias=False)).eval(), torch.randn(2, 3, 4)
    loaded = load_model(written(model, x, tmp_path, OLD)).model
    rules = [row.rule for row in hw.plan(loaded, x, composite="epsilon") if row.operator == "matmul"]
    assert len(rules) == 2
    assert all(rule.startswith("Epsilon") for rule in rules)
    assert_as(loaded, model, x, composite="epsilon", target=hw.target.Sum())


def test_an_operator_without_a_converter_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="does not know LSTM"):
        load_model(written(*given(Recurrent), tmp_path, OLD))


def test_refuses_what_is_no_graph(tmp_path: Path) -> None:
    for name, content in {"broken": b"nothing", "empty": b""}.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(InvalidInput, match="is no ONNX graph"):
            load_model(str(tmp_path / f"{name}.onnx"))
