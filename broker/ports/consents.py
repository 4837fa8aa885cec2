"""Pending consents and imports."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from broker.domain.authorization import Authorization, Outcome
from broker.domain.imports import Import
from broker.domain.secret import RefreshToken


class ConsentStore(Protocol):
    """Pending consents and imports. Errors as in `GrantStore`.

    What seals (`start`, `fingerprint`) may raise `KeyUnavailable` and `RecordUnreadable`; what is
    only read and does not open is None.
    """

    async def start(self, authorization: Authorization) -> None:
        """Stores a new authorization; deletes what has been over for long."""

    async def find(self, state_hash: bytes) -> tuple[Authorization, datetime] | None:
        """Reads one, and PostgreSQL's time. An expired one is found until it is deleted."""

    async def spend(self, state_hash: bytes, outcome: Outcome) -> None:
        """Spends a state without a claim, with its outcome, unless it is spent already."""

    async def find_import(self, fingerprint: bytes) -> Import | None:
        """Reads the record of an imported token, whichever tenant brought it."""

    async def fingerprint(self, refresh_token: RefreshToken) -> bytes:
        """Returns the keyed fingerprint of a token, the same on every replica."""
