"""Leases and announcements through a real Sentinel, over a failover (law 6)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio

from broker.dev.rundir import RunDirectory
from broker.domain.escrow import Escrow
from broker.domain.facts import LeaseOutcome
from broker.lease.announcements import RedisAnnouncements
from broker.lease.client import RedisClient
from broker.lease.escrows import RedisEscrows
from broker.lease.leases import RedisLeases
from broker.lease.status import probe
from broker.ports import GrantMoved, Resubscribed
from broker.store.escrow_sealing import EscrowSealer
from broker.store.sealing import Keyring, generate_keyset
from support.fleet import until_true
from support.grants import some_attempt, some_issue
from support.redis_worlds import PREFIX, QUICK, ask, listening, until_answered
from support.sentinels import Watched, tell, watched_pair

MOVED = GrantMoved(tenant="acme", generation=7)


@pytest.fixture
async def pair(run: RunDirectory) -> AsyncIterator[Watched]:
    async with watched_pair(run) as made:
        yield made


async def test_leases_and_news_survive_the_masters_death(pair: Watched) -> None:
    async with RedisClient(lambda: pair.url, times=QUICK) as client:
        leases = RedisLeases(client, prefix=PREFIX)
        announcements = RedisAnnouncements(client, prefix=PREFIX)
        async with listening(announcements) as ears:
            assert await ask(leases, "acme") is LeaseOutcome.ACQUIRED
            await pair.master.kill()

            assert await ask(leases, "acme") is LeaseOutcome.UNREACHABLE
            await until_answered(leases, "acme", LeaseOutcome.ACQUIRED)
            await ears.until(Resubscribed())
            await announcements.announce(MOVED)
            await ears.until(MOVED)


async def test_a_kept_pair_that_was_copied_survives_the_masters_death(
    pair: Watched, tmp_path: Path
) -> None:
    path = tmp_path / "keyset.json"
    path.write_text(generate_keyset())
    sealer = EscrowSealer(Keyring.from_file(path))
    kept = Escrow(tenant="acme", attempt=some_attempt(), issued=some_issue())
    async with RedisClient(lambda: pair.url, times=QUICK) as client:
        escrows = RedisEscrows(client, sealer, prefix=PREFIX)
        assert await escrows.put(kept)
        async with redis.asyncio.from_url(pair.replica.url) as replica:

            async def is_copied() -> bool:
                return bool(await replica.keys())

            await until_true(is_copied)
        await pair.master.kill()

        async def is_found() -> bool:
            return await escrows.find("acme") == [kept] and await escrows.put(kept)

        await until_true(is_found)


async def test_the_probe_tells_of_the_master(pair: Watched) -> None:
    async with RedisClient(lambda: pair.url, times=QUICK) as client:
        status = await probe(client)

    assert (status.is_reachable, status.maxmemory_policy) == (True, "noeviction")


async def test_an_unknown_service_is_a_redis_that_is_away(pair: Watched) -> None:
    async with RedisClient(lambda: pair.url.replace("main-", "x"), times=QUICK) as client:
        assert not (await probe(client)).is_reachable


async def test_a_first_sentinel_that_is_gone_costs_nothing(pair: Watched) -> None:
    several = pair.url.replace("://", "://127.0.0.1:1,")

    async with RedisClient(lambda: several, times=QUICK) as client:
        assert await ask(RedisLeases(client, prefix=PREFIX), "acme") is LeaseOutcome.ACQUIRED


@pytest.mark.parametrize(("password", "is_reachable"), [("right", True), ("wrong", False)])
async def test_a_sentinel_that_asks_for_a_password_is_shown_it(
    pair: Watched, password: str, *, is_reachable: bool
) -> None:
    user = ("ACL", "SETUSER", "app", "on", ">right", "+@all", "~*", "&*")
    async with redis.asyncio.from_url(pair.master.url) as client:
        await tell(client, *user)
    async with redis.asyncio.from_url(pair.sentinel_url) as client:
        await tell(client, *user[:6], "&*")
        await tell(client, "ACL", "SETUSER", "default", "resetpass", ">other")

    url = pair.url.replace("://", f"://app:{password}@")
    async with RedisClient(lambda: url, times=QUICK) as ours:
        assert (await probe(ours)).is_reachable is is_reachable
