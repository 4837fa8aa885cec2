"""Every change of state and every administrative act leaves one event, with who did it and why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, TypeAlias

import pytest

from broker.domain.errors import StoreUnavailable
from broker.domain.grant import Doubt, Grant, GrantState
from broker.domain.guard import Release
from broker.domain.history import FleetAct, GrantEvent
from broker.sandbox.faults import Hold, refuse
from broker.service.messages import RefreshGrant
from support.consent_service import WEB, Desk, crash, desk
from support.fake_world import Call
from support.grants import some_reauth
from support.incidents import FIVE, ask, held_five, put_held, refused
from support.service import BUDGET, TIMES, Fleet, fleet
from support.source import ROOT
from support.virtual_time import in_virtual_time, pass_time

UNCONNECTED, ACTIVE, HELD, REAUTH, REVOKED = GrantState
BROKER: Final = "broker"
QUARANTINE: Final = TIMES.quarantine.total_seconds()

Deed: TypeAlias = Callable[[Desk], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What an event says, its tenant and generation aside."""

    actor: str
    call: str
    reason: str = ""
    before: GrantState
    after: GrantState


def told_of(ours: Fleet, *, since: int = 0, tenant: str = "acme") -> list[Told]:
    """Returns the events of a tenant after the first ones."""
    events: list[GrantEvent] = [each for each in ours.world.events if each.tenant == tenant]
    return [
        Told(
            actor=each.actor,
            call=each.call,
            reason=each.reason,
            before=each.before,
            after=each.after,
        )
        for each in events[since:]
    ]


async def connected(one: Desk) -> None:
    await one.complete(await one.consented())


def test_every_write_of_a_grant_goes_where_its_event_is_made() -> None:
    """So that a write which is added one day cannot forget it."""
    callers = [
        path.name
        for path in (ROOT / "broker" / "service").glob("*.py")
        if "store.apply(" in path.read_text()
    ]

    # The fleet's row is no grant.
    assert sorted(callers) == ["fleet.py", "rows.py"]


async def consent(one: Desk) -> None:
    await connected(one)


async def bring(one: Desk) -> None:
    await one.bring(one.fleet.pleo.connect().refresh_token)


FIRST: dict[str, tuple[Deed, Told]] = {
    "a consent": (
        consent,
        Told(
            actor=WEB, call="GrantService/CompleteAuthorization", before=UNCONNECTED, after=ACTIVE
        ),
    ),
    "an import": (
        bring,
        Told(actor=WEB, call="GrantService/ImportGrant", before=UNCONNECTED, after=ACTIVE),
    ),
}


@pytest.mark.parametrize("what", FIRST)
@in_virtual_time
async def test_what_connects_a_tenant_leaves_one_event(what: str) -> None:
    deed, told = FIRST[what]
    async with fleet() as ours:
        await deed(desk(ours))

        assert told_of(ours) == [told]


async def revoke(one: Desk) -> None:
    await one.revoke()


async def refuse_a_refresh(one: Desk) -> None:
    await refused(one, ["acme"])


async def replace_by_import(one: Desk) -> None:
    await one.bring(one.fleet.pleo.connect().refresh_token, replace=True)


async def rotate(one: Desk) -> None:
    request = RefreshGrant(tenant="acme", caller="anna", reason="it leaked")
    await one.service.broker.refresh_grant(request, budget=BUDGET)


LATER: dict[str, tuple[Deed, Told]] = {
    "another consent": (
        consent,
        Told(actor=WEB, call="GrantService/CompleteAuthorization", before=ACTIVE, after=ACTIVE),
    ),
    "another import": (
        replace_by_import,
        Told(actor=WEB, call="GrantService/ImportGrant", before=ACTIVE, after=ACTIVE),
    ),
    "a revocation": (
        revoke,
        Told(
            actor=WEB,
            call="GrantService/RevokeGrant",
            reason="it is over",
            before=ACTIVE,
            after=REVOKED,
        ),
    ),
    "a rotation that was asked for": (
        rotate,
        Told(
            actor="anna",
            call="OperationsService/RefreshGrant",
            reason="it leaked",
            before=ACTIVE,
            after=ACTIVE,
        ),
    ),
    "a refusal": (
        refuse_a_refresh,
        Told(
            actor=BROKER,
            call="REFRESH REFUSED",
            reason="invalid_grant",
            before=ACTIVE,
            after=REAUTH,
        ),
    ),
}


