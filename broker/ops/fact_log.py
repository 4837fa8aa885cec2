"""Writes facts to the log: the class is the event's name, the fields are the event's fields.

How loudly: an error wants somebody now, a warning wants to be read, attempts are the story of a
grant, and what happens at every call is for debugging. In an outage the same warning comes again
and again, so those are sampled; the metrics count each.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Hashable
from dataclasses import fields
from datetime import timedelta
from functools import cache
from typing import TypeAlias

from broker.config import LogLevel
from broker.domain.facts import (
    AttemptAnswered,
    AttemptClaimed,
    AttemptOverdue,
    AttemptSending,
    AttemptSettled,
    BreakerMoved,
    DefectMet,
    EscrowAdopted,
    EscrowsUnreachable,
    EscrowWritten,
    EvidenceUnread,
    Fact,
    FilesLoaded,
    FilesRefused,
    FlightEnded,
    FlightJoined,
    FlightStarted,
    GrantRevoked,
    GuardMoved,
    HistoryLost,
    KeysRewrapped,
    LeaseAnswered,
    LoopFailed,
    MemoryDropped,
    PastChanged,
    ReauthBecameRequired,
    RejectionReported,
    RenewalEnded,
    SealedValueUnreadable,
    SettlementDelayed,
    TokenServed,
    WaitedForReplica,
    WrittenBack,
)
from broker.domain.guard import GuardState
from broker.domain.history import AttemptOutcome
from broker.domain.rejection import Verdict
from broker.ops.failures import kind_of, message_of, trace_of
from broker.ops.logs import Log
from broker.ops.sampling import Sampler


class FactLog:
    """Upholds `broker.ports.Observer`."""

    def __init__(self, log: Log, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds that never go back, for the sampling."""
        self._log = log
        self._sampler = Sampler(clock)

    def observe(self, fact: Fact) -> None:
        """Writes a line, unless the level or the sampling leave it out."""
        level = level_of(fact)
        if not self._log.takes(level):
            return
        kind = recurring_kind_of(fact)
        held_back = 0 if kind is None else self._sampler.admit(kind)
        if held_back is None:
            return
        told = fields_of(fact) | ({"held_back": held_back} if held_back else {})
        self._log.event(event_name(type(fact).__name__), level=level, **told)


@cache
def event_name(fact_name: str) -> str:
    """Returns the name of an event: `attempt_claimed` for `AttemptClaimed`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", fact_name).lower()


def fields_of(fact: Fact) -> dict[str, object]:
    """Returns what is told of a fact; spans are in seconds, and say so."""
    if isinstance(fact, DefectMet):
        return _defect(fact)
    told = {each.name: getattr(fact, each.name) for each in fields(fact)}
    return {
        f"{name}_seconds" if isinstance(value, timedelta) else name: value
        for name, value in told.items()
    }


def _defect(fact: DefectMet) -> dict[str, object]:
    return {
        "defect_id": fact.defect_id,
        "where": fact.where,
        "error": kind_of(fact.error),
        "message": message_of(fact.error),
        "trace": trace_of(fact.error),
    }


def level_of(fact: Fact) -> LogLevel:
    """Returns how loudly a fact is told."""
    match fact:
        case (
            TokenServed()
            | FlightStarted()
            | FlightJoined()
            | FlightEnded()
            | LeaseAnswered()
            | RenewalEnded()
        ):
            return LogLevel.DEBUG
        case MemoryDropped():
            return LogLevel.INFO if fact.tenant is None else LogLevel.DEBUG
        case (
            AttemptClaimed()
            | AttemptSending()
            | AttemptSettled()
            | WaitedForReplica()
            | FilesLoaded()
            | GrantRevoked()
            | KeysRewrapped()
        ):
            return LogLevel.INFO
        case AttemptAnswered() | RejectionReported():
            return LogLevel.WARNING if _is_about_the_fleet(fact) else LogLevel.INFO
        case (
            AttemptOverdue()
            | HistoryLost()
            | LoopFailed()
            | FilesRefused()
            | EvidenceUnread()
            | SettlementDelayed()
            | ReauthBecameRequired()
            | WrittenBack()
        ):
            return LogLevel.WARNING
        case _:
            return LogLevel.ERROR if _wants_somebody_now(fact) else LogLevel.WARNING


Urgent: TypeAlias = (
    EscrowWritten
    | EscrowAdopted
    | EscrowsUnreachable
    | DefectMet
    | BreakerMoved
    | GuardMoved
    | PastChanged
    | SealedValueUnreadable
)


def _wants_somebody_now(
    fact: Urgent,
) -> bool:
    """Whether a pair is in danger or lost, or the whole fleet waits for somebody's decision."""
    match fact:
        case BreakerMoved(cause=cause):
            return bool(cause)
        case GuardMoved(state=state):
            return state is GuardState.HOLDING
        case EscrowWritten(is_acknowledged=is_safe):
            return not is_safe
        case EscrowsUnreachable(presents=presents):
            return presents
        case EscrowAdopted():
            return False
        case DefectMet() | PastChanged() | SealedValueUnreadable():
            return True


def _is_about_the_fleet(fact: AttemptAnswered | RejectionReported) -> bool:
    """Our client is refused, whoever's grant it was; or the database may have been rolled back."""
    if isinstance(fact, AttemptAnswered):
        return fact.outcome is AttemptOutcome.MISCONFIGURED
    return fact.verdict == Verdict.UNHEARD_OF.name.lower()


def recurring_kind_of(fact: Fact) -> Hashable | None:
    """Returns what makes two facts alike that come again and again; None: each is told."""
    match fact:
        case LoopFailed():
            return LoopFailed, fact.loop, fact.error
        case SettlementDelayed() | EscrowWritten():
            return type(fact), fact.tenant, fact.number
        # Each is told when it is met, and met again after an hour.
        case SealedValueUnreadable():
            return SealedValueUnreadable, fact.tenant, fact.table, fact.field
        # One poll after another, while another replica is at it.
        case WaitedForReplica():
            return WaitedForReplica, fact.tenant
        # A caller with a broken client reports at every call.
        case RejectionReported():
            return RejectionReported, fact.tenant, fact.verdict
        case _:
            return None
