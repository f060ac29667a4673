"""What the viewer refuses, and the status that says so over HTTP."""

from __future__ import annotations

from headwater.errors import HeadwaterError, MissingExtra

__all__ = ["Busy", "Conflict", "Forbidden", "NotThere", "Stopped", "TooLarge", "Unauthorized", "status_of"]


class Refusal(HeadwaterError):
    """A request that is not answered; the text says why."""

    status = 409


class NotThere(Refusal):
    """What was asked for does not exist."""

    status = 404


class Conflict(Refusal):
    """It cannot be done with this store, with this model, or because someone else was first."""


class Stopped(Refusal):
    """The client went away before the answer was there."""


class Forbidden(Refusal):
    """Not from there, or not in this mode."""

    status = 403


class Unauthorized(Refusal):
    """Without the token."""

    status = 401


class TooLarge(Refusal):
    """More was sent than is read."""

    status = 413


class Busy(Refusal):
    """Too many already wait for the same."""

    status = 429


def status_of(error: HeadwaterError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, Refusal):
        return error.status
    if isinstance(error, MissingExtra):
        return 501
    return 400 if isinstance(error, ValueError) else 409  # wrong arguments are both
