"""Clips of four actions, made from real ones, of which it is known where and when something happens.

A square of a photograph lies over a real clip, whose own motion goes on behind it. For some frames it moves up and
down, left and right, nearer and farther, or turns; else it is still.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.neuralize import read_frames
from headwater.neuralize.video import BLOCK

ACTIONS = ("up and down", "left and right", "near and far", "turning")
HEIGHT, WIDTH, FRAMES, SQUARE = 240, 320, 48, 96
ACTIVE, PERIOD = 20, 16  # frames that an action lasts, and of one of its swings
REACH, ZOOM, ANGLE = 24.0, 0.35, 35.0  # pixels, parts, degrees


@dataclass(frozen=True)
class Clip:
    """A clip and its truth.

    Attributes:
        path: of the file; ``action``: one of :data:`ACTIONS`.
        active: frames in which it happens, ``[T]`` bool.
        inside: blocks that the square covers by half or more, ``[T, H / 16, W / 16]`` bool.
    """

    path: Path
    action: str
    active: NDArray[np.bool_]
    inside: NDArray[np.bool_]


def backgrounds(folder: Path) -> list[NDArray[np.uint8]]:
    """The real clips, ``[T, 240, 320, 3]`` each."""
    paths = sorted(p for p in folder.iterdir() if p.suffix in (".mp4", ".avi"))
    return [np.stack([_resized(frame) for frame in read_frames(path, 2 * FRAMES)]) for path in paths]


def make(path: Path, action: str, behind: list[NDArray[np.uint8]], photograph: Path, seed: int) -> Clip:
    """Encode a clip, if it is not there; the same seed gives the same one."""
    random = np.random.default_rng(seed)
    scene = behind[random.integers(len(behind))]
    first = random.integers(len(scene) - FRAMES + 1)
    top = float(random.integers(int(REACH), HEIGHT - SQUARE - int(REACH)))
    left = float(random.integers(int(REACH), WIDTH - SQUARE - int(REACH)))
    start = int(random.integers(4, FRAMES - ACTIVE - 4))
    swing = _swing(start)
    rows = top + (REACH * swing if action == ACTIONS[0] else np.zeros(FRAMES))
    columns = left + (REACH * swing if action == ACTIONS[1] else np.zeros(FRAMES))
    active = (np.arange(FRAMES) >= start) & (np.arange(FRAMES) < start + ACTIVE)
    if not path.exists():
        texture = _texture(photograph)
        frames = scene[first : first + FRAMES].copy()
        for frame, y, x, s in zip(frames, rows.round().astype(int), columns.round().astype(int), swing, strict=True):
            zoom = 1 + ZOOM * s if action == ACTIONS[2] else 1.0
            angle = ANGLE * s if action == ACTIONS[3] else 0.0
            frame[y : y + SQUARE, x : x + SQUARE] = _square(texture, zoom, angle)
        _encode(path, frames)
    return Clip(path, action, active, _covered(rows, columns))


def _swing(start: int) -> NDArray[np.float64]:
    """Where the action is in its swing, -1 to 1, ``[T]``: 0 before it, and after it as it was left."""
    at = np.clip(np.arange(FRAMES) - start + 1, 0, ACTIVE)
    swing: NDArray[np.float64] = np.sin(2 * np.pi * at / PERIOD)
    return swing


def _covered(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.bool_]:
    y = BLOCK * np.arange(HEIGHT // BLOCK) + BLOCK / 2
    x = BLOCK * np.arange(WIDTH // BLOCK) + BLOCK / 2
    tall = (y >= rows[:, None]) & (y < rows[:, None] + SQUARE)
    wide = (x >= columns[:, None]) & (x < columns[:, None] + SQUARE)
    covered: NDArray[np.bool_] = tall[:, :, None] & wide[:, None, :]
    return covered


def _resized(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.fromarray(frame).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))


def _texture(photograph: Path) -> Any:
    """The middle of a photograph, twice the square's side, so that turned and zoomed out it still fills the square."""
    from PIL import Image

    picture = Image.open(photograph).convert("RGB")
    side = min(picture.size)
    x, y = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((x, y, x + side, y + side)).resize((2 * SQUARE, 2 * SQUARE), Image.Resampling.BILINEAR)


def _square(texture: Any, zoom: float, angle: float) -> NDArray[np.uint8]:
    from PIL import Image

    turned = texture.rotate(angle, Image.Resampling.BILINEAR)
    half, middle = SQUARE / 2 / zoom, SQUARE
    box = (middle - half, middle - half, middle + half, middle + half)
    return np.asarray(turned.resize((SQUARE, SQUARE), Image.Resampling.BILINEAR, box=box))


def _encode(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write H.264, whole or not at all."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    with av.open(str(part), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "medium", "crf": "23", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    part.replace(path)
