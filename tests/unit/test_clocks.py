"""What a row's times are worth when PostgreSQL's clock was set back, or ran ahead before."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.backoff import LONGEST_RETRY_AFTER, next_failure
from broker.domain.clocks import LONGEST_PAUSE, as_watched, is_out_of_reach, is_pausing
from broker.domain.grant import FailureKind, FailureRecord
from broker.domain.times import LONGEST_HTTP_TIMEOUT, LONGEST_SPAN, AttemptTimes
from support.grants import A_TICK, THE_NOW, some_attempt

SPANS = st.timedeltas(timedelta(0), LONGEST_SPAN)
ANY_TIME = st.timedeltas(timedelta(0), timedelta(days=1))


@given(http_timeout=st.timedeltas(timedelta(seconds=1), LONGEST_HTTP_TIMEOUT))
def test_while_the_clock_runs_no_attempt_is_out_of_reach(http_timeout: timedelta) -> None:
    deadline = THE_NOW + AttemptTimes(http_timeout=http_timeout).span

    assert not is_out_of_reach(some_attempt(deadline=deadline), THE_NOW)


def test_an_attempt_is_out_of_reach_beyond_the_longest_span() -> None:
    longest = THE_NOW + LONGEST_SPAN

    assert not is_out_of_reach(some_attempt(deadline=longest), THE_NOW)
    assert is_out_of_reach(some_attempt(deadline=longest + A_TICK), THE_NOW)


@given(span=SPANS, seen_after=SPANS, watched=ANY_TIME, set_back=ANY_TIME)
def test_a_watched_attempt_is_live_for_as_long_as_its_owner_is(
    *, span: timedelta, seen_after: timedelta, watched: timedelta, set_back: timedelta
) -> None:
    attempt = some_attempt(deadline=THE_NOW + span)
    since_its_beginning = seen_after + watched
    now = THE_NOW + since_its_beginning - set_back

    live = as_watched(attempt, now, watched=watched).is_live(now)

    assert live or since_its_beginning >= span
    assert not live or watched < LONGEST_SPAN


@given(span=SPANS, watched=SPANS)
def test_a_clock_that_is_right_again_ends_an_attempt_in_time(
    span: timedelta, watched: timedelta
) -> None:
    attempt = some_attempt(deadline=THE_NOW + span)

    assert as_watched(attempt, THE_NOW, watched=watched).deadline <= attempt.deadline


@given(set_back=ANY_TIME, watched=ANY_TIME)
def test_what_a_watcher_writes_is_within_reach_again(
    set_back: timedelta, watched: timedelta
) -> None:
    now = THE_NOW - set_back

    assert not is_out_of_reach(as_watched(some_attempt(), now, watched=watched), now)


@given(
    count=st.integers(0, 50),
    retry_after=st.timedeltas(timedelta(0), timedelta(days=1)),
    not_before=SPANS,
)
def test_every_pause_is_kept_to_its_end(
    count: int, retry_after: timedelta, not_before: timedelta
) -> None:
    failure = next_failure(
        FailureRecord(count=count),
        kind=FailureKind.OUTCOME_UNKNOWN,
        code="http_503",
        now=THE_NOW,
        not_before=THE_NOW + not_before,
        retry_after=retry_after,
    )

    assert failure.next_try_at is not None
    assert is_pausing(failure, THE_NOW)
    assert is_pausing(failure, failure.next_try_at - A_TICK)
    assert not is_pausing(failure, failure.next_try_at)


@pytest.mark.parametrize("ahead", [LONGEST_PAUSE + A_TICK, timedelta(days=1)])
def test_a_pause_longer_than_any_is_over(ahead: timedelta) -> None:
    assert not is_pausing(FailureRecord(next_try_at=THE_NOW + ahead), THE_NOW)
    assert ahead > LONGEST_RETRY_AFTER


def test_nothing_failed_is_no_pause() -> None:
    assert not is_pausing(FailureRecord(), THE_NOW)
