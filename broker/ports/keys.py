"""The keys that rows and escrows are sealed under."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class RewrapBatch:
    """What became of some rows that were under another key than the primary one."""

    rewrapped: int
    unreadable: int
    """They do not open, and stay as they were."""

    passed_over: int
    """They were written meanwhile, or are being written."""


class KeyStore(Protocol):
    """Which keys of the keyset rows are sealed under. Errors as in `GrantStore`."""

    def primary_key_id(self) -> int:
        """Returns the key that this replica seals under now."""

    def can_open(self, key_id: int) -> bool:
        """Whether this replica has the key."""

    async def key_use(self) -> Mapping[int, int]:
        """Counts the rows under each key. Reads all rows: not for every request."""

    async def note_rewrap(self, *, by: str, reason: str) -> None:
        """Records who rewraps, and why."""

    def rewrap(self) -> AsyncGenerator[RewrapBatch, None]:
        """Goes once through all rows under other keys, and seals them under the primary one.

        Fenced so that a concurrent rotation is never overwritten (law 4). May be closed at any
        time: what is done stays done. Raises `KeyUnavailable` where a row's key is missing.
        """


class EscrowKeys(Protocol):
    """Which keys escrows are sealed under."""

    async def key_use(self) -> Mapping[int, int] | None:
        """Counts the escrows under each key; None: Redis cannot be asked. Never raises."""
