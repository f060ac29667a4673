"""The command line, from the arguments to the files that it leaves behind."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

import headwater as hw
from headwater.cli import app

MODELS = "tests.test_cli"


def tabular() -> nn.Module:
    """Three features, two classes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def visual() -> nn.Module:
    """Pictures of any size, three classes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3), nn.Dropout()
    )


def audible() -> nn.Module:
    """One channel of sound, two classes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 4, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2))


class Two(nn.Module):
    """Takes two inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 2), nn.Linear(4, 2)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.left(left) + self.right(right)


def half() -> nn.Module:
    return tabular().to(torch.bfloat16)


def probable() -> nn.Module:
    return nn.Sequential(tabular(), nn.Softmax(1))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})


def succeed(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refuse(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1, "a refusal is one line"
    return result.stderr


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("age,height,weight,answer\n1,2,3,0\n-1,0.5,2,1\n")
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "noise.png")
    return tmp_path / "noise.png"


def test_explains_a_table(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    printed = succeed("explain", f"{MODELS}:tabular", table, "--drop", "answer", "--out", out)
    assert "table 0" in printed
    assert "table 1" in printed
    saved = hw.load(out / "explanation.safetensors")
    expected = hw.explain(tabular().eval(), torch.tensor([[1.0, 2, 3], [-1, 0.5, 2]]))
    torch.testing.assert_close(saved.relevance, expected.relevance)
    assert Image.open(out / "relevance.png").size > (100, 100)
    page = (out / "index.html").read_text()
    assert "table 1" in page
    assert "data:image/png;base64," in page


def test_explains_pictures_within_their_bounds(picture: Path, tmp_path: Path) -> None:
    options = ["--size", "6", "--mean", "0.5", "--std", "0.5,0.5,0.25", "--composite", "epsilon_gamma_box"]
    succeed("explain", f"{MODELS}:visual", picture, *options, "--out", tmp_path)
    saved = hw.load(tmp_path / "explanation.safetensors")
    assert saved.relevance.shape == (1, 3, 6, 6)
    std = torch.tensor([0.5, 0.5, 0.25]).reshape(1, 3, 1, 1)
    bounds = (-0.5 / std, 0.5 / std)
    expected = hw.explain(visual().eval(), saved.inputs, composite="epsilon_gamma_box", bounds=bounds)
    torch.testing.assert_close(saved.relevance, expected.relevance)


def test_explains_a_recording(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    soundfile.write(tmp_path / "tone.wav", np.sin(np.arange(200) / 5, dtype=np.float32), 8000)
    succeed("explain", f"{MODELS}:audible", tmp_path / "tone.wav", "--out", tmp_path)
    assert (tmp_path / "relevance.png").exists()


def test_explains_several_inputs_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "both.npz", left=np.ones((2, 3)), right=np.ones((2, 4)))
    succeed("explain", f"{MODELS}:Two", tmp_path / "both.npz", "--out", tmp_path)
    assert set(hw.load(tmp_path / "explanation.safetensors").relevance) == {"left", "right"}
    assert (tmp_path / "relevance-left.png").exists()
    assert (tmp_path / "relevance-right.png").exists()


def test_explains_a_text(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "film", "##s"])
    )
    config = transformers.BertConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "model")
    transformers.BertTokenizer(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "model")
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "long.txt").write_text("good films <script>")
    (texts / "short.txt").write_text("good")
    printed = succeed("explain", f"hf:{tmp_path / 'model'}", texts, "--out", tmp_path)
    assert "films" in printed
    page = (tmp_path / "index.html").read_text()
    assert "films" in page
    assert "<script>" not in page


def test_a_shape_that_no_picture_fits_is_still_explained(tmp_path: Path) -> None:
    np.save(tmp_path / "deep.npy", np.ones((1, 2, 2, 2, 2, 3)))
    printed = succeed("explain", f"{MODELS}:tabular", tmp_path / "deep.npy", "--target", "sum", "--out", tmp_path)
    assert "Not drawn: " in printed
    assert hw.load(tmp_path / "explanation.safetensors").relevance.shape == (1, 2, 2, 2, 2, 3)


def test_the_ledger_is_summed_up(table: Path, tmp_path: Path) -> None:
    printed = succeed("explain", f"{MODELS}:tabular", table, "--drop", "answer", "--ledger", "--out", tmp_path)
    assert "bias" in printed
    assert "Unexplained at any of 3 operators: at most" in printed


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("1", 1),
        ("1,0", [1, 0]),
        ("sum", hw.target.Sum()),
        ("log-odds:1", hw.target.LogOdds(1)),
        ("contrast:1", hw.target.Contrast(1)),
        ("margin:1,0", hw.target.Margin(1, 0)),
        ("neuron:0,2", hw.target.Neuron("0", (2,))),
    ],
)
def test_targets(table: Path, tmp_path: Path, text: str, target: object) -> None:
    options = ["--drop", "answer", "--target", text, "--batch-size", 2, "--method", "gradient_x_input"]
    succeed("explain", f"{MODELS}:tabular", table, *options, "--out", tmp_path)
    x = torch.tensor([[1.0, 2, 3], [-1, 0.5, 2]])
    expected = hw.explain(tabular().eval(), x, target=target, method="gradient_x_input")
    torch.testing.assert_close(hw.load(tmp_path / "explanation.safetensors").relevance, expected.relevance)


def test_takes_weights_and_their_precision(table: Path, tmp_path: Path) -> None:
    state = {name: torch.ones_like(tensor) for name, tensor in half().state_dict().items()}
    torch.save(state, tmp_path / "ones.pt")
    options = ["--drop", "answer", "--weights", tmp_path / "ones.pt", "--out", tmp_path]
    succeed("explain", f"{MODELS}:half", table, *options)
    saved = hw.load(tmp_path / "explanation.safetensors")
    assert saved.relevance.dtype == torch.bfloat16
    assert saved.output.tolist() == [29.0, 11.0]


def test_warns_in_one_line(table: Path, tmp_path: Path) -> None:
    result = run("explain", f"{MODELS}:probable", table, "--drop", "answer", "--out", tmp_path)
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: ")
    assert result.stderr.count("\n") == 1


def test_plan_lists_the_operators(table: Path) -> None:
    printed = succeed("plan", f"{MODELS}:tabular", table, "--drop", "answer", "--composite", "epsilon_plus")
    assert printed.count("linear") >= 2
    assert "relu" in printed


def test_methods_lists_the_register() -> None:
    printed = succeed("methods")
    for row in hw.methods():
        assert row.name in printed


@pytest.mark.parametrize("command", ["explain", "plan", "methods", "demo"])
def test_help_has_an_example(command: str) -> None:
    assert f"Example: headwater {command}" in succeed(command, "--help")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "2"], "out of range"),
        (["--target", "cat"], "writes no target"),
        (["--target", "margin:1"], "writes no target"),
        (["--method", "magic"], "magic"),
        (["--composite", "magic"], "magic"),
        (["--drop", "magic"], "no column 'magic'"),
        (["--bounds", "0"], "write 2 numbers"),
        (["--size", "big"], "write 1 or 2 numbers"),
        (["--size", "-3"], "whole numbers of pixels"),
        (["--size", "32.5"], "whole numbers of pixels"),
        (["--weights", "nowhere.pt"], "no file of weights"),
    ],
)
def test_refusals(table: Path, tmp_path: Path, options: list[str], message: str) -> None:
    assert message in refuse("explain", f"{MODELS}:tabular", table, "--drop", "answer", *options, "--out", tmp_path)


def test_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no file" in refuse("explain", f"{MODELS}:tabular", tmp_path / "nothing.csv")


@pytest.mark.parametrize("command", ["explain", "plan"])
def test_refuses_an_input_that_the_model_cannot_take(table: Path, command: str) -> None:
    refused = refuse(command, f"{MODELS}:tabular", table)
    assert "the model cannot take x of shape [2, 4] and type float32: " in refused
    assert "--drop COLUMN leaves a column of a table out" in refused


def failing() -> nn.Module:
    raise OSError("no weights here")


def test_refuses_a_function_that_fails_to_build_its_model(table: Path) -> None:
    told = refuse("plan", f"{MODELS}:failing", table)
    assert "'tests.test_cli:failing' built no model: OSError in " in told
    assert "test_cli.py" in told
    assert "no weights here" in told


def test_refuses_to_write_to_a_file_before_anything_is_computed(table: Path) -> None:
    result = run("explain", "nowhere:model", table, "--out", table)
    assert result.exit_code == 2
    assert "is a file" in result.output


def test_lists_the_first_of_many_samples(tmp_path: Path) -> None:
    np.save(tmp_path / "many.npy", np.ones((30, 3)))
    printed = succeed("explain", f"{MODELS}:tabular", tmp_path / "many.npy", "--out", tmp_path)
    assert "many 19" in printed
    assert "many 20" not in printed
    assert "and 10 more" in printed
    assert "many 29" in (tmp_path / "index.html").read_text()


def test_says_what_to_install(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install 'headwater[timm]'" in refuse("plan", "timm:resnet18", table)


def test_explains_without_pictures_where_matplotlib_is_missing(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    from headwater.show import figure

    figure._figure_class.cache_clear()
    printed = succeed("explain", f"{MODELS}:tabular", table, "--drop", "answer", "--out", tmp_path / "found")
    assert "Not drawn: matplotlib is not installed" in printed
    assert (tmp_path / "found" / "index.html").exists()
