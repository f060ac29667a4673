"""Models by name: built, filled with weights and put in evaluation mode, or refused in one sentence."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from headwater.errors import InvalidInput, MissingExtra
from headwater.loaders import load_model
from headwater.loaders.loaded import package

SOURCE = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Linear(2, 3), nn.Dropout())

class Models:
    ready = build()

def sized(width, depth=2):
    return nn.Linear(width, depth)

def wrong():
    return 3

number = 4
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a Python module in the working directory, which is not on the path of modules."""
    (tmp_path / "made_up_models.py").write_text(SOURCE)
    (tmp_path / "made_up_broken.py").write_text("import no_such_package")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "made_up_models", raising=False)
    return "made_up_models"


def test_a_function_builds_the_model(module: str) -> None:
    model = load_model(f"{module}:build").model
    assert isinstance(model, nn.Sequential)
    assert not model.training


def test_a_module_is_taken_as_it_is(module: str) -> None:
    assert not load_model(f"{module}:Models.ready").model.training


@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_are_loaded(module: str, tmp_path: Path, suffix: str, nest: str | None) -> None:
    state = {"0.weight": torch.full((3, 2), 0.5), "0.bias": torch.ones(3)}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({nest: state, "epoch": 3} if nest else state, path)
    else:
        save_file(state, path)
    model = load_model(f"{module}:build", path).model
    assert model(torch.ones(1, 2)).tolist() == [[2.0, 2.0, 2.0]]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("plain", "names no source"),
        (":build", "names no source"),
        ("no_such_module:build", "no Python module 'no_such_module'"),
        ("{module}:nothing", "has no 'nothing'"),
        ("{module}:sized", "without arguments: .*width"),
        ("{module}:wrong", "returned a int"),
        ("{module}:number", "is a int"),
        ("torchvision:nothing", "torchvision has no model 'nothing'"),
        ("timm:nothing", "timm has no model 'nothing'"),
        ("hf:./nothing", "no model of transformers at './nothing'"),
    ],
)
def test_refusals(module: str, spec: str, message: str) -> None:
    package = spec.partition(":")[0]
    if package in ("torchvision", "timm", "hf"):
        pytest.importorskip("transformers" if package == "hf" else package, reason=f"{package} is not installed")
    with pytest.raises(InvalidInput, match=message):
        load_model(spec.format(module=module))


def test_what_a_models_module_fails_to_import_is_not_hidden(module: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        load_model("made_up_broken:build")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"0.weight": torch.ones(3, 2)}, "do not fit the model: Missing key.*0.bias"),
        ({"0.weight": torch.ones(2, 2), "0.bias": torch.ones(3)}, "do not fit the model: size mismatch for 0.weight"),
        ([1, 2], "holds no state dict"),
        ({"0.weight": 3}, "holds no state dict"),
    ],
)
def test_refuses_weights_that_do_not_fit(module: str, tmp_path: Path, state: object, message: str) -> None:
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(InvalidInput, match=message):
        load_model(f"{module}:build", tmp_path / "weights.pt")


class Arbitrary:
    """Something that only pickle can store."""


def test_refuses_files_that_hold_more_than_weights(module: str, tmp_path: Path) -> None:
    files = {"more.pt": pickle.dumps(Arbitrary(), protocol=2), "broken.safetensors": b"nothing", "empty.pt": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidInput, match="more than weights, or is damaged"):
            load_model(f"{module}:build", tmp_path / name)
    torch.save(Arbitrary(), tmp_path / "module.pt")
    with pytest.raises(InvalidInput, match="more than weights"):
        load_model(f"{module}:build", tmp_path / "module.pt")
    with pytest.raises(InvalidInput, match="there is no file of weights"):
        load_model(f"{module}:build", tmp_path / "absent.pt")


@pytest.mark.parametrize(("spec", "extra"), [("torchvision:vgg11", "torchvision"), ("timm:x", "timm"), ("hf:x", "hf")])
def test_says_what_to_install(spec: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchvision", "torchvision.models", "timm", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'headwater\[{extra}\]'"):
        load_model(spec)


def test_says_what_to_do_with_a_package_built_for_another_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("headwater.loaders.loaded.importlib.import_module", broken)
    with pytest.raises(InvalidInput, match=r"was not built .*nms.*: install both .* pip install torch torchvision"):
        package("torchvision.models", "torchvision")


def test_torchvision_by_name(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    torch.save(models.squeezenet1_1().state_dict(), tmp_path / "weights.pt")
    loaded = load_model("torchvision:squeezenet1_1", tmp_path / "weights.pt")
    assert loaded.size == (224, 224)
    assert loaded.mean == (0.485, 0.456, 0.406)
    assert loaded.std == (0.229, 0.224, 0.225)


def test_timm_by_name(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.save(timm.create_model("mobilenetv3_small_050").state_dict(), tmp_path / "weights.pt")
    loaded = load_model("timm:mobilenetv3_small_050", tmp_path / "weights.pt")
    assert loaded.size == (224, 224)
    assert loaded.mean is not None


def test_transformers_by_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=30
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    loaded = load_model(f"hf:{tmp_path}")
    assert type(loaded.model).__name__ == "BertForSequenceClassification"
    assert not loaded.model.training
