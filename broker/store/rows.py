"""The row of a grant: which column holds what, both ways, without the pair.

`created_at`, `updated_at`, `version` and `last_used_at` are the store's and are only read; the
sealed columns are in `pairs.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import asyncpg

from broker.domain.grant import (
    Attempt,
    AttemptKind,
    AttemptPhase,
    Doubt,
    FailureKind,
    FailureRecord,
    Grant,
    GrantState,
    Reauth,
    ReauthCause,
    RejectionRecord,
    ScopesSource,
    TokenPair,
    UnreadablePair,
)

Values: TypeAlias = Mapping[str, object]
"""Columns and what is written there."""

COLUMN_TYPES: Final[Mapping[str, str]] = {
    "state": "text",
    "generation": "bigint",
    "pair_attempt": "bigint",
    "pair_base": "bigint",
    "consent_attempt": "bigint",
    "last_attempt": "bigint",
    "attempt_number": "bigint",
    "attempt_id": "text",
    "attempt_kind": "text",
    "attempt_base": "bigint",
    "attempt_deadline": "timestamptz",
    "attempt_phase": "text",
    "attempt_started_at": "timestamptz",
    "attempt_replica": "text",
    "doubt": "smallint",
    "lifetime": "interval",
    "expires_at": "timestamptz",
    "renew_at": "timestamptz",
    "scopes": "text[]",
    "scopes_source": "text",
    "subject": "text",
    "import_fingerprint": "bytea",
    "reauth_cause": "text",
    "reauth_since": "timestamptz",
    "reauth_error": "text",
    "quarantined_until": "timestamptz",
    "failure_kind": "text",
    "failure_code": "text",
    "failure_count": "integer",
    "failure_next_try_at": "timestamptz",
    "rejection_generation": "bigint",
    "rejection_rotated_at": "timestamptz",
    "rejection_interval": "interval",
    "refreshed_at": "timestamptz",
    "revoked_at": "timestamptz",
    "exclusive_subject": "text",
    "pair_generation": "bigint",
    "sealed_access_token": "bytea",
    "sealed_refresh_token": "bytea",
    "token_type": "text",
    "key_id": "bigint",
}
"""What `apply` writes, with the types that PostgreSQL is told."""

PLAIN_COLUMNS: Final = (
    "tenant, version, state, generation, pair_attempt, pair_base, consent_attempt, last_attempt, "
    "attempt_number, attempt_id, attempt_kind, attempt_base, attempt_deadline, attempt_phase, "
    "attempt_started_at, attempt_replica, doubt, lifetime, expires_at, renew_at, scopes, "
    "scopes_source, subject, import_fingerprint, reauth_cause, reauth_since, reauth_error, "
    "quarantined_until, failure_kind, failure_code, failure_count, failure_next_try_at, "
    "rejection_generation, rejection_rotated_at, rejection_interval, refreshed_at, last_used_at, "
    "revoked_at, created_at, updated_at"
)
"""Everything that `grant_of` reads."""


def values_of(grant: Grant) -> dict[str, object]:
    """Returns what the columns of a grant hold, without its pair."""
    return {
        "state": grant.state.value,
        "generation": grant.generation,
        "pair_attempt": grant.pair_attempt,
        "pair_base": grant.pair_base,
        "consent_attempt": grant.consent_attempt,
        "last_attempt": grant.last_attempt,
        "doubt": int(grant.doubt),
        "lifetime": grant.lifetime,
        "expires_at": grant.expires_at,
        "renew_at": grant.renew_at,
        "scopes": list(grant.scopes),
        "scopes_source": grant.scopes_source.value,
        "subject": grant.subject,
        "import_fingerprint": grant.import_fingerprint,
        "refreshed_at": grant.refreshed_at,
        "revoked_at": grant.revoked_at,
        **_values_of_attempt(grant.attempt),
        **_values_of_troubles(grant),
    }


def _values_of_attempt(attempt: Attempt | None) -> dict[str, object]:
    return {
        "attempt_number": attempt and attempt.number,
        "attempt_id": attempt and attempt.attempt_id,
        "attempt_kind": attempt and attempt.kind.value,
        "attempt_base": attempt and attempt.base_generation,
        "attempt_deadline": attempt and attempt.deadline,
        "attempt_phase": attempt and attempt.phase.value,
        "attempt_started_at": attempt and attempt.started_at,
        "attempt_replica": attempt and attempt.replica,
    }


def _values_of_troubles(grant: Grant) -> dict[str, object]:
    reauth, failures, rejection = grant.reauth, grant.failures, grant.rejection
    return {
        "reauth_cause": reauth and reauth.cause.value,
        "reauth_since": reauth and reauth.since,
        "reauth_error": reauth and reauth.provider_error,
        "quarantined_until": grant.quarantined_until,
        "failure_kind": failures.kind.value,
        "failure_code": failures.code,
        "failure_count": failures.count,
        "failure_next_try_at": failures.next_try_at,
        "rejection_generation": rejection.generation,
        "rejection_rotated_at": rejection.rotated_at,
        "rejection_interval": rejection.interval,
    }


def grant_of(row: asyncpg.Record, pair: TokenPair | UnreadablePair | None) -> Grant:
    """Returns the grant of a row that has the `PLAIN_COLUMNS`."""
    return Grant(
        tenant=row["tenant"],
        state=GrantState(row["state"]),
        generation=row["generation"],
        pair=pair,
        pair_attempt=row["pair_attempt"],
        pair_base=row["pair_base"],
        consent_attempt=row["consent_attempt"],
        last_attempt=row["last_attempt"],
        attempt=_attempt_of(row),
        doubt=Doubt(row["doubt"]),
        lifetime=row["lifetime"],
        expires_at=row["expires_at"],
        renew_at=row["renew_at"],
        scopes=tuple(row["scopes"]),
        scopes_source=ScopesSource(row["scopes_source"]),
        subject=row["subject"],
        import_fingerprint=row["import_fingerprint"],
        reauth=_reauth_of(row),
        quarantined_until=row["quarantined_until"],
        failures=_failures_of(row),
        rejection=_rejection_of(row),
        refreshed_at=row["refreshed_at"],
        last_used_at=row["last_used_at"],
        revoked_at=row["revoked_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _attempt_of(row: asyncpg.Record) -> Attempt | None:
    if row["attempt_number"] is None:
        return None
    return Attempt(
        number=row["attempt_number"],
        attempt_id=row["attempt_id"],
        kind=AttemptKind(row["attempt_kind"]),
        base_generation=row["attempt_base"],
        deadline=row["attempt_deadline"],
        phase=AttemptPhase(row["attempt_phase"]),
        started_at=row["attempt_started_at"],
        replica=row["attempt_replica"],
    )


def _reauth_of(row: asyncpg.Record) -> Reauth | None:
    if row["reauth_cause"] is None:
        return None
    return Reauth(
        cause=ReauthCause(row["reauth_cause"]),
        since=row["reauth_since"],
        provider_error=row["reauth_error"],
    )


def _failures_of(row: asyncpg.Record) -> FailureRecord:
    return FailureRecord(
        kind=FailureKind(row["failure_kind"]),
        code=row["failure_code"],
        count=row["failure_count"],
        next_try_at=row["failure_next_try_at"],
    )


def _rejection_of(row: asyncpg.Record) -> RejectionRecord:
    return RejectionRecord(
        generation=row["rejection_generation"],
        rotated_at=row["rejection_rotated_at"],
        interval=row["rejection_interval"],
    )
