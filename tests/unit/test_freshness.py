"""How long an access token is used: lifetimes, renewal with jitter, and the promise (law 9)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.freshness import (
    DEFAULT_LIFETIME,
    JITTER,
    LONGEST_LIFETIME,
    REUSE_MARGIN,
    SHORTEST_LIFETIME,
    Freshness,
    access_token_of,
    freshness,
    renewal_time,
    reuse_until,
    settled_lifetime,
)
from broker.domain.grant import Grant, UnreadablePair
from support.grants import A_TICK, THE_NOW, some_grant, some_pair

SECOND = timedelta(seconds=1)
TOLD = st.none() | st.timedeltas()
LIFETIMES = st.timedeltas(SHORTEST_LIFETIME, LONGEST_LIFETIME)
LEADS = st.timedeltas(SECOND, timedelta(hours=1))
CHANCES = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize("told", [60, 61, 900, 86_399, 86_400])
def test_a_sensible_lifetime_is_believed(told: int) -> None:
    assert settled_lifetime(timedelta(seconds=told), None) == timedelta(seconds=told)


@pytest.mark.parametrize(("told", "believed"), [(1, 60), (59, 60), (86_401, 86_400)])
def test_an_odd_lifetime_is_kept_within_bounds(told: int, believed: int) -> None:
    assert settled_lifetime(timedelta(seconds=told), None) == timedelta(seconds=believed)


@pytest.mark.parametrize("told", [None, timedelta(0), -SECOND])
def test_without_a_lifetime_the_last_one_is_taken(told: timedelta | None) -> None:
    assert settled_lifetime(told, timedelta(minutes=20)) == timedelta(minutes=20)


@pytest.mark.parametrize("told", [None, timedelta(0), -SECOND])
def test_without_any_lifetime_five_minutes_are_taken(told: timedelta | None) -> None:
    assert settled_lifetime(told, None) == DEFAULT_LIFETIME == timedelta(seconds=300)


@given(told=TOLD, last=TOLD)
def test_every_lifetime_lies_between_a_minute_and_a_day(
    told: timedelta | None, last: timedelta | None
) -> None:
    assert timedelta(minutes=1) <= settled_lifetime(told, last) <= timedelta(days=1)


@pytest.mark.parametrize(
    ("lifetime", "lead"),
    [(900, 90), (271, 90), (270, 90), (180, 60), (60, 20)],
)
def test_renewal_is_ahead_of_expiry_and_never_over_a_third(lifetime: int, lead: int) -> None:
    renew_at = renewal_time(
        THE_NOW, lifetime=timedelta(seconds=lifetime), ahead=timedelta(seconds=90), jitter=0
    )

    assert renew_at == THE_NOW - timedelta(seconds=lead)


@given(lifetime=LIFETIMES, ahead=LEADS, jitter=CHANCES)
def test_jitter_makes_renewal_later_by_a_fifth_of_the_lead_at_most(
    lifetime: timedelta, ahead: timedelta, jitter: float
) -> None:
    earliest = renewal_time(THE_NOW, lifetime=lifetime, ahead=ahead, jitter=0)
    latest = THE_NOW - (THE_NOW - earliest) * (1 - JITTER)

    assert earliest <= renewal_time(THE_NOW, lifetime=lifetime, ahead=ahead, jitter=jitter)
    assert latest >= renewal_time(THE_NOW, lifetime=lifetime, ahead=ahead, jitter=jitter)


def test_jitter_spreads_renewals_evenly() -> None:
    lead, lifetime = timedelta(seconds=100), timedelta(hours=1)

    half = renewal_time(THE_NOW, lifetime=lifetime, ahead=lead, jitter=0.5)

    assert half == THE_NOW - timedelta(seconds=90)


@pytest.mark.parametrize(("jitter", "minutes"), [(0, 13.5), (0.5, 10.125), (0.999999, 6.75)])
def test_late_renewals_are_spread_over_half_the_time_before_the_lead(
    jitter: float, minutes: float
) -> None:
    lifetime, ahead = timedelta(minutes=15), timedelta(seconds=90)

    renew_at = renewal_time(
        THE_NOW + lifetime, lifetime=lifetime, ahead=ahead, jitter=jitter, was_late=True
    )

    assert (renew_at - THE_NOW).total_seconds() == pytest.approx(60 * minutes, abs=0.001)


@given(lifetime=LIFETIMES, ahead=LEADS, jitter=CHANCES, was_late=st.booleans())
def test_the_promise_ends_before_renewal_and_renewal_before_expiry(
    *, lifetime: timedelta, ahead: timedelta, jitter: float, was_late: bool
) -> None:
    issued_at = THE_NOW
    expires_at = issued_at + lifetime
    renew_at = renewal_time(
        expires_at, lifetime=lifetime, ahead=ahead, jitter=jitter, was_late=was_late
    )

    promised = reuse_until(some_grant(expires_at=expires_at, renew_at=renew_at))

    assert promised is not None
    assert issued_at < promised < renew_at < expires_at


def test_the_shortest_token_is_promised_for_more_than_half_its_life() -> None:
    lead = renewal_time(THE_NOW, lifetime=SHORTEST_LIFETIME, ahead=timedelta(seconds=90), jitter=0)

    promised = reuse_until(some_grant(renew_at=lead))

    assert promised is not None
    assert THE_NOW - promised == timedelta(seconds=25)


def test_the_promise_ends_a_margin_before_renewal() -> None:
    assert reuse_until(some_grant(renew_at=THE_NOW)) == THE_NOW - REUSE_MARGIN
    assert reuse_until(some_grant(renew_at=None)) is None


@pytest.mark.parametrize(
    ("since_renewal", "expected"),
    [(-A_TICK, Freshness.FRESH), (timedelta(0), Freshness.DUE), (A_TICK, Freshness.DUE)],
)
def test_a_token_is_due_from_its_renewal_time(
    since_renewal: timedelta, expected: Freshness
) -> None:
    grant = some_grant(renew_at=THE_NOW, expires_at=THE_NOW + SECOND)

    assert freshness(grant, THE_NOW + since_renewal) is expected


@pytest.mark.parametrize(
    ("since_expiry", "expected"),
    [(-A_TICK, Freshness.DUE), (timedelta(0), Freshness.EXPIRED), (A_TICK, Freshness.EXPIRED)],
)
def test_a_token_is_dead_at_its_expiry(since_expiry: timedelta, expected: Freshness) -> None:
    grant = some_grant(renew_at=THE_NOW - SECOND, expires_at=THE_NOW)

    assert freshness(grant, THE_NOW + since_expiry) is expected


def test_a_token_without_a_renewal_time_is_due() -> None:
    assert freshness(some_grant(renew_at=None), THE_NOW) is Freshness.DUE


@pytest.mark.parametrize(
    "grant",
    [
        Grant(tenant="acme"),
        some_grant(expires_at=None),
        some_grant(pair=UnreadablePair(generation=7, key_id=1, is_key_missing=True)),
        some_grant(pair=replace(some_pair(7), access_token=None)),
    ],
)
def test_no_readable_token_or_no_expiry_is_as_good_as_dead(grant: Grant) -> None:
    assert freshness(grant, THE_NOW) is Freshness.EXPIRED


def test_the_access_token_is_found_where_there_is_one() -> None:
    token = access_token_of(some_grant())

    assert token is not None
    assert token.reveal() == "fake-access-7"
    assert access_token_of(Grant(tenant="acme")) is None
