"""How Pleo counts as being, by what was heard last of attempts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.domain.answers import CLIENT_SECRET, TOO_LATE
from broker.domain.facts import AttemptAnswered, AttemptOverdue, AttemptSending
from broker.domain.history import AttemptOutcome
from broker.ops.pleo_watch import OVERDUE, PleoWatch
from support.facts import example_of

SLOW = example_of(AttemptOverdue)


def answered(outcome: AttemptOutcome, error: str = "") -> AttemptAnswered:
    example = example_of(AttemptAnswered)
    assert isinstance(example, AttemptAnswered)
    return replace(example, outcome=outcome, error=error)


async def test_pleo_is_well_until_something_else_is_heard() -> None:
    watch = PleoWatch()

    watch.observe(example_of(AttemptSending))

    assert (await watch.probe()).error == ""


@pytest.mark.parametrize(
    ("outcome", "error", "told"),
    [
        (AttemptOutcome.UNKNOWN, "http_502", "http_502"),
        (AttemptOutcome.NOT_PROCESSED, "connect_refused", "connect_refused"),
        (AttemptOutcome.MISCONFIGURED, "invalid_client", "invalid_client"),
        (AttemptOutcome.UNKNOWN, "", "UNKNOWN"),
    ],
)
async def test_a_failure_is_told_by_its_code(
    outcome: AttemptOutcome, error: str, told: str
) -> None:
    watch = PleoWatch()

    watch.observe(answered(outcome, error))

    assert (await watch.probe()).error == told


async def test_an_answer_that_does_not_come_is_a_failure_already() -> None:
    watch = PleoWatch()

    watch.observe(answered(AttemptOutcome.ROTATED))
    watch.observe(SLOW)

    assert (await watch.probe()).error == OVERDUE


@pytest.mark.parametrize("outcome", [AttemptOutcome.ROTATED, AttemptOutcome.REFUSED])
async def test_a_definite_answer_makes_pleo_well_again(outcome: AttemptOutcome) -> None:
    watch = PleoWatch()

    watch.observe(SLOW)
    watch.observe(answered(outcome, "invalid_grant"))

    assert (await watch.probe()).error == ""


@pytest.mark.parametrize("code", [TOO_LATE, CLIENT_SECRET])
async def test_what_never_reached_for_pleo_says_nothing_of_it(code: str) -> None:
    watch = PleoWatch()

    watch.observe(answered(AttemptOutcome.NOT_PROCESSED, code))
    assert (await watch.probe()).error == ""
    watch.observe(SLOW)
    watch.observe(answered(AttemptOutcome.NOT_PROCESSED, code))

    assert (await watch.probe()).error == OVERDUE
