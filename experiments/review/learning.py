"""Figure 17: relevance on Breakout's ball, paddle and tunnel: the shared agent, and a learner that imitates it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import headwater as hw
from experiments.reproduction import Reproduction
from experiments.review import breakout
from headwater.analyze.groups import FeatureGroups, objects
from headwater.analyze.signals import over_training
from headwater.explanation import Explanation
from headwater.show.figure import new_figure
from headwater.show.image import images
from tests.models import shared

STACK = 4  # frames that the learner sees
COMPOSITE, BOUNDS = "epsilon_gamma_box", (0.0, 1.0)  # with a box, black pixels have relevance: a tunnel is black
TUNNEL = (1, 16)  # columns that are taken out of the wall, near both sides
COLOURS = {"ball": "#b2182b", "paddle": "#2166ac", "tunnel": "#1b7837"}


def network() -> nn.Module:
    """Stacked frames ``[N, 4, 80, 80]`` in 0 to 1 to logits of four actions."""
    return nn.Sequential(
        nn.Conv2d(STACK, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 9 * 9, 128), nn.ReLU(), nn.Linear(128, 4),
    )  # fmt: skip


def stacked(frames: Tensor, rows: Tensor) -> Tensor:
    """Each row's frame and the three before it, the newest last, ``[N, 4, 80, 80]`` in 0 to 1."""
    return frames[(rows[:, None] + torch.arange(1 - STACK, 1)).clamp(min=0)].float() / 255


def groups(game: dict[str, Tensor], rows: Tensor, shape: tuple[int, ...]) -> FeatureGroups:
    """The objects on the screens of some rows of a game."""
    return objects(shape, breakout.OBJECTS, lambda n: breakout.objects_in(game["places"][rows[n]],
                                                                           game["bricks"][rows[n]]))  # fmt: skip


def shares(relevance: Tensor, found: FeatureGroups) -> tuple[Tensor, Tensor]:
    """Of each sample, the share of ``Σ|R|`` on each object and the rest, and their shares of the pixels; ``[N, 4]``."""
    maps = relevance.detach().double().abs().numpy()
    numbers = np.arange(len(maps))
    pooled, area = found.pool(maps, numbers), found.pool(np.ones_like(maps), numbers)
    return tuple(torch.from_numpy(v / v.sum(1, keepdims=True)) for v in (pooled, area))  # type: ignore[return-value]


def _shares_of(placed: FeatureGroups, e: Explanation) -> Tensor:
    return torch.cat(shares(e.relevance, placed), 1)


def chosen(game: dict[str, Tensor], count: int) -> Tensor:
    """Rows spread over a game at which the ball is in play."""
    row = game["places"][:, 1]
    inside = ((row > breakout.WALL[0]) & (row < breakout.PADDLE_ROWS[0])).nonzero()[:, 0]
    inside = inside[inside >= STACK]
    return inside[torch.linspace(0, len(inside) - 1, min(count, len(inside))).long()]


def of_the_agent(run: Reproduction, game: dict[str, Tensor], count: int) -> dict[str, Any]:
    """The shared agent's shares on a game's objects; what it says is the most probable action's logit."""
    rows = chosen(game, count)
    frames, agent = game["frames"][rows, None].float() / 255, shared.breakout_agent(run.data).requires_grad_(False)
    e = hw.explain(
        agent, (frames, game["states"][rows]), composite=COMPOSITE, bounds={0: BOUNDS, 1: (-1.0, 1.0)}, batch_size=32
    )
    relevance = e.relevance[0]
    share, area = shares(relevance, groups(game, rows, (1, breakout.SIDE, breakout.SIDE)))
    return {"share": share, "area": area, "frames": frames[:4], "relevance": relevance[:4],
            "on_frame": relevance.abs().sum() / (relevance.abs().sum() + e.relevance[1].abs().sum())}  # fmt: skip


