"""A Redis that dies, hangs, forgets, refuses or talks nonsense costs a refresh nothing but time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
import redis.asyncio

from broker.dev.embedded import EmbeddedServer
from broker.domain.facts import LeaseOutcome, LoopFailed
from broker.lease.announcements import RedisAnnouncements
from broker.lease.client import RedisClient
from broker.lease.leases import RedisLeases
from broker.lease.status import RedisStatus, probe
from broker.lease.times import LeaseTimes
from broker.ports import GrantMoved, Resubscribed
from support.proxy import Proxy, redis_proxy
from support.redis_worlds import PREFIX, QUICK, Notes, ask, listening, until_answered
from support.waiting import until

ACQUIRED, HELD, UNREACHABLE = LeaseOutcome

MOVED = GrantMoved(tenant="acme", generation=7)

LONG_PAUSE = LeaseTimes(pause=timedelta(minutes=1))

PATIENT = LeaseTimes(connect=timedelta(seconds=20), answer=timedelta(seconds=20))


@asynccontextmanager
async def leases_at(url: str, times: LeaseTimes = QUICK) -> AsyncIterator[RedisLeases]:
    async with RedisClient(lambda: url, times=times) as client:
        yield RedisLeases(client, prefix=PREFIX)


@asynccontextmanager
async def announcements_at(
    url: str, notes: Notes | None = None
) -> AsyncIterator[RedisAnnouncements]:
    async with RedisClient(lambda: url, times=QUICK, observer=notes) as client:
        yield RedisAnnouncements(client, prefix=PREFIX)


@pytest.fixture
async def through(redis_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    async with redis_proxy(redis_url) as (between, url):
        yield between, url


async def order(server: EmbeddedServer, command: str) -> None:
    """Sends a command to the server itself."""
    async with redis.asyncio.from_url(server.url) as client:
        execute: Callable[..., Awaitable[object]] = client.execute_command
        await execute(*command.split())


async def test_a_killed_server_is_unreachable_and_a_restarted_one_is_asked_again(
    own_valkey: EmbeddedServer,
) -> None:
    async with leases_at(own_valkey.url) as leases:
        async with leases.hold("acme") as outcome:
            await own_valkey.kill()
        assert outcome is ACQUIRED
        assert await ask(leases, "acme") is UNREACHABLE

        await own_valkey.start()
        await until_answered(leases, "acme", ACQUIRED)


async def test_a_server_restarted_between_two_leases_is_not_noticed(
    own_valkey: EmbeddedServer,
) -> None:
    async with leases_at(own_valkey.url, LONG_PAUSE) as leases:
        assert await ask(leases, "acme") is ACQUIRED
        await own_valkey.kill()
        await own_valkey.start()

        assert await ask(leases, "acme") is ACQUIRED


async def test_a_hanging_server_costs_one_caller_the_timeouts_and_the_next_nothing(
    through: tuple[Proxy, str],
) -> None:
    loop = asyncio.get_running_loop()
    between, url = through
    async with leases_at(url, LONG_PAUSE) as leases:
        between.hold()
        began = loop.time()

        assert await ask(leases, "acme") is UNREACHABLE
        assert 0.2 < loop.time() - began < 2
        accepted, began = between.accepted, loop.time()
        assert await ask(leases, "other") is UNREACHABLE
        assert loop.time() - began < 0.1
        assert between.accepted == accepted


async def test_a_server_that_begins_to_hang_while_a_lease_is_held_delays_its_end_a_little(
    through: tuple[Proxy, str],
) -> None:
    loop = asyncio.get_running_loop()
    between, url = through
    async with leases_at(url, LONG_PAUSE) as leases:
        async with leases.hold("acme"):
            between.hold()
            began = loop.time()

        assert loop.time() - began < 2


@pytest.mark.parametrize(
    ("worse", "well"),
    [
        pytest.param("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", id="OOM"),
        pytest.param("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", id="READONLY"),
        pytest.param("ACL SETUSER default -set", "ACL SETUSER default +set", id="NOPERM"),
    ],
)
async def test_a_server_that_refuses_leases_is_as_good_as_unreachable(
    own_valkey: EmbeddedServer, worse: str, well: str
) -> None:
    await order(own_valkey, worse)
    async with leases_at(own_valkey.url) as leases:
        assert await ask(leases, "acme") is UNREACHABLE

        await order(own_valkey, well)
        assert await ask(leases, "acme") is UNREACHABLE  # not asked: this is the pause
        await until_answered(leases, "acme", ACQUIRED)


async def test_a_lease_taken_on_a_connection_that_broke_is_its_takers(
    through: tuple[Proxy, str],
) -> None:
    between, url = through
    long = replace(QUICK, ttl=timedelta(minutes=1), pause=timedelta(milliseconds=10))
    async with leases_at(url, long) as leases, leases_at(url) as others:
        between.lose_answers(asked=b"\r\nSET\r\n", loss="cut")
        assert await ask(leases, "acme") is UNREACHABLE
        between.heal()

        assert await ask(others, "acme") is HELD
        await until_answered(leases, "acme", ACQUIRED)


async def test_connections_of_before_a_failure_are_not_trusted_after_it(
    through: tuple[Proxy, str],
) -> None:
    between, url = through
    async with leases_at(url) as leases:
        async with asyncio.TaskGroup() as herd:
            for number in range(5):
                herd.create_task(ask(leases, f"tenant-{number}"), name="herd")
        assert between.open_connections > 1
        between.hold()
        await ask(leases, "acme")
        between.heal()

        await until_answered(leases, "acme", ACQUIRED)
        await until(lambda: between.open_connections == 1)


async def test_a_herd_larger_than_the_pool_waits_for_its_turn(redis_url: str) -> None:
    async with leases_at(redis_url, PATIENT) as leases, asyncio.TaskGroup() as herd:
        asked = [
            herd.create_task(ask(leases, f"tenant-{number}"), name="herd") for number in range(200)
        ]

    assert {each.result() for each in asked} == {ACQUIRED}


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400\r\n\r\n", b":many\r\n", b"*1\r\n*x\r\n", b""])
async def test_a_server_that_talks_nonsense_is_unreachable(nonsense: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(nonsense)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server, leases_at(f"redis://{host}:{port}") as leases:
        assert await ask(leases, "acme") is UNREACHABLE


def with_password(server: EmbeddedServer, password: str) -> str:
    parts = urlsplit(server.url)
    return parts._replace(netloc=f":{password}@{parts.netloc}").geturl()


async def test_a_rotated_password_is_read_again_and_a_wrong_one_is_told_to_nobody(
    own_valkey: EmbeddedServer,
) -> None:
    passwords = ["hunter2"]
    notes = Notes([])
    await order(own_valkey, "CONFIG SET requirepass correct-horse")
    async with RedisClient(
        lambda: with_password(own_valkey, passwords[-1]), times=QUICK, observer=notes
    ) as client:
        leases = RedisLeases(client, prefix=PREFIX)
        assert await ask(leases, "acme") is UNREACHABLE

        passwords.append("correct-horse")
        await until_answered(leases, "acme", ACQUIRED)

    assert notes.facts == [LoopFailed(loop="redis", error="AuthenticationError")]


Deed = Callable[[RedisClient], Coroutine[None, None, object]]


async def hold_for_ever(client: RedisClient) -> None:
    async with RedisLeases(client, prefix=PREFIX).hold("acme"):
        await asyncio.Event().wait()


async def listen_for_ever(client: RedisClient) -> None:
    async for _ in RedisAnnouncements(client, prefix=PREFIX).listen():
        pass


async def announce_for_ever(client: RedisClient) -> None:
    while True:
        await RedisAnnouncements(client, prefix=PREFIX).announce(MOVED)


@pytest.mark.parametrize("deed", [hold_for_ever, listen_for_ever, announce_for_ever])
async def test_a_cancellation_at_any_moment_is_heeded(redis_url: str, deed: Deed) -> None:
    async with RedisClient(lambda: redis_url, times=QUICK) as client:
        for turns in range(100):
            task = asyncio.ensure_future(deed(client))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()

            done, _ = await asyncio.wait([task], timeout=5)
            assert done == {task}
            assert task.cancelled()
        assert await ask(RedisLeases(client, prefix="other:"), "acme") is ACQUIRED


async def test_a_listener_that_is_given_up_leaves_no_connection(through: tuple[Proxy, str]) -> None:
    between, url = through
    async with announcements_at(url) as announcements:
        async with listening(announcements):
            assert between.open_connections == 1

        await until(lambda: between.open_connections == 0)


async def test_a_subscription_that_has_gone_silent_is_given_up_within_two_pings(
    through: tuple[Proxy, str],
) -> None:
    loop = asyncio.get_running_loop()
    between, url = through
    notes = Notes([])
    async with announcements_at(url, notes) as announcements, listening(announcements) as ears:
        between.hold()
        began = loop.time()
        await until(lambda: bool(notes.facts))

        assert loop.time() - began < 2 * QUICK.ping.total_seconds() + 1
        assert notes.facts[0] == LoopFailed(loop="announcements", error="silent")
        between.heal()
        assert await ears.next() == Resubscribed()


async def test_a_quiet_subscription_that_lives_is_kept(through: tuple[Proxy, str]) -> None:
    between, url = through
    async with announcements_at(url) as announcements, listening(announcements) as ears:
        for _ in range(3):
            await asyncio.sleep(QUICK.ping.total_seconds())
        await announcements.announce(MOVED)

        assert await ears.next() == MOVED
        assert between.accepted == 2


async def test_a_listener_subscribes_again_when_the_server_is_back(
    own_valkey: EmbeddedServer,
) -> None:
    async with announcements_at(own_valkey.url) as announcements, listening(announcements) as ears:
        await own_valkey.kill()
        await own_valkey.start()

        assert await ears.next() == Resubscribed()


async def test_a_listener_without_redis_tries_less_and_less_often(
    through: tuple[Proxy, str],
) -> None:
    loop = asyncio.get_running_loop()
    between, url = through
    notes = Notes([])
    async with announcements_at(url, notes) as announcements, listening(announcements):
        began = loop.time()
        between.refuse()
        between.cut()
        await until(lambda: len(notes.facts) == 4)

        assert loop.time() - began > 0.02 + 0.04 + 0.08


async def test_what_is_no_announcement_is_noted_and_passed_over(redis_url: str) -> None:
    nonsense = [b"", b"{", b"\xff", b"[]", b'{"tenant": 1, "generation": "7"}', b"[" * 100_000]
    notes = Notes([])
    async with (
        announcements_at(redis_url, notes) as announcements,
        listening(announcements) as ears,
        redis.asyncio.from_url(redis_url) as stranger,
    ):
        for message in nonsense:
            await stranger.publish(f"{PREFIX}moved", message)
        await announcements.announce(MOVED)

        assert await ears.next() == MOVED
    malformed = LoopFailed(loop="announcements", error="malformed message")
    assert notes.facts == [malformed] * len(nonsense)


async def test_a_user_who_may_not_publish_still_gets_leases(own_valkey: EmbeddedServer) -> None:
    await order(own_valkey, "ACL SETUSER default resetchannels")
    async with RedisClient(lambda: own_valkey.url, times=LONG_PAUSE) as client:
        await RedisAnnouncements(client, prefix=PREFIX).announce(MOVED)

        assert await ask(RedisLeases(client, prefix=PREFIX), "acme") is ACQUIRED


async def test_a_probe_tells_whether_redis_evicts(own_valkey: EmbeddedServer) -> None:
    async with RedisClient(lambda: own_valkey.url, times=LONG_PAUSE) as client:
        assert await probe(client) == RedisStatus(is_reachable=True, maxmemory_policy="noeviction")

        await order(own_valkey, "CONFIG SET maxmemory-policy allkeys-lru")
        assert (await probe(client)).maxmemory_policy == "allkeys-lru"


async def test_a_probe_asks_also_during_a_pause(own_valkey: EmbeddedServer) -> None:
    async with RedisClient(lambda: own_valkey.url, times=LONG_PAUSE) as client:
        await own_valkey.kill()
        assert await ask(RedisLeases(client, prefix=PREFIX), "acme") is UNREACHABLE
        assert not (await probe(client)).is_reachable

        await own_valkey.start()
        assert (await probe(client)).is_reachable


async def test_a_probe_that_may_not_ask_knows_that_somebody_answered(
    own_valkey: EmbeddedServer,
) -> None:
    await order(own_valkey, "ACL SETUSER default -info")
    async with RedisClient(lambda: own_valkey.url, times=QUICK) as client:
        status = await probe(client)

    assert (status.is_reachable, status.is_refusing, status.maxmemory_policy) == (True, False, None)


async def test_what_is_left_of_a_lease_and_nothing_else_is_in_redis(redis_url: str) -> None:
    async with leases_at(redis_url) as leases, redis.asyncio.from_url(redis_url) as client:
        async with leases.hold("acme"):
            assert await client.keys() == [b"token-broker:test:lease:acme"]
            assert 0 < await client.pttl("token-broker:test:lease:acme") <= 400

        assert await client.keys() == []
