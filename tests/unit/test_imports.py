"""Records of imported tokens: what is presented, what is not, and what is kept of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from broker.domain.grant import GrantState
from broker.domain.hashing import sha256
from broker.domain.imports import (
    ALREADY_PRESENTED,
    MOST_PRESENTATIONS,
    SUPERSEDED,
    Existing,
    Import,
    ImportOutcome,
    ImportStep,
    Rejected,
    Spent,
    TakeOver,
    Unreadable,
    WouldReplace,
    decide_import,
    has_newer,
    not_presented,
    presented,
    refused,
    rotated_unstored,
    stored,
)
from broker.domain.secret import RefreshToken, Secret
from support.grants import some_grant

A_TOKEN = RefreshToken(Secret("fake-imported"))
A_NEWER = RefreshToken(Secret("fake-rotated"))
PENDING = Import(tenant="acme", fingerprint=b"print", refresh_token=A_TOKEN)
STORED = stored(presented(PENDING))
REFUSED = refused(presented(PENDING), "invalid_grant")
IN_USE = [GrantState.ACTIVE, GrantState.HELD]
ENDED = [GrantState.UNCONNECTED, GrantState.REVOKED]


def decide(
    record: Import | None, state: GrantState = GrantState.UNCONNECTED, *, may_replace: bool = False
) -> ImportStep:
    return decide_import(record, some_grant(state=state), may_replace=may_replace)


@pytest.mark.parametrize("state", [*ENDED, GrantState.REAUTH_REQUIRED])
def test_an_unknown_token_is_taken_over_where_no_grant_serves(state: GrantState) -> None:
    assert decide(None, state) == TakeOver()


@pytest.mark.parametrize("state", IN_USE)
def test_a_grant_in_use_goes_only_when_that_was_said(state: GrantState) -> None:
    assert decide(None, state) == WouldReplace()
    assert decide(None, state, may_replace=True) == TakeOver()


@pytest.mark.parametrize("state", [*IN_USE, GrantState.REAUTH_REQUIRED])
@pytest.mark.parametrize("may_replace", [False, True])
def test_a_token_that_made_the_grant_is_not_presented_again(
    state: GrantState,
    may_replace: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    assert decide(STORED, state, may_replace=may_replace) == Existing()


@pytest.mark.parametrize("state", ENDED)
@pytest.mark.parametrize("record", [STORED, stored(PENDING)])
def test_the_token_of_a_grant_that_ended_may_be_dead(record: Import, state: GrantState) -> None:
    assert decide(record, state) == Rejected(error=ALREADY_PRESENTED)


@pytest.mark.parametrize("record", [presented(PENDING), presented(presented(PENDING)), REFUSED])
def test_a_grant_that_names_the_token_was_made_by_it(record: Import) -> None:
    """Its pair was stored out of an escrow, by somebody who had no record to write."""
    grant = some_grant(import_fingerprint=record.fingerprint)
    ended = replace(grant, state=GrantState.REVOKED)

    assert decide_import(record, grant, may_replace=True) == Existing()
    assert decide_import(record, ended, may_replace=True) == Rejected(error=ALREADY_PRESENTED)


@pytest.mark.parametrize("state", GrantState)
def test_a_refusal_is_remembered_whatever_the_grant(state: GrantState) -> None:
    assert decide(REFUSED, state, may_replace=True) == Rejected(error="invalid_grant")


def test_a_token_that_was_never_answered_is_presented_once_more() -> None:
    once = presented(PENDING)
    twice = presented(once)

    assert decide(once) == TakeOver()
    assert twice.presentations == MOST_PRESENTATIONS
    assert decide(twice) == Spent()


def test_a_pending_token_does_not_replace_a_grant_unasked() -> None:
    assert decide(presented(PENDING), GrantState.ACTIVE) == WouldReplace()


def test_a_newer_token_that_does_not_open_is_not_replaced_by_the_dead_one() -> None:
    newer = rotated_unstored(presented(PENDING), A_NEWER)

    assert decide(newer) == TakeOver()
    assert decide(replace(newer, refresh_token=None)) == Unreadable()


def test_a_token_that_does_not_open_can_be_brought_again() -> None:
    assert decide(replace(PENDING, refresh_token=None)) == TakeOver()


def test_what_was_not_processed_does_not_count_as_presented() -> None:
    assert not_presented(presented(PENDING)) == PENDING


def test_a_stored_or_refused_token_is_kept_no_longer() -> None:
    assert (STORED.outcome, STORED.refresh_token) == (ImportOutcome.STORED, None)
    assert (REFUSED.outcome, REFUSED.refresh_token) == (ImportOutcome.REFUSED, None)


def test_a_token_that_was_rotated_and_not_stored_leaves_the_newer_one() -> None:
    kept = rotated_unstored(presented(PENDING), A_NEWER)

    assert (kept.refresh_token, kept.presentations, kept.error) == (A_NEWER, 0, SUPERSEDED)
    assert stored(presented(kept)).error == ""


def test_a_digest_is_of_the_bytes_and_of_text_as_utf_8() -> None:
    assert sha256("blå") == sha256("blå".encode()) == hashlib.sha256("blå".encode()).digest()


def test_text_that_is_no_unicode_has_a_digest_all_the_same() -> None:
    assert sha256("\ud800") != sha256("?")


@pytest.mark.parametrize("outcome", ImportOutcome)
def test_a_token_that_another_tenant_brought_is_not_presented_again(outcome: ImportOutcome) -> None:
    theirs = Import(
        tenant="other", fingerprint=b"brought", refresh_token=None, outcome=outcome, error="x"
    )

    step = decide_import(theirs, some_grant(tenant="acme"), may_replace=True)

    assert step == Rejected(error=ALREADY_PRESENTED)


@pytest.mark.parametrize(
    ("record", "shown", "tells"),
    [
        (STORED, A_TOKEN, True),
        (PENDING, A_TOKEN, False),
        (PENDING, None, False),
        (rotated_unstored(PENDING, A_NEWER), A_TOKEN, True),
        (rotated_unstored(PENDING, A_NEWER), A_NEWER, False),
        (rotated_unstored(PENDING, A_NEWER), None, True),
        (replace(PENDING, refresh_token=None), A_TOKEN, False),
    ],
)
def test_a_record_tells_of_a_newer_token_than_the_one_that_was_shown(
    record: Import, shown: RefreshToken | None, *, tells: bool
) -> None:
    assert has_newer(record, shown) is tells