def imitated(game: dict[str, Tensor], tests: dict[str, dict[str, Tensor]], steps: int, count: int) -> dict[str, Any]:
    """Train the learner on the agent's actions; shares on the objects of each test game at some checkpoints."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 5e-4)
    wanted = sorted({0, *(round(steps * 4.0**-k) for k in range(6))} - {1})
    checkpoints, accuracy = {}, []
    held = {name: chosen(test, count) for name, test in tests.items()}
    for step in range(steps + 1):
        if step in wanted:
            checkpoints[step] = {k: v.clone() for k, v in model.state_dict().items()}
            rows = torch.arange(STACK, len(tests["played"]["frames"]), 7)
            with torch.inference_mode():
                right = model(stacked(tests["played"]["frames"], rows)).argmax(1) == tests["played"]["actions"][rows]
            accuracy.append(float(right.double().mean()))
        rows = torch.randint(STACK, len(game["frames"]), (32,))
        optimizer.zero_grad()
        F.cross_entropy(model(stacked(game["frames"], rows)), game["actions"][rows]).backward()
        optimizer.step()
    found: dict[str, Any] = {"steps": list(checkpoints), "accuracy": accuracy}
    for name, rows in held.items():
        x = stacked(tests[name]["frames"], rows)
        placed = groups(tests[name], rows, (STACK, breakout.SIDE, breakout.SIDE))
        measured = over_training(
            model, checkpoints, x, {"share": partial(_shares_of, placed)},
            composite=COMPOSITE, bounds=BOUNDS, batch_size=32,
        )  # fmt: skip
        found[name] = torch.from_numpy(measured["share"])
    return found


def reproduce(run: Reproduction) -> None:
    """Play, imitate, explain; figure 17 and its claims."""
    run.path("breakout_a3c")
    length, count = run.pick(quick=600, full=2000), run.pick(quick=12, full=32)
    games = {
        "learnt": run.step("breakout_learnt", lambda: breakout.play(run.data, length, 1)),
        "played": run.step("breakout_played", lambda: breakout.play(run.data, max(300, length // 5), 2)),
        "tunnel": run.step("breakout_tunnel", lambda: breakout.play(run.data, max(300, length // 5), 3, TUNNEL)),
    }
    agent = {name: run.step(f"breakout_agent_{name}", partial(of_the_agent, run, games[name], count))
             for name in ("played", "tunnel")}  # fmt: skip
    tests = {name: games[name] for name in ("played", "tunnel")}
    runs = [
        run.step(
            f"breakout_imitated_{i}", lambda: imitated(games["learnt"], tests, run.pick(quick=64, full=1024), count)
        )
        for i in range(run.pick(quick=1, full=2))
    ]
    _draw(run, runs, agent)
    _claims(run, games, agent, runs)


def _gain(share: Tensor, area: Tensor, number: int) -> float:
    """How many times its part of the pixels an object's part of the relevance is, over the samples that show it."""
    shown = area[..., number] > 0
    return float((share[..., number][shown] / area[..., number][shown]).mean()) if bool(shown.any()) else float("nan")


def _over(runs: list[dict[str, Any]], game: str, number: int) -> Tensor:
    """An object's gain at each checkpoint of each run, ``[runs, checkpoints]``."""
    return torch.tensor([[_gain(step[:, :4], step[:, 4:], number) for step in found[game]] for found in runs])


