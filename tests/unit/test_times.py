"""The times of an attempt fit into one another."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from broker.domain.times import DRAIN, SEND_BUDGET, AttemptTimes


def test_an_attempt_of_ten_seconds_is_over_after_thirty() -> None:
    times = AttemptTimes(http_timeout=timedelta(seconds=10))

    assert times.span == timedelta(seconds=30)
    assert times.answer_within == timedelta(seconds=28)
    assert times.quarantine == timedelta(seconds=20)


@given(seconds=st.integers(1, 300))
def test_an_answer_is_listened_for_beyond_the_timeout_and_settled_in_time(seconds: int) -> None:
    times = AttemptTimes(http_timeout=timedelta(seconds=seconds))

    assert SEND_BUDGET + times.http_timeout < times.answer_within < times.span
    assert times.quarantine >= times.http_timeout + DRAIN
