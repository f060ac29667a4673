"""The game Breakout: its emulator, the objects on its screen, and games played by the shared agent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater.errors import MissingExtra
from tests.models import shared

SIDE = 80  # of the frames that networks see: rows 35 to 194 and all columns of the screen, halved
OBJECTS = ("ball", "paddle", "tunnel")
TOP, HALF = 35, 2
WALL, EDGE, BRICK = (57, 93), 8, 8  # rows of the screen that hold bricks; width of the frame's sides and of a brick
BRICKS = 18  # in a row
BRICK_BYTES = 36  # of the machine's memory, the first, a bit for half a brick
PADDLE_ROWS = (189, 193)
BALL_SIZE, PADDLE_WIDTH = (4, 2), 16
RAM = {"ball x": 99, "ball y": 101, "paddle x": 72}
OFFSET = {"ball x": -49, "ball y": 9, "paddle x": -47}  # from the machine's memory to the screen
BUILDING = 48  # frames of a new game in which the machine still builds the wall
REPEAT = 4  # frames of the emulator an action holds for

Box = tuple[int, int, int, int]


def emulator(seed: int) -> Any:
    """The game from the package ``ale-py``.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import ale_py
        from ale_py import roms
    except ModuleNotFoundError as error:
        raise MissingExtra("experiments", "ale-py") from error
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    game = ale_py.ALEInterface()
    game.setInt("random_seed", seed)
    game.setFloat("repeat_action_probability", 0.0)
    game.loadROM(str(roms.get_rom_path("breakout")))
    return game


def play(data: Path, steps: int, seed: int, tunnel: Sequence[int] = ()) -> dict[str, Any]:
    """``steps`` decisions of the shared agent, drawn from its chances; a new game begins where one ends.

    Args:
        tunnel: columns of bricks that are taken out of the wall before each game begins.

    Returns:
        ``frames`` ``[T, 80, 80]`` uint8, ``states`` ``[T, 256]``, ``actions`` (the agent's best, 0 to 3) and
        ``scores`` (of the game so far) ``[T]``, ``bricks`` ``[T, 6, 18]`` whether they stand, and ``places``
        ``[T, 3]``: ball's column and row and paddle's column on the screen.
    """
    game, agent = emulator(seed), shared.breakout_agent(data)
    choices, generator = game.getMinimalActionSet(), torch.Generator().manual_seed(seed)
    state, score = torch.zeros(1, 256), 0.0
    dig(game, tunnel)
    kept: dict[str, list[Tensor]] = {k: [] for k in ("frames", "states", "actions", "scores", "bricks", "places")}
    finished = []
    for _ in range(steps):
        screen = game.getScreenRGB()
        frame, ram = shared.frame_of(screen), game.getRAM()
        with torch.inference_mode():
            after = agent.remember(frame, state)
            chances = agent.actor_linear(after).softmax(1)[0]
        action = int(torch.multinomial(chances, 1, generator=generator))
        values = {
            "frames": (frame[0, 0] * 255).round().to(torch.uint8), "states": state[0], "actions": chances.argmax(),
            "scores": torch.tensor(score), "bricks": standing(screen),
            "places": torch.tensor([int(ram[RAM[name]]) + OFFSET[name] for name in RAM]),
        }  # fmt: skip
        for name, value in values.items():
            kept[name].append(value.clone())
        score += sum(game.act(choices[action]) for _ in range(REPEAT))
        state = after.clone()
        if game.game_over():
            finished.append(score)
            game.reset_game()
            dig(game, tunnel)
            state, score = torch.zeros(1, 256), 0.0
    return {**{name: torch.stack(values) for name, values in kept.items()}, "games": [*finished, score]}


def dig(game: Any, columns: Sequence[int]) -> None:
    """Take columns of bricks out of the wall, in the machine's memory: every bit that paints nothing but these."""
    if not columns:
        return
    for _ in range(BUILDING):
        game.act(0)
    wall, whole = game.getScreenRGB()[slice(*WALL)].any(-1), game.cloneState()
    wanted = np.zeros(wall.shape[1], dtype=bool)
    for column in columns:
        wanted[EDGE + BRICK * column : EDGE + BRICK * (column + 1)] = True
    bits = []
    for byte in range(BRICK_BYTES):
        for bit in range(8):
            game.restoreState(whole)
            game.setRAM(byte, int(game.getRAM()[byte]) & ~(1 << bit))
            game.act(0)
            changed = (wall & ~game.getScreenRGB()[slice(*WALL)].any(-1)).any(0)
            if changed.any() and not (changed & ~wanted).any():
                bits.append((byte, bit))
    game.restoreState(whole)
    for byte, bit in bits:
        game.setRAM(byte, int(game.getRAM()[byte]) & ~(1 << bit))


def standing(screen: np.ndarray[Any, Any]) -> Tensor:
    """Which bricks stand, ``[6, 18]``: those whose middle is not black."""
    rows = np.arange(WALL[0] + 3, WALL[1], 6)
    columns = np.arange(EDGE + BRICK // 2, EDGE + BRICK * BRICKS, BRICK)
    return torch.from_numpy(screen[rows][:, columns].max(-1) > 0)


def objects_in(places: Tensor, bricks: Tensor) -> list[tuple[str, Box]]:
    """Boxes ``(top, left, bottom, right)`` in a frame: the ball where it is in play, the paddle, and each tunnel.

    A tunnel is a column of the wall with no brick left; its box has the wall's height.
    """
    column, row, paddle = (int(place) for place in places)
    found: list[tuple[str, Box]] = []
    if TOP <= row < PADDLE_ROWS[1] and EDGE <= column < 2 * SIDE - EDGE:
        found.append(("ball", _box(row, column, *BALL_SIZE, margin=1)))
    found.append(("paddle", _box(PADDLE_ROWS[0], paddle, PADDLE_ROWS[1] - PADDLE_ROWS[0], PADDLE_WIDTH, margin=1)))
    for brick in (~bricks.any(0)).nonzero()[:, 0].tolist():
        found.append(("tunnel", _box(WALL[0], EDGE + BRICK * brick, WALL[1] - WALL[0], BRICK)))
    return found


def _box(top: int, left: int, height: int, width: int, margin: int = 0) -> Box:
    """A box of the screen in pixels of a frame, with a margin of those."""
    low, high = (top - TOP) // HALF - margin, -(-(top - TOP + height) // HALF) + margin
    start, end = left // HALF - margin, -(-(left + width) // HALF) + margin
    low, start = min(max(0, low), SIDE - 1), min(max(0, start), SIDE - 1)
    return low, start, min(SIDE, max(high, low + 1)), min(SIDE, max(end, start + 1))
