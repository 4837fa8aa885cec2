"""Reports that come while somebody is at the grant: they wait for the outcome and start nothing.

Pleo kills a token when it answers, and we have the successor a moment later. A caller whose 401
falls in between is to be given that successor, not the dead token once more.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from broker.domain.errors import ProviderUnavailable, RefreshInProgress
from broker.domain.facts import RejectionReported
from broker.domain.grant import AttemptPhase
from broker.sandbox.faults import Hold, fail
from broker.service.messages import RefreshGrant, ServedToken
from support.consent_service import WEB, Desk, desk
from support.grants import THE_NOW, some_attempt
from support.service import BUDGET, Fleet, fleet, seconds_gone
from support.virtual_time import in_virtual_time, let_others_run, pass_time


async def rotation_on_the_wire(ours: Fleet, one: Desk) -> None:
    """Begins one by hand. Pleo has processed it, and holds its answer back."""
    ours.pleo.sandbox.faults.add(Hold(when="after"), endpoint="token")
    request = RefreshGrant(tenant="acme", caller=WEB, reason="OPS-17")
    rotated = one.service.broker.refresh_grant(request, budget=BUDGET)
    ours.tasks.create_task(rotated, name="an operator")
    await ours.pleo.sandbox.until(held=1)


async def report(one: Desk, *, seconds: float = 30.0) -> int:
    """Reports generation 7, and returns the generation of the answer."""
    got = await one.service.broker.get_access_token(
        "acme", rejected_generation=7, budget=timedelta(seconds=seconds)
    )
    return got.generation


def verdicts(one: Desk) -> list[str]:
    return [told.verdict for told in one.told.of(RejectionReported)]


@pytest.mark.parametrize("reporter", ["one", "two"])
def test_reports_during_a_rotation_by_hand_get_its_token(reporter: str) -> None:
    @in_virtual_time
    async def story() -> None:
        async with fleet() as ours:
            ours.connect()
            desks = {"one": desk(ours), "two": desk(ours, "two")}
            await rotation_on_the_wire(ours, desks["one"])

            calls = [ours.tasks.create_task(report(desks[reporter])) for _ in range(500)]
            await pass_time(5)
            ours.pleo.sandbox.release()

            assert set(await asyncio.gather(*calls)) == {8}
            assert ours.counts().presentations == 1
            assert ours.grant().rejection.generation == 0
            assert verdicts(desks[reporter]) == ["moved_on"]

    story()


@in_virtual_time
async def test_a_report_does_not_wait_for_a_poll_of_its_own_replica() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)
        await rotation_on_the_wire(ours, one)
        call = ours.tasks.create_task(report(one))
        await let_others_run()

        ours.pleo.sandbox.release()

        assert (await call, seconds_gone()) == (8, 0)


@in_virtual_time
async def test_a_report_during_an_import_gets_the_imported_token() -> None:
    async with fleet() as ours:
        ours.connect()
        one, two = desk(ours), desk(ours, "two")
        ours.pleo.sandbox.faults.add(Hold(when="after"), endpoint="token")
        brought = ours.pleo.connect().refresh_token
        ours.tasks.create_task(one.bring(brought, replace=True))
        await ours.pleo.sandbox.until(held=1)

        call = ours.tasks.create_task(report(two))
        await let_others_run()
        ours.pleo.sandbox.release()

        assert await call == 8


@in_virtual_time
async def test_who_cannot_wait_so_long_is_told_to_ask_again() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)
        await rotation_on_the_wire(ours, one)

        with pytest.raises(RefreshInProgress):
            await report(one, seconds=5)

        assert seconds_gone() == pytest.approx(4.7)
        ours.pleo.sandbox.release()


@in_virtual_time
async def test_an_attempt_that_came_to_nothing_has_the_report_judged() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.pleo.sandbox.faults.add(Hold(when="before"), fail(429), endpoint="token")
        one, two = desk(ours), desk(ours, "two")
        request = RefreshGrant(tenant="acme", caller=WEB, reason="OPS-17")
        refused = ours.tasks.create_task(outcome(one, request))
        await ours.pleo.sandbox.until(held=1)

        call = ours.tasks.create_task(report(two))
        await let_others_run()
        ours.pleo.sandbox.release()

        assert isinstance(await refused, ProviderUnavailable)
        assert await call == 7  # it lives after all
        assert verdicts(two) == ["believed"]
        assert ours.counts().presentations == 1


async def outcome(one: Desk, request: RefreshGrant) -> Exception | None:
    try:
        await one.service.broker.refresh_grant(request, budget=BUDGET)
    except ProviderUnavailable as error:
        return error
    return None


@in_virtual_time
async def test_an_owner_who_gave_up_is_not_waited_for() -> None:
    async with fleet() as ours:
        deadline = THE_NOW + timedelta(seconds=30)
        ours.connect(attempt=some_attempt(phase=AttemptPhase.UNKNOWN, deadline=deadline))
        one = desk(ours)

        assert (await report(one), seconds_gone()) == (7, 0)

        assert verdicts(one) == ["in_doubt"]
        assert ours.counts().presentations == 0


@in_virtual_time
async def test_an_owner_who_fell_silent_is_waited_for_until_its_deadline() -> None:
    async with fleet() as ours:
        deadline = THE_NOW + timedelta(seconds=3)
        ours.connect(attempt=some_attempt(attempt_id="theirs", deadline=deadline))
        one = ours.replica()

        before, call = ours.counts().presentations, one.call(rejected=7)
        await pass_time(2.9)

        assert (before, ours.counts().presentations, ours.grant().rejection.generation) == (0, 0, 0)
        served = await call
        assert isinstance(served, ServedToken)
        assert served.generation == 7  # alive, says Pleo
        assert seconds_gone() == pytest.approx(3, abs=0.25)


@in_virtual_time
async def test_attempts_that_never_end_are_not_waited_for_for_ever() -> None:
    async with fleet() as ours:
        deadline = THE_NOW + timedelta(hours=1)
        ours.connect(attempt=some_attempt(attempt_id="theirs", deadline=deadline))
        one = ours.replica()

        error = await one.call(rejected=7, budget=timedelta(minutes=5))

        assert isinstance(error, RefreshInProgress)
        assert seconds_gone() == pytest.approx(60, abs=0.25)
