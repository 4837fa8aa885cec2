"""Reports that a token was rejected: a thousand of them are one rotation, and ever rarer ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.grant import AttemptPhase, Doubt, Grant, RejectionRecord
from broker.domain.rejection import LONGEST_INTERVAL, Verdict, believe, judge
from support.grants import A_TICK, THE_NOW, some_attempt, some_grant, some_grant_under

SHORTEST = timedelta(seconds=30)
MINUTE = timedelta(minutes=1)


def reported(*, generation: int = 6, ago: timedelta, interval: timedelta = MINUTE) -> Grant:
    """Returns the grant after a report, believed some time ago, of an earlier generation."""
    record = RejectionRecord(generation=generation, rotated_at=THE_NOW - ago, interval=interval)
    return some_grant(rejection=record)


@pytest.mark.parametrize(
    ("generation", "verdict"),
    [(6, Verdict.MOVED_ON), (7, Verdict.BELIEVED), (8, Verdict.UNHEARD_OF)],
)
def test_only_a_report_of_the_present_generation_is_believed(
    generation: int, verdict: Verdict
) -> None:
    assert judge(some_grant(), generation, THE_NOW) is verdict


@pytest.mark.parametrize(
    ("phase", "verdict"),
    [
        (AttemptPhase.CLAIMED, Verdict.UNDER_WAY),
        (AttemptPhase.ARMED, Verdict.UNDER_WAY),
        (AttemptPhase.UNKNOWN, Verdict.IN_DOUBT),
    ],
)
@pytest.mark.parametrize("doubt", Doubt)
def test_a_report_during_an_attempt_starts_nothing(
    phase: AttemptPhase, verdict: Verdict, doubt: Doubt
) -> None:
    attempt = some_attempt(phase=phase, deadline=THE_NOW + A_TICK)

    assert judge(some_grant_under(attempt, doubt=doubt), 7, THE_NOW) is verdict


def test_a_report_after_an_attempts_deadline_is_heard() -> None:
    attempt = some_attempt(deadline=THE_NOW)

    assert judge(some_grant_under(attempt), 7, THE_NOW) is Verdict.BELIEVED


@pytest.mark.parametrize("doubt", [Doubt.DISCLAIMED, Doubt.ABANDONED])
def test_a_report_in_doubt_is_heard(doubt: Doubt) -> None:
    assert judge(some_grant(doubt=doubt), 7, THE_NOW) is Verdict.BELIEVED


@pytest.mark.parametrize(
    ("ago", "verdict"),
    [(MINUTE - A_TICK, Verdict.TOO_SOON), (MINUTE, Verdict.BELIEVED)],
)
def test_reports_are_believed_once_in_an_interval(ago: timedelta, verdict: Verdict) -> None:
    assert judge(reported(ago=ago), 7, THE_NOW) is verdict


def test_a_generation_once_believed_to_be_rejected_stays_so() -> None:
    """Also during the attempt that replaces it: its token is never served again."""
    believed = believe(some_grant(), shortest=SHORTEST, now=THE_NOW)
    under_way = replace(believed, attempt=some_attempt(), doubt=Doubt.ABANDONED)

    assert judge(believed, 7, THE_NOW) is Verdict.BELIEVED
    assert judge(under_way, 7, THE_NOW) is Verdict.BELIEVED


def test_the_first_report_starts_the_shortest_interval() -> None:
    after = believe(some_grant(), shortest=SHORTEST, now=THE_NOW)

    assert after == some_grant(
        rejection=RejectionRecord(generation=7, rotated_at=THE_NOW, interval=SHORTEST)
    )


@pytest.mark.parametrize(
    ("ago", "interval"),
    [(MINUTE, 2 * MINUTE), (2 * MINUTE - A_TICK, 2 * MINUTE), (2 * MINUTE, SHORTEST)],
)
def test_the_interval_doubles_while_reports_go_on(ago: timedelta, interval: timedelta) -> None:
    after = believe(reported(ago=ago), shortest=SHORTEST, now=THE_NOW)

    assert after.rejection.interval == interval


@pytest.mark.parametrize("minutes", [8, 15])
def test_the_interval_ends_growing_at_a_quarter_of_an_hour(minutes: int) -> None:
    before = reported(ago=timedelta(minutes=15), interval=timedelta(minutes=minutes))

    after = believe(before, shortest=SHORTEST, now=THE_NOW)

    assert after.rejection.interval == LONGEST_INTERVAL == timedelta(minutes=15)


def test_a_thousand_reports_of_one_generation_count_once() -> None:
    once = believe(some_grant(), shortest=SHORTEST, now=THE_NOW)

    assert believe(once, shortest=SHORTEST, now=THE_NOW + SHORTEST) == once
