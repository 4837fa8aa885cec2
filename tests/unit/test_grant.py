"""What a grant is made of: deadlines, ownership, and a tenant that nobody has connected."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from datetime import timedelta

import pytest

from broker import domain
from broker.domain.decision import TRANSITIONS, Write, next_state
from broker.domain.grant import Doubt, FailureKind, Grant, GrantState
from support.grants import A_TICK, some_attempt, some_grant, some_grant_under


def values() -> list[type]:
    """Returns the dataclasses of the domain."""
    names = [f"{domain.__name__}.{each.name}" for each in pkgutil.iter_modules(domain.__path__)]
    found = {
        each
        for name in names
        for each in vars(importlib.import_module(name)).values()
        if isinstance(each, type) and dataclasses.is_dataclass(each)
    }
    return sorted(found, key=lambda each: each.__qualname__)


@pytest.mark.parametrize("value", values(), ids=lambda each: each.__qualname__)
def test_every_value_of_the_domain_is_frozen_and_named_by_field(value: type) -> None:
    assert value.__dataclass_params__.frozen  # type: ignore[attr-defined] # dataclass's own
    assert "__slots__" in vars(value)
    assert all(field.kw_only for field in dataclasses.fields(value))


def test_an_attempt_is_live_until_its_deadline() -> None:
    attempt = some_attempt()

    assert attempt.is_live(attempt.deadline - A_TICK)
    assert not attempt.is_live(attempt.deadline)


def test_a_grant_is_owned_by_the_attempt_on_its_row_alone() -> None:
    grant = some_grant_under(some_attempt(number=13))

    assert grant.owns(13)
    assert not grant.owns(12)
    assert not grant.owns(14)
    assert not some_grant().owns(13)


def test_a_tenant_that_nobody_connected_has_nothing() -> None:
    grant = Grant(tenant="acme")

    assert grant.state is GrantState.UNCONNECTED
    assert (grant.generation, grant.last_attempt, grant.consent_attempt) == (0, 0, 0)
    assert (grant.pair, grant.attempt, grant.doubt) == (None, None, Doubt.NONE)
    assert (grant.failures.kind, grant.failures.count) == (FailureKind.NONE, 0)
    assert (grant.rejection.generation, grant.rejection.interval) == (0, timedelta(0))


def test_doubt_is_ordered_from_none_to_abandoned() -> None:
    """By numbers that rows hold, and that therefore stay."""
    assert [each.value for each in (Doubt.NONE, Doubt.DISCLAIMED, Doubt.ABANDONED)] == [0, 1, 2]


def test_the_table_names_every_write() -> None:
    assert set(TRANSITIONS) == set(Write)


@pytest.mark.parametrize("write", Write)
@pytest.mark.parametrize("state", GrantState)
def test_a_state_leads_where_the_table_says_or_nowhere(write: Write, state: GrantState) -> None:
    expected = TRANSITIONS[write].get(state)

    assert next_state(write, some_grant(state=state)) is expected
