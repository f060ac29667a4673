"""Estimators from files: skops, whose contents are named and trusted one by one; never pickle, unless told to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headwater.errors import InvalidInput, MissingExtra

_PICKLES = {".pkl", ".pickle", ".joblib"}


def load_estimator(path: str | Path, trusted: Sequence[str] = (), allow_pickle: bool = False) -> Any:
    """A fitted estimator from a file.

    Args:
        path: a ``.skops`` file; ``.pkl``, ``.pickle`` or ``.joblib`` with ``allow_pickle``.
        trusted: names of types in a skops file, beyond scikit-learn's own, that may be loaded.
        allow_pickle: read a pickle, which runs whatever code is in it: only for files that you made yourself.

    Returns:
        The estimator.

    Raises:
        InvalidInput: a file that is missing, unreadable, a pickle, or that holds types that are not trusted.
        MissingExtra: without ``skops``.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInput(f"{path} is no file: give the path of a .skops file")
    if path.suffix in _PICKLES:
        return _unpickled(path, allow_pickle)
    try:
        from skops import io
    except ImportError:
        raise MissingExtra("estimators", "skops") from None
    try:
        unknown = set(io.get_untrusted_types(file=path)) - set(trusted)
        if not unknown:
            return io.load(path, trusted=list(trusted))
    except Exception as error:  # zip, json and audit errors of many kinds
        raise InvalidInput(f"{path} cannot be read as a skops file: {error}") from None
    names = ", ".join(sorted(unknown))
    raise InvalidInput(f"{path} holds types that are not trusted: {names}. If you trust them, pass trusted=[...]")


def _unpickled(path: Path, allowed: bool) -> Any:
    if not allowed:
        raise InvalidInput(
            f"{path} is a pickle, which runs the code in it when it is read: save it with skops.io.dump, or pass "
            "allow_pickle=True for a file of your own"
        )
    import joblib

    return joblib.load(path)
