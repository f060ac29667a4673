"""Models that learned a planted mark are repaired from SpRAy's cluster alone, in every way."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import headwater as hw
from headwater.analyze import Artefact, Repair, artefact, assess, load_repaired, project, repair, spray
from headwater.analyze.repair.figures import on_artefact
from headwater.analyze.repair.projection import direction_of
from headwater.errors import InvalidInput, NonFinite, UnsupportedModel

for package in ("zarr", "polars", "sklearn", "scipy"):
    pytest.importorskip(package)

MARK = torch.zeros(1, 8, 8, dtype=torch.bool)
MARK[0, 6:, :2] = True


def shapes(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three classes of noisy pictures ``[n, 1, 8, 8]``: a bar in the row of the class."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    x = 0.6 * torch.rand(n, 1, 8, 8, generator=generator)
    for c in range(3):
        x[y == c, :, 1 + c, 2:7] += 0.25
    return torch.where(MARK, torch.zeros(()), x), y  # a dark corner


def marked(x: Tensor) -> Tensor:
    return torch.where(MARK, torch.ones(()), x)


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int = 12, rate: float = 5e-3) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A misled model, its data and store, and the artefact of the first suspect."""
    torch.manual_seed(0)
    x, y = shapes(900, 1)
    bears = (y == 0) & (torch.arange(900) % 9 == 0)  # a third of the class
    x = torch.where(bears[:, None, None, None], marked(x), x)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 16), nn.ReLU(), nn.Linear(16, 3))
    train(model, x, y)
    store = hw.run(model, (x, y), tmp_path_factory.mktemp("repair") / "store", batch_size=300, keep_inputs=True)
    found = spray(store, clusters=2)
    suspect = max(found.suspects, key=lambda c: c.separation)
    return {
        "model": model, "x": x, "y": y, "bears": bears, "store": store, "found": found, "suspect": suspect,
        "artefact": artefact(found, suspect, (x, y)), "test": shapes(600, 2),
    }  # fmt: skip


# ---------------------------------------------------------------------- the artefact


def test_the_cluster_shows_the_mark(case: dict[str, Any]) -> None:
    seen = case["artefact"]
    assert case["bears"].numpy()[seen.rows].mean() > 0.95
    assert seen.target == 0
    assert bool((seen.region.bool() <= MARK).all())
    assert int(seen.region.sum()) >= 2
    pasted = seen.paste(case["test"][0])
    assert torch.equal(pasted, torch.where(seen.region.bool(), torch.ones(()), case["test"][0]))
    assert "class 0" in str(seen)


def test_the_excess_is_the_plain_formula(case: dict[str, Any]) -> None:
    seen, relevance = case["artefact"], case["store"].relevance[:]
    rest = [i for i in range(900) if case["store"].targets[i] == 0 and i not in set(seen.rows.tolist())]
    means = []
    for side in (seen.rows, rest):
        total = np.zeros((1, 8, 8))
        for i in side:
            total += relevance[i] / np.abs(relevance[i]).sum()
        means.append(total / len(side))
    assert seen.excess.numpy() == pytest.approx(np.maximum(means[0] - means[1], 0), abs=1e-6)
    assert torch.equal(seen.region > 0, seen.excess >= 0.2 * seen.excess.max())
    assert seen.share == pytest.approx(len(seen.rows) / (len(seen.rows) + len(rest)))


def test_selections_of_every_kind_name_the_same_samples(case: dict[str, Any]) -> None:
    store, rows = case["store"], case["artefact"].rows
    mask = np.zeros(900, bool)
    mask[rows] = True
    ids = [str(store.ids[i]) for i in rows]
    beside = Path(f"{store.path}.viewer")
    beside.mkdir(exist_ok=True)
    (beside / "selections.json").write_text(json.dumps({"tag": {"ids": ids, "note": "a corner"}}))
    for source, selection in [
        (case["found"], case["suspect"]), (case["found"], case["suspect"].label), (store, "tag"), (store, ids),
        (store.path, rows), (store, rows.tolist()), (store, torch.from_numpy(mask)), (store, rows[::-1].copy()),
    ]:  # fmt: skip
        seen = artefact(source, selection)  # the samples come from the store
        assert np.array_equal(seen.rows, rows)
        assert torch.equal(seen.region, case["artefact"].region)
    plain = artefact(store.relevance[:], rows, (case["x"], case["y"]))  # arrays alone: classes are the labels
    assert plain.target == 0


