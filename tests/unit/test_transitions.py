"""Every write in every state: it leads where the table says, or changes nothing.

`LEGAL` is `TRANSITIONS` again, written out, so that a change of one is seen by the other; and so is
the table of ARCHITECTURE.md.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.consent_writes import claim_consent, destroy_pair, revoke, store_consented
from broker.domain.decision import TRANSITIONS, Changed, Decision, Unchanged, Why, Write
from broker.domain.grant import AttemptKind, AttemptPhase, Doubt, FailureRecord, Grant, GrantState
from broker.domain.guard import Guard, hold
from broker.domain.guard_writes import confirm, discard, hold_back
from broker.domain.refresh_writes import (
    arm,
    call_unknown,
    claim_refresh,
    let_go,
    refuse,
    store_rotated,
)
from support.grants import (
    A_TICK,
    THE_NOW,
    changed,
    some_attempt,
    some_claimer,
    some_grant,
    some_grant_under,
    some_issue,
    some_reauth,
)
from support.source import ROOT

UNCONNECTED = GrantState.UNCONNECTED
ACTIVE = GrantState.ACTIVE
HELD = GrantState.HELD
REAUTH = GrantState.REAUTH_REQUIRED
REVOKED = GrantState.REVOKED

LEGAL: dict[Write, dict[GrantState, GrantState]] = {
    Write.CLAIM_REFRESH: {ACTIVE: ACTIVE},
    Write.STORE_ROTATED: {ACTIVE: ACTIVE, HELD: ACTIVE, REAUTH: ACTIVE},
    Write.REFUSE: {ACTIVE: REAUTH},
    Write.HOLD: {ACTIVE: HELD},
    Write.HOLD_BACK: {REAUTH: HELD},
    Write.CONFIRM: {HELD: REAUTH},
    Write.DISCARD: {HELD: ACTIVE, REAUTH: ACTIVE},
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


def _hold(state: GrantState) -> Decision:
    grant = some_grant_under(MINE, state=state)
    return refuse(grant, MINE, provider_error="invalid_grant", is_held=True, now=THE_NOW)


def _hold_back(state: GrantState) -> Decision:
    return hold_back(_refused(state), hold(Guard(), now=THE_NOW, hold_for=timedelta(hours=4)))


def _confirm(state: GrantState) -> Decision:
    no_time = timedelta(0)
    return confirm(_refused(state), generation=7, quarantine=no_time, keep_for=no_time, now=THE_NOW)


def _discard(state: GrantState) -> Decision:
    return discard(replace(_refused(state), quarantined_until=THE_NOW + A_TICK), now=THE_NOW)


def _refused(state: GrantState) -> Grant:
    return some_grant(state=state, reauth=some_reauth())


WRITES: Mapping[Write, Callable[[GrantState], Decision]] = {
    Write.CLAIM_REFRESH: _claim,
    Write.STORE_ROTATED: _store,
    Write.REFUSE: _refuse,
    Write.HOLD: _hold,
    Write.HOLD_BACK: _hold_back,
    Write.CONFIRM: _confirm,
    Write.DISCARD: _discard,
    Write.STORE_CONSENTED: _consent,
    Write.REVOKE: _revoke,
}

REFUSALS = (Write.REFUSE, Write.HOLD)
PAIRS = list(itertools.product(Write, GrantState))
LEGAL_PAIRS = [(write, state) for write, state in PAIRS if state in LEGAL[write]]
ILLEGAL_PAIRS = [(write, state) for write, state in PAIRS if state not in LEGAL[write]]


def test_the_table_is_the_one_that_is_written_out() -> None:
    assert {write: dict(states) for write, states in TRANSITIONS.items()} == LEGAL


def test_the_architecture_shows_the_same_table() -> None:
    page = (ROOT / "broker" / "ARCHITECTURE.md").read_text()
    section = page.partition("## The states of a grant")[2].partition("\n## ")[0]
    _, *rows = re.findall(r"^\| (.+) \| (.+) \| (\w+) \|$", section, re.MULTILINE)

    assert {
        Write(write): {GrantState[each]: GrantState[after] for each in before.split(", ")}
        for write, before, after in rows
    } == LEGAL


@pytest.mark.parametrize(("write", "state"), LEGAL_PAIRS)
def test_a_legal_write_leads_where_the_table_says(write: Write, state: GrantState) -> None:
    assert changed(WRITES[write](state)).state is LEGAL[write][state]


@pytest.mark.parametrize(
    ("write", "state"), [pair for pair in ILLEGAL_PAIRS if pair[0] not in REFUSALS]
)
def test_an_illegal_write_changes_nothing(write: Write, state: GrantState) -> None:
    expected = Why.ALREADY if (write, state) == (Write.REVOKE, REVOKED) else Why.STATE

    assert WRITES[write](state) == Unchanged(why=expected)


@pytest.mark.parametrize(
    ("write", "state"), [pair for pair in ILLEGAL_PAIRS if pair[0] in REFUSALS]
)
def test_an_illegal_refusal_lets_go_of_the_attempt_and_nothing_else(
    write: Write, state: GrantState
) -> None:
    assert WRITES[write](state) == Changed(after=some_grant(state=state, last_attempt=MINE.number))


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
