"""The breaker: what opens it, what closes it, and who goes through meanwhile."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypedDict, Unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.answers import Answer, Misconfigured, NotProcessed, Refused, Rotated, Unknown
from broker.domain.backoff import LONGEST, LONGEST_RETRY_AFTER
from broker.domain.breaker import (
    MANY_UNKNOWN,
    RATE_LIMITED,
    Breaker,
    BreakerCause,
    admits,
    after_answer,
    error_of_breaker,
    is_worth_weighing,
    probing,
)
from broker.domain.errors import ProviderRejectedClient, ProviderUnavailable
from broker.domain.evidence import Evidence
from support.grants import A_TICK, THE_NOW

SECOND = timedelta(seconds=1)
SPAN = timedelta(seconds=30)
BEFORE = THE_NOW - timedelta(minutes=1)

ROTATED = Rotated(
    access_token=None, refresh_token=None, token_type="Bearer", expires_in=None, scopes=None
)
REFUSED = Refused(error="invalid_grant")
LOST = Unknown(code="http_502")
REJECTED = Misconfigured(error="invalid_client")
LIMITED = NotProcessed(code=RATE_LIMITED)
UNSENT = NotProcessed(code="connect_refused")


class Counts(TypedDict, total=False):
    """What may be different about the evidence."""

    at: datetime
    unknown_grants: int
    limited_grants: int
    sent: int


def evidence(**counts: Unpack[Counts]) -> Evidence:
    none = Evidence(
        at=THE_NOW, refused_grants=0, answered=0, unknown_grants=0, limited_grants=0, sent=1
    )
    return replace(none, **counts)


def open_breaker(cause: BreakerCause = BreakerCause.CLIENT_REJECTED, *, probes: int = 0) -> Breaker:
    return Breaker(
        cause=cause, code="invalid_client", since=BEFORE, probe_at=THE_NOW, probes=probes
    )


def opened(answer: Answer, counts: Evidence) -> Breaker:
    breaker = after_answer(None, answer, counts, claimed_at=BEFORE)
    assert breaker is not None
    return breaker


def test_a_closed_breaker_admits_everybody() -> None:
    assert admits(None, THE_NOW)


def test_an_open_one_admits_from_its_probe_time_on() -> None:
    breaker = open_breaker()

    assert not admits(breaker, THE_NOW - A_TICK)
    assert admits(breaker, THE_NOW)


def test_a_probe_time_that_the_clock_cannot_mean_is_now() -> None:
    set_back = THE_NOW - timedelta(hours=1)

    assert admits(open_breaker(), set_back)


@pytest.mark.parametrize("answer", [ROTATED, REFUSED])
def test_an_answer_under_a_clock_that_was_set_back_closes_it(answer: Answer) -> None:
    set_back = BEFORE - timedelta(hours=1)

    after = after_answer(open_breaker(), answer, evidence(at=set_back), claimed_at=set_back)

    assert after is None


def test_a_probe_keeps_the_next_one_waiting_for_its_span() -> None:
    probed = probing(open_breaker(), now=THE_NOW, span=SPAN)

    assert not admits(probed, THE_NOW + SPAN - A_TICK)
    assert admits(probed, THE_NOW + SPAN)
    assert probed.probes == 1


def test_one_rejection_of_our_client_opens_it() -> None:
    breaker = opened(REJECTED, evidence())

    assert breaker == Breaker(
        cause=BreakerCause.CLIENT_REJECTED,
        code="invalid_client",
        since=THE_NOW,
        probe_at=THE_NOW + SECOND,
    )


def test_the_fifth_grant_without_an_answer_opens_it() -> None:
    few = evidence(unknown_grants=MANY_UNKNOWN - 1, sent=4)
    many = evidence(unknown_grants=MANY_UNKNOWN, sent=5)

    assert after_answer(None, LOST, few, claimed_at=BEFORE) is None
    assert opened(LOST, many).cause is BreakerCause.OUTCOMES_UNKNOWN


def test_lost_answers_open_it_only_as_half_of_all() -> None:
    half = evidence(unknown_grants=6, sent=30)
    less = evidence(unknown_grants=6, sent=31)

    assert opened(LOST, half).code == "http_502"
    assert after_answer(None, LOST, less, claimed_at=BEFORE) is None


def test_the_second_grant_that_is_told_to_wait_opens_it() -> None:
    one, two = evidence(limited_grants=1), evidence(limited_grants=2)

    assert after_answer(None, LIMITED, one, claimed_at=BEFORE) is None
    assert opened(LIMITED, two).cause is BreakerCause.RATE_LIMITED


def test_it_stays_open_for_as_long_as_pleo_asks() -> None:
    limited = NotProcessed(code=RATE_LIMITED, retry_after=timedelta(seconds=40))

    breaker = opened(limited, evidence(limited_grants=2))

    assert breaker.probe_at == THE_NOW + timedelta(seconds=40)


def test_it_does_not_stay_open_for_longer_than_is_honoured() -> None:
    limited = NotProcessed(code=RATE_LIMITED, retry_after=timedelta(days=1))

    breaker = opened(limited, evidence(limited_grants=2))

    assert breaker.probe_at == THE_NOW + LONGEST_RETRY_AFTER


@pytest.mark.parametrize("answer", [ROTATED, REFUSED])
def test_a_definite_answer_to_a_probe_closes_it(answer: Answer) -> None:
    assert after_answer(open_breaker(), answer, evidence(), claimed_at=BEFORE) is None


@pytest.mark.parametrize("answer", [ROTATED, REFUSED, LOST, REJECTED, LIMITED])
def test_an_answer_from_before_it_opened_changes_nothing(answer: Answer) -> None:
    breaker = open_breaker()

    assert after_answer(breaker, answer, evidence(), claimed_at=BEFORE - A_TICK) == breaker


@pytest.mark.parametrize("answer", [LOST, REJECTED, LIMITED, UNSENT])
def test_a_probe_that_says_nothing_makes_room_for_the_next(answer: Answer) -> None:
    probed = probing(open_breaker(), now=THE_NOW, span=SPAN)

    after = after_answer(probed, answer, evidence(), claimed_at=THE_NOW)

    assert after is not None
    assert (after.probe_at, after.since) == (THE_NOW + 2 * SECOND, probed.since)


@pytest.mark.parametrize(
    ("answer", "cause", "code"),
    [
        (LOST, BreakerCause.OUTCOMES_UNKNOWN, "http_502"),
        (LIMITED, BreakerCause.RATE_LIMITED, "http_429"),
        (Misconfigured(error="invalid_scope"), BreakerCause.CLIENT_REJECTED, "invalid_scope"),
        (UNSENT, BreakerCause.CLIENT_REJECTED, "invalid_client"),
    ],
)
def test_an_open_one_tells_the_cause_of_the_last_answer(
    answer: Answer, cause: BreakerCause, code: str
) -> None:
    """What opened it may be over; a probe that was not sent says nothing new."""
    after = after_answer(open_breaker(), answer, evidence(), claimed_at=THE_NOW)

    assert after is not None
    assert (after.cause, after.code) == (cause, code)


def test_probes_come_in_growing_pauses_that_end_growing() -> None:
    breaker = open_breaker(probes=1000)

    after = after_answer(breaker, REJECTED, evidence(), claimed_at=THE_NOW)

    assert after == replace(breaker, probe_at=THE_NOW + LONGEST)


@pytest.mark.parametrize(
    ("answer", "is_worth"),
    [
        (ROTATED, False),
        (REFUSED, False),
        (UNSENT, False),
        (LIMITED, True),
        (LOST, True),
        (REJECTED, True),
    ],
)
def test_only_what_may_open_it_is_weighed(answer: Answer, *, is_worth: bool) -> None:
    assert is_worth_weighing(answer) is is_worth


def test_callers_are_told_that_our_client_is_rejected() -> None:
    error = error_of_breaker(open_breaker(), tenant="acme", now=THE_NOW)

    assert isinstance(error, ProviderRejectedClient)
    assert "invalid_client" in error.metadata.values()


@pytest.mark.parametrize("cause", [BreakerCause.OUTCOMES_UNKNOWN, BreakerCause.RATE_LIMITED])
def test_callers_are_told_when_to_come_back(cause: BreakerCause) -> None:
    breaker = open_breaker(cause)

    early = error_of_breaker(breaker, tenant="acme", now=THE_NOW - 5 * SECOND)
    late = error_of_breaker(breaker, tenant="acme", now=THE_NOW + 5 * SECOND)

    assert isinstance(early, ProviderUnavailable)
    assert isinstance(late, ProviderUnavailable)
    assert (early.retry_after, late.retry_after) == (5 * SECOND, SECOND)


answers = st.sampled_from([ROTATED, REFUSED, LOST, REJECTED, LIMITED, UNSENT])
counts = st.builds(
    evidence,
    unknown_grants=st.integers(0, 20),
    limited_grants=st.integers(0, 5),
    sent=st.integers(1, 30),
)


@given(answer=answers, weighed=counts)
def test_a_closed_one_opens_by_the_three_causes_alone(answer: Answer, weighed: Evidence) -> None:
    after = after_answer(None, answer, weighed, claimed_at=BEFORE)

    is_storm = weighed.unknown_grants >= 5 and weighed.unknown_grants * 5 >= weighed.sent
    reasons = {
        BreakerCause.CLIENT_REJECTED: answer == REJECTED,
        BreakerCause.OUTCOMES_UNKNOWN: answer == LOST and is_storm,
        BreakerCause.RATE_LIMITED: answer == LIMITED and weighed.limited_grants >= 2,
    }
    causes = [after.cause] if after else []
    assert causes == [cause for cause, is_so in reasons.items() if is_so]


@given(
    answer=answers,
    weighed=counts,
    cause=st.sampled_from(BreakerCause),
    age=st.integers(-100, 100).map(lambda seconds: timedelta(seconds=seconds)),
)
def test_an_open_one_is_closed_only_by_a_definite_later_answer(
    answer: Answer, weighed: Evidence, cause: BreakerCause, age: timedelta
) -> None:
    after = after_answer(open_breaker(cause), answer, weighed, claimed_at=BEFORE + age)

    is_definite = answer in (ROTATED, REFUSED)
    assert (after is None) == (is_definite and age >= timedelta(0))


@given(answer=answers, weighed=counts, probes=st.integers(0, 10**6))
def test_an_open_one_always_admits_a_probe_within_ten_minutes(
    answer: Answer, weighed: Evidence, probes: int
) -> None:
    probed = probing(open_breaker(probes=probes), now=THE_NOW, span=SPAN)

    after = after_answer(probed, answer, weighed, claimed_at=THE_NOW)

    assert admits(after, THE_NOW + LONGEST_RETRY_AFTER)
