"""What happened to this process: its memory, loops, files and keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryDropped:
    """Copies of tokens in memory may be out of date, all or one tenant's, and are read again."""

    tenant: str | None
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLost:
    """A settlement was committed without its line in the history, which PostgreSQL refused."""

    tenant: str
    number: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopFailed:
    """A background loop met an error and goes on."""

    loop: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesLoaded:
    """Files that may be replaced while we run were read, at the start or anew."""

    what: str
    """`tls`, `policy` or `jwks`."""

    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesRefused:
    """Files were replaced by something unusable; what was read before stays in force."""

    what: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedValueUnreadable:
    """A sealed value does not open although its key is there: moved, altered, or not ours."""

    tenant: str
    table: str
    field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRewrapped:
    """A rewrapping ended: all rows were gone through, or its caller left."""

    by: str
    reason: str
    key_id: int
    total: int
    rewrapped: int
    unreadable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DefectMet:
    """A defect: an error that no rule foresaw. The id is in the answer to the caller."""

    defect_id: str
    where: str
    error: BaseException