@pytest.mark.parametrize("what", LATER)
@in_virtual_time
async def test_what_happens_to_a_grant_leaves_one_event(what: str) -> None:
    deed, told = LATER[what]
    async with fleet() as ours:
        one = desk(ours)
        ours.connect(subject=None)
        await deed(one)

        assert told_of(ours) == [told]


@in_virtual_time
async def test_a_refresh_in_doubt_that_is_refused_leaves_one_event() -> None:
    async with fleet() as ours:
        await refused(desk(ours), ["acme"], doubt=Doubt.DISCLAIMED)

        assert [(each.call, each.after) for each in told_of(ours)] == [("REFRESH REFUSED", REAUTH)]


@in_virtual_time
async def test_a_refresh_that_works_is_no_event() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        await ask(desk(ours), "acme")

        assert told_of(ours) == []


@in_virtual_time
async def test_what_is_repeated_leaves_no_second_event() -> None:
    async with fleet() as ours:
        one = desk(ours)
        came = await one.consented()
        for _ in range(2):
            await one.complete(came)
        for _ in range(2):
            await one.revoke()

        assert [each.after for each in told_of(ours)] == [ACTIVE, REVOKED]


@in_virtual_time
async def test_an_acknowledgement_that_is_lost_leaves_one_event() -> None:
    async with fleet() as ours:
        one = desk(ours)
        came = await one.consented()
        applied = 0

        async def lose(call: Call) -> None:
            nonlocal applied
            applied += call.method == "apply"
            if call.method == "apply" and applied == 2:
                raise StoreUnavailable("the test loses the acknowledgement")

        ours.world.on_departure = lose
        await one.complete(came)

        assert (applied >= 2, [each.after for each in told_of(ours)]) == (True, [ACTIVE])


@in_virtual_time
async def test_what_the_guard_holds_back_leaves_one_event_more() -> None:
    async with fleet() as ours:
        await held_five(desk(ours))

        believed, held = told_of(ours, tenant=FIVE[0])
        assert (believed.before, believed.after) == (ACTIVE, REAUTH)
        assert held == Told(
            actor=BROKER,
            call="guard HOLD",
            reason="many grants were refused at once",
            before=REAUTH,
            after=HELD,
        )


@in_virtual_time
async def test_a_refusal_under_a_hold_leaves_one_event() -> None:
    async with fleet() as ours:
        one = desk(ours)
        put_held(ours, 5)
        await one.service.fleet.poll()

        await refused(one, ["acme"])

        assert [(each.before, each.after) for each in told_of(ours)] == [(ACTIVE, HELD)]


@pytest.mark.parametrize(
    ("release", "after"), [(Release.CONFIRM, REAUTH), (Release.DISCARD, ACTIVE)]
)
@in_virtual_time
async def test_what_an_engineer_decides_leaves_one_event_for_each_grant(
    release: Release, after: GrantState
) -> None:
    async with fleet() as ours:
        one = desk(ours)
        tenants = put_held(ours, 3)
        await pass_time(QUARANTINE)

        await one.service.broker.release_guard(release, by="anna", reason="OPS-17")

        told = Told(
            actor="anna",
            call=f"guard {release.value}",
            reason="OPS-17",
            before=HELD,
            after=after,
        )
        assert [told_of(ours, tenant=each) for each in tenants] == [[told]] * 3


@pytest.mark.parametrize("held", [0, 3])
@in_virtual_time
async def test_a_release_of_the_guard_is_one_act_however_many_are_held(held: int) -> None:
    async with fleet() as ours:
        one = desk(ours)
        put_held(ours, held)

        await one.service.broker.release_guard(Release.DISCARD, by="anna", reason="OPS-17")

        assert ours.world.acts == [
            FleetAct(
                actor="anna",
                call="guard DISCARD",
                reason="OPS-17",
                before="HOLDING",
                after="DISCARDING",
            )
        ]


