"""Upholds `ports.GrantStore`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import asyncpg

from broker.domain.errors import StoreUnavailable, SubjectAlreadyConnected
from broker.domain.grant import Attempt, AttemptPhase, Grant, GrantState, TokenPair, UnreadablePair
from broker.domain.past import Past
from broker.ports import Change, ChangesPage, GrantMoved, ListQuery, Snapshot
from broker.store.failures import refused_state
from broker.store.pairs import PAIR_COLUMNS, pair_of, seal_pair
from broker.store.past import LIVE, PAST_COLUMNS, past_of
from broker.store.pool import Pool
from broker.store.rows import PLAIN_COLUMNS, grant_of, values_of
from broker.store.sealing import Keyring
from broker.store.writes import GrantWrite, statement_of

# PostgreSQL's time is read in the same statement, and there is one also where there is no row.
_READ: Final = f"""
    SELECT {PLAIN_COLUMNS}, {PAIR_COLUMNS}, clock_timestamp() AS read_at, {PAST_COLUMNS}
    FROM (SELECT) AS one LEFT JOIN grants ON tenant = $1
"""

_LIST: Final = f"""
    SELECT {PLAIN_COLUMNS} FROM grants
    WHERE tenant > $1 AND state <> 'UNCONNECTED'
    AND (cardinality($2::text[]) = 0 OR state = ANY($2::text[]))
    AND ($3::timestamptz IS NULL OR updated_at > $3::timestamptz)
    AND ($5 OR tenant = ANY($6::text[])
        OR EXISTS (SELECT FROM unnest($7::text[]) AS prefix WHERE starts_with(tenant, prefix)))
    ORDER BY tenant LIMIT $4
"""

# Cursor and rows are of one snapshot. A transaction that is not in it has a higher id than its
# xmin or the same: nothing that commits late is left out.
_CHANGES: Final = f"""
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS cursor,
    {LIVE} AS live, tenant, generation, version
    FROM (SELECT) AS one
    LEFT JOIN grants ON $1::bigint >= 0 AND changed_xid >= greatest($1::bigint, 0)::text::xid8
"""

# Locked in one order, or two replicas that write the same tenants would wait for each other.
_NOTE_USED: Final = """
    WITH used AS (
        SELECT tenant FROM grants WHERE tenant = ANY($1::text[]) ORDER BY tenant
        FOR NO KEY UPDATE
    )
    UPDATE grants SET last_used_at = clock_timestamp() FROM used WHERE grants.tenant = used.tenant
