"""Watching: the state at once, then every change, in order, however slowly somebody reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from broker.domain.errors import ReauthRequired, StoreUnavailable, TenantNotFound
from broker.domain.grant import GrantState, Reauth, ReauthCause
from broker.ports import GrantMoved
from broker.sandbox.faults import fail
from broker.service.messages import ServedToken
from broker.service.watch import State, Watch
from broker.service.watching import Watching
from support.grants import THE_NOW
from support.service import Fleet, Gate, Replica, fleet, running, seconds_gone
from support.virtual_time import in_virtual_time, let_others_run, pass_time

SILENCE = 15.0
A_LOOK = timedelta(seconds=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A replica, and what watches there."""

    ours: Fleet
    one: Replica
    watching: Watching

    def move(self, *, tells: bool = True, generation: int = 8) -> None:
        """Moves the grant on, past this replica."""
        self.ours.put(replace(self.ours.grant(), generation=generation))
        version = self.ours.world.rows["acme"].version
        if tells:
            self.ours.redis.publish(
                GrantMoved(tenant="acme", generation=generation, version=version)
            )


@asynccontextmanager
async def desk(ours: Fleet) -> AsyncIterator[Desk]:
    """Starts a replica that looks and listens."""
    one = ours.replica()

    async def look(tenant: str) -> ServedToken:
        return await one.get(tenant, budget=A_LOOK)

    watching = Watching(look)
    one.news.follow(watching)
    async with running(watching.run()), running(one.news.listen()):
        await let_others_run()
        yield Desk(ours=ours, one=one, watching=watching)


async def following(watch: Watch, *, within: float = 600.0) -> State:
    """Returns what is told next."""
    async for told in watch.changes(silence=within):
        if told is not None:
            return told.state
        break
    raise AssertionError("nothing is told")


async def is_silent(watch: Watch) -> bool:
    """Whether nothing is told for a while."""
    async for told in watch.changes(silence=SILENCE):
        return told is None
    return False


def generation(state: State) -> int:
    """Returns that of a token."""
    assert isinstance(state, ServedToken)
    return state.generation


@in_virtual_time
async def test_the_state_is_told_at_once_and_once() -> None:
    async with fleet() as ours, desk(ours) as at:
        ours.connect()
        with at.watching.watch() as watch:
            at.watching.subscribe(watch, "acme")

            assert generation(await following(watch)) == 7
            assert await is_silent(watch)


@in_virtual_time
async def test_a_rotation_elsewhere_is_told_when_it_is_announced() -> None:
    async with fleet() as ours, desk(ours) as at:
        ours.connect()
        with at.watching.watch() as watch:
            at.watching.subscribe(watch, "acme")
            await following(watch)

            at.move()

            assert generation(await following(watch)) == 8


@in_virtual_time
async def test_a_lost_announcement_is_made_up_for_by_the_poll() -> None:
    async with fleet() as ours, desk(ours) as at:
        ours.connect()
        await at.one.news.poll()
        with at.watching.watch() as watch:
            at.watching.subscribe(watch, "acme")
            await following(watch)

            at.move(tells=False)
            await at.one.news.poll()

            assert generation(await following(watch)) == 8


@in_virtual_time
async def test_a_watched_token_is_renewed_without_any_caller() -> None:
    async with fleet() as ours, desk(ours) as at:
        ours.connect(renew_at=THE_NOW + timedelta(minutes=8))
        with at.watching.watch() as watch:
            at.watching.subscribe(watch, "acme")
            await following(watch)

            assert generation(await following(watch)) == 8
            assert ours.counts().rotations == 1


@in_virtual_time
async def test_a_customer_who_must_reconnect_is_told_with_the_cause() -> None:
    async with fleet() as ours, desk(ours) as at:
        ours.connect()
        with at.watching.watch() as watch:
            at.watching.subscribe(watch, "acme")
            await following(watch)
            why = Reauth(cause=ReauthCause.EXPIRED_OR_REVOKED, since=THE_NOW, provider_error="")
            gone = replace(ours.grant(), state=GrantState.REAUTH_REQUIRED, reauth=why)

            ours.put(gone)
            at.move(generation=7)

            told = await following(watch)
            assert isinstance(told, ReauthRequired)
            assert told.metadata["cause"] == "EXPIRED_OR_REVOKED"


@in_virtual_time
async def test_an_unknown_tenant_is_watched_until_it_is_connected() -> None:
    async with fleet() as ours, desk(ours) as at:
        with at.watching.watch() as watch:
            at.watching.subscribe(watch, "acme")
            assert isinstance(await following(watch), TenantNotFound)

            ours.connect()
            at.move()

            assert generation(await following(watch)) == 8


@in_virtual_time
async def test_an_outage_that_is_over_is_noticed_without_news() -> None:
    async with fleet() as ours, desk(ours) as at:
        ours.connect()
        ours.world.fail_next("read")
        with at.watching.watch() as watch:
            at.watching.subscribe(watch, "acme")
            assert isinstance(await following(watch), StoreUnavailable)

            assert generation(await following(watch)) == 7