@in_virtual_time
async def test_a_rotation_that_is_refused_leaves_the_act_and_the_refusal() -> None:
    async with fleet() as ours:
        one = desk(ours)
        ours.connect(subject=None)
        ours.pleo.sandbox.faults.add(refuse("invalid_grant"))

        await one.call(rotate(one))

        assert [(each.actor, each.call, each.after) for each in told_of(ours)] == [
            ("anna", "OperationsService/RefreshGrant", ACTIVE),
            (BROKER, "REFRESH REFUSED", REAUTH),
        ]


@in_virtual_time
async def test_a_hold_that_nobody_decides_on_leaves_one_event_by_the_broker() -> None:
    async with fleet() as ours:
        one = desk(ours)
        (tenant,) = put_held(ours, 1)
        await pass_time(timedelta(hours=4).total_seconds())

        await one.service.fleet.poll()
        for _ in range(2):
            await one.service.guard.turn()

        assert [(each.actor, each.after) for each in told_of(ours, tenant=tenant)] == [
            (BROKER, REAUTH)
        ]


@in_virtual_time
async def test_a_canary_that_is_let_out_leaves_one_event() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await held_five(one)
        since = len(ours.world.events)

        await one.service.canary.turn()
        await one.service.canary.turn()

        (event,) = ours.world.events[since:]
        assert (event.actor, event.call, event.after) == (BROKER, "guard CANARY", ACTIVE)


@in_virtual_time
async def test_a_late_pair_that_revives_a_grant_leaves_one_event() -> None:
    async with fleet() as ours:
        one = desk(ours)
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        call = one.call(one.generation())
        await ours.pleo.sandbox.until(held=1)
        ours.put(replace(ours.grant(), state=REAUTH, reauth=some_reauth()))

        ours.pleo.sandbox.release()
        await call

        assert [(each.call, each.before, each.after) for each in told_of(ours)] == [
            ("REFRESH ROTATED", REAUTH, ACTIVE)
        ]


@in_virtual_time
async def test_a_consent_that_is_adopted_leaves_one_event() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = desk(ours)
        call = one.call(one.complete(await one.consented()))
        await ours.pleo.sandbox.until(held=1)
        await _taking_no_writes(ours, call)

        await desk(ours, "two").service.adoption.sweep()

        assert [(each.actor, each.call, each.after) for each in told_of(ours)] == [
            (BROKER, "adopt an escrow", ACTIVE)
        ]


async def _taking_no_writes(ours: Fleet, call: asyncio.Task[Grant | Exception]) -> None:
    """Lets Pleo's answer come while PostgreSQL takes nothing, and the owner die after that."""

    async def refuse_writes(call: Call) -> None:
        if call.method == "apply":
            raise StoreUnavailable("the test refuses writes")

    let_pass, ours.world.on_arrival = ours.world.on_arrival, refuse_writes
    ours.pleo.sandbox.release()
    await pass_time(1)
    crash()
    await call
    ours.world.on_arrival = let_pass


@in_virtual_time
async def test_what_is_written_back_leaves_one_event() -> None:
    async with fleet() as ours:
        one = desk(ours)
        ours.connect_expired()
        saved = ours.world.save()
        await ask(one, "acme")
        ours.world.restore(saved)
        await one.service.fleet.poll()

        await one.service.writing_back.read("acme")

        assert [(each.actor, each.call, each.reason) for each in told_of(ours)] == [
            (BROKER, "write back", "PostgreSQL had lost it")
        ]


@in_virtual_time
async def test_a_deletion_at_pleo_is_an_act_of_its_own() -> None:
    async with fleet() as ours:
        ours.connect()

        await desk(ours).revoke(at_provider=True)

        assert [(each.call, each.after) for each in told_of(ours)] == [
            ("GrantService/RevokeGrant", REVOKED),
            ("GrantService/RevokeGrant#provider", REVOKED),
        ]
