"""Fakes of `GrantStore` and `ConsentStore`. They pass the conformance suites of the real ones."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, assert_never

from broker.domain.authorization import Authorization, Outcome
from broker.domain.errors import SubjectAlreadyConnected
from broker.domain.grant import AttemptPhase, Grant, GrantState, TokenPair, UnreadablePair
from broker.domain.imports import Import
from broker.domain.past import Past
from broker.domain.secret import RefreshToken
from broker.ports import (
    Beside,
    Change,
    ChangesPage,
    Conclude,
    GrantMoved,
    ListQuery,
    PutImport,
    Snapshot,
    Spend,
    Unspend,
)
from support.fake_world import FakeRow, FakeWorld

A_FAKE_KEY_ID: Final = 4242
"""What an unreadable pair says that it is sealed under."""

A_REFUSAL: Final = "23514"
"""The SQLSTATE with which a world refuses its history: a violated check."""

_NOBODYS: Final = (GrantState.UNCONNECTED, GrantState.REVOKED)


def _ignore_lost_history(_tenant: str, _number: int, _sqlstate: str) -> None:
    """For tests that are about something else."""


class FakeGrantStore:
    """Upholds `GrantStore`."""

    def __init__(
        self,
        world: FakeWorld,
        *,
        allow_shared_subject: bool = False,
        on_history_lost: Callable[[str, int, str], None] = _ignore_lost_history,
    ) -> None:
        self._world = world
        self._allow_shared_subject = allow_shared_subject
        self._on_history_lost = on_history_lost
        self._live = ""

    async def read(self, tenant: str) -> Snapshot:
        await self._world.arrive("read", tenant)
        row = self._world.rows.get(tenant)
        seen = Snapshot(
            grant=self._as_read(row.grant) if row else Grant(tenant=tenant),
            version=row.version if row else 0,
            read_at=self._world.now(),
            past=self._world.past(),
        )
        await self._world.depart("read", tenant)
        return seen

    async def apply(self, before: Snapshot, change: Change) -> Snapshot | None:
        tenant = change.after.tenant
        await self._world.arrive("apply", tenant)
        row = self._world.rows.get(tenant)
        is_current = before.version == (row.version if row else 0)
        is_current = is_current and before.past.live == self._world.live()
        self._seal_what_must_be(before, change)
        written = None
        if is_current and self._applies(change.beside):
            written = self._write(before, change, row)
        await self._world.depart("apply", tenant)
        return written

    async def list_grants(self, query: ListQuery) -> Sequence[Grant]:
        await self._world.arrive("list_grants")
        rows = sorted(self._world.rows.values(), key=lambda row: row.grant.tenant)
        page = [replace(row.grant, pair=None) for row in rows if _is_asked_for(row.grant, query)]
        await self._world.depart("list_grants")
        return page[: query.limit]

    async def changes(self, cursor: int) -> ChangesPage:
        await self._world.arrive("changes")
        is_another = Past(live=self._world.live(), known=self._live).is_another
        self._live = self._world.live()
        page = ChangesPage(
            moved=[
                GrantMoved(tenant=tenant, generation=row.grant.generation, version=row.version)
                for tenant, row in self._world.rows.items()
                if 0 <= cursor <= row.changed
            ],
            cursor=self._world.transaction,
            is_rewound=cursor >= 0 and (is_another or self._world.transaction < cursor),
        )
        await self._world.depart("changes")
        return page

    async def note_used(self, tenants: Sequence[str]) -> None:
        await self._world.arrive("note_used")
        for tenant in tenants:
            if row := self._world.rows.get(tenant):
                used = replace(row.grant, last_used_at=self._world.now())
                self._world.rows[tenant] = replace(row, grant=used)
        await self._world.depart("note_used")

    def _as_read(self, grant: Grant) -> Grant:
        is_key_missing = self._world.unreadable.get(grant.tenant)
        if grant.pair is None or is_key_missing is None:
            return grant
        pair = UnreadablePair(
            generation=grant.pair.generation,
            key_id=A_FAKE_KEY_ID,
            is_key_missing=is_key_missing,
        )
        return replace(grant, pair=pair)

    def _seal_what_must_be(self, before: Snapshot, change: Change) -> None:
        after, attempt = change.after, change.after.attempt
        is_armed = attempt is not None and attempt.phase is AttemptPhase.ARMED
        if is_armed and attempt != before.grant.attempt:
            self._world.seal(after.tenant)
        if after.pair != before.grant.pair and after.pair is not None:
            if isinstance(after.pair, UnreadablePair):
                raise ValueError("an unreadable pair can only stay where it is")
            self._world.seal(after.tenant)
        if isinstance(change.beside, PutImport) and change.beside.record.refresh_token is not None:
            self._world.seal(after.tenant)

    def _applies(self, beside: Beside | None) -> bool:
        if isinstance(beside, PutImport):
            known = _import_of(self._world, beside.record.fingerprint)
            return known is None or known.tenant == beside.record.tenant
        if not isinstance(beside, Spend):
            return True
        authorization = self._world.authorizations.get(beside.state_hash)
        return authorization is not None and authorization.spent_at is None

    def _write(self, before: Snapshot, change: Change, row: FakeRow | None) -> Snapshot:
        world, tenant, now = self._world, change.after.tenant, self._world.now()
        exclusive_subject = self._exclusive_subject(before, change.after)
        transaction = world.begin()
        grant = replace(
            change.after,
            created_at=row.grant.created_at if row else now,
            updated_at=now,
            last_used_at=row.grant.last_used_at if row else None,
        )
        is_moved = row is None or _told(row.grant) != _told(grant)
        world.rows[tenant] = FakeRow(
            grant=replace(grant, pair=self._stored_pair(before, change.after, row)),
            version=before.version + 1,
            changed=transaction if is_moved or row is None else row.changed,
            exclusive_subject=exclusive_subject,
        )
        self._write_beside(change.beside, now)
        self._write_history(change)
        return Snapshot(
            grant=grant, version=before.version + 1, read_at=now, past=self._world.past()
        )

    def _stored_pair(
        self, before: Snapshot, after: Grant, row: FakeRow | None
    ) -> TokenPair | UnreadablePair | None:
        if row is not None and after.pair == before.grant.pair:
            return row.grant.pair
        self._world.unreadable.pop(after.tenant, None)
        return after.pair

    def _exclusive_subject(self, before: Snapshot, after: Grant) -> str | None:
        if self._allow_shared_subject or after.state in _NOBODYS or after.subject is None:
            return None
        others = (row for tenant, row in self._world.rows.items() if tenant != after.tenant)
        if all(row.exclusive_subject != after.subject for row in others):
            return after.subject
        if after.consent_attempt != before.grant.consent_attempt:
            raise SubjectAlreadyConnected(tenant=after.tenant, subject=after.subject)
        return None

    def _write_beside(self, beside: Beside | None, now: datetime) -> None:
        match beside:
            case Spend():
                _change_authorization(
                    self._world,
                    beside.state_hash,
                    lambda known: replace(
                        known,
                        spent_at=now,
                        code_hash=beside.code_hash,
                        attempt_number=beside.attempt_number,
                    ),
                )
            case Unspend():
                _change_authorization(self._world, beside.state_hash, _unspent)
            case Conclude():
                _change_authorization(
                    self._world,
                    beside.state_hash,
                    lambda known: replace(known, outcome=beside.outcome, code_verifier=None),
                )
            case PutImport(record=record):
                _put_import(self._world, record, now)
            case None:
                pass
            case _:
                assert_never(beside)

    def _write_history(self, change: Change) -> None:
        if change.ended is None and change.event is None:
            return
        if not self._world.takes_history:
            number = change.ended.attempt.number if change.ended else 0
            self._on_history_lost(change.after.tenant, number, A_REFUSAL)
            return
        self._world.attempts += [change.ended] if change.ended else []
        self._world.events += [change.event] if change.event else []


class FakeConsentStore:
    """Upholds `ConsentStore`."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world

    async def start(self, authorization: Authorization) -> None:
        await self._world.arrive("start", authorization.tenant)
        self._world.seal(authorization.tenant)
        oldest = self._world.now() - timedelta(days=1)
        over = [
            state for state, row in self._world.authorizations.items() if row.expires_at < oldest
        ]
        for state in over:
            del self._world.authorizations[state]
        self._world.authorizations[authorization.state_hash] = authorization
        await self._world.depart("start", authorization.tenant)

    async def find(self, state_hash: bytes) -> tuple[Authorization, datetime] | None:
        await self._world.arrive("find")
        authorization = self._world.authorizations.get(state_hash)
        found = None if authorization is None else (authorization, self._world.now())
        await self._world.depart("find")
        return found

    async def spend(self, state_hash: bytes, outcome: Outcome) -> None:
        await self._world.arrive("spend")
        authorization = self._world.authorizations.get(state_hash)
        if authorization is not None and authorization.spent_at is None:
            self._world.authorizations[state_hash] = replace(
                authorization, spent_at=self._world.now(), outcome=outcome, code_verifier=None
            )
        await self._world.depart("spend")

    async def find_import(self, fingerprint: bytes) -> Import | None:
        await self._world.arrive("find_import")
        found = _import_of(self._world, fingerprint)
        await self._world.depart("find_import")
        return found

    async def fingerprint(self, refresh_token: RefreshToken) -> bytes:
        await self._world.arrive("fingerprint")
        await self._world.depart("fingerprint")
        return hmac.digest(b"the world's key", refresh_token.reveal().encode(), "sha256")


