"""Motion as compressed video already has it: the vectors by which its codec predicts blocks from other frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from headwater.errors import InvalidInput, MissingExtra

BLOCK = 16  # pixels along a side of a macroblock
SUFFIXES = {".avi", ".mp4", ".mkv", ".mov", ".webm"}


def motion_vectors(path: str | Path, frames: int | None = None, start: int = 0) -> Any:
    """The motion vectors of a clip, by frame and block; nothing is estimated, only the stream is decoded.

    Args:
        path: a file that FFmpeg reads, of a codec with motion vectors (H.264, MPEG-4, MPEG-2 ...).
        frames: how many frames to read; None reads all. A shorter clip gives fewer.
        start: the first frame.

    Returns:
        Motion forwards in time, in pixels between a frame and the one it was predicted from
        (mostly its predecessor; FFmpeg does not tell which), ``[2, T, H / 16, W / 16]`` float32
        (right and down positive); blocks that the codec coded without motion are 0. Several vectors of a block (its
        parts, or two references) are averaged by area.

    Raises:
        InvalidInput: a file that is missing, unreadable or without video.
        MissingExtra: without PyAV.
    """
    av = _pyav()
    field = []
    with _opened(av, path) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"flags2": "+export_mvs"}
        for i, frame in enumerate(container.decode(stream)):
            if frames is not None and i >= start + frames:
                break
            if i >= start:
                field.append(_field(av, frame))
    if not field:
        raise InvalidInput(f"{path} has no frame from {start} on")
    return np.stack(field, axis=1)


def read_frames(path: str | Path, frames: int | None = None, start: int = 0) -> Any:
    """The pictures of a clip, ``[T, H, W, 3]`` uint8; arguments and errors as for :func:`motion_vectors`."""
    av = _pyav()
    with _opened(av, path) as container:
        found = []
        for i, frame in enumerate(container.decode(video=0)):
            if frames is not None and i >= start + frames:
                break
            if i >= start:
                found.append(frame.to_ndarray(format="rgb24"))
    if not found:
        raise InvalidInput(f"{path} has no frame from {start} on")
    return np.stack(found)


def video_folder(root: str | Path, split: str | Path | None = None) -> dict[str, list[tuple[Path, str]]]:
    """Clips in a folder for each class, as HMDB51 and UCF101 are laid out.

    Args:
        root: holds one folder for each class, with its clips.
        split: a folder of HMDB51's split files, ``<class>_test_split<n>.txt`` with lines ``<clip> <1 train, 2 test>``,
            and the split's number at the end, as in ``splits/1``; None puts every clip into "train".

    Returns:
        ``{"train": [(path, class), ...], "test": [...]}``, sorted.

    Raises:
        InvalidInput: no clip is found, or a class without its split file.
    """
    root = Path(root)
    clips = [
        (path, folder.name)
        for folder in sorted(p for p in root.glob("*") if p.is_dir())
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    if not clips:
        raise InvalidInput(f"{root} holds no folder of clips ({', '.join(sorted(SUFFIXES))}) for any class")
    if split is None:
        return {"train": clips, "test": []}
    parts: dict[str, list[tuple[Path, str]]] = {"train": [], "test": []}
    marks = {name: _marks(Path(split), name) for name in {name for _, name in clips}}
    for path, name in clips:
        part = {"1": "train", "2": "test"}.get(marks[name].get(path.name, "0"))
        if part is not None:
            parts[part].append((path, name))
    return parts


def _marks(split: Path, name: str) -> dict[str, str]:
    file = split.parent / f"{name}_test_split{split.name}.txt"
    if not file.is_file():
        raise InvalidInput(f"{file} is missing: class {name!r} has no split {split.name}")
    lines = (line.split() for line in file.read_text().splitlines())
    return {line[0]: line[1] for line in lines if len(line) == 2}


def _pyav() -> Any:
    try:
        import av
    except ImportError:
        raise MissingExtra("video", "av") from None
    return av


def _opened(av: Any, path: str | Path) -> Any:
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise InvalidInput(f"{path} cannot be read as video: {error}") from None
    if not container.streams.video:
        container.close()
        raise InvalidInput(f"{path} has no video stream")
    return container


def _field(av: Any, frame: Any) -> Any:
    """Motion of each block of one frame, ``[2, H / 16, W / 16]``."""
    rows, columns = -(-frame.height // BLOCK), -(-frame.width // BLOCK)
    field, area = np.zeros((2, rows, columns), dtype=np.float32), np.zeros((rows, columns), dtype=np.float32)
    exported = frame.side_data.get(av.sidedata.sidedata.Type.MOTION_VECTORS)
    vectors = None if exported is None else exported.to_ndarray()
    if vectors is None or not len(vectors):
        return field
    # A vector leads from the block in this frame (dst) to what it was copied from, in the past (source < 0) or not.
    i = np.clip(vectors["dst_y"] // BLOCK, 0, rows - 1)
    j = np.clip(vectors["dst_x"] // BLOCK, 0, columns - 1)
    size = vectors["w"].astype(np.float32) * vectors["h"]
    forwards = np.where(vectors["source"] < 0, -1, 1) / np.maximum(vectors["motion_scale"], 1)
    for axis, name in enumerate(("motion_x", "motion_y")):
        np.add.at(field[axis], (i, j), vectors[name] * forwards * size)
    np.add.at(area, (i, j), size)
    return field / np.maximum(area, 1)
