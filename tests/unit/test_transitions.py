"""Every write in every state: it leads where the table says, or changes nothing.

`LEGAL` is the table of ARCHITECTURE.md again, written out, so that a change of one is seen by the
other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import pytest

from broker.domain.consent_writes import claim_consent, destroy_pair, revoke, store_consented
from broker.domain.decision import TRANSITIONS, Changed, Decision, Unchanged, Why, Write
from broker.domain.grant import AttemptKind, AttemptPhase, Doubt, FailureRecord, Grant, GrantState
from broker.domain.refresh_writes import (
    arm,
    call_unknown,
    claim_refresh,
    let_go,
    refuse,
    store_rotated,
)
from support.grants import (
    THE_NOW,
    changed,
    some_attempt,
    some_claimer,
    some_grant,
    some_grant_under,
    some_issue,
)

UNCONNECTED = GrantState.UNCONNECTED
ACTIVE = GrantState.ACTIVE
HELD = GrantState.HELD
REAUTH = GrantState.REAUTH_REQUIRED
REVOKED = GrantState.REVOKED

LEGAL: dict[Write, dict[GrantState, GrantState]] = {
    Write.CLAIM_REFRESH: {ACTIVE: ACTIVE},
    Write.STORE_ROTATED: {ACTIVE: ACTIVE, HELD: ACTIVE, REAUTH: ACTIVE},
    Write.REFUSE: {ACTIVE: REAUTH},
    Write.STORE_CONSENTED: {
        UNCONNECTED: ACTIVE,
        ACTIVE: ACTIVE,
        HELD: ACTIVE,
        REAUTH: ACTIVE,
        REVOKED: ACTIVE,
    },
    Write.REVOKE: {ACTIVE: REVOKED, HELD: REVOKED, REAUTH: REVOKED},
}

MINE = some_attempt()
MY_CONSENT = some_attempt(kind=AttemptKind.EXCHANGE)


def _claim(state: GrantState) -> Decision:
    return claim_refresh(some_grant(state=state), some_claimer(), generation=7, now=THE_NOW)


def _store(state: GrantState) -> Decision:
    return store_rotated(some_grant_under(MINE, state=state), MINE, some_issue(), now=THE_NOW)


def _refuse(state: GrantState) -> Decision:
    grant = some_grant_under(MINE, state=state)
    return refuse(grant, MINE, provider_error="invalid_grant", now=THE_NOW)


def _consent(state: GrantState) -> Decision:
    grant = some_grant_under(MY_CONSENT, state=state)
    return store_consented(grant, MY_CONSENT, some_issue(), now=THE_NOW)


def _revoke(state: GrantState) -> Decision:
    return revoke(some_grant(state=state), now=THE_NOW)


WRITES: Mapping[Write, Callable[[GrantState], Decision]] = {
    Write.CLAIM_REFRESH: _claim,
    Write.STORE_ROTATED: _store,
    Write.REFUSE: _refuse,
    Write.STORE_CONSENTED: _consent,
    Write.REVOKE: _revoke,
}

PAIRS = list(itertools.product(Write, GrantState))
LEGAL_PAIRS = [(write, state) for write, state in PAIRS if state in LEGAL[write]]
ILLEGAL_PAIRS = [(write, state) for write, state in PAIRS if state not in LEGAL[write]]


def test_the_table_is_the_one_that_is_documented() -> None:
    assert {write: dict(states) for write, states in TRANSITIONS.items()} == LEGAL


@pytest.mark.parametrize(("write", "state"), LEGAL_PAIRS)
def test_a_legal_write_leads_where_the_table_says(write: Write, state: GrantState) -> None:
    assert changed(WRITES[write](state)).state is LEGAL[write][state]


@pytest.mark.parametrize(
    ("write", "state"), [pair for pair in ILLEGAL_PAIRS if pair[0] is not Write.REFUSE]
)
def test_an_illegal_write_changes_nothing(write: Write, state: GrantState) -> None:
    expected = Why.ALREADY if (write, state) == (Write.REVOKE, REVOKED) else Why.STATE

    assert WRITES[write](state) == Unchanged(why=expected)


@pytest.mark.parametrize(
    "state", [state for write, state in ILLEGAL_PAIRS if write is Write.REFUSE]
)
def test_an_illegal_refusal_lets_go_of_the_attempt_and_nothing_else(state: GrantState) -> None:
    assert WRITES[Write.REFUSE](state) == Changed(
        after=some_grant(state=state, last_attempt=MINE.number)
    )


@pytest.mark.parametrize("state", GrantState)
def test_only_an_active_grant_is_armed(state: GrantState) -> None:
    claimed = some_attempt(phase=AttemptPhase.CLAIMED)
    grant = some_grant_under(claimed, state=state)

    decision = arm(grant, claimed, deadline=THE_NOW, now=THE_NOW)

    assert isinstance(decision, Changed) is (state is ACTIVE)


@pytest.mark.parametrize("state", GrantState)
def test_only_the_tokens_of_a_revoked_grant_are_destroyed(state: GrantState) -> None:
    assert isinstance(destroy_pair(some_grant(state=state)), Changed) is (state is REVOKED)


UNMOVING: dict[str, Callable[[Grant], Decision]] = {
    "claim_consent": lambda grant: claim_consent(
        grant, some_claimer(attempt_id=MINE.attempt_id), now=THE_NOW
    ),
    "call_unknown": lambda grant: call_unknown(grant, MINE, failures=FailureRecord()),
    "let_go": lambda grant: let_go(grant, MINE),
}


@pytest.mark.parametrize("write", UNMOVING)
@pytest.mark.parametrize("state", GrantState)
def test_the_writes_of_an_attempt_are_legal_in_any_state(write: str, state: GrantState) -> None:
    grant = some_grant_under(MINE, state=state, doubt=Doubt.NONE)

    assert changed(UNMOVING[write](grant)).state is state
