"""Programs of ``torch.export``: explained as the model that they were exported from, and loaded without unpickling."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater.errors import InvalidInput, UnsupportedOperator
from headwater.loaders import load_model
from tests.elsewhere.checks import Attending, Convolutional, Recurrent, assert_as, assert_explained, given

KINDS = [Convolutional, Attending, Recurrent]


def exported(model: nn.Module, x: Tensor, core: bool = False) -> torch.export.ExportedProgram:
    """With an axis of samples that is free, in the operators of ATen or those of its core."""
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},))
    return program.run_decompositions() if core else program


@pytest.mark.parametrize("core", [False, True], ids=["aten", "core"])
@pytest.mark.parametrize("kind", KINDS)
def test_explained_as_the_original(kind: type[nn.Module], core: bool, tmp_path: Path) -> None:
    model, x = given(kind)
    program = exported(model, x, core)
    assert_as(program.module(), model, x)
    assert_as(program.module(), model, x[:1], composite="epsilon_plus")
    torch.export.save(program, tmp_path / "model.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # torch's own, which nobody here can mend
        loaded = load_model(str(tmp_path / "model.pt2")).model  # with its modules
    assert_as(loaded, model, x)
    assert hw.explain(loaded, x, layers=["head"]).layers["head"].shape == model(x).shape


class Functions(nn.Module):
    """Operators whose core form is another one."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.group, self.head = nn.ConvTranspose2d(4, 4, 2, 2), nn.GroupNorm(2, 4), nn.Linear(4, 3)
        self.norm, self.rms = nn.LayerNorm(8), nn.RMSNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.pad(self.group(self.up(x)), (1, 1, 1, 1), mode="reflect")
        x = nn.functional.interpolate(x, size=(8, 8), mode="bilinear")
        x = self.rms(self.norm(nn.functional.avg_pool2d(x, 3, 1, 1)))
        x = nn.functional.adaptive_avg_pool2d(nn.functional.hardswish(x)[..., 1:7:2, torch.tensor([1, 3, 5, 6])], 2)
        x = torch.where(x > 0, x, 0.1 * x).masked_fill(x > 3, 0.0)
        query = x.flatten(2).mT
        x = nn.functional.scaled_dot_product_attention(query, query, query) + query.softmax(-1)
        x = torch.stack([x.amax(1), x.std(1), x.cumsum(1)[:, -1]], 1).to(torch.float64).float()
        x.add_(1.0)
        return self.head(x).log_softmax(-1).sum(1)


@pytest.mark.parametrize("core", [False, True], ids=["aten", "core"])
def test_operators_with_another_core_form(core: bool) -> None:
    model, x = Functions().eval(), torch.randn(2, 4, 3, 3)
    assert_as(exported(model, x, core).module(), model, x, tolerance=2e-3)


def test_token_ids() -> None:
    model, ids = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3)).eval(), torch.randint(0, 9, (2, 5))
    for core in (False, True):
        assert_as(exported(model, ids, core).module(), model, ids)


def test_an_operator_of_another_library_is_named() -> None:
    @torch.library.custom_op("headwater_tests::doubled", mutates_args=())
    def doubled(x: Tensor) -> Tensor:
        return 2 * x

    doubled.register_fake(torch.empty_like)
    doubled.register_autograd(lambda ctx, c: 2 * c)
    with pytest.raises(UnsupportedOperator, match="headwater_tests::doubled"):
        hw.explain(lambda x: torch.ops.headwater_tests.doubled.default(x), torch.randn(2, 3))


class Armed:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def rewritten(path: Path, ending: str, content: bytes) -> None:
    """The archive with another content of the member whose name ends so, or with that member added."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next((n for n in members if n.endswith(ending)), f"{next(iter(members)).partition('/')[0]}{ending}")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for member, old in {**members, name: content}.items():
            archive.writestr(member, content if member == name else old)


@pytest.mark.parametrize(
    "ending", ["/data/sample_inputs/model.pt", "/data/constants/opaque_obj_0", "/data/aotinductor/model/a.so"]
)
def test_nothing_is_unpickled(ending: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    torch.export.save(exported(*given(Attending)), path)
    torch.save(Armed(tmp_path / "trace"), tmp_path / "armed")
    armed = (tmp_path / "armed").read_bytes() if ending.endswith(".pt") else pickle.dumps(Armed(tmp_path / "trace"))
    rewritten(path, ending, armed)
    with pytest.raises(InvalidInput, match=r"holds (more than a program|code or pickled objects)"):
        load_model(str(path))
    assert not (tmp_path / "trace").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_refuses_what_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "broken.pt2").write_bytes(b"nothing")
    with pytest.raises(InvalidInput, match="no archive"):
        load_model(str(tmp_path / "broken.pt2"))
    with pytest.raises(InvalidInput, match="there is no file"):
        load_model(str(tmp_path / "absent.pt2"))


def test_functional_calls_with_other_weights() -> None:
    model, x = given(Convolutional)
    other = {name: value.detach() * 1.5 for name, value in [*model.named_parameters(), *model.named_buffers()]}
    called = lambda x: torch.func.functional_call(model, other, (x,))  # noqa: E731
    e = assert_explained(called, x)
    model.load_state_dict(other)
    torch.testing.assert_close(e.relevance, hw.explain(model, x).relevance)
