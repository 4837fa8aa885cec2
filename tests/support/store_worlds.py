"""A database, real or fake, with the same ways to look into it and to break it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import asyncpg

from broker.domain.authorization import Authorization
from broker.domain.errors import KeyUnavailable
from broker.domain.grant import Grant
from broker.domain.secret import CodeVerifier, Secret
from broker.ports import (
    Beside,
    Change,
    ConsentStore,
    FleetStore,
    GrantStore,
    Records,
    Renewals,
    Snapshot,
)
from broker.store.consents import PostgresConsents
from broker.store.fleet import PostgresFleet
from broker.store.grants import PostgresGrants
from broker.store.home import Home, settle_home
from broker.store.pool import Pool, PoolSettings, open_pool
from broker.store.records import PostgresRecords
from broker.store.renewals import PostgresRenewals
from broker.store.sealing import Keyring, Keyset, generate_keyset
from support.fake_fleet import FakeFleetStore
from support.fake_records import FakeRecords
from support.fake_renewals import FakeRenewals
from support.fake_store import FakeConsentStore, FakeGrantStore
from support.fake_world import FakeWorld
from support.grants import THE_NOW, some_grant
from support.pooler import Pooler, dismiss
from support.service_role import as_service_where_prepared

THE_HOME = Home(
    name="default",
    environment="custom",
    token_url="http://127.0.0.1:1/token",
    client_id="client",
)

A_COMPANY = "urn:pleo:company:00000000-0000-4000-8000-00000000000a"


class StoreWorld(Protocol):
    """What a conformance suite needs of a database."""

    lost_history: list[tuple[str, int]]
    """Tenant and attempt number of every line that was lost."""

    def grants(self, *, allow_shared_subject: bool = False) -> GrantStore:
        """Makes one more store of grants."""

    def consents(self) -> ConsentStore:
        """Makes one more store of consents."""

    def fleet(self) -> FleetStore:
        """Makes one more store of what the replicas share."""

    def renewals(self, *, keepalive: timedelta) -> Renewals:
        """Makes one more store of what is due."""

    def records(self) -> Records:
        """Makes one more store of what is on record."""

    async def silence(self, replica: str, *, since: timedelta) -> None:
        """Lets a replica's last sign of life be that long ago."""

    async def spoil(self, tenant: str, *, is_key_missing: bool) -> None:
        """Makes the pair of a tenant unreadable."""

    async def history(self) -> tuple[list[int], list[str]]:
        """Returns the numbers of settled attempts and the calls of events, as they came."""

    async def refuse_history(self) -> None:
        """Takes no lines of the history any more."""

    def break_sealing(self) -> None:
        """Lets nothing be sealed any more, by the stores there are."""


class FakeStoreWorld:
    """The fake."""

    def __init__(self) -> None:
        self.lost_history: list[tuple[str, int]] = []
        self._world = FakeWorld(now=_ticking().__next__)

    def grants(self, *, allow_shared_subject: bool = False) -> GrantStore:
        return FakeGrantStore(
            self._world,
            allow_shared_subject=allow_shared_subject,
            on_history_lost=lambda tenant, number, _: self.lost_history.append((tenant, number)),
        )

    def consents(self) -> ConsentStore:
        return FakeConsentStore(self._world)

    def fleet(self) -> FleetStore:
        return FakeFleetStore(self._world)

    def renewals(self, *, keepalive: timedelta) -> Renewals:
        return FakeRenewals(self._world, keepalive=keepalive)

    def records(self) -> Records:
        return FakeRecords(self._world)

    async def silence(self, replica: str, *, since: timedelta) -> None:
        build, _ = self._world.replicas[replica]
        self._world.replicas[replica] = (build, self._world.now() - since)

    async def spoil(self, tenant: str, *, is_key_missing: bool) -> None:
        self._world.unreadable[tenant] = is_key_missing

    async def history(self) -> tuple[list[int], list[str]]:
        attempts = [ended.attempt.number for ended in self._world.attempts]
        events = [event.call for event in self._world.events]
        return attempts, events + [act.call for act in self._world.acts]

    async def refuse_history(self) -> None:
        self._world.takes_history = False

    def break_sealing(self) -> None:
        self._world.seals = False


def _ticking() -> Iterator[datetime]:
    """Gives a clock that no two calls see at the same time."""
    now = THE_NOW
    while True:
        yield now
        now += timedelta(microseconds=1)


class BreakableKeyring(Keyring):
    """A keyring whose primary key can stop to seal."""

    seals = True

    def newest(self) -> Keyset:
        if not self.seals:
            raise KeyUnavailable("the test lets sealing fail")
        return super().newest()


