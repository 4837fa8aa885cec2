"""What is judged of clocks and certificates, where no server is needed to know."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.cli.checks import Outcome
from broker.cli.database_checks import judge_clock
from broker.ops.checks import CertificateLife, certificate_result, clock_result
from broker.store.clock import ClockReading, Look
from support.grants import THE_NOW

SECOND = timedelta(seconds=1)


def reading(theirs: timedelta, *, after: timedelta, took: timedelta | None = None) -> ClockReading:
    """Returns what was read when theirs was so far from our first look, and our second so late."""
    passed = after if took is None else took
    return ClockReading(
        theirs=THE_NOW + theirs,
        before=Look(at=THE_NOW, monotonic=100.0),
        after=Look(at=THE_NOW + after, monotonic=100.0 + passed.total_seconds()),
    )


@pytest.mark.parametrize(
    ("skew", "error"),
    [
        (0.2 * SECOND, ""),
        (-5 * SECOND, ""),
        (6 * SECOND, "CLOCK_SKEWED"),
        (-6 * SECOND, "CLOCK_SKEWED"),
    ],
)
def test_a_clock_is_judged_by_postgresqls(skew: timedelta, error: str) -> None:
    found = clock_result(reading(-skew, after=0 * SECOND))

    assert (found.error, found.details["skew_seconds"]) == (error, skew.total_seconds())


@pytest.mark.parametrize("looked_after", [0, 3, 60, 120])
def test_whenever_postgresql_looked_a_slow_answer_is_no_skew(looked_after: int) -> None:
    slow = reading(looked_after * SECOND, after=120 * SECOND)

    assert not slow.is_skewed
    assert clock_result(slow).details["known_within_seconds"] == 60.0


@pytest.mark.parametrize(
    ("theirs", "is_skewed"), [(-5, False), (-6, True), (17, False), (18, True)]
)
def test_skew_counts_beyond_what_a_delayed_answer_explains(theirs: int, *, is_skewed: bool) -> None:
    delayed = reading(theirs * SECOND, after=12 * SECOND)

    assert delayed.is_skewed is is_skewed
    assert judge_clock(delayed).outcome is (Outcome.WARNING if is_skewed else Outcome.OK)


def test_a_clock_that_was_set_back_meanwhile_is_not_judged_by_it() -> None:
    """Our clock and PostgreSQL's are one: it read 19 s after us, then both were set back 20 s."""
    moved = reading(19 * SECOND, after=0 * SECOND, took=20 * SECOND)

    assert not moved.is_skewed


def test_a_clock_that_was_set_ahead_meanwhile_is_not_judged_by_it() -> None:
    moved = reading(0 * SECOND, after=3600 * SECOND, took=1 * SECOND)

    assert not moved.is_skewed


@pytest.mark.parametrize(
    ("left", "error"),
    [
        (timedelta(days=89), ""),
        (timedelta(days=10), ""),
        (timedelta(days=8), "CERTIFICATE_EXPIRES_SOON"),
        (timedelta(0), "CERTIFICATE_EXPIRED"),
    ],
)
def test_a_certificate_is_worth_a_look_in_its_last_tenth(left: timedelta, error: str) -> None:
    ends_at = THE_NOW + left
    life = CertificateLife(begins_at=ends_at - timedelta(days=90), ends_at=ends_at)

    found = certificate_result(life, now=THE_NOW)

    assert found.error == error
    assert found.details == {"expires": f"{ends_at:%Y-%m-%dT%H:%M:%SZ}"}


def test_a_certificate_of_an_hour_is_no_alarm_from_the_start() -> None:
    life = CertificateLife(begins_at=THE_NOW, ends_at=THE_NOW + timedelta(hours=1))

    assert certificate_result(life, now=THE_NOW).error == ""


def test_an_expired_certificate_takes_no_readiness() -> None:
    life = CertificateLife(begins_at=THE_NOW - SECOND, ends_at=THE_NOW)

    assert not certificate_result(life, now=THE_NOW).is_own_fault