def _is_asked_for(grant: Grant, query: ListQuery) -> bool:
    is_newer = query.updated_after is None or (
        grant.updated_at is not None and grant.updated_at > query.updated_after
    )
    is_shown = grant.state is not GrantState.UNCONNECTED
    is_wanted = not query.states or grant.state in query.states
    is_seen = grant.tenant > query.after_tenant and grant.tenant in query.tenants
    return is_newer and is_shown and is_wanted and is_seen


def _told(grant: Grant) -> tuple[GrantState, int, int]:
    return grant.state, grant.generation, grant.rejection.generation


def _change_authorization(
    world: FakeWorld, state_hash: bytes, change: Callable[[Authorization], Authorization]
) -> None:
    known = world.authorizations.get(state_hash)
    if known is not None:
        world.authorizations[state_hash] = change(known)


def _unspent(known: Authorization) -> Authorization:
    if known.outcome is not None:
        return known
    return replace(known, spent_at=None, code_hash=None, attempt_number=None)


def _import_of(world: FakeWorld, fingerprint: bytes) -> Import | None:
    found = (each for (_, known), each in world.imports.items() if known == fingerprint)
    return next(found, None)


def _put_import(world: FakeWorld, record: Import, now: datetime) -> None:
    key = (record.tenant, record.fingerprint)
    earlier = world.imports.get(key)
    world.imports[key] = replace(record, created_at=earlier.created_at if earlier else now)
