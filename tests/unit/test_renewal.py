"""Which grants are due as planned work. What the store makes of it is in its conformance suite."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from broker.domain.grant import Doubt, GrantState
from broker.domain.renewal import LATE, Planned, due_since, is_late, may_be_renewed
from support.grants import A_TICK, THE_NOW, some_grant, some_pair

KEEPALIVE = timedelta(days=20)
A_MINUTE = timedelta(minutes=1)

USED = replace(
    some_grant(), refreshed_at=THE_NOW, last_used_at=THE_NOW + A_MINUTE, renew_at=THE_NOW
)


def test_what_is_in_use_is_due_at_its_renewal_time() -> None:
    assert due_since(USED, Planned.IN_USE, keepalive=KEEPALIVE) == THE_NOW


def test_what_was_not_used_since_its_rotation_is_not_due() -> None:
    before = replace(USED, last_used_at=THE_NOW - A_MINUTE)
    never = replace(USED, last_used_at=None)

    for grant in (before, never):
        assert due_since(grant, Planned.IN_USE, keepalive=KEEPALIVE) is None


def test_what_is_idle_is_due_when_its_token_is_old() -> None:
    assert due_since(USED, Planned.IDLE, keepalive=KEEPALIVE) == THE_NOW + KEEPALIVE


def test_what_serves_no_tokens_is_never_due() -> None:
    held = replace(USED, state=GrantState.HELD)
    unborn = replace(USED, refreshed_at=None)

    for grant in (held, unborn):
        assert due_since(grant, Planned.IDLE, keepalive=KEEPALIVE) is None


def test_what_is_in_abandoned_doubt_waits_for_a_caller() -> None:
    assert may_be_renewed(replace(USED, doubt=Doubt.DISCLAIMED), THE_NOW)
    assert not may_be_renewed(replace(USED, doubt=Doubt.ABANDONED), THE_NOW)


def test_without_a_refresh_token_nothing_is_renewed() -> None:
    bare = replace(some_pair(7), refresh_token=None)

    assert not may_be_renewed(replace(USED, pair=bare), THE_NOW)
    assert not may_be_renewed(replace(USED, pair=None), THE_NOW)


def test_what_is_in_use_is_late_a_minute_after_its_time() -> None:
    assert not is_late(USED, THE_NOW + LATE)
    assert is_late(USED, THE_NOW + LATE + A_TICK)


def test_what_nobody_asked_for_is_never_late() -> None:
    unused = replace(USED, last_used_at=None)
    held = replace(USED, state=GrantState.HELD)

    for grant in (unused, held):
        assert not is_late(grant, THE_NOW + 60 * LATE)
