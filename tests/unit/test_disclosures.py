"""Who was given which tokens: batched, bounded, kept while PostgreSQL is away."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from broker.domain.disclosure import Disclosure
from broker.domain.errors import StoreUnavailable
from broker.domain.facts import LoopFailed
from broker.service.disclosures import BATCH, REPEAT_SECONDS, Disclosures
from support.consent_service import desk
from support.fake_records import FakeRecords
from support.service import Fleet, Gate, fleet, virtual_now
from support.virtual_time import in_virtual_time, let_others_run, pass_time

WEB, JOBS = "sa:web", "sa:jobs"


def disclosures_in(ours: Fleet, *, most_pending: int = 100) -> Disclosures:
    return Disclosures(FakeRecords(ours.world), most_pending=most_pending)


def given(ours: Fleet, caller: str = WEB) -> Disclosure:
    return ours.world.disclosures["acme", caller]


@in_virtual_time
async def test_first_and_last_generation_are_written_with_their_times() -> None:
    async with fleet() as ours:
        disclosures, began = disclosures_in(ours), virtual_now()

        for generation in (7, 7, 8):
            disclosures.note("acme", caller=WEB, generation=generation)
            await pass_time(10)
        await disclosures.flush()

        kept = given(ours)
        assert (kept.first_generation, kept.last_generation) == (7, 8)
        assert (kept.first_at - began, kept.last_at - began) == (
            timedelta(0),
            timedelta(seconds=20),
        )


@in_virtual_time
async def test_each_caller_of_a_tenant_has_a_row() -> None:
    async with fleet() as ours:
        disclosures = disclosures_in(ours)

        disclosures.note("acme", caller=WEB, generation=7)
        disclosures.note("acme", caller=JOBS, generation=8)
        assert len(disclosures) == 2
        await disclosures.flush()

        assert (given(ours, WEB).last_generation, given(ours, JOBS).last_generation) == (7, 8)
        assert len(disclosures) == 0


@in_virtual_time
async def test_the_same_generation_again_is_nothing_to_write() -> None:
    async with fleet() as ours:
        gate, disclosures = ours.watch(), disclosures_in(ours)
        disclosures.note("acme", caller=WEB, generation=7)
        await disclosures.flush()

        disclosures.note("acme", caller=WEB, generation=7)
        await disclosures.flush()

        assert gate.calls == ["note_handed_out"]


@in_virtual_time
async def test_a_generation_that_is_asked_for_on_and_on_is_noted_again_after_a_while() -> None:
    async with fleet() as ours:
        disclosures = disclosures_in(ours)
        disclosures.note("acme", caller=WEB, generation=7)
        await pass_time(REPEAT_SECONDS + 1)
        await disclosures.flush()

        disclosures.note("acme", caller=WEB, generation=7)
        await disclosures.flush()

        assert given(ours).last_at == virtual_now()
        assert given(ours).first_at < virtual_now()


@in_virtual_time
async def test_what_postgresql_does_not_take_is_kept_and_grows_together() -> None:
    async with fleet() as ours:
        disclosures, began = disclosures_in(ours), virtual_now()
        disclosures.note("acme", caller=WEB, generation=7)
        ours.world.fail_next("note_handed_out", times=2)

        for generation in (8, 9):
            with pytest.raises(StoreUnavailable):
                await disclosures.flush()
            await pass_time(60)
            disclosures.note("acme", caller=WEB, generation=generation)
        assert len(disclosures) == 1
        await disclosures.flush()

        kept = given(ours)
        assert (kept.first_generation, kept.last_generation, kept.first_at) == (7, 9, began)


@in_virtual_time
async def test_what_is_noted_while_a_batch_is_refused_is_not_lost() -> None:
    async with fleet() as ours:
        disclosures = disclosures_in(ours)
        disclosures.note("acme", caller=WEB, generation=7)
        gate = ours.watch("note_handed_out")
        ours.world.fail_next("note_handed_out")

        flush = ours.tasks.create_task(failing_flush(disclosures), name="a flush")
        await gate.reached.wait()
        disclosures.note("acme", caller=WEB, generation=8)
        gate.open()
        await flush
        await disclosures.flush()

        assert (given(ours).first_generation, given(ours).last_generation) == (7, 8)


async def failing_flush(disclosures: Disclosures) -> None:
    with pytest.raises(StoreUnavailable):
        await disclosures.flush()


@in_virtual_time
async def test_many_are_written_in_several_statements() -> None:
    async with fleet() as ours:
        gate, disclosures = ours.watch(), disclosures_in(ours, most_pending=3 * BATCH)
        for number in range(2 * BATCH + 1):
            disclosures.note(f"tenant-{number}", caller=WEB, generation=1)

        await disclosures.flush()

        assert gate.calls == ["note_handed_out"] * 3
        assert len(ours.world.disclosures) == 2 * BATCH + 1


@in_virtual_time
async def test_memory_is_bounded_and_what_finds_no_room_is_counted() -> None:
    async with fleet() as ours:
        disclosures = disclosures_in(ours, most_pending=2)

        for tenant in ("one", "two", "three", "two"):
            disclosures.note(tenant, caller=WEB, generation=1)

        assert (len(disclosures), disclosures.lost) == (2, 1)


@in_virtual_time
async def test_what_is_only_remembered_to_spare_work_is_bounded_too() -> None:
    async with fleet() as ours:
        disclosures = disclosures_in(ours, most_pending=2)
        for tenant in ("one", "two", "three"):
            disclosures.note(tenant, caller=WEB, generation=1)
            await disclosures.flush()

        disclosures.note("one", caller=WEB, generation=1)

        assert (len(disclosures), disclosures.lost) == (1, 0)


@in_virtual_time
async def test_a_broker_that_ends_writes_what_it_has_handed_out() -> None:
    async with fleet() as ours:
        one = desk(ours)
        one.service.broker.note_handed_out("acme", caller=WEB, generation=7)

        await one.service.settled(patience=1)

        assert given(ours).last_generation == 7


@in_virtual_time
async def test_a_broker_that_ends_without_postgresql_says_what_is_lost() -> None:
    async with fleet() as ours:
        one = desk(ours)
        one.service.broker.note_handed_out("acme", caller=WEB, generation=7)
        ours.world.fail_next("note_handed_out")

        await one.service.settled(patience=1)

        assert one.told.of(LoopFailed) == [
            LoopFailed(loop="disclosures", error="STORE_UNAVAILABLE")
        ]


@in_virtual_time
async def test_an_acknowledgement_that_is_lost_doubles_nothing() -> None:
    async with fleet() as ours:
        disclosures = disclosures_in(ours)
        disclosures.note("acme", caller=WEB, generation=7)
        ours.world.fail_next("note_handed_out", when="departure")

        with pytest.raises(StoreUnavailable):
            await disclosures.flush()
        await disclosures.flush()

        assert (given(ours).first_generation, len(disclosures)) == (7, 0)


@in_virtual_time
async def test_what_a_cancelled_batch_had_is_written_before_the_end() -> None:
    async with fleet() as ours:
        disclosures, gate = disclosures_in(ours), Gate("note_handed_out")
        ours.world.on_arrival = gate
        disclosures.note("acme", caller=WEB, generation=7)
        loop = asyncio.ensure_future(disclosures.flush())
        await gate.reached.wait()
        last = asyncio.ensure_future(disclosures.flush())
        await let_others_run()

        assert not last.done()
        loop.cancel()
        gate.open()
        await last

        assert given(ours).last_generation == 7
