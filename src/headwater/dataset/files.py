"""Files that are whole or absent: every write goes to a temporary name, reaches the disk, and is then renamed."""

from __future__ import annotations

import errno
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from headwater.errors import HeadwaterError, InvalidInput, MissingExtra

_PENDING = ".pending"
_PATIENCE = 10.0  # seconds to wait for another process to let go


class Unwritable(HeadwaterError):
    """A folder that this user, or nobody, may write to."""


class Files(Protocol):
    """Named bytes, each written at once or not at all.

    Attributes:
        url: where they lie, as a user would write it.
    """

    url: str

    def write(self, key: str, data: bytes) -> None: ...

    def read(self, key: str) -> bytes:
        """The content; FileNotFoundError where there is none."""
        ...

    def holds(self, key: str) -> bool:
        """Whether there is such a file, and anything in it."""
        ...

    def remove(self, key: str) -> None:
        """Remove a file, if there is one."""
        ...

    def names(self, folder: str) -> list[str]:
        """The names directly within a folder, sorted; none where there is no such folder."""
        ...

    def sweep(self) -> None:
        """Remove what killed writers left half done."""
        ...

    def alone(self, key: str) -> AbstractContextManager[None]:
        """Hold off other processes that would change the same file."""
        ...


def open_files(path: str | os.PathLike[str]) -> Files:
    """The files at a local path, or at a URL that fsspec knows (``s3://bucket/store``).

    Raises:
        InvalidInput: a path that is no folder, or a protocol without a file system.
        MissingExtra: a URL without fsspec or the package that serves its protocol.
    """
    text = os.fspath(path)
    if "://" in text and not text.startswith("file://"):
        return RemoteFiles(text)
    root = Path(text.removeprefix("file://"))
    if root.exists() and not root.is_dir():
        raise InvalidInput(f"{root} is a file: name a folder for the store")
    return LocalFiles(root)


class LocalFiles:
    """A folder of this machine, or one that several machines share."""

    def __init__(self, root: Path) -> None:
        self.root, self.url = root, str(root)

    def write(self, key: str, data: bytes) -> None:
        path = self.root / key
        pending = self.root / _PENDING / f"{socket.gethostname()}~{os.getpid()}~{uuid.uuid4().hex}"
        try:
            _make_folder(path.parent)
            self._commit(data, pending, path)
        except OSError as error:
            with suppress(OSError):
                pending.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise HeadwaterError(
                    f"The disk of {self.root} is full: free some space and run the same call again; "
                    "every finished chunk is kept"
                ) from error
            raise Unwritable(f"{self.root} cannot be written to ({error.strerror})") from error

    @staticmethod
    def _commit(data: bytes, pending: Path, path: Path) -> None:
        with _new_file(pending) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(pending, path)
        _sync_folder(path.parent)

    def read(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def holds(self, key: str) -> bool:
        path = self.root / key
        return path.is_file() and path.stat().st_size > 0

    def remove(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self.root / folder))
        except FileNotFoundError:
            return []

    def sweep(self) -> None:
        for name in self.names(_PENDING):
            host, _, rest = name.partition("~")
            if host == socket.gethostname() and not _is_alive(int(rest.partition("~")[0])):
                (self.root / _PENDING / name).unlink(missing_ok=True)
        if not self.names(_PENDING) and (self.root / _PENDING).exists():
            with suppress(OSError):  # another writer may just have begun a file there
                (self.root / _PENDING).rmdir()

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Hold off other processes that would change the same file; a process that dies lets go.

        Raises:
            HeadwaterError: another holds it for long.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.root / f".{key}.lock", timeout=_PATIENCE)
        try:
            _make_folder(self.root)
            lock.acquire()
        except Timeout as error:
            raise HeadwaterError(f"{self.root / key} is being changed by another process: try again") from error
        except OSError as error:
            raise Unwritable(f"{self.root} cannot be written to ({error.strerror})") from error
        try:
            yield
        finally:
            lock.release()


def _new_file(path: Path) -> BinaryIO:
    """A file in a folder that is made, and made again where another writer's sweep took it away, empty as it was."""
    while True:
        _make_folder(path.parent)
        with suppress(FileNotFoundError):
            return path.open("wb")


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, durably: a folder that its parent forgets loses the files within."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(exist_ok=True)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_alive(process: int) -> bool:
    if process == os.getpid():
        return False  # this process is between two writes, so that what bears its number is an earlier one's
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class RemoteFiles:
    """Objects of a store that fsspec reaches; those put an object at once or not at all."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ModuleNotFoundError as error:
            raise MissingExtra("dataset", "fsspec") from error
        try:
            self.system, self.root = fsspec.core.url_to_fs(url)
        except ImportError as error:  # of the package that serves this protocol
            raise MissingExtra("dataset", str(error)) from error
        except ValueError as error:
            raise InvalidInput(f"no file system serves {url}: {error}") from error
        self.url = url.rstrip("/")

    def write(self, key: str, data: bytes) -> None:
        path = f"{self.root}/{key}"
        self.system.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.system.pipe_file(path, data)

    def read(self, key: str) -> bytes:
        content: Any = self.system.cat_file(f"{self.root}/{key}")
        return bytes(content)

    def holds(self, key: str) -> bool:
        path = f"{self.root}/{key}"
        return bool(self.system.isfile(path)) and self.system.size(path) != 0

    def remove(self, key: str) -> None:
        if self.system.exists(f"{self.root}/{key}"):
            self.system.rm_file(f"{self.root}/{key}")

    def names(self, folder: str) -> list[str]:
        try:
            found = self.system.ls(f"{self.root}/{folder}", detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(name).rstrip("/").rpartition("/")[2] for name in found)

    def sweep(self) -> None:
        return None

    def alone(self, key: str) -> AbstractContextManager[None]:
        """Object stores know no locks: of two that write at the same moment, the later stays."""
        return nullcontext()
