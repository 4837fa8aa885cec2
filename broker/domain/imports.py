"""An import: a refresh token that somebody else held until now, and how taking it over went.

The token is sealed and fingerprinted before it is presented, so that the same token is never
presented again by a repeated call whose first run succeeded or was refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias

from broker.domain.grant import Grant, GrantState
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
    """The OAuth error of a refusal; `superseded` where the token on record is a newer one."""

    created_at: datetime | None = None
    """Set by the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """This token made the grant already: nothing is presented."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """This token is not presented again."""

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """The newer token that is on record does not open, and the one that was brought is dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WouldReplace:
    """The tenant has an active grant, and the caller does not say that it may go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOver:
    """The token may be presented, or kept unpresented while its access token lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """It was presented as often as may be, and nobody has noted an answer to the last time yet."""


ImportStep: TypeAlias = Existing | Rejected | Unreadable | WouldReplace | TakeOver | Spent

ALREADY_PRESENTED: Final = "already_presented"
"""The error of a token whose grant has been revoked since: it was rotated, or may have been."""

OUTCOME_UNKNOWN: Final = "outcome_unknown"
"""The error of a token that was presented as often as may be, and never answered."""

SUPERSEDED: Final = "superseded"
"""On record beside a newer token than the one whose fingerprint it is."""

_ENDED: Final = frozenset({GrantState.UNCONNECTED, GrantState.REVOKED})
_IN_USE: Final = frozenset({GrantState.ACTIVE, GrantState.HELD})


def decide_import(record: Import | None, grant: Grant, *, may_replace: bool) -> ImportStep:
    """Decides what to do with a token, given what is on record of it and the tenant's grant."""
    if record is not None and record.tenant != grant.tenant:
        # Whoever has it presented it, or will: two would kill each other's grant.
        return Rejected(error=ALREADY_PRESENTED)
    if record is not None and (step := _known(record, grant)):
        return step
    if grant.state in _IN_USE and not may_replace:
        return WouldReplace()
    return TakeOver()


def _known(record: Import, grant: Grant) -> ImportStep | None:
    if _has_made(record, grant):
        return Rejected(error=ALREADY_PRESENTED) if grant.state in _ENDED else Existing()
    if record.outcome is ImportOutcome.REFUSED:
        return Rejected(error=record.error)
    if record.presentations >= MOST_PRESENTATIONS:
        return Spent()
    if record.error == SUPERSEDED and record.refresh_token is None:
        return Unreadable()
    return None


def _has_made(record: Import, grant: Grant) -> bool:
    # A pair that somebody else stored in the importer's place, out of an escrow, is told by the
    # row alone.
    is_told_by_row = grant.import_fingerprint == record.fingerprint
    return is_told_by_row or record.outcome is ImportOutcome.STORED


def presented(record: Import) -> Import:
    """Returns the record as it is committed before the token leaves (law 2)."""
    return replace(record, outcome=ImportOutcome.PENDING, presentations=record.presentations + 1)


def not_presented(record: Import) -> Import:
    """Returns the record of a token that was not processed after all."""
    return replace(record, presentations=record.presentations - 1)


def stored(record: Import) -> Import:
    """Returns the record of a token whose grant is stored.

    One that was kept unpresented is presented by a refresh one day, which nobody notes here.
    """
    return replace(record, outcome=ImportOutcome.STORED, refresh_token=None, error="")


def refused(record: Import, error: str) -> Import:
    """Returns the record of a token that Pleo refused."""
    return replace(record, outcome=ImportOutcome.REFUSED, refresh_token=None, error=error)


def unanswered(record: Import) -> Import:
    """Returns the record of a token to which no answer came; after the last time it is destroyed.

    A pair that an earlier presentation brought after all is stored out of its escrow all the same.
    """
    is_last = record.presentations >= MOST_PRESENTATIONS
    return refused(record, OUTCOME_UNKNOWN) if is_last else record


def rotated_unstored(record: Import, newest: RefreshToken) -> Import:
    """Returns the record of a grant that may not be stored, with the token that lives now."""
    return replace(record, refresh_token=newest, presentations=0, error=SUPERSEDED)


def has_newer(record: Import, presented: RefreshToken | None) -> bool:
    """Whether a record tells of something newer than what came of presenting this token.

    Where it does not, and somebody has presented the same token since and was refused, what came
    of it first is the newest all the same. None: nobody knows which token it was.
    """
    if record.outcome is ImportOutcome.STORED:
        return True
    if presented is None:
        return record.error == SUPERSEDED
    return record.refresh_token is not None and record.refresh_token != presented