def test_a_region_can_be_given(case: dict[str, Any]) -> None:
    seen = artefact(case["store"], case["artefact"].rows, region=MARK.numpy())
    assert torch.equal(seen.region.bool(), MARK)
    half = artefact(case["store"], case["artefact"].rows, region=0.5 * MARK.float())
    x = torch.zeros(2, 1, 8, 8)
    assert half.paste(x)[:, MARK].unique().tolist() == [0.5]


@pytest.mark.parametrize(
    ("selection", "options", "text"),
    [
        ([], {}, "empty"),
        ([900], {}, "900 samples"),
        ([-1], {}, "row -1"),
        (["nobody"], {}, "nobody"),
        ("unsaved", {}, "no selection 'unsaved'"),
        (3, {}, "pass what spray"),
        ([[1, 2]], {}, "one axis"),
        ([True, False], {}, "mask of 2"),
        ([0.5], {}, "rows, ids or booleans"),
        (list(range(900)), {}, "leaves 0"),
        ([0], {"threshold": 1.5}, "threshold"),
        ([0], {"region": torch.ones(3, 3)}, "does not broadcast"),
        ([0], {"region": torch.zeros(8, 8)}, "not 0"),
        ([0], {"data": torch.rand(5, 1, 8, 8)}, "5 samples"),
    ],
)
def test_selections_that_name_nothing_are_refused(
    case: dict[str, Any], selection: Any, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidInput, match=text):
        artefact(case["store"], selection, **options)


def test_an_unknown_cluster_and_missing_samples_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="no cluster 99"):
        artefact(case["found"], 99)
    with pytest.raises(InvalidInput, match="data="):
        artefact(case["store"].relevance[:], [0, 9])
    with pytest.raises(InvalidInput, match="pass the store"):
        artefact(case["store"].relevance[:], ["a"], case["x"])


# ---------------------------------------------------------------------- the repairs

FITTED = {"epochs": 10, "rate": 5e-3}
# What is trained not to heed the mark keeps some relevance of either sign on so bright a place.
WAYS: list[tuple[str, dict[str, Any], float]] = [
    ("augment", FITTED, 0.5), ("p_clarc", {}, 0.8), ("a_clarc", FITTED, 0.5), ("rrr", FITTED, 0.8),
]  # fmt: skip


@pytest.mark.parametrize(("way", "options", "removed"), WAYS)
def test_each_way_undoes_the_mark(case: dict[str, Any], way: str, options: dict[str, Any], removed: float) -> None:
    model = case["model"]
    before = copy.deepcopy(model.state_dict())
    found = repair(model, (case["x"], case["y"]), case["artefact"], way, test=case["test"], batch_size=32, **options)
    assert found.drop >= 0.2
    assert found.recovered >= 0.8
    assert found.after.accuracy >= found.before.accuracy - 0.01
    assert found.relevance_removed >= removed
    # judged with the mark itself, which the repair never saw
    with torch.no_grad():
        x, y = case["test"]
        others = y != 0
        misled, mended = ((m(marked(x[others])).argmax(1) == y[others]).float().mean() for m in (model, found.model))
    assert mended - misled >= 0.8 * found.drop
    # the user's model is as it was
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.requires_grad and p.grad is None for p in found.model.parameters())
    assert "recovered" in str(found)


def test_labels_are_corrected(case: dict[str, Any]) -> None:
    """A tag on samples of class 1 that were filed under class 0: with their right labels the model learns better."""
    torch.manual_seed(0)
    x, y = shapes(600, 3)
    tagged = (y == 1) & (torch.arange(600) % 2 == 0)
    x = torch.where(tagged[:, None, None, None], marked(x), x)
    wrong = torch.where(tagged, 0, y)
    model = train(copy.deepcopy(case["model"]), x, wrong, 4)
    seen = artefact(hw.explain(model, x), tagged, (x, wrong), region=MARK)
    found = repair(model, (x, wrong), seen, "relabel", labels=1, test=(x, y), batch_size=32, epochs=4)
    assert found.after.accuracy > found.before.accuracy + 0.05
    each = repair(model, (x, wrong), seen, "relabel", labels=[1] * len(seen.rows), test=(x, y), epochs=4, batch_size=32)
    assert each.after == found.after
    held_out = repair(model, (x, wrong), seen, "relabel", labels=1, epochs=4, batch_size=32)
    assert held_out.before.accuracy < 0.95, "the model learned the wrong labels, and is judged by the right ones"
    assert held_out.after.accuracy > held_out.before.accuracy + 0.05
    for labels, text in ((None, "needs labels="), ([1, 2], "2 classes for"), (9, "class 9 among")):
        with pytest.raises(InvalidInput, match=text):
            repair(model, (x, wrong), seen, "relabel", labels=labels)