@in_virtual_time
async def test_a_slow_reader_is_told_the_latest_alone() -> None:
    async with fleet() as ours, desk(ours) as at:
        ours.connect()
        with at.watching.watch() as watch:
            at.watching.subscribe(watch, "acme")
            for newer in range(8, 12):
                at.move(generation=newer)
                await pass_time(1)

            assert generation(await following(watch)) == 11
            assert await is_silent(watch)


@in_virtual_time
async def test_spans_count_from_when_they_are_read() -> None:
    async with fleet() as ours, desk(ours) as at:
        ours.connect(renew_at=THE_NOW + timedelta(minutes=8))
        with at.watching.watch() as watch:
            at.watching.subscribe(watch, "acme")
            await pass_time(60)

            told = await following(watch)

            assert isinstance(told, ServedToken)
            assert told.reuse_until - told.reuse_for == THE_NOW + timedelta(seconds=60)


@in_virtual_time
async def test_who_comes_later_disturbs_nobody_who_was_told() -> None:
    async with fleet() as ours, desk(ours) as at:
        ours.connect()
        with at.watching.watch() as first, at.watching.watch() as second:
            at.watching.subscribe(first, "acme")
            await following(first)

            at.watching.subscribe(second, "acme")

            assert generation(await following(second)) == 7
            assert await is_silent(first)


@in_virtual_time
async def test_subscribing_again_tells_the_state_again() -> None:
    async with fleet() as ours, desk(ours) as at:
        ours.connect()
        with at.watching.watch() as watch:
            at.watching.subscribe(watch, "acme")
            await following(watch)

            at.watching.subscribe(watch, "acme")

            assert generation(await following(watch)) == 7


@in_virtual_time
async def test_who_unsubscribes_is_told_no_more() -> None:
    async with fleet() as ours, desk(ours) as at:
        ours.connect()
        with at.watching.watch() as watch:
            at.watching.subscribe(watch, "acme")
            await following(watch)
            at.watching.unsubscribe(watch, "acme")
            at.watching.unsubscribe(watch, "acme")

            at.move()

            assert await is_silent(watch)
            assert len(at.watching) == 0


@in_virtual_time
async def test_a_watcher_that_goes_leaves_nothing_behind() -> None:
    async with fleet() as ours, desk(ours) as at:
        ours.connect(renew_at=THE_NOW + timedelta(minutes=8))
        with at.watching.watch() as watch:
            at.watching.subscribe(watch, "acme")
            await following(watch)

        await pass_time(3600)

        assert (len(at.watching), ours.counts().presentations) == (0, 0)


@in_virtual_time
async def test_news_during_a_look_brings_another_look() -> None:
    async with fleet() as ours, desk(ours) as at:
        ours.connect()
        gate = Gate("read")
        ours.world.on_departure = gate
        with at.watching.watch() as watch:
            at.watching.subscribe(watch, "acme")
            await gate.reached.wait()
            at.move()
            await let_others_run()

            gate.open()
            await pass_time(1)

            assert generation(await following(watch, within=1)) == 8


@in_virtual_time
async def test_a_token_that_is_not_renewed_is_told_as_degraded() -> None:
    async with fleet() as ours, desk(ours) as at:
        ours.connect(renew_at=THE_NOW + timedelta(minutes=8))
        with at.watching.watch() as watch:
            at.watching.subscribe(watch, "acme")
            await following(watch)
            ours.world.fail_next("read")

            told = await following(watch)

            assert isinstance(told, ServedToken)
            assert (told.generation, told.is_degraded) == (7, True)


@in_virtual_time
async def test_after_missed_news_all_tenants_are_looked_at_within_five_seconds() -> None:
    async with fleet() as ours, desk(ours) as at:
        tenants = [f"tenant-{number}" for number in range(10)]
        for tenant in tenants:
            ours.connect(tenant=tenant)
        with at.watching.watch() as watch:
            for tenant in tenants:
                at.watching.subscribe(watch, tenant)
                await following(watch)
            for tenant in tenants:
                ours.put(replace(ours.grant(tenant), generation=8))

            at.one.memory.mark_all_stale()
            at.watching.all_moved()
            await pass_time(5)

            told = [generation(await following(watch, within=0)) for _ in tenants]
            assert told == [8] * 10


@in_virtual_time
async def test_a_drain_ends_every_watch_and_every_new_one() -> None:
    async with fleet() as ours, desk(ours) as at:
        with at.watching.watch() as watch:
            at.watching.drain()

            assert [told async for told in watch.changes(silence=SILENCE)] == []
        with at.watching.watch() as late:
            assert [told async for told in late.changes(silence=SILENCE)] == []


@in_virtual_time
async def test_what_is_subscribed_before_looking_begins_is_looked_at_then() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        watching = Watching(one.get)
        with watching.watch() as watch:
            watching.subscribe(watch, "acme")
            assert await is_silent(watch)

            async with running(watching.run()):
                assert generation(await following(watch)) == 7