"""

_CHECK_VIOLATION: Final = "23514"

_IMPORTED_ONCE: Final = "imports_once"

_EXCLUSIVE: Final = "grants_exclusive_subject"

_NOBODYS: Final = frozenset({GrantState.UNCONNECTED, GrantState.REVOKED})
"""States in which a grant keeps no other tenant from its company."""


class PostgresGrants:
    """The grants. Safe for any number of tasks at once."""

    def __init__(
        self,
        pool: Pool,
        keyring: Keyring,
        *,
        allow_shared_subject: bool,
        on_history_lost: Callable[[str, int, str], None],
    ) -> None:
        """`on_history_lost`: told the tenant, the attempt's number (0: none) and the SQLSTATE."""
        self._pool = pool
        self._keyring = keyring
        self._allow_shared_subject = allow_shared_subject
        self._on_history_lost = on_history_lost
        self._live = ""

    async def read(self, tenant: str) -> Snapshot:
        """Upholds the port."""
        (row,) = await self._pool.fetch(_READ, tenant)
        if row["version"] is None:
            return _snapshot(row, Grant(tenant=tenant), version=0)
        grant = grant_of(row, pair_of(self._keyring, row))
        return _snapshot(row, grant, version=row["version"])

    async def apply(self, before: Snapshot, change: Change) -> Snapshot | None:
        """Upholds the port."""
        if _is_armed_by(before.grant.attempt, change.after.attempt):
            # Before the token leaves: what could not be sealed afterwards would be lost (law 3).
            self._keyring.try_out()
        write = self._write_of(before, change)
        row = await self._written(write)
        if row is None:
            return None
        # Of these columns the row knows best: use is noted by others meanwhile.
        grant = replace(
            change.after,
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            last_used_at=row["last_used_at"],
        )
        return _snapshot(row, grant, version=row["version"])

    async def list_grants(self, query: ListQuery) -> Sequence[Grant]:
        """Upholds the port."""
        states = sorted(state.value for state in query.states)
        tenants = query.tenants
        rows = await self._pool.fetch(
            _LIST,
            query.after_tenant,
            states,
            query.updated_after,
            query.limit,
            tenants.are_all,
            sorted(tenants.literals),
            list(tenants.prefixes),
        )
        return [grant_of(row, None) for row in rows]

    async def changes(self, cursor: int) -> ChangesPage:
        """Upholds the port."""
        rows = await self._pool.fetch(_CHANGES, cursor)
        following: int = rows[0]["cursor"]
        moved = [
            GrantMoved(tenant=row["tenant"], generation=row["generation"], version=row["version"])
            for row in rows
            if row["tenant"] is not None
        ]
        live = rows[0]["live"]
        if not live:
            # A standby that lags behind has lost nothing; what it has not yet is told later.
            return ChangesPage(moved=moved, cursor=max(cursor, following), is_rewound=False)
        is_rewound = cursor >= 0 and self._has_another_past(live, following, cursor)
        self._live = live
        return ChangesPage(moved=moved, cursor=following, is_rewound=is_rewound)

    async def note_used(self, tenants: Sequence[str]) -> None:
        """Upholds the port."""
        await self._pool.fetch(_NOTE_USED, list(tenants))

    def _has_another_past(self, live: str, following: int, cursor: int) -> bool:
        # Ids that went back may have caught up before anybody looked; the timeline tells then.
        is_another = Past(live=live, known=self._live).is_another
        return following < cursor or is_another

    async def _written(self, write: GrantWrite, *, is_again: bool = False) -> asyncpg.Record | None:
        """Writes it, or as much of it as PostgreSQL takes: the grant comes before its history."""
        try:
            return await self._run(write)
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name == _IMPORTED_ONCE:
                return None  # what goes with the grant does not apply
            if error.constraint_name != _EXCLUSIVE:
                raise
            if write.is_consent:
                raise _already_connected(write) from None
            # A rotated pair is not lost over a company that became known only now (law 3).
            return await self._written(write.sharing_subject())
        except (asyncpg.PostgresError, asyncpg.DataError, StoreUnavailable) as error:
            state = refused_state(error)
            if state is None or not write.has_history:
                raise
            # The day's partition was being attached: the line was on its way to the default one,
            # which may not hold it any more. Nothing was written, and now it finds its way.
            if state == _CHECK_VIOLATION and not is_again:
                return await self._written(write, is_again=True)
        row = await self._written(write.without_history())
        if row is not None:
            self._on_history_lost(write.tenant, write.attempt_number, state)
        return row

    async def _run(self, write: GrantWrite) -> asyncpg.Record | None:
        statement = statement_of(write, keyring=self._keyring)
        rows = await self._pool.fetch(statement.text("SELECT * FROM written"), *statement.arguments)
        return rows[0] if rows else None

    def _write_of(self, before: Snapshot, change: Change) -> GrantWrite:
        after = change.after
        values = values_of(after)
        values["exclusive_subject"] = self._exclusive_subject(after)
        if before.version == 0 or after.pair != before.grant.pair:
            # What stays is not sealed anew: a pair that does not open could not be.
            values |= seal_pair(self._keyring, after.tenant, pair=_sealable(after.pair))
        return GrantWrite(
            tenant=after.tenant,
            version=before.version,
            live=before.past.live,
            values=values,
            is_consent=after.consent_attempt != before.grant.consent_attempt,
            ended=change.ended,
            event=change.event,
            beside=change.beside,
        )

    def _exclusive_subject(self, grant: Grant) -> str | None:
        if self._allow_shared_subject or grant.state in _NOBODYS:
            return None
        return grant.subject


def _snapshot(row: asyncpg.Record, grant: Grant, *, version: int) -> Snapshot:
    return Snapshot(grant=grant, version=version, read_at=row["read_at"], past=past_of(row))


def _is_armed_by(before: Attempt | None, after: Attempt | None) -> bool:
    return after is not None and after.phase is AttemptPhase.ARMED and after != before


def _sealable(pair: TokenPair | UnreadablePair | None) -> TokenPair | None:
    if isinstance(pair, UnreadablePair):
        raise ValueError("an unreadable pair can only stay where it is")  # noqa: TRY004 - a defect
    return pair


def _already_connected(write: GrantWrite) -> SubjectAlreadyConnected:
    return SubjectAlreadyConnected(tenant=write.tenant, subject=str(write.values["subject"]))