class PostgresStoreWorld:
    """The real one."""

    def __init__(self, pool: Pool, serving: Pool, keyring: BreakableKeyring) -> None:
        """`pool`: of the owner. `serving`: of the role that the stores work as."""
        self.lost_history: list[tuple[str, int]] = []
        self.pool = pool
        self.serving = serving
        self.keyring = keyring

    def grants(self, *, allow_shared_subject: bool = False) -> PostgresGrants:
        return PostgresGrants(
            self.serving,
            self.keyring,
            allow_shared_subject=allow_shared_subject,
            on_history_lost=lambda tenant, number, _: self.lost_history.append((tenant, number)),
        )

    def consents(self) -> PostgresConsents:
        return PostgresConsents(self.serving, self.keyring)

    def fleet(self) -> PostgresFleet:
        return PostgresFleet(self.serving)

    def records(self) -> PostgresRecords:
        return PostgresRecords(self.serving)

    def renewals(self, *, keepalive: timedelta) -> PostgresRenewals:
        return PostgresRenewals(self.serving, keepalive=keepalive)

    async def silence(self, replica: str, *, since: timedelta) -> None:
        await self.pool.fetch(
            "UPDATE replicas SET seen_at = clock_timestamp() - $2::interval WHERE name = $1",
            replica,
            since,
        )

    async def spoil(self, tenant: str, *, is_key_missing: bool) -> None:
        change = (
            "key_id = 1"
            if is_key_missing
            else "sealed_refresh_token = sealed_refresh_token || '\\x00'::bytea"
        )
        await self.pool.fetch(f"UPDATE grants SET {change} WHERE tenant = $1", tenant)  # noqa: S608 - constants

    async def history(self) -> tuple[list[int], list[str]]:
        attempts = await self.pool.fetch("SELECT number FROM refresh_attempts ORDER BY ended_at")
        events = await self.pool.fetch("SELECT call FROM grant_events ORDER BY id")
        return [row[0] for row in attempts], [row[0] for row in events]

    async def refuse_history(self) -> None:
        for table in ("refresh_attempts", "grant_events"):
            await self.pool.fetch(f"ALTER TABLE {table} ADD CHECK (false) NOT VALID")

    def break_sealing(self) -> None:
        self.keyring.seals = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePlace:
    """Where a world lies. Without an address it is the fake."""

    url: str | None = None
    """Of the owner of a migrated database."""

    pooler: Pooler | None = None
    """What stands between it and the stores."""


@asynccontextmanager
async def postgres_world(
    url: str, folder: Path, *, pooler: Pooler | None = None
) -> AsyncIterator[PostgresStoreWorld]:
    """Opens a migrated database, with a keyset of its own."""
    path = folder / "keyset.json"
    path.write_text(generate_keyset())
    keyring = BreakableKeyring(path)
    serving_url = await as_service_where_prepared(url)
    if pooler is not None:
        serving_url = pooler.through(serving_url)
    async with (
        open_pool(PoolSettings(url=lambda: url)) as pool,
        open_pool(PoolSettings(url=lambda: serving_url)) as serving,
    ):
        await settle_home(serving, keyring, THE_HOME)
        yield PostgresStoreWorld(pool, serving, keyring)
    if pooler is not None:
        await dismiss(url)


@asynccontextmanager
async def store_world(place: StorePlace, folder: Path) -> AsyncIterator[StoreWorld]:
    """Opens the fake or the real one."""
    if place.url is None:
        yield FakeStoreWorld()
        return
    async with postgres_world(place.url, folder, pooler=place.pooler) as world:
        yield world


async def put(store: GrantStore, grant: Grant) -> Snapshot:
    """Writes a tenant's row whole, whatever is there; returns it as it was written."""
    return await change(store, await store.read(grant.tenant), grant)


async def change(
    store: GrantStore, before: Snapshot, after: Grant, *, beside: Beside | None = None
) -> Snapshot:
    """Writes a grant; fails where the row has moved on."""
    written = await store.apply(before, Change(after=after, beside=beside))
    assert written is not None, "the row has moved on"
    return written


async def put_some(store: GrantStore, *tenants: str) -> Sequence[Snapshot]:
    """Writes an ordinary grant for each of the tenants, of no company."""
    return [await put(store, some_grant(tenant=tenant, subject=None)) for tenant in tenants]


def some_authorization(now: datetime, state: bytes = b"state") -> Authorization:
    """Returns an authorization that was started now."""
    return Authorization(
        state_hash=state * 8,
        tenant="acme",
        session_binding_hash=b"binding" * 4,
        caller="spiffe://x/web",
        code_verifier=CodeVerifier(Secret("fake-verifier")),
        redirect_uri="https://app.example/callback",
        scopes=("accounts:read", "cards:read"),
        expected_subject=A_COMPANY,
        allow_subject_change=False,
        created_at=now,
        expires_at=now + timedelta(minutes=10),
    )


def as_written(snapshot: Snapshot, grant: Grant) -> Grant:
    """Returns the grant with what only the store sets."""
    written = snapshot.grant
    return replace(
        grant,
        created_at=written.created_at,
        updated_at=written.updated_at,
        last_used_at=written.last_used_at,
    )


async def until_sleeping(connection: asyncpg.Connection) -> None:
    """Waits until a statement that sleeps is at it."""
    async with asyncio.timeout(10):
        while not await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        ):
            await asyncio.sleep(0.01)
