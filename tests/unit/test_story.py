"""The story of a grant in plain words, which always ends with what to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from broker.domain.advice import NOTHING
from broker.domain.breaker import Breaker, BreakerCause
from broker.domain.explanation import Known
from broker.domain.grant import (
    Attempt,
    Doubt,
    FailureKind,
    FailureRecord,
    Grant,
    GrantState,
    Reauth,
    ReauthCause,
    RejectionRecord,
    UnreadablePair,
)
from broker.domain.history import AttemptOutcome
from broker.domain.moments import at
from broker.domain.story import story
from support.grants import THE_NOW, some_attempt, some_grant, some_grant_under, some_reauth
from support.known import A_MINUTE, known_of, some_disclosure, some_event, some_record

COMPANY = "urn:pleo:company:00000000-0000-4000-8000-000000000001"


def reauth(cause: ReauthCause) -> Grant:
    return some_grant(
        state=GrantState.REAUTH_REQUIRED,
        reauth=Reauth(cause=cause, since=THE_NOW - A_MINUTE),
        pair=None,
    )


LOCKED = UnreadablePair(generation=7, key_id=99, is_key_missing=True)
ALTERED = UnreadablePair(generation=7, key_id=99, is_key_missing=False)

EVERY_KIND = [
    *(some_grant(state=state, reauth=some_reauth()) for state in GrantState),
    *(reauth(cause) for cause in ReauthCause),
    *(some_grant(doubt=doubt) for doubt in Doubt),
    *(some_grant(pair=pair) for pair in (None, LOCKED, ALTERED)),
    some_grant_under(some_attempt()),
    some_grant(subject=None, reauth=None, state=GrantState.HELD),
]


def lines(known: Known) -> list[str]:
    return story(known).split("\n")


def told(grant: Grant) -> str:
    return story(known_of(grant))


@pytest.mark.parametrize("grant", EVERY_KIND)
def test_every_story_ends_with_what_to_do(grant: Grant) -> None:
    *before, last = lines(known_of(grant))

    assert last.startswith("What to do: ")
    assert last.endswith(".")
    assert before[0].startswith("acme ")


@pytest.mark.parametrize("grant", EVERY_KIND)
def test_no_story_tells_a_token(grant: Grant) -> None:
    assert "fake-" not in told(grant)


def test_the_story_of_a_grant_that_works() -> None:
    known = replace(
        known_of(),
        attempts=(some_record(),),
        events=(some_event(),),
        disclosures=(some_disclosure(), some_disclosure("sa:jobs", hours_ago=1)),
    )

    assert lines(known) == [
        f"acme is connected to {COMPANY}, at generation 7.",
        "Callers get its access token, which is renewed from 2026-03-01 12:08:00 UTC (in 8 min).",
        (
            "Attempt 12, a refresh by replica-1, ended at 2026-03-01 11:55:00 UTC (5 min ago): Pleo"
            " issued new tokens (200)."
        ),
        (
            "The last act on record is GrantService/RevokeGrant by sa:anna at 2026-03-01 10:30:00"
            " UTC (90 min ago), because: they left."
        ),
        (
            "2 callers have been given its tokens, the last one sa:jobs (generation 7) at"
            " 2026-03-01 11:00:00 UTC (60 min ago)."
        ),
        f"What to do: {NOTHING}",
    ]


def test_where_nobody_got_a_token_that_is_told() -> None:
    assert "No caller is on record" in story(known_of())
    one = replace(known_of(), disclosures=(some_disclosure(),))
    assert "1 caller has been given its tokens, the last one sa:web" in story(one)


@pytest.mark.parametrize(
    ("cause", "why", "advice"),
    [
        (ReauthCause.EXPIRED_OR_REVOKED, "the customer ended it at Pleo", "connect acme)."),
        (ReauthCause.ROTATION_LOST, "an answer of Pleo's was lost", "not the customer who left"),
        (ReauthCause.OPERATOR, "an operator ended it", "connect acme)."),
    ],
)
def test_why_a_customer_must_consent_again_is_told(
    cause: ReauthCause, why: str, advice: str
) -> None:
    text = told(reauth(cause))

    assert why in text
    assert "at 2026-03-01 11:59:00 UTC (60 s ago)" in text
    assert "What to do: Let the customer consent again" in text
    assert text.endswith(advice if advice.endswith(".") else f"{advice}.")


def test_what_pleo_said_is_told() -> None:
    grant = some_grant(state=GrantState.REAUTH_REQUIRED, reauth=some_reauth())

    assert "(invalid_grant)" in told(grant)


def test_what_the_guard_gave_up_can_be_brought_back() -> None:
    grant = some_grant(
        state=GrantState.REAUTH_REQUIRED,
        reauth=some_reauth(),
        quarantined_until=THE_NOW + timedelta(days=7),
    )

    assert told(grant).endswith("token-broker guard discard brings it back.")


def test_a_held_grant_asks_for_a_decision() -> None:
    text = told(some_grant(state=GrantState.HELD, reauth=some_reauth()))

    assert "acme is held: Pleo refused its refresh token" in text
    assert "What to do: Decide" in text
    assert "token-broker guard discard" in text
    assert "token-broker guard confirm" in text


def test_a_row_without_a_cause_says_so() -> None:
    assert "does not say why" in told(some_grant(state=GrantState.HELD, reauth=None))


@pytest.mark.parametrize(
    ("revoked_at", "start"),
    [
        (THE_NOW, "and was revoked at 2026-03-01 12:00:00 UTC (now)."),
        (None, "and was revoked."),
    ],
)
def test_a_revoked_grant_wants_nothing(revoked_at: datetime | None, start: str) -> None:
    grant = some_grant(state=GrantState.REVOKED, revoked_at=revoked_at)

    first, *_, last = lines(known_of(grant))

    assert first.endswith(start)
    assert last.startswith("What to do: Nothing; or connect it anew")


def test_a_company_that_nobody_named_is_told_as_such() -> None:
    assert "a company that Pleo has not named" in told(some_grant(subject=None))


@pytest.mark.parametrize(
    ("pair", "advice"),
    [(LOCKED, "keyset with key 99"), (ALTERED, "restore it"), (None, "restore it")],
)
def test_tokens_that_do_not_open_are_our_matter(pair: UnreadablePair | None, advice: str) -> None:
    first, second, *_, last = lines(known_of(some_grant(pair=pair)))

    assert first.startswith("acme is connected")
    assert second == "Its tokens do not open, so that callers get none."
    assert advice in last


@pytest.mark.parametrize(
    ("grant", "words"),
    [
        (some_grant(expires_at=THE_NOW), "was good until 2026-03-01 12:00:00 UTC (now)"),
        (some_grant(renew_at=THE_NOW), "is due for renewal, and good until 2026-03-01 12:10:00"),
        (some_grant(expires_at=None, renew_at=None), "There is no access token"),
    ],
)
def test_where_the_access_token_stands_is_told(grant: Grant, words: str) -> None:
    assert words in told(grant)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (some_attempt(), "is under way until 2026-03-01 12:00:30 UTC (in 30 s) at most."),
        (some_attempt(deadline=THE_NOW), "should have ended by 2026-03-01 12:00:00 UTC (now)."),
    ],
)
def test_who_is_at_it_is_told(attempt: Attempt, words: str) -> None:
    assert f"Attempt 13, a refresh by replica-1, {words}" in told(some_grant_under(attempt))


@pytest.mark.parametrize("doubt", [Doubt.DISCLAIMED, Doubt.ABANDONED])
def test_a_missing_answer_is_told_and_waited_for(doubt: Doubt) -> None:
    text = told(some_grant(doubt=doubt))

    assert "An answer of Pleo's is missing" in text
    assert "What to do: Wait" in text


def test_a_revoked_grant_has_no_missing_answer() -> None:
    assert "is missing" not in told(some_grant(state=GrantState.REVOKED, doubt=Doubt.ABANDONED))


@pytest.mark.parametrize(
    ("failures", "words"),
    [
        (
            FailureRecord(kind=FailureKind.PROVIDER_UNAVAILABLE, code="http_503", count=3),
            "failed 3 in a row: PROVIDER_UNAVAILABLE (http_503).",
        ),
        (FailureRecord(kind=FailureKind.OUTCOME_UNKNOWN, count=1), "failed once: OUTCOME_UNKNOWN."),
    ],
)
def test_failures_are_told_and_tried_again(failures: FailureRecord, words: str) -> None:
    text = told(some_grant(failures=failures))

    assert words in text
    assert "What to do: Wait: it is tried again" in text


def test_a_token_that_pleo_rejects_is_told() -> None:
    grant = some_grant(rejection=RejectionRecord(generation=7))

    assert "Pleo rejects its access token" in told(grant)
    assert "rejects" not in told(some_grant(rejection=RejectionRecord(generation=6)))


@pytest.mark.parametrize("cause", BreakerCause)
def test_an_open_breaker_is_told_with_what_closes_it(cause: BreakerCause) -> None:
    breaker = Breaker(cause=cause, code="a-code", since=THE_NOW, probe_at=THE_NOW)
    known = replace(known_of(), breaker=breaker)

    *_, last = lines(known)

    assert f"is open since 2026-03-01 12:00:00 UTC (now): {cause.value} (a-code)." in story(known)
    assert last not in {f"What to do: {NOTHING}", ""}


@pytest.mark.parametrize("outcome", AttemptOutcome)
def test_how_the_last_attempt_ended_is_told(outcome: AttemptOutcome) -> None:
    line = replace(some_record(outcome), http_status=None, error="")

    told_of = [each for each in lines(replace(known_of(), attempts=(line,))) if "ended at" in each]

    assert len(told_of) == 1
    assert "(" not in told_of[0].partition("ago)")[2]


def test_an_act_without_a_reason_is_told_without_one() -> None:
    event = some_event()
    silent = replace(event, event=replace(event.event, reason=""))

    assert "because" not in story(replace(known_of(), events=(silent,)))


@pytest.mark.parametrize(
    ("away", "words"),
    [
        (timedelta(milliseconds=-999), "now"),
        (timedelta(seconds=-119), "119 s ago"),
        (timedelta(minutes=2), "in 2 min"),
        (timedelta(hours=-2), "2 h ago"),
        (timedelta(days=2), "in 2 d"),
    ],
)
def test_how_far_a_moment_is_away_is_told_in_one_unit(away: timedelta, words: str) -> None:
    assert at(THE_NOW + away, THE_NOW).endswith(f"UTC ({words})")
