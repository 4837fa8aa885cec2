"""What a write answers: the row as it shall be, or why it may not change; and which changes exist.

Laws of the writes (`refresh_writes`, `consent_writes`, `guard_writes`, `recall_writes`):

1. Whatever changes a grant is one of those functions. The store applies what they return by
   compare-and-set on the row's version, so that a decision and its write are one step: where the
   row changed in between, nothing is written, and the caller reads and decides again. The
   conditions therefore exist once, for PostgreSQL and for the simulation.
2. A write that is not allowed returns `Unchanged` and says why; it never raises and never changes
   half of a row.

The conditions were found with an explicit-state model of the protocol (`ARCHITECTURE.md`);
loosening one loses customers. "Own": the attempt on the row is the caller's. "Live": its deadline
is ahead on PostgreSQL's clock, which every `now` is read from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

from broker.domain.grant import Grant, GrantState


class Write(Enum):
    """The writes that can change a grant's state."""

    CLAIM_REFRESH = "claim a refresh"
    STORE_ROTATED = "store a rotated pair"
    REFUSE = "refused"
    HOLD = "refused, and the fleet guard holds"
    HOLD_BACK = "hold what was refused shortly before"
    CONFIRM = "the guard's refusals are believed"
    DISCARD = "the guard's refusals are not believed"
    STORE_CONSENTED = "store an exchanged or imported pair"
    REVOKE = "revoke"


_ACTIVE: Final = GrantState.ACTIVE
_REAUTH: Final = GrantState.REAUTH_REQUIRED
_HELD: Final = GrantState.HELD
_REVOKED: Final = GrantState.REVOKED

TRANSITIONS: Final[Mapping[Write, Mapping[GrantState, GrantState]]] = MappingProxyType(
    {
        Write.CLAIM_REFRESH: {_ACTIVE: _ACTIVE},
        # A late success proves that the grant lives, whatever was concluded meanwhile (law 4).
        Write.STORE_ROTATED: {_ACTIVE: _ACTIVE, _HELD: _ACTIVE, _REAUTH: _ACTIVE},
        Write.REFUSE: {_ACTIVE: _REAUTH},
        Write.HOLD: {_ACTIVE: _HELD},
        Write.HOLD_BACK: {_REAUTH: _HELD},
        Write.CONFIRM: {_HELD: _REAUTH},
        # Also what a confirmation gave up, while its tokens are still sealed.
        Write.DISCARD: {_HELD: _ACTIVE, _REAUTH: _ACTIVE},
        # A new consent beats everything that came before it (law 4).
        Write.STORE_CONSENTED: dict.fromkeys(GrantState, _ACTIVE),
        Write.REVOKE: {_ACTIVE: _REVOKED, _HELD: _REVOKED, _REAUTH: _REVOKED},
    }
)
"""From which state each write is allowed, and where it leads. What is missing is illegal."""


class Why(StrEnum):
    """Why a write was not allowed."""

    STATE = "the state does not allow it"
    MOVED_ON = "the grant has moved on"
    ATTEMPT_LIVE = "somebody's attempt is live"
    NOT_OWN = "the attempt on the row is another one"
    OVERDUE = "the attempt's deadline has passed"
    WRONG_PHASE = "the attempt is in another phase"
    TOO_EARLY = "somebody may still store a pair, or the time has not come"
    NO_TOKEN = "there is no refresh token that could be presented"  # noqa: S105 - prose
    ALREADY = "this write is in the row already"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The write is allowed; `after` is the row as it shall be."""

    after: Grant


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchanged:
    """The write is not allowed."""

    why: Why


Decision: TypeAlias = Changed | Unchanged


def next_state(write: Write, grant: Grant) -> GrantState | None:
    """Returns the state that the write leads to, or None where it is illegal."""
    return TRANSITIONS[write].get(grant.state)