def _draw(run: Reproduction, runs: list[dict[str, Any]], agent: dict[str, Any]) -> None:
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    steps = runs[0]["steps"]
    data: dict[str, Any] = {"steps": steps, "accuracy": [found["accuracy"] for found in runs]}
    for number, name in enumerate(breakout.OBJECTS):
        game = "tunnel" if name == "tunnel" else "played"
        values = _over(runs, game, number)
        data[name] = values
        axes.plot(range(len(steps)), values.mean(0), "o-", color=COLOURS[name], label=name)
        axes.fill_between(
            range(len(steps)), values.amin(0), values.amax(0), color=COLOURS[name], alpha=0.15, linewidth=0
        )
        level = _gain(agent[game]["share"], agent[game]["area"], number)
        axes.axhline(level, color=COLOURS[name], linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(steps)), [str(step) for step in steps])
    axes.set(xlabel="steps of training", ylabel="relevance, in parts of\nthe object's share of pixels")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    run.figure(
        "figure_17_learning", figure, data,
        f"Figure 17: relevance of a learner that imitates the shared agent on ball, paddle and tunnel, as training "
        f"goes on (mean and range of {len(runs)} trainings; 1 is what pixels drawn at random would have); dotted, the "
        "agent. Tunnels were dug in the game's memory.",
    )  # fmt: skip
    cells, over = [], []
    for name in ("played", "tunnel"):
        for i in range(2):
            cells += [agent[name]["relevance"][i]]
            over += [agent[name]["frames"][i]]
    figure = images(cells, over, ["a game", "a game", "with tunnels", "with tunnels"], limit="each", columns=2)
    run.figure(
        "figure_17_agent", figure, {"relevance": torch.stack(cells), "frames": torch.stack(over)},
        "The shared agent's relevance for the action that it finds best, over the frame.",
    )  # fmt: skip


def _claims(run: Reproduction, games: dict[str, Any], agent: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    gains = {name: _gain(agent["played"]["share"], agent["played"]["area"], i)
             for i, name in enumerate(breakout.OBJECTS[:2])}  # fmt: skip
    gains["tunnel"] = _gain(agent["tunnel"]["share"], agent["tunnel"]["area"], 2)
    told = ", ".join(f"{name} {gain:.1f}" for name, gain in gains.items())
    dug = float((~games["learnt"]["bricks"].any(1)).any(1).double().mean())
    scores = games["learnt"]["games"]
    accuracy = torch.tensor([found["accuracy"] for found in runs])
    about = f"shared agent (best game {max(scores):.0f} points); learner right on {float(accuracy[:, -1].mean()):.0%}"
    run.claim(
        "the player looks at ball and paddle", source="Section VIII-A, Fig. 17",
        text="A player's relevance is concentrated on the ball and the paddle.", paper="curves of relative relevance",
        ours=f"agent, times the share of pixels: {told}",
        verdict="reproduced" if min(gains["ball"], gains["paddle"]) > 2 else "not reproduced", why=about,
    )  # fmt: skip
    ball, paddle, tunnel = (_over(runs, game, i) for i, game in enumerate(("played", "played", "tunnel")))
    rise = [float((v[:, -1] / v[:, 0]).mean()) for v in (ball, paddle, tunnel)]
    run.claim(
        "learning to follow the ball comes first", source="Section VIII-A, Fig. 17",
        text="In training a network first learns to look at ball and paddle.", paper="first stage of the curves",
        ours=f"learner, last over first checkpoint: ball {rise[0]:.2f}, paddle {rise[1]:.2f}",
        verdict="reproduced" if min(rise[:2]) > 1 else "not reproduced",
        why=f"a network that imitates the agent, not one that learns from rewards; trainings: {len(runs)}",
    )  # fmt: skip
    # the paper's second stage comes after the first has ended: the tunnel must rise later than the ball
    half = [int((v.mean(0) >= (v.mean(0)[0] + v.mean(0)[-1]) / 2).nonzero()[0]) for v in (ball, tunnel)]
    run.claim(
        "the tunnel comes later", source="Section VIII-A, Fig. 17",
        text="At a later stage the network learns to look at the tunnel.", paper="late rise of the tunnel's curve",
        ours=f"tunnel, last over first checkpoint: {rise[2]:.2f}; half of the rise at checkpoint {half[1]}, of the "
        f"ball's at {half[0]}",
        verdict="reproduced" if rise[2] > 1 and half[1] > half[0] else "not reproduced",
        why=f"the agent itself had a tunnel in {dug:.0%} of the frames that were imitated; those explained are dug",
    )  # fmt: skip