@in_virtual_time
async def test_an_error_that_passed_before_it_was_read_is_not_told() -> None:
    watch = Watch()
    watch.expect("acme")
    async with fleet() as ours:
        ours.connect()
        token = await ours.replica().get()
    watch.tell("acme", token)
    assert await following(watch) == token

    watch.tell("acme", StoreUnavailable("away"))
    watch.tell("acme", token)

    assert await is_silent(watch)


@in_virtual_time
async def test_a_watch_that_fails_ends_and_says_why() -> None:
    watch = Watch()
    failure = StoreUnavailable("away")
    asyncio.get_running_loop().call_later(1, watch.fail, failure)

    assert [told async for told in watch.changes(silence=SILENCE)] == []
    assert watch.failure is failure


@in_virtual_time
async def test_a_look_that_is_a_defect_leaves_no_topic_behind() -> None:
    watching: Watching

    async def look(tenant: str) -> ServedToken:
        if tenant == "odd":
            # Comes when the look has ended, and before the others are cancelled for it.
            asyncio.get_running_loop().call_soon(watching.subscribe, watch, "acme")
            raise ValueError(tenant)
        return await one.get(tenant)

    async with fleet() as ours:
        ours.connect()
        one, watching = ours.replica(), Watching(look)
        with watching.watch() as watch:
            watching.subscribe(watch, "odd")
            with suppress(ExceptionGroup):
                await watching.run()
            watching.unsubscribe(watch, "odd")

            async with running(watching.run()):
                assert generation(await following(watch)) == 7


@in_virtual_time
async def test_news_while_looking_ends_raises_at_nobody() -> None:
    told: list[str] = []
    watching: Watching

    async def look(tenant: str) -> ServedToken:
        if tenant == "odd":
            raise ValueError(tenant)
        try:
            await asyncio.Event().wait()
            raise AssertionError(tenant)
        finally:
            watching.subscribe(watch, "late")
            told.append(tenant)

    watching = Watching(look)
    with watching.watch() as watch:
        watching.subscribe(watch, "acme")
        watching.subscribe(watch, "odd")
        with suppress(ExceptionGroup):
            await watching.run()

        assert told == ["acme"]


@in_virtual_time
async def test_news_that_may_have_been_missed_during_a_look_brings_another() -> None:
    async with fleet() as ours, desk(ours) as at:
        ours.connect()
        gate = Gate("read")
        ours.world.on_departure = gate
        with at.watching.watch() as first, at.watching.watch() as watch:
            at.watching.subscribe(first, "looked-at-before")
            at.watching.subscribe(watch, "acme")
            await gate.reached.wait()
            ours.put(replace(ours.grant(), generation=8))
            at.one.memory.mark_all_stale()
            at.watching.all_moved()

            gate.open()
            await pass_time(5)

            assert generation(await following(watch, within=1)) == 8


@in_virtual_time
async def test_during_an_outage_a_watched_tenant_costs_few_reads() -> None:
    async with fleet() as ours, desk(ours) as at:
        ours.connect(
            renew_at=THE_NOW + timedelta(seconds=10), expires_at=THE_NOW + timedelta(seconds=600)
        )
        ours.pleo.sandbox.faults.add(fail(), grant_type="refresh_token", times=1000)
        gate = Gate()
        ours.world.on_arrival = gate
        with at.watching.watch() as watch:
            at.watching.subscribe(watch, "acme")
            await pass_time(310)

        # Each rotation that is tried reads the row a few times besides.
        assert gate.calls.count("read") <= 300 / 5 + 40


@asynccontextmanager
async def crowd(watching: Watching, tenants: list[str]) -> AsyncIterator[Watch]:
    """Watches many tenants, each of which has been looked at."""
    with watching.watch() as watch:
        async with running(watching.run()):
            for tenant in tenants:
                watching.subscribe(watch, tenant)
            await pass_time(60)
            yield watch


@in_virtual_time
async def test_news_and_who_comes_go_before_looks_that_may_be_in_vain() -> None:
    looked: list[tuple[str, float]] = []

    async def look(tenant: str) -> ServedToken:
        looked.append((tenant, seconds_gone()))
        await pass_time(1)
        raise TenantNotFound(tenant=tenant)

    watching = Watching(look)
    async with crowd(watching, [f"tenant-{number}" for number in range(2000)]) as watch:
        watching.all_moved()
        await pass_time(4.5)
        since = seconds_gone()
        # Looked at already; waiting for a place; and not due yet.
        for number in (1, 1700, 1999):
            watching.moved(f"tenant-{number}")
        watching.subscribe(watch, "new")
        await pass_time(1.5)

        told = [tenant for tenant, at in looked if at >= since]

    assert set(told[:3]) == {"tenant-1", "tenant-1700", "tenant-1999"}
    assert told[3] == "new"
