"""A database that has become another one: when claims wait, and which rows are in doubt."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import pytest

from broker.domain.claims import is_blocked
from broker.domain.fleet import FleetState
from broker.domain.grant import Doubt, Grant
from broker.domain.past import Past, claims_from, in_doubt, noticed, rewound
from support.grants import A_TICK, THE_NOW, some_claimer, some_grant

SPAN: Final = timedelta(seconds=30)

CHANGED: Final = Past(live="two", known="two", since=THE_NOW)

UNNOTICED: Final = Past(live="two", known="one")


def counted(past: Past, *, written: datetime | None) -> Grant:
    grant = replace(some_grant(), updated_at=written)
    return in_doubt(grant, past, span=SPAN, now=THE_NOW + SPAN * 9)


def test_the_first_past_is_recorded_and_is_no_change() -> None:
    assert noticed(FleetState(), "one", THE_NOW) == FleetState(timeline="one")


def test_another_past_is_recorded_with_its_time() -> None:
    after = noticed(FleetState(timeline="one"), "two", THE_NOW)

    assert after == FleetState(timeline="two", timeline_since=THE_NOW)


@pytest.mark.parametrize("live", ["", "one"])
def test_the_same_past_and_a_standby_change_nothing(live: str) -> None:
    state = FleetState(timeline="one", timeline_since=THE_NOW)

    assert noticed(state, live, THE_NOW + SPAN) is state


@pytest.mark.parametrize(
    "past",
    [Past(), Past(live="one"), Past(live="one", known="one"), Past(known="one")],
    ids=["nothing known", "first start", "the same", "a standby"],
)
def test_claims_wait_for_nothing_where_nothing_changed(past: Past) -> None:
    assert claims_from(past, span=SPAN, now=THE_NOW) is None


def test_claims_wait_for_a_span_from_the_change() -> None:
    assert claims_from(CHANGED, span=SPAN, now=THE_NOW + SPAN - A_TICK) == THE_NOW + SPAN
    assert claims_from(CHANGED, span=SPAN, now=THE_NOW + SPAN) is None


def test_claims_do_not_wait_for_a_clock_that_has_gone_back_far() -> None:
    assert claims_from(CHANGED, span=SPAN, now=THE_NOW - SPAN) == THE_NOW + SPAN
    assert claims_from(CHANGED, span=SPAN, now=THE_NOW - SPAN - A_TICK) is None


def test_claims_wait_while_nobody_has_noted_the_change() -> None:
    assert claims_from(UNNOTICED, span=SPAN, now=THE_NOW) == THE_NOW + SPAN


@pytest.mark.parametrize(
    ("now", "is_waiting"), [(THE_NOW - A_TICK, True), (THE_NOW, False)], ids=["before", "then"]
)
def test_a_lost_attempt_blocks_as_a_live_one(now: datetime, *, is_waiting: bool) -> None:
    claimer = replace(some_claimer(), not_before=THE_NOW)

    assert is_blocked(some_grant(), claimer, now) is is_waiting


@pytest.mark.parametrize("written", [None, THE_NOW - SPAN, THE_NOW, THE_NOW + SPAN - A_TICK])
def test_a_row_not_written_since_counts_as_abandoned(written: datetime | None) -> None:
    row = counted(CHANGED, written=written)

    assert (row.doubt, row.last_attempt) == (Doubt.ABANDONED, int(THE_NOW.timestamp()))


def test_a_row_written_since_is_as_it_was() -> None:
    assert counted(CHANGED, written=THE_NOW + SPAN).doubt is Doubt.NONE


def test_every_row_counts_as_abandoned_while_nobody_has_noted_the_change() -> None:
    assert counted(UNNOTICED, written=THE_NOW + SPAN * 5).doubt is Doubt.ABANDONED


def test_without_a_change_no_row_is_in_doubt() -> None:
    assert counted(Past(live="one", known="one"), written=None).doubt is Doubt.NONE


def test_numbers_of_attempts_never_fall() -> None:
    grant = replace(some_grant(), last_attempt=9_000_000_000)

    row = in_doubt(grant, CHANGED, span=SPAN, now=THE_NOW)

    assert row.last_attempt == 9_000_000_000


def test_older_rows_under_the_same_name_are_a_change_too() -> None:
    state = FleetState(timeline="one", timeline_since=THE_NOW)

    assert rewound(state, THE_NOW + SPAN - A_TICK, noted_within=SPAN) is state
    assert rewound(state, THE_NOW + SPAN, noted_within=SPAN).timeline_since == THE_NOW + SPAN
