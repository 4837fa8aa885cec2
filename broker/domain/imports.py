"""An import: a refresh token that somebody else held until now, and how taking it over went.

The token is sealed and fingerprinted before it is presented, so that the same token is never
presented again by a repeated call whose first run succeeded or was refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from broker.domain.secret import RefreshToken

MOST_PRESENTATIONS: Final = 2
"""One, and one more after an answer that never came, as for a refresh."""


class ImportOutcome(StrEnum):
    """How far an import got."""

    PENDING = "PENDING"
    """To be presented, on the wire, or its answer never came."""

    STORED = "STORED"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """The row of one imported token of one tenant."""

    tenant: str
    fingerprint: bytes
    refresh_token: RefreshToken | None
    """Sealed while it may have to be presented; None afterwards, or where it does not open."""

    outcome: ImportOutcome = ImportOutcome.PENDING
    presentations: int = 0
    error: str = ""
    """The OAuth error of a refusal."""

    created_at: datetime | None = None
    """Set by the store."""
