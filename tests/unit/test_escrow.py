"""An escrow is adopted under the conditions of the store that it stands for, and no others."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.decision import Why
from broker.domain.escrow import Escrow, adopt
from broker.domain.grant import Attempt, AttemptKind, AttemptPhase, Doubt, Grant, GrantState
from broker.domain.secret import RefreshToken, Secret
from broker.lease.escrow_text import EscrowUnreadableError, read_escrow, write_escrow
from support.grants import (
    THE_NOW,
    changed,
    some_attempt,
    some_grant,
    some_grant_under,
    some_issue,
    why_not,
)


def some_escrow(attempt: Attempt | None = None) -> Escrow:
    return Escrow(
        tenant="acme",
        attempt=attempt or some_attempt(),
        issued=some_issue(),
        import_fingerprint=b"brought",
        state_hash=b"the state's hash",
        consent_attempt=3,
        imported=RefreshToken(Secret("brought")),
    )


def test_a_refresh_is_stored_as_its_owner_would_have_stored_it() -> None:
    after = changed(adopt(some_escrow(), some_grant_under(some_attempt()), now=THE_NOW))

    assert (after.generation, after.pair_attempt, after.pair_base) == (8, 13, 7)
    assert after.attempt is None


@pytest.mark.parametrize("kind", [AttemptKind.EXCHANGE, AttemptKind.IMPORT])
def test_a_consent_is_stored_though_the_grant_moved_on(kind: AttemptKind) -> None:
    escrow = some_escrow(some_attempt(kind=kind))

    after = changed(adopt(escrow, some_grant(generation=9, pair_attempt=14), now=THE_NOW))

    assert (after.generation, after.consent_attempt) == (10, 13)
    assert after.import_fingerprint == b"brought"


@pytest.mark.parametrize(
    ("grant", "why"),
    [
        pytest.param(some_grant(pair_attempt=13), Why.ALREADY, id="stored by its owner"),
        pytest.param(some_grant(generation=9), Why.MOVED_ON, id="overtaken"),
        pytest.param(
            some_grant(state=GrantState.REVOKED, revoked_at=THE_NOW), Why.STATE, id="revoked"
        ),
    ],
)
def test_what_the_owner_might_not_store_nobody_may(grant: Grant, why: Why) -> None:
    assert why_not(adopt(some_escrow(), grant, now=THE_NOW)) is why


def test_a_pair_is_stored_over_a_row_that_lost_what_it_was_based_on() -> None:
    older = some_grant(generation=4, pair_attempt=9)

    after = changed(adopt(some_escrow(), older, now=THE_NOW))

    assert (after.generation, after.pair_attempt, after.doubt) == (8, 13, Doubt.ABANDONED)


@pytest.mark.parametrize(
    "older",
    [
        pytest.param(some_grant(generation=4, consent_attempt=2), id="of another consent"),
        pytest.param(some_grant(generation=4, pair_attempt=14), id="rotated after the loss"),
        pytest.param(
            some_grant(consent_attempt=14, pair_attempt=14, pair_base=None),
            id="given a generation again that was lost",
        ),
    ],
)
def test_but_not_where_the_row_is_another_grants_or_has_moved_on(older: Grant) -> None:
    assert why_not(adopt(some_escrow(), older, now=THE_NOW)) is Why.MOVED_ON


def test_anothers_armed_attempt_may_be_presenting_this_very_token() -> None:
    grant = some_grant_under(some_attempt(number=14, attempt_id="other"))

    assert why_not(adopt(some_escrow(), grant, now=THE_NOW)) is Why.ATTEMPT_LIVE


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(
            some_attempt(number=14, phase=AttemptPhase.CLAIMED), id="who waits for just this"
        ),
        pytest.param(some_attempt(number=14, phase=AttemptPhase.UNKNOWN), id="who holds nothing"),
        pytest.param(some_attempt(number=14, deadline=THE_NOW), id="whose deadline is here"),
    ],
)
def test_an_attempt_that_presents_nothing_does_not_block(other: Attempt) -> None:
    after = changed(adopt(some_escrow(), some_grant_under(other), now=THE_NOW))

    assert after.generation == 8
    assert after.attempt == other


def test_an_escrow_is_read_as_it_was_written() -> None:
    escrow = some_escrow(some_attempt(deadline=THE_NOW + timedelta(microseconds=1)))

    assert read_escrow(write_escrow(escrow)) == escrow


def test_an_escrow_of_an_earlier_release_is_read_without_its_state() -> None:
    text = write_escrow(replace(some_escrow(), state_hash=None))
    earlier = text.replace(b',"state_hash":null', b"")

    assert earlier != text
    assert read_escrow(earlier) == replace(some_escrow(), state_hash=None)


@pytest.mark.parametrize(
    "text",
    [b"", b"null", b'{"version": 2}', write_escrow(some_escrow()).replace(b"REFRESH", b"OTHER")],
)
def test_what_is_no_escrow_is_refused_without_repeating_it(text: bytes) -> None:
    with pytest.raises(EscrowUnreadableError) as raised:
        read_escrow(text)

    assert "fake-" not in str(raised.value)
    assert raised.value.__cause__ is None
