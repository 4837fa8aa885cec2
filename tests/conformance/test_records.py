"""What `ports.Records` promises, of the fake and of the real one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from broker.domain.disclosure import HandedOut
from broker.domain.grant import GrantState
from broker.domain.history import AttemptOutcome, AttemptRecord, GrantEvent
from broker.ports import Change, GrantStore, Recorded
from support.grants import THE_NOW, some_attempt, some_grant
from support.store_worlds import StoreWorld, put

AN_HOUR = timedelta(hours=1)
A_MOMENT = timedelta(seconds=10)
"""Longer than the suite needs from one statement to the next."""

GIVEN = HandedOut(
    tenant="acme",
    caller="sa:exporter",
    first_generation=7,
    last_generation=8,
    first_age=2 * AN_HOUR,
    last_age=AN_HOUR,
)


async def write_lines(store: GrantStore, number: int) -> None:
    """Settles an attempt of that number, with an event."""
    before = await put(store, some_grant())
    ended = AttemptRecord(
        tenant="acme",
        attempt=replace(some_attempt(), number=number),
        outcome=AttemptOutcome.ROTATED,
        ended_at=THE_NOW,
        http_status=200,
        duration=timedelta(seconds=1),
        generation_after=8,
    )
    event = GrantEvent(
        tenant="acme",
        actor="anna",
        call=f"call {number}",
        reason="a test",
        before=GrantState.ACTIVE,
        after=GrantState.REVOKED,
        generation=number,
    )
    assert await store.apply(before, Change(after=before.grant, ended=ended, event=event))


async def test_of_a_tenant_that_nobody_knows_nothing_is_on_record(world: StoreWorld) -> None:
    assert await world.records().about("acme", limit=20) == Recorded()


async def test_the_newest_lines_of_the_history_come_first(world: StoreWorld) -> None:
    for number in (1, 2, 3):
        await write_lines(world.grants(), number)

    recorded = await world.records().about("acme", limit=2)

    assert [each.attempt.number for each in recorded.attempts] == [3, 2]
    assert [each.event.call for each in recorded.events] == ["call 3", "call 2"]
    assert recorded.attempts[0].http_status == 200
    assert recorded.events[0].event.reason == "a test"
    assert recorded.key_id is not None


async def test_lines_of_another_tenant_are_not_told(world: StoreWorld) -> None:
    await write_lines(world.grants(), 1)
    await world.records().note_handed_out([GIVEN])

    assert await world.records().about("other", limit=20) == Recorded()


async def test_a_disclosure_is_kept_with_the_time_at_which_it_happened(world: StoreWorld) -> None:
    await world.records().note_handed_out([GIVEN])

    (kept,) = (await world.records().about("acme", limit=20)).disclosures
    assert (kept.caller, kept.first_generation, kept.last_generation) == ("sa:exporter", 7, 8)
    assert kept.last_at - kept.first_at == AN_HOUR


async def test_disclosures_of_one_caller_become_one_wider_row(world: StoreWorld) -> None:
    records = world.records()
    earlier = replace(GIVEN, first_generation=3, last_generation=3, last_age=2 * AN_HOUR)
    later = replace(GIVEN, first_generation=9, last_generation=9, first_age=A_MOMENT * 0)

    for note in (GIVEN, replace(later, last_age=A_MOMENT * 0), earlier, GIVEN):
        await records.note_handed_out([note])

    (kept,) = (await records.about("acme", limit=20)).disclosures
    assert (kept.first_generation, kept.last_generation) == (3, 9)
    assert abs(kept.last_at - kept.first_at - 2 * AN_HOUR) < A_MOMENT


async def test_who_was_given_a_token_last_comes_first(world: StoreWorld) -> None:
    notes = [
        replace(GIVEN, caller=f"sa:{hours}", first_age=AN_HOUR * hours, last_age=AN_HOUR * hours)
        for hours in (2, 1, 3)
    ]

    await world.records().note_handed_out(notes)

    told = (await world.records().about("acme", limit=2)).disclosures
    assert [each.caller for each in told] == ["sa:1", "sa:2"]
