"""What happened, for metrics, logs and traces. Facts carry no secret; observers decide nothing.

`service/` reports facts to an `Observer` and knows nothing of what becomes of them. A fact's class
is its event name; its fields are the log's fields.
"""

from __future__ import annotations

from typing import TypeAlias

from broker.domain.facts.attempts import (
    AttemptAnswered,
    AttemptClaimed,
    AttemptOverdue,
    AttemptSending,
    AttemptSettled,
    EscrowAdopted,
    EscrowsUnreachable,
    EscrowWritten,
    SettlementDelayed,
)
from broker.domain.facts.fleet import (
    BreakerMoved,
    EvidenceUnread,
    GuardMoved,
    PastChanged,
    WrittenBack,
)
from broker.domain.facts.grants import (
    GrantRevoked,
    ReauthBecameRequired,
    RejectionReported,
    RenewalEnded,
)
from broker.domain.facts.replica import (
    DefectMet,
    FilesLoaded,
    FilesRefused,
    HistoryLost,
    KeysRewrapped,
    LoopFailed,
    MemoryDropped,
    SealedValueUnreadable,
)
from broker.domain.facts.serving import (
    FlightEnded,
    FlightJoined,
    FlightStarted,
    LeaseAnswered,
    LeaseOutcome,
    LeaseStanding,
    Source,
    TokenServed,
    WaitedForReplica,
)

__all__ = [
    "AttemptAnswered",
    "AttemptClaimed",
    "AttemptOverdue",
    "AttemptSending",
    "AttemptSettled",
    "BreakerMoved",
    "DefectMet",
    "EscrowAdopted",
    "EscrowWritten",
    "EscrowsUnreachable",
    "EvidenceUnread",
    "Fact",
    "FilesLoaded",
    "FilesRefused",
    "FlightEnded",
    "FlightJoined",
    "FlightStarted",
    "GrantRevoked",
    "GuardMoved",
    "HistoryLost",
    "KeysRewrapped",
    "LeaseAnswered",
    "LeaseOutcome",
    "LeaseStanding",
    "LoopFailed",
    "MemoryDropped",
    "PastChanged",
    "ReauthBecameRequired",
    "RejectionReported",
    "RenewalEnded",
    "SealedValueUnreadable",
    "SettlementDelayed",
    "Source",
    "TokenServed",
    "WaitedForReplica",
    "WrittenBack",
]

Fact: TypeAlias = (
    TokenServed
    | FlightStarted
    | FlightJoined
    | FlightEnded
    | LeaseAnswered
    | WaitedForReplica
    | AttemptClaimed
    | AttemptSending
    | AttemptOverdue
    | AttemptAnswered
    | AttemptSettled
    | SettlementDelayed
    | EscrowWritten
    | EscrowAdopted
    | EscrowsUnreachable
    | ReauthBecameRequired
    | GrantRevoked
    | RejectionReported
    | BreakerMoved
    | GuardMoved
    | PastChanged
    | WrittenBack
    | EvidenceUnread
    | MemoryDropped
    | RenewalEnded
    | HistoryLost
    | LoopFailed
    | FilesLoaded
    | FilesRefused
    | SealedValueUnreadable
    | KeysRewrapped
    | DefectMet
)
