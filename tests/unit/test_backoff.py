"""When a failed refresh is tried again: doubled, bounded, and when Pleo asks to wait, later."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.backoff import LONGEST, LONGEST_RETRY_AFTER, delay, next_failure
from broker.domain.grant import FailureKind, FailureRecord
from support.grants import THE_NOW

KIND = FailureKind.PROVIDER_UNAVAILABLE


def waited(count: int, *, retry_after: int | None = None, not_before: int | None = None) -> float:
    """Returns the seconds until the next try, after a failure that follows `count` others."""
    record = next_failure(
        FailureRecord(count=count),
        kind=KIND,
        code="http_429",
        now=THE_NOW,
        retry_after=None if retry_after is None else timedelta(seconds=retry_after),
        not_before=None if not_before is None else THE_NOW + timedelta(seconds=not_before),
    )
    assert record.next_try_at is not None
    return (record.next_try_at - THE_NOW).total_seconds()


@pytest.mark.parametrize(
    ("count", "seconds"),
    [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (12, 60), (1_000_000, 60)],
)
def test_pauses_double_from_a_second_to_a_minute(count: int, seconds: int) -> None:
    assert delay(count) == timedelta(seconds=seconds)


@given(count=st.integers(min_value=1, max_value=2**31))
def test_no_pause_is_shorter_than_the_one_before(count: int) -> None:
    assert delay(count) <= delay(count + 1) <= LONGEST


def test_a_failure_is_recorded_by_kind_code_and_count() -> None:
    before = FailureRecord(kind=FailureKind.OUTCOME_UNKNOWN, code="http_502", count=2)

    after = next_failure(before, kind=KIND, code="tls", now=THE_NOW)

    assert after == FailureRecord(
        kind=KIND, code="tls", count=3, next_try_at=THE_NOW + timedelta(seconds=4)
    )


@pytest.mark.parametrize(
    ("retry_after", "seconds"), [(None, 1), (0, 1), (1, 1), (2, 2), (600, 600), (601, 600)]
)
def test_pleo_may_ask_for_a_longer_pause_up_to_ten_minutes(
    retry_after: int | None, seconds: int
) -> None:
    assert waited(0, retry_after=retry_after) == seconds
    assert timedelta(minutes=10) == LONGEST_RETRY_AFTER


def test_pleo_may_not_ask_for_a_shorter_pause() -> None:
    assert waited(4, retry_after=3) == 16


@pytest.mark.parametrize(("not_before", "seconds"), [(-5, 1), (0, 1), (1, 1), (25, 25)])
def test_the_next_try_never_comes_before_an_attempts_deadline(
    not_before: int, seconds: int
) -> None:
    assert waited(0, not_before=not_before) == seconds


def test_a_deadline_is_not_cut_short_by_the_longest_pause() -> None:
    assert waited(0, not_before=3600, retry_after=700) == 3600