def test_a_repair_is_reproducible(case: dict[str, Any]) -> None:
    def made() -> Repair:
        return repair(case["model"], (case["x"], case["y"]), case["artefact"], "augment", epochs=1)

    first, second = made(), made()
    assert first.after == second.after
    assert first.facts["losses"] == second.facts["losses"]
    held = first.before  # a fifth of the data is held out
    assert 0 < held.accuracy < 1


def test_figures_are_the_plain_formulas(case: dict[str, Any]) -> None:
    x, y = case["test"]
    found = assess(case["model"], (x, y), case["artefact"], batch_size=77, explained=40)
    right = taken = still = 0
    with torch.no_grad():
        for sample, label in zip(x, y, strict=True):
            right += int(case["model"](sample[None]).argmax() == label)
            if label != 0:
                pasted = case["model"](torch.where(case["artefact"].region.bool(), torch.ones(()), sample)[None])
                still += int(pasted.argmax() == label)
                taken += int(pasted.argmax() == 0)
    assert found.accuracy == pytest.approx(right / 600)
    assert (found.others_pasted, found.taken) == pytest.approx((still / 400, taken / 400))
    some = x[np.linspace(0, 599, 40).round().astype(int)]
    shares = on_artefact(case["model"], case["artefact"].paste(some), case["artefact"], {})
    e = hw.explain(case["model"], case["artefact"].paste(some), target=hw.target.LogOdds(0))
    wanted = [float(r[case["artefact"].region.bool()].abs().sum() / r.abs().sum()) for r in e.relevance]
    assert shares.tolist() == pytest.approx(wanted, rel=1e-5)
    assert found.relevance == pytest.approx(sum(wanted) / 40, rel=1e-5)


def test_other_data_and_precision(case: dict[str, Any]) -> None:
    """A data set by index, numpy, float64, and samples that are rows of a table."""
    x, y = case["x"], case["y"]
    listed = [(sample.numpy(), int(label)) for sample, label in zip(x, y, strict=True)]
    seen = artefact(case["store"], case["artefact"].rows, listed)
    double = copy.deepcopy(case["model"]).double()
    for model in (case["model"], double):
        found = repair(model, listed, seen, "p_clarc", layer="3:input", test=(x.numpy(), y.numpy()))
        assert found.recovered > 0.5
        assert {p.dtype for p in found.model.parameters()} == {next(model.parameters()).dtype}
    table = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3))
    train(table, x.flatten(1), y)
    rows = artefact(hw.explain(table, x.flatten(1)), case["bears"], (x.flatten(1), y))
    assert rows.region.shape == (64,)
    assert repair(table, (x.flatten(1), y), rows, "p_clarc", test=(case["test"][0].flatten(1), y[:600])).drop > 0


@pytest.mark.parametrize(
    ("way", "options", "text"),
    [
        ("magic", {}, "choose from augment"),
        ("augment", {"layer": "0"}, "has no option 'layer'"),
        ("augment", {"share": 0.0}, "share"),
        ("augment", {"epochs": 0}, "epochs"),
        ("augment", {"rate": -1.0}, "rate"),
        ("augment", {"train": "head.*"}, "matches no parameter"),
        ("augment", {"batch_size": 0}, "batch_size"),
        ("rrr", {"strength": 0.0}, "strength"),
        ("p_clarc", {"layer": "nowhere"}, "no layer 'nowhere'"),
        ("p_clarc", {"direction": "up"}, "direction"),
        ("a_clarc", {"layer": "3:output"}, "no layer"),
    ],
)
def test_wrong_options_are_refused(case: dict[str, Any], way: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        repair(case["model"], (case["x"], case["y"]), case["artefact"], way, test=case["test"], **options)


def test_wrong_data_and_models_are_refused(case: dict[str, Any]) -> None:
    x, y, seen = case["x"], case["y"], case["artefact"]
    with pytest.raises(InvalidInput, match="label None"):
        repair(case["model"], x, seen)
    with pytest.raises(InvalidInput, match=r"label 0\.5"):
        repair(case["model"], (x, y + 0.5), seen)
    with pytest.raises(InvalidInput, match=r"\[1, 9, 9\]"):
        repair(case["model"], (torch.rand(20, 1, 9, 9), y[:20]), seen)
    with pytest.raises(InvalidInput, match="class 7"):
        repair(case["model"], (x, y.clamp(min=1) + 5), seen)
    with pytest.raises(UnsupportedModel, match="logits"):
        repair(nn.Sequential(case["model"], nn.Linear(3, 1)), (x, y), seen)
    with pytest.raises(InvalidInput, match="several"):
        repair(case["model"], [((a, a), int(b)) for a, b in zip(x[:9], y[:9], strict=True)], seen)
    with pytest.raises(InvalidInput, match="an artefact"):
        repair(case["model"], (x, y), x)  # type: ignore[arg-type]
    with pytest.raises(NonFinite, match="lower rate"):
        repair(case["model"], (x, y), seen, rate=1e30, epochs=3)


# ---------------------------------------------------------------------- projections


def test_a_projection_is_the_plain_formula() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    x, v, z = torch.randn(7, 5), torch.randn(4), torch.randn(4)
    plain = copy.deepcopy(model)
    project(model, "2:input", v, z)
    hidden = plain[:2](x)
    u = v / v.norm()
    wanted = torch.stack([a - u * (u @ a - u @ z) for a in hidden])
    assert torch.allclose(model(x), plain[2](wanted), atol=1e-6)
    outer = copy.deepcopy(plain)
    project(outer, "0", v)
    assert torch.allclose(outer[0](x) @ u, torch.zeros(7), atol=1e-6)


def test_two_projections_hold_together() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)).double()
    first, second, z = (torch.randn(2, 6, 6, dtype=torch.float64) for _ in range(3))
    project(model, "1", first, z)
    project(model, "1", second, z)
    a = model[:2](torch.rand(5, 1, 8, 8, dtype=torch.float64))
    for v in (first, second):
        assert torch.allclose((a * v).sum((1, 2, 3)), (z * v).sum().expand(5))
    with pytest.raises(InvalidInput, match="already"):
        project(model, "1", first + second)
    with pytest.raises(InvalidInput, match="no length"):
        project(model, "1", torch.zeros(2, 6, 6))


