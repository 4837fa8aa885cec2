"""What is judged of clocks and certificates, where no server is needed to know."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.ops.checks import CertificateLife, certificate_result, clock_result
from support.grants import THE_NOW

SECOND = timedelta(seconds=1)


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
    found = clock_result(THE_NOW - skew, before=THE_NOW, after=THE_NOW)

    assert (found.error, found.details["skew_seconds"]) == (error, skew.total_seconds())


def test_a_slow_answer_is_no_skew() -> None:
    found = clock_result(THE_NOW, before=THE_NOW, after=THE_NOW + 12 * SECOND)

    assert found.error == ""


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
