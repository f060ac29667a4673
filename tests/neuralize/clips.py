"""Clips of Atari games, played at random and encoded as H.264: a small video data set that anyone can make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

GAMES = ("pong", "breakout", "space_invaders", "freeway", "boxing", "seaquest")
SCALE = 2  # pixels are doubled, so that blocks of 16 see single objects


def record(game: str, path: Path, frames: int = 60, seed: int = 0, skip: int = 90) -> Path:
    """Play a game at random, holding each action for a few frames, and encode what is seen.

    Args:
        game: its name in ``ale_py.roms``; ``path``: of the file; ``frames``: how many; ``seed``: of the play.
        skip: frames before, in which games begin.
    """
    import ale_py
    import av
    from ale_py import roms

    ale = ale_py.ALEInterface()
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale.setInt("random_seed", seed)
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(roms.get_rom_path(game))
    random = np.random.default_rng(seed)
    actions = ale.getMinimalActionSet()
    pictures: list[Any] = []
    skip += int(random.integers(60))
    for i in range(skip + frames):
        if i % 6 == 0:
            action = actions[random.integers(len(actions))]
        ale.act(action)
        if ale.game_over():
            ale.reset_game()
        if i >= skip:
            pictures.append(ale.getScreenRGB().repeat(SCALE, 0).repeat(SCALE, 1))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "medium", "crf": "23", "bf": "0"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def library(folder: Path, clips: int, games: tuple[str, ...] = GAMES, frames: int = 60) -> Path:
    """A folder of clips for each game."""
    for game in games:
        (folder / game).mkdir(parents=True, exist_ok=True)
        for seed in range(clips):
            record(game, folder / game / f"{seed:03}.mp4", frames, seed)
    return folder
