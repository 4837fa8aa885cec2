"""Incidents at Pleo, as the broker meets them: many grants refused, and how each stands after."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from broker.domain.fleet import FleetState
from broker.domain.grant import Doubt, GrantState
from broker.domain.guard import Guard, hold
from broker.sandbox.faults import refuse
from broker.service.messages import ServedToken
from support.consent_service import Desk
from support.grants import some_reauth
from support.service import BUDGET, GUARD_HOLD, Fleet, virtual_now
from support.virtual_time import let_others_run

FIVE: Final = ("t1", "t2", "t3", "t4", "t5")
"""As many as the guard needs."""


async def ask(one: Desk, tenant: str) -> ServedToken | Exception:
    """Calls GetAccessToken; an error is returned."""
    work = one.service.broker.get_access_token(tenant, rejected_generation=None, budget=BUDGET)
    return await one.call(work)


async def ask_all(one: Desk, tenants: Iterable[str]) -> list[ServedToken | Exception]:
    """Asks for one after the other."""
    return [await ask(one, tenant) for tenant in tenants]


async def all_well(one: Desk, count: int) -> None:
    """Lets so many grants be refreshed as they should."""
    for number in range(count):
        one.fleet.connect_expired(tenant=f"well-{number}")
        got = await ask(one, f"well-{number}")
        assert isinstance(got, ServedToken)


async def refused(
    one: Desk, tenants: Sequence[str] = FIVE, *, doubt: Doubt = Doubt.NONE
) -> list[ServedToken | Exception]:
    """Lets Pleo refuse each of these once, one after the other; their tokens live on there."""
    for tenant in tenants:
        one.fleet.connect_expired(tenant=tenant, doubt=doubt)
        one.fleet.pleo.sandbox.faults.add(refuse("invalid_grant"))
    return await ask_all(one, tenants)


async def held_five(one: Desk) -> None:
    """Lets the guard hold five grants."""
    await refused(one)
    await one.service.guard.turn()
    assert states(one.fleet) == {GrantState.HELD}


def put_held(ours: Fleet, count: int) -> list[str]:
    """Puts so many held grants into the world, and the guard that holds them."""
    tenants = [f"held-{number}" for number in range(count)]
    for tenant in tenants:
        ours.connect_expired(tenant=tenant, state=GrantState.HELD, reauth=some_reauth())
    put_guard(ours, hold(Guard(), now=virtual_now(), hold_for=GUARD_HOLD))
    return tenants


def put_guard(ours: Fleet, guard: Guard) -> None:
    """Writes the guard, past all brokers."""
    ours.world.fleet = replace(ours.world.fleet, guard=guard)
    ours.world.fleet_version += 1


def put_fleet(ours: Fleet, state: FleetState) -> None:
    """Writes the fleet's row, past all brokers."""
    ours.world.fleet = state
    ours.world.fleet_version += 1


def states(ours: Fleet, tenants: Iterable[str] = FIVE) -> set[GrantState]:
    """Returns how these grants stand."""
    return {ours.grant(tenant).state for tenant in tenants}


def presentations(ours: Fleet) -> int:
    """Returns how many tokens Pleo was shown."""
    return ours.counts().presentations


async def guard_turns(*desks: Desk, count: int = 1) -> None:
    """Lets guard and canary of each take turns, one after the other."""
    for _ in range(count):
        for one in desks:
            await one.service.fleet.poll()
            await one.service.guard.turn()
            await one.service.canary.turn()
        await let_others_run()
