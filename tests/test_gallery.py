"""The gallery's machinery on a toy: every method is shown or says why not, and each kind of figure is drawn."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
import torch
from torch import nn

import headwater as hw
from benchmarks import gallery
from benchmarks.gallery_runs import Exhibit, exhibit, strongest
from benchmarks.gallery_subjects import Kind, Subject

pytest.importorskip("matplotlib")
pytest.importorskip("PIL")
SHAPES: dict[Kind, tuple[int, ...]] = {
    "picture": (3, 8, 8),
    "sound": (1, 8, 8),
    "series": (2, 32),
    "table": (4,),
}


def toy(options: dict[str, dict[str, int]] | None = None) -> Subject:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    words = [f"column {i}" for i in range(4)]
    return Subject(
        "toy", "A toy", "Four columns.", model, torch.randn(1, 4), torch.randn(12, 4), "table", "1",
        words=words, options=options or {},
    )  # fmt: skip


@pytest.fixture(scope="module")
def shown() -> Exhibit:
    torch.manual_seed(0)
    few = {name: {"steps": 3} for name in ("meaningful_perturbation", "extremal_perturbation", "rate_distortion")}
    return exhibit(toy(few))


def test_every_method_is_shown_or_says_why_not(shown: Exhibit) -> None:
    single = {row.name for row in hw.methods() if row.run is not None}
    assert shown.maps.keys() | shown.refusals.keys() == single
    assert not shown.maps.keys() & shown.refusals.keys()
    assert all(relevance.shape == (4,) and relevance.isfinite().all() for relevance in shown.maps.values())
    assert {"lrp", "pattern_net", "feature_permutation", "neuron_conductance", "taylor"} <= shown.maps.keys()
    assert "units of layer '1'" in shown.refusals["layer_conductance"]


def test_maps_are_those_of_explain(shown: Exhibit) -> None:
    subject = shown.subject
    expected = hw.explain(subject.model, subject.x, method="gradient_x_input").relevance[0]
    torch.testing.assert_close(shown.maps["gradient_x_input"], expected.double())


def test_page_names_every_method(shown: Exhibit, tmp_path: Path) -> None:
    assert gallery.save(shown, tmp_path / "images").stat().st_size > 0
    text = gallery.page([shown], Path("images"))
    assert "](images/toy.png)" in text
    assert all(f"| `{name}` |" in text for name in shown.refusals)
    assert all(f"| `{row.name}` |" in text for row in hw.methods() if row.run is None)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.replace(r"\|", "").count("|") == 3 for line in tables)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("count", [1, 9])
def test_each_kind_is_drawn(kind: Kind, count: int, tmp_path: Path) -> None:
    from PIL import Image

    shape = SHAPES[kind]
    places = shape[1:] if kind in ("picture", "sound") else shape
    words = [f"place {i}" for i in range(shape[0])]
    x = torch.randn(1, *shape)
    subject = Subject("one", "One", "About.", nn.Identity(), x, x, kind, "", words=words)
    # the last is blank, as of a method that finds nothing
    maps = {f"method_{i}": torch.randn(*places).double() * (count - i - 1) for i in range(count)}
    saved = gallery.save(Exhibit(subject, maps), tmp_path).read_bytes()
    with Image.open(BytesIO(saved)) as picture:
        assert min(picture.size) > 100


def test_strongest_neuron_is_the_largest_activation() -> None:
    subject = toy()
    hidden = subject.model[1](subject.model[0](subject.x))  # type: ignore[index]
    assert hidden[0][strongest(subject)] == hidden.max() > 0


def test_hidden_maps_lie_at_the_places_of_the_input() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).eval()
    x = torch.randn(1, 2, 32)
    subject = Subject("series", "A series", "About.", model, x, torch.randn(4, 2, 32), "series", "1", words=["a", "b"])
    found = exhibit(subject, lambda line: None)
    assert found.maps["layer_conductance"].shape == (1, 32)
    assert found.maps["lrp"].shape == (2, 32)


def test_command_needs_the_data(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("HEADWATER_DATA", raising=False)
    with pytest.raises(SystemExit):
        gallery.main([])
    assert "HEADWATER_DATA" in capsys.readouterr().err
