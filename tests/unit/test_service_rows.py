"""Rows: decide on what was read, and write only that; and two clocks tied together."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.decision import Changed, Unchanged, Why
from broker.domain.errors import StoreUnavailable
from broker.domain.grant import GrantState
from broker.ports import Snapshot, Spend, Unspend
from broker.service.rows import Act, BesideNotAppliedError, Proposal, Reading, Rows
from support.fake_store import FakeGrantStore
from support.grants import THE_NOW, some_grant
from support.service import TIMES, fleet, some_reading
from support.virtual_time import in_virtual_time, pass_time

AN_ACT = Act(actor="somebody", call="a call", reason="a reason")


def renaming(reading: Reading) -> Proposal:
    """Counts up something that every write can see."""
    grant = reading.grant
    return Proposal(decision=Changed(after=replace(grant, last_attempt=grant.last_attempt + 1)))


@in_virtual_time
async def test_a_write_is_decided_again_where_the_row_changed() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        stale = await one.rows.read("acme")
        ours.put(replace(ours.grant(), last_attempt=40))

        written = await one.rows.write(stale, renaming, AN_ACT)

        assert (written.not_allowed, written.reading.grant.last_attempt) == (None, 41)
        assert ours.grant().last_attempt == 41


class SplitStore(FakeGrantStore):
    """Behind a proxy that sends reads to a standby, and writes to the primary."""

    async def read(self, tenant: str) -> Snapshot:
        seen = await super().read(tenant)
        return replace(seen, past=replace(seen.past, live=""))


@in_virtual_time
async def test_a_row_that_only_a_standby_shows_is_not_tried_for_ever() -> None:
    async with fleet() as ours:
        ours.connect()
        rows = Rows(SplitStore(ours.world), TIMES)
        reading = await rows.read("acme")

        with pytest.raises(StoreUnavailable):
            await rows.write(reading, renaming, AN_ACT)


@in_virtual_time
async def test_a_write_that_is_not_allowed_asks_nobody() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        reading = await one.rows.read("acme")
        gate = ours.watch()

        def refuses(_: Reading) -> Proposal:
            return Proposal(decision=Unchanged(why=Why.STATE))

        written = await one.rows.write(reading, refuses, AN_ACT)

        assert (written.not_allowed, written.reading) == (Why.STATE, reading)
        assert gate.calls == []


@in_virtual_time
async def test_what_does_not_apply_beside_an_unchanged_row_is_told() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        reading = await one.rows.read("acme")
        gate = ours.watch()
        spend = Spend(state_hash=b"spent", code_hash=b"code", attempt_number=13)

        with pytest.raises(BesideNotAppliedError):
            await one.rows.write(reading, lambda r: replace(renaming(r), beside=spend), AN_ACT)

        assert gate.calls == ["apply", "read"]
        assert ours.grant().last_attempt == 12


@in_virtual_time
async def test_what_is_written_beside_a_changed_row_is_tried_again() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        stale = await one.rows.read("acme")
        ours.put(replace(ours.grant(), last_attempt=40))
        beside = Unspend(state_hash=b"any")

        written = await one.rows.write(stale, lambda r: replace(renaming(r), beside=beside), AN_ACT)

        assert written.reading.grant.last_attempt == 41


@pytest.mark.parametrize("is_administrative", [False, True])
@in_virtual_time
async def test_an_event_is_written_for_a_change_of_state_or_an_act(is_administrative: bool) -> None:  # noqa: FBT001 - of the table
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        act = replace(AN_ACT, is_administrative=is_administrative)

        written = await one.rows.write(await one.rows.read("acme"), renaming, act)
        await one.rows.write(written.reading, _ending, AN_ACT)

        assert [event.after for event in ours.world.events] == [GrantState.ACTIVE] * (
            is_administrative
        ) + [GrantState.REVOKED]
        assert {event.actor for event in ours.world.events} == {"somebody"}


@in_virtual_time
async def test_a_write_whose_fate_is_unknown_says_so() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        reading = await one.rows.read("acme")
        ours.world.fail_next("apply", when="departure")

        with pytest.raises(StoreUnavailable):
            await one.rows.write(reading, renaming, AN_ACT)


@in_virtual_time
async def test_two_clocks_are_never_taken_for_earlier_or_later_than_they_are() -> None:
    await pass_time(10)
    reading = some_reading(some_grant(), age=2.0)
    await pass_time(5)

    assert reading.now == THE_NOW + timedelta(seconds=8)
    assert reading.latest_now() == THE_NOW + timedelta(seconds=15)
    assert reading.earliest(12.0) == THE_NOW + timedelta(seconds=10)


def _ending(reading: Reading) -> Proposal:
    return Proposal(decision=Changed(after=replace(reading.grant, state=GrantState.REVOKED)))
