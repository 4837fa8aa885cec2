"""Which call something was done for: the id that the caller sent, else one of our own.

It is in the log's lines, so that a caller who reports a failure can be helped. Nothing else hangs
on it; one that is odd is not repeated to anybody.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Final, TypeAlias

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]

_HEADER: Final = "x-request-id"

_ACCEPTED: Final = re.compile(r"[A-Za-z0-9._:/@+=-]{1,128}")

# 64 bits: as many as tell one call from the others of a log.
_OWN_BYTES: Final = 8


class _Request:
    """One call. Its id is read or made when it is asked for, which at most calls nobody does."""

    __slots__ = ("_id", "_metadata")

    def __init__(self, metadata: Metadata) -> None:
        self._metadata: Metadata | None = metadata
        self._id = ""

    def id(self) -> str:
        if self._metadata is not None:
            self._id = _sent(self._metadata) or secrets.token_hex(_OWN_BYTES)
            self._metadata = None
        return self._id


_current: Final[ContextVar[_Request | None]] = ContextVar("current_request", default=None)


def set_current_request(metadata: Metadata) -> None:
    """Tells which call is being answered; for the edge."""
    _current.set(_Request(metadata))


def current_request_id() -> str | None:
    """Returns the id of the call that this is done for; None outside of calls.

    A flight is done for the call that started it.
    """
    request = _current.get()
    return None if request is None else request.id()


def _sent(metadata: Metadata) -> str | None:
    for name, value in metadata:
        if name == _HEADER and isinstance(value, str) and _ACCEPTED.fullmatch(value):
            return value
    return None