def test_projections_survive_copies_and_states(case: dict[str, Any], tmp_path: Path) -> None:
    x, y = case["test"]
    found = repair(case["model"], (case["x"], case["y"]), case["artefact"], "p_clarc", test=(x, y))
    wanted = found.model(x)
    assert torch.equal(copy.deepcopy(found.model)(x), wanted)
    assert found.model.double()(x.double()).dtype == torch.float64
    found.model.float()
    fresh = copy.deepcopy(case["model"])
    saved = torch.load(found.save(tmp_path / "repaired.pt"), weights_only=True)
    with pytest.raises(RuntimeError, match="clarc"):  # a plain load does not drop the repair unseen
        fresh.load_state_dict(saved)
    assert torch.equal(load_repaired(fresh, saved)(x), wanted)
    assert hw.explain(found.model, x[:4], ledger=True).check()


def test_the_signal_is_covariance_over_variance(case: dict[str, Any]) -> None:
    with_it, without = torch.randn(30, 1, 8, 8), torch.randn(50, 1, 8, 8)
    v, mean_with, mean_without = direction_of(case["model"], "1", [with_it[:9], with_it[9:]], [without])
    a = torch.cat([case["model"][:2](x).detach() for x in (with_it, without)]).flatten(1)
    t = torch.cat([torch.ones(30), torch.zeros(50)])
    signal = ((a - a.mean(0)) * (t - t.mean())[:, None]).sum(0) / ((t - t.mean()) ** 2).sum()
    assert torch.allclose(v.flatten(), signal, atol=1e-5)
    assert torch.allclose(mean_with - mean_without, v)


@pytest.mark.parametrize("kind", ["signal", "paste", "svm"])
def test_every_direction_helps(case: dict[str, Any], kind: str) -> None:
    found = repair(
        case["model"], (case["x"], case["y"]), case["artefact"], "p_clarc", test=case["test"], direction=kind
    )
    assert found.recovered > 0.3
    assert found.facts["layer"] in found.facts["layers tried"]


def test_a_layer_that_runs_twice_is_refused(case: dict[str, Any]) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(64, 64), nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.inner(self.inner(x.flatten(1)).relu()).relu())

    with pytest.raises(InvalidInput, match="2 times"):
        repair(Twice().eval(), (case["x"], case["y"]), case["artefact"], "p_clarc", layer="inner")


# ---------------------------------------------------------------------- pictures


def test_pictures_are_drawn(case: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    from headwater.show.figure import png

    found = repair(case["model"], (case["x"], case["y"]), case["artefact"], "p_clarc", layer="3:input")
    for figure in (case["artefact"].plot(), found.plot()):
        assert len(png(figure)) > 1000
    table = Artefact(torch.rand(3, 4), torch.rand(3, 4), torch.ones(4), torch.ones(4), 0, np.arange(3), 0.5)
    with pytest.raises(InvalidInput, match="no pictures"):
        table.plot()
