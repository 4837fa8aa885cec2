"""PostgreSQL as one process reaches it: the fakes of `support`, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

from broker.domain.authorization import Authorization, Outcome
from broker.domain.errors import BrokerError, KeyUnavailable, StoreUnavailable
from broker.domain.evidence import Evidence
from broker.domain.fleet import FleetState
from broker.domain.grant import Grant
from broker.domain.history import FleetAct
from broker.domain.imports import Import
from broker.domain.secret import RefreshToken
from broker.ports import (
    AnsweredRefresh,
    Change,
    ChangesPage,
    FleetSnapshot,
    Guarded,
    ListQuery,
    Snapshot,
)
from broker.service.news import POLL_SECONDS
from simulation.commits import Commits
from simulation.guarding import GuardLaws
from simulation.process import Process
from simulation.quiet import Quiet, Silence
from simulation.weather import WRITES
from support.fake_fleet import FakeFleetStore
from support.fake_store import FakeConsentStore, FakeGrantStore
from support.fake_world import FakeWorld
from support.virtual_time import nap

T = TypeVar("T")

LATEST_COMMIT: Final = 5.0
"""Seconds after which a statement that lost its client is at its end: what the server lets one take
(`statement_timeout`)."""


async def ask(process: Process, method: str, work: Callable[[], Awaitable[T]]) -> T:
    """Asks PostgreSQL."""
    await process.step(f"{method}<", is_brief=method not in WRITES)
    try:
        process.weather.meet_postgres(process.slot, method, process.chance)
        answer = await work()
        await process.step(f"{method}>")
        process.weather.hear_postgres(process.slot, process.chance)
    except StoreUnavailable:
        process.troubled()
        if process.slot in process.weather.without_postgres:
            process.note_cut()
        raise
    except KeyUnavailable:
        process.note_cut()  # what it cannot seal it can hand to nobody
        raise
    return answer


async def _later(write: Callable[[], Awaitable[object]], delay: float) -> None:
    await nap(delay)
    with suppress(BrokerError):  # whoever would have to be told has gone
        await write()


@dataclass(frozen=True, slots=True, kw_only=True)
class WayToGrants:
    """Upholds `GrantStore`; every commit is judged."""

    process: Process
    inner: FakeGrantStore
    world: FakeWorld
    commits: Commits
    quiet: Silence
    elsewhere: asyncio.TaskGroup
    """Where PostgreSQL goes on with what nobody waits for any more."""

    past: list[str] = field(default_factory=list)
    """In which the last look was; nothing before the first."""

    async def read(self, tenant: str) -> Snapshot:
        return await ask(self.process, "read", lambda: self.inner.read(tenant))

    async def apply(self, before: Snapshot, change: Change) -> Snapshot | None:
        tenant = change.after.tenant

        async def write() -> Snapshot | None:
            row = self.world.rows.get(tenant)
            written = await self.inner.apply(before, change)
            if written is not None:
                earlier = row.grant if row else Grant(tenant=tenant)
                now = self.world.rows[tenant]
                self.commits.judge(self.process, earlier, now.grant)
                self.quiet.commits.stir()
                if row is None or row.changed != now.changed:
                    self.quiet.moves.stir()
            return written

        async def work() -> Snapshot | None:
            if self.process.chance.random() >= self.process.weather.committed_late:
                return await write()
            delay = self.process.chance.uniform(0.05, LATEST_COMMIT)
            self.elsewhere.create_task(_later(write, delay), name="a statement under way")
            raise StoreUnavailable("bad weather: nobody knows yet")

        return await ask(self.process, "apply", work)

    async def list_grants(self, query: ListQuery) -> Sequence[Grant]:
        return await ask(self.process, "list", lambda: self.inner.list_grants(query))

    async def changes(self, cursor: int) -> ChangesPage:
        is_news = any(row.changed >= cursor for row in self.world.rows.values())
        is_known = 0 <= cursor <= self.world.transaction and not is_news
        is_known = is_known and self.past == [self.world.live()]
        if is_known and not self.process.expects("changes<", "changes>"):
            await self.quiet.moves.pass_turns(POLL_SECONDS)
        live = self.world.live()
        page = await ask(self.process, "changes", lambda: self.inner.changes(cursor))
        # Only what was answered is known: a look that failed has seen nothing.
        self.past[:] = [live]
        return page

    async def note_used(self, tenants: Sequence[str]) -> None:
        await ask(self.process, "note_used", lambda: self.inner.note_used(tenants))


@dataclass(frozen=True, slots=True, kw_only=True)
class WayToFleet:
    """Upholds `FleetStore`."""

    process: Process
    inner: FakeFleetStore
    world: FakeWorld
    guard: GuardLaws
    quiet: Quiet
    polled: list[tuple[str, int]] = field(default_factory=list)
    """The past and the version that the loop has seen; nothing before its first look."""

    async def read(self) -> FleetSnapshot:
        if not self._is_a_poll():
            return await ask(self.process, "read fleet", self.inner.read)
        is_known = self.polled == [(self.world.live(), self.world.fleet_version)]
        snapshot = await ask(self.process, "read fleet", self.inner.read)
        if is_known and not self.process.expects("read fleet<", "read fleet>"):
            # What it was when it was asked for: who asks counts PostgreSQL's time from then. What
            # has stirred is seen at the next turn.
            await self.quiet.stirred()
        self.polled[:] = [(snapshot.live, snapshot.version)]
        return snapshot

    def _is_a_poll(self) -> bool:
        """Whether the loop asks that does nothing else; others want to know it now."""
        task = asyncio.current_task()
        return task is not None and task.get_name() == f"fleet of {self.process.name}"

    async def apply(self, before: FleetSnapshot, after: FleetState) -> FleetSnapshot | None:
        async def write() -> FleetSnapshot | None:
            earlier = self.world.fleet.guard
            written = await self.inner.apply(before, after)
            if written is not None:
                self.guard.moved(self.process, earlier, after.guard)
                self.quiet.stir()
            return written

        return await ask(self.process, "apply fleet", write)

    async def note(self, act: FleetAct) -> None:
        await ask(self.process, "note", lambda: self.inner.note(act))

    async def beat(self, replica: str, build: str) -> None:
        await ask(self.process, "beat", lambda: self.inner.beat(replica, build))

    async def weigh(self, answered: AnsweredRefresh) -> Evidence:
        return await ask(self.process, "weigh", lambda: self.inner.weigh(answered))

    async def tenants(self, which: Guarded, *, limit: int) -> Sequence[str]:
        return await ask(self.process, "tenants", lambda: self.inner.tenants(which, limit=limit))


@dataclass(frozen=True, slots=True, kw_only=True)
class WayToConsents:
    """Upholds `ConsentStore`."""

    process: Process
    inner: FakeConsentStore

    async def start(self, authorization: Authorization) -> None:
        await ask(self.process, "start", lambda: self.inner.start(authorization))

    async def find(self, state_hash: bytes) -> tuple[Authorization, datetime] | None:
        return await ask(self.process, "find state", lambda: self.inner.find(state_hash))

    async def spend(self, state_hash: bytes, outcome: Outcome) -> None:
        await ask(self.process, "spend", lambda: self.inner.spend(state_hash, outcome))

    async def find_import(self, fingerprint: bytes) -> Import | None:
        return await ask(self.process, "find import", lambda: self.inner.find_import(fingerprint))

    async def fingerprint(self, refresh_token: RefreshToken) -> bytes:
        return await ask(self.process, "fingerprint", lambda: self.inner.fingerprint(refresh_token))
