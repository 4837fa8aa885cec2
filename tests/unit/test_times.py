"""The times of an attempt fit into one another."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from broker.config import Settings
from broker.domain.times import DRAIN, SEND_BUDGET, AttemptTimes
from broker.lease.times import LeaseTimes, lease_times
from broker.service.settle import FIRST_PAUSE, LONGEST_PAUSE
from broker.store.pool import LONGEST_CALL_SECONDS


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


@given(seconds=st.integers(1, 300))
def test_an_attempt_and_another_after_its_quarantine_are_waited_for(seconds: int) -> None:
    times = AttemptTimes(http_timeout=timedelta(seconds=seconds))

    # The quarantine lies within the claim's own span, or there would be nothing left to arm.
    assert times.quarantine < times.span
    assert times.longest_wait >= times.quarantine + times.span


@given(seconds=st.integers(1, 300))
def test_a_living_holder_has_three_tries_within_any_quarantine(seconds: int) -> None:
    times = AttemptTimes(http_timeout=timedelta(seconds=seconds))
    redis = lease_times(times)

    # A try that hangs as long as it can, an escrow that Redis does not take, and a breath.
    longest = timedelta(seconds=LONGEST_CALL_SECONDS + FIRST_PAUSE) + redis.connect + redis.answer

    assert max(longest, timedelta(seconds=LONGEST_PAUSE)) <= times.retry_within
    assert 3 * times.retry_within <= times.quarantine


@given(seconds=st.integers(1, 300))
def test_a_lease_lasts_as_long_as_an_attempt_and_no_longer(seconds: int) -> None:
    times = AttemptTimes(http_timeout=timedelta(seconds=seconds))

    lease = lease_times(times)

    assert lease.life == times.span
    assert lease.ttl >= times.http_timeout
    # Taken at the last moment of its first answer, it ends within its life.
    assert lease.ttl + lease.connect + lease.answer <= lease.life


def test_the_times_of_a_lease_are_those_of_the_default_timeout() -> None:
    default: timedelta = Settings.model_fields["pleo_timeout"].default

    assert lease_times(AttemptTimes(http_timeout=default)) == LeaseTimes()


@given(seconds=st.integers(1, 300))
def test_an_attempt_has_the_send_budget_left_after_a_quarantine(seconds: int) -> None:
    times = AttemptTimes(http_timeout=timedelta(seconds=seconds))

    assert times.span - times.quarantine >= SEND_BUDGET
