"""Notes of last use: batched, kept while PostgreSQL is away, none lost."""

from __future__ import annotations

import pytest

from broker.domain.errors import StoreUnavailable
from broker.service.usage import BATCH, Usage
from support.consent_service import desk
from support.fake_store import FakeGrantStore
from support.service import Gate, fleet, virtual_now
from support.virtual_time import in_virtual_time, pass_time


@in_virtual_time
async def test_a_note_is_written_with_the_time_of_its_batch() -> None:
    async with fleet() as ours:
        ours.connect()
        usage = Usage(FakeGrantStore(ours.world))

        usage.note("acme")
        usage.note("acme")
        assert len(usage) == 1
        await pass_time(7)
        await usage.flush()

        assert ours.grant().last_used_at == virtual_now()
        assert len(usage) == 0


@in_virtual_time
async def test_many_notes_are_written_in_several_statements() -> None:
    async with fleet() as ours:
        gate = ours.watch()
        usage = Usage(FakeGrantStore(ours.world))
        for number in range(2 * BATCH + 1):
            usage.note(f"tenant-{number}")

        await usage.flush()
        await usage.flush()

        assert gate.calls == ["note_used"] * 3


@in_virtual_time
async def test_notes_outlive_a_postgresql_that_is_away() -> None:
    async with fleet() as ours:
        ours.connect()
        usage = Usage(FakeGrantStore(ours.world))
        for number in range(BATCH):
            usage.note(f"tenant-{number}")
        usage.note("acme")
        ours.world.fail_next("note_used", times=2)

        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await usage.flush()
        assert len(usage) == BATCH + 1
        await usage.flush()

        assert (len(usage), ours.grant().last_used_at) == (0, virtual_now())


@in_virtual_time
async def test_what_is_noted_while_a_batch_is_written_comes_next() -> None:
    async with fleet() as ours:
        ours.connect()
        usage = Usage(FakeGrantStore(ours.world))
        usage.note("acme")
        ours.world.on_departure = gate = Gate("note_used")

        flush = ours.tasks.create_task(usage.flush(), name="a flush")
        await gate.reached.wait()
        usage.note("acme")
        usage.note("other")
        gate.open()
        await flush

        assert (len(usage), gate.calls) == (2, ["note_used"])


@in_virtual_time
async def test_a_broker_that_ends_writes_who_has_asked() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)
        await one.generation()

        await one.service.settled(patience=1)

        assert ours.grant().last_used_at == virtual_now()
