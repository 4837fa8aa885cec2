"""What a story tells of trouble around its grant: whose it is, what callers see, what to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.advice import NOTHING
from broker.domain.breaker import Breaker, BreakerCause
from broker.domain.explanation import Known, planned
from broker.domain.grant import Doubt, Grant, GrantState, RejectionRecord, UnreadablePair
from broker.domain.guard import Guard, GuardState
from broker.domain.story import story
from broker.domain.trouble import Trouble
from support.grants import THE_NOW, some_grant, some_reauth
from support.known import A_MINUTE, known_of

FULL = Trouble(name="postgres", error="DISK_FULL")
OLD = Trouble(name="schema", error="SCHEMA_TOO_OLD")
AWAY = Trouble(name="pleo", error="connect")
KEYLESS = Trouble(name="keyset", error="KEY_UNAVAILABLE")
WITHOUT_REDIS = Trouble(name="redis", error="REDIS_UNREACHABLE")

DUE = some_grant(renew_at=THE_NOW)
EXPIRED = some_grant(renew_at=THE_NOW, expires_at=THE_NOW)


def troubled(*troubles: Trouble, grant: Grant | None = None) -> Known:
    return replace(known_of(grant), troubles=troubles)


def breaker(cause: BreakerCause) -> Breaker:
    return Breaker(cause=cause, code="a-code", since=THE_NOW, probe_at=THE_NOW + A_MINUTE)


def advice(known: Known) -> str:
    return story(known).split("\n")[-1].removeprefix("What to do: ")


@pytest.mark.parametrize(
    ("trouble", "words", "deed"),
    [
        (FULL, "PostgreSQL in trouble: DISK_FULL.", "Make room on PostgreSQL's disk."),
        (OLD, "PostgreSQL's schema in trouble: SCHEMA_TOO_OLD.", "token-broker migrate"),
        (Trouble(name="postgres", error="READ_ONLY"), "READ_ONLY", "primary"),
        (Trouble(name="postgres", error="TIMEOUT"), "TIMEOUT", "Bring PostgreSQL back"),
        (Trouble(name="home", error="TIMEOUT"), "whose database", "Bring PostgreSQL back"),
        (KEYLESS, "its keyset in trouble: KEY_UNAVAILABLE.", "token-broker keys status"),
        (AWAY, "Pleo in trouble: connect.", "Look at Pleo's status"),
        (WITHOUT_REDIS, "Redis in trouble: REDIS_UNREACHABLE.", "Callers are only slower"),
    ],
)
def test_each_trouble_is_named_with_what_to_do(trouble: Trouble, words: str, deed: str) -> None:
    known = troubled(trouble)

    assert words in story(known)
    assert deed in advice(known)


@pytest.mark.parametrize("name", ["clock", "certificate", "records", "breaker"])
def test_what_is_no_part_of_the_grants_story_is_not_told(name: str) -> None:
    assert story(troubled(Trouble(name=name, error="BAD"))) == story(known_of())


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (troubled(FULL), "STORE_UNAVAILABLE"),
        (troubled(AWAY), "PROVIDER_UNAVAILABLE or REFRESH_OUTCOME_UNKNOWN"),
        (
            replace(known_of(), breaker=breaker(BreakerCause.CLIENT_REJECTED)),
            "PROVIDER_REJECTED_CLIENT",
        ),
        (replace(known_of(), breaker=breaker(BreakerCause.RATE_LIMITED)), "PROVIDER_UNAVAILABLE"),
    ],
)
def test_what_callers_will_be_told_is_told(known: Known, reason: str) -> None:
    assert (
        "Callers get its access token. While this lasts it is not renewed: they get it as degraded"
        " from 2026-03-01 12:08:00 UTC (in 8 min) on, and from"
        f" {known.grant.expires_at:%Y-%m-%d %H:%M:%S} UTC (in 10 min) on are told {reason}."
    ) in story(known)


@pytest.mark.parametrize(
    ("grant", "words"),
    [
        (DUE, "they get it as degraded from now on, and from"),
        (EXPIRED, "While this lasts, callers are told STORE_UNAVAILABLE."),
        (some_grant(expires_at=None, renew_at=None), "callers are told STORE_UNAVAILABLE."),
        (some_grant(rejection=RejectionRecord(generation=7)), "callers are told STORE_UNAVAILABLE"),
    ],
)
def test_what_callers_get_follows_how_old_the_token_is(grant: Grant, words: str) -> None:
    assert words in story(troubled(FULL, grant=grant))


@pytest.mark.parametrize("trouble", [WITHOUT_REDIS, KEYLESS])
def test_what_hinders_no_renewal_changes_nothing_for_callers(trouble: Trouble) -> None:
    assert "which is renewed from" in story(troubled(trouble))


@pytest.mark.parametrize(
    "grant",
    [
        some_grant(state=GrantState.HELD, reauth=some_reauth()),
        some_grant(pair=UnreadablePair(generation=7, key_id=99, is_key_missing=True)),
    ],
)
def test_callers_who_get_no_token_anyhow_are_not_told_of(grant: Grant) -> None:
    assert "While this lasts" not in story(troubled(FULL, grant=grant))


def test_what_is_the_grants_own_is_told_after_the_trouble() -> None:
    gone = some_grant(state=GrantState.REAUTH_REQUIRED, reauth=some_reauth())
    doubted = some_grant(doubt=Doubt.ABANDONED)

    assert advice(troubled(FULL, grant=gone)).startswith(
        "Make room on PostgreSQL's disk. Then: Let the customer consent again"
    )
    assert "broker tries again by itself. Then: Wait" in advice(troubled(AWAY, grant=doubted))


def test_a_revoked_grant_wants_nothing_of_a_full_disk() -> None:
    revoked = some_grant(state=GrantState.REVOKED)

    assert advice(troubled(FULL, grant=revoked)).startswith("Nothing; or connect it anew")


def test_several_troubles_are_told_and_the_store_once() -> None:
    known = troubled(FULL, OLD, AWAY)

    assert story(known).count("in trouble") == 3
    assert advice(known).startswith("Make room on PostgreSQL's disk. Look at Pleo's status")
    assert "migrate" not in advice(known)


def test_an_open_breaker_says_more_than_pleos_last_answer() -> None:
    known = replace(troubled(AWAY), breaker=breaker(BreakerCause.CLIENT_REJECTED))

    assert advice(known).startswith("Mend our client at Pleo")


def test_a_guard_that_holds_others_is_told() -> None:
    holding = Guard(state=GuardState.HOLDING, since=THE_NOW, until=THE_NOW + timedelta(hours=4))
    known = replace(known_of(), guard=holding)

    assert "The fleet guard holds: whatever Pleo refuses now is held" in story(known)
    assert "token-broker guard discard" in advice(known)


def test_a_renewal_that_cannot_be_kept_waits_for_postgresql() -> None:
    step = planned(troubled(FULL, grant=DUE))

    assert step is not None
    assert step.description == "its renewal waits until PostgreSQL keeps what is written"
    assert step.due_at is None


def test_without_trouble_there_is_nothing_to_do() -> None:
    assert advice(troubled()) == NOTHING
