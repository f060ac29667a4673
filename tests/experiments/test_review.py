"""The review's experiments: their parts against plain formulas, and a quick run from end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import papers, review
from experiments.reproduction import Reproduction
from experiments.review import (
    adience,
    breakout,
    clusters,
    gender,
    molecules,
    photographs,
    pretraining,
    propositions,
    speech,
)

FIGURES = {
    "figure_2_concrete", "figure_3_difficulties", "figure_5_heatmaps", "figure_6_pixel_flipping",
    "figure_9_kernel_kmeans", "figure_10_log_odds", "figure_11_pooled", "figure_12_rules", "figure_13_pretraining",
    "figure_14_waveforms", "figure_15_spectrograms", "figure_16_spray", "figure_17_agent", "figure_17_learning",
    "figure_18_molecules",
}  # fmt: skip


def test_it_is_listed() -> None:
    assert "review" in papers()
    assert review.SOURCE


@pytest.mark.parametrize("name", propositions.CHECKS)
def test_propositions_hold(name: str) -> None:
    torch.manual_seed(0)
    assert propositions.CHECKS[name][0](5) < 1e-10


def test_a_wrong_rule_does_not_pass_for_the_proposition() -> None:
    """The check of proposition 4 tells γ from another γ."""
    torch.manual_seed(0)
    before = propositions.GAMMA
    model = propositions.network()
    x = propositions.inputs(model, 3)
    weights = [layer.weight for layer in model.children() if isinstance(layer, torch.nn.Linear)]
    one = torch.stack([propositions._deep_taylor(weights, sample) for sample in x])
    try:
        propositions.GAMMA = 0.5
        other = torch.stack([propositions._deep_taylor(weights, sample) for sample in x])
    finally:
        propositions.GAMMA = before
    assert propositions.gap(one, other) > 0.01


def test_integrated_gradients_come_nearer() -> None:
    torch.manual_seed(0)
    gaps = propositions.completeness(4)
    assert gaps == sorted(gaps, reverse=True)


def test_the_network_is_kernel_k_means() -> None:
    torch.manual_seed(0)
    found = clusters.study(8)
    assert found["gap"] < 1e-9 * found["scale"]


def test_measures_of_heatmaps() -> None:
    maps = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])
    assert photographs.sign_changes(maps) == 1.0
    assert photographs.negative(maps) == 0.5
    smooth = torch.arange(64.0).view(1, 1, 64).expand(1, 8, 64)
    assert photographs.alike(smooth, 4) == pytest.approx(1.0)


def test_rings_and_nitro_groups() -> None:
    """Nitrobenzene: six carbons in a ring, and a nitrogen with two oxygens."""
    bonds = torch.zeros(1, 12, 12)
    for a, b in [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 6), (6, 7), (6, 8)]:
        bonds[0, a, b] = bonds[0, b, a] = 1.0
    atoms = torch.zeros(1, 12, len(molecules.ELEMENTS))
    for place, element in enumerate("CCCCCCNOO"):
        atoms[0, place, molecules.ELEMENTS.index(element)] = 1.0
    groups = molecules.Molecules(atoms, bonds, torch.zeros(1)).groups()
    assert groups["ring"][0].nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert groups["nitro"][0].nonzero()[:, 0].tolist() == [6, 7, 8]


def test_padding_does_not_change_a_molecule() -> None:
    torch.manual_seed(0)
    model = molecules.GraphNetwork()
    atoms, bonds = torch.zeros(1, 6, len(molecules.ELEMENTS)), torch.zeros(1, 6, 6)
    atoms[0, :3, 2] = 1.0
    bonds[0, [0, 1, 1, 2], [1, 0, 2, 1]] = 1.0
    assert torch.allclose(model(atoms, bonds), model(atoms[:, :3], bonds[:, :3, :3]), atol=1e-6)


def test_pitch_of_a_tone() -> None:
    time = torch.arange(speech.LENGTH) / speech.RATE
    tones = torch.stack(
        [torch.sin(2 * torch.pi * f * time) + torch.sin(4 * torch.pi * f * time) for f in (110.0, 220.0)]
    )
    assert gender.pitch(tones).tolist() == pytest.approx([110, 220], rel=0.02)


def test_spectrogram_has_the_papers_shape_and_frequencies() -> None:
    time = torch.arange(speech.LENGTH) / speech.RATE
    found = speech.spectrogram(torch.sin(2 * torch.pi * 1000 * time)[None])
    assert found.shape == (1, 1, 227, 227)
    assert speech.frequency_of(int(found[0, 0, :, 100].argmax())) == pytest.approx(1000, abs=20)


def test_networks_of_speech_take_their_inputs() -> None:
    assert speech.wave_network(2)(torch.zeros(2, speech.LENGTH)).shape == (2, 2)
    assert speech.picture_network(2)(torch.zeros(2, 1, 227, 227)).shape == (2, 2)


@pytest.mark.parametrize("length", [100, speech.LENGTH, 20000])
def test_recordings_are_padded_to_a_second(length: int) -> None:
    torch.manual_seed(0)
    found = speech.padded(0.1 * torch.sin(torch.arange(length).float()))
    assert found.shape == (speech.LENGTH,)
    assert found.abs().max() == pytest.approx(1.0, abs=1e-3)


def test_a_hull_has_more_of_the_amplitude_than_of_the_samples() -> None:
    time = torch.arange(speech.LENGTH) / speech.RATE
    wave = torch.sin(2 * torch.pi * 200 * time)[None]
    relevance, amplitude, samples = gender.on_the_hull(wave.square(), wave)[0].tolist()
    assert relevance > amplitude > samples


def test_a_smile_lies_under_the_digit() -> None:
    smiling = pretraining.smile(torch.zeros(2, 1, 28, 28), torch.tensor([True, False]))
    inside = smiling[0, 0, slice(*pretraining.ROWS), slice(*pretraining.COLUMNS)]
    assert inside.sum() == smiling.sum() > 5


@pytest.mark.parametrize(
    ("entry", "group"),
    [("(0, 2)", 0), ("(8, 12)", 2), ("(8, 23)", 3), ("(25, 32)", 4), ("36", 5), ("(60, 100)", 7), ("None", None)],
)
def test_groups_of_age(entry: str, group: int | None) -> None:
    assert adience.group_of(entry) == group


def test_adience_is_read_from_its_folds(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "adience"
    (folder / "aligned" / "7@N00").mkdir(parents=True)
    head = "user_id\toriginal_image\tface_id\tage\tgender\n"
    for fold in range(adience.FOLDS):
        rows = "".join(f"7@N00\t{fold}.jpg\t{face}\t{age}\tf\n" for face, age in ((1, "(25, 32)"), (2, "None")))
        (folder / f"fold_{fold}_data.txt").write_text(head + rows)
        picture = Image.new("RGB", (60, 50), (200, 100, 0))
        picture.save(folder / "aligned" / "7@N00" / f"landmark_aligned_face.1.{fold}.jpg")
    found = adience.faces(tmp_path)
    assert [(face.label, face.fold) for face in found] == [(4, fold) for fold in range(adience.FOLDS)]
    x, y = adience.pixels(found[:2])
    assert x.shape == (2, 3, adience.SIDE, adience.SIDE)
    assert y.tolist() == [4, 4]


def test_objects_of_a_screen() -> None:
    bricks = torch.ones(6, breakout.BRICKS, dtype=torch.bool)
    bricks[:, 3] = False
    found = dict(breakout.objects_in(torch.tensor([80, 120, 70]), bricks))
    assert set(found) == {"ball", "paddle", "tunnel"}
    top, left, bottom, right = found["tunnel"]
    assert (bottom - top, right - left) == (18, 4)
    lost = dict(breakout.objects_in(torch.tensor([80, 220, 70]), bricks))
    assert "ball" not in lost
    for box in (*found.values(), *lost.values()):
        assert 0 <= box[0] < box[2] <= breakout.SIDE
        assert 0 <= box[1] < box[3] <= breakout.SIDE


def test_a_dug_tunnel_stays() -> None:
    pytest.importorskip("ale_py", reason="ale-py (the game) is not installed")
    game = breakout.emulator(0)
    breakout.dig(game, (1, 16))
    for action in (1, 3, 4, 0) * 10:
        game.act(action)
    standing = breakout.standing(game.getScreenRGB())
    assert (~standing.any(0)).nonzero()[:, 0].tolist() == [1, 16]
    assert standing.sum() == 6 * (breakout.BRICKS - 2)


@pytest.mark.slow
@pytest.mark.data
def test_a_quick_run_has_all_figures_and_claims(tmp_path: Path, data: Path) -> None:
    for package in ("ale_py", "soundfile", "networkx", "av"):
        pytest.importorskip(package, reason="of the extra experiments")
    run = Reproduction("review", "quick", tmp_path, data)
    review.reproduce(run)
    assert {picture.name for picture in run.pictures} == FIGURES
    for name in FIGURES:
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5000
        with np.load(tmp_path / "figures" / f"{name}.npz") as arrays:
            assert len(arrays.files) > 0
    keys = {claim.key for claim in run.claims}
    assert {f"proposition {k}" for k in (1, 2, 3, 4)} <= keys
    assert len(keys) > 40
    for claim in run.claims:
        assert claim.source, claim.key
        assert claim.paper, claim.key
        assert claim.ours, claim.key
    # what does not depend on how long something was trained
    sure = {claim.key: claim.verdict for claim in run.claims}
    for key in ("proposition 1", "proposition 4", "pooling conserves", "kernel k-means is a network", "LRP conserves"):
        assert sure[key] == "reproduced"
