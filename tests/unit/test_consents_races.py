"""Consents, imports and refreshes of one tenant at once: the newest consent stands (law 4)."""

from __future__ import annotations

import asyncio

import pytest

from broker.domain.errors import (
    ExchangeOutcomeUnknown,
    RefreshOutcomeUnknown,
    SubjectAlreadyConnected,
)
from broker.domain.grant import Doubt, Grant, GrantState
from broker.domain.history import AttemptOutcome
from broker.sandbox.faults import Delay, Hold
from support.consent_service import ACME, BLUE, HoldOne, desk, exchanges
from support.service import fleet, seconds_gone
from support.virtual_time import in_virtual_time, pass_time


@in_virtual_time
async def test_consents_of_many_browsers_at_once_all_become_grants_in_turn() -> None:
    async with fleet() as ours:
        ours.connect()
        desks = [desk(ours, name) for name in ("one", "two", "three", "four")]
        came = [await each.consented() for each in desks]

        got = await asyncio.gather(
            *(each.complete(returned) for each, returned in zip(desks, came, strict=True))
        )

        assert sorted(grant.generation for grant in got) == [8, 9, 10, 11]
        grant = ours.grant()
        assert (grant.generation, grant.attempt, grant.doubt) == (11, None, Doubt.NONE)
        assert grant.consent_attempt == grant.last_attempt


@in_virtual_time
async def test_a_consent_that_a_later_one_overtook_is_dropped_and_told() -> None:
    """Its owner was late to store the pair, and the later consent is the customer's word."""
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        first, second = await one.consented(), await two.consented()
        ours.world.on_arrival = settlement = HoldOne("apply", 2)
        overtaken = one.call(one.complete(first))
        await settlement.reached.wait()
        await pass_time(31)
        await two.complete(second)
        consented = ours.grant()

        settlement.let_go()

        assert isinstance(await overtaken, ExchangeOutcomeUnknown)
        assert (ours.grant().pair, ours.grant().generation) == (consented.pair, 1)
        outcomes = [line.outcome for line in ours.world.attempts]
        assert outcomes[-1] is AttemptOutcome.STALE


@in_virtual_time
async def test_a_slow_refresh_keeps_a_consent_waiting_until_its_deadline_at_most() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        slow = Delay(seconds=40, when="after")
        ours.pleo.sandbox.faults.add(slow, grant_type="refresh_token")
        one, two = desk(ours), desk(ours, "two")
        came = await one.consented()
        refresh = two.call(two.generation())
        await pass_time(1)

        grant = await one.complete(came)

        assert (grant.state, grant.generation) == (GrantState.ACTIVE, 8)
        assert 28 <= seconds_gone() <= 31
        await refresh


@in_virtual_time
async def test_after_a_revocation_no_consent_waits_for_a_refresh_that_is_answered() -> None:
    """Its pair is dropped, and nothing of it is on the wire any more."""
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"), grant_type="refresh_token")
        one = desk(ours)
        refresh = one.call(one.generation())
        await ours.pleo.sandbox.until(held=1)
        await one.revoke()
        ours.pleo.sandbox.release()
        await refresh

        await one.complete(await one.consented())

        assert seconds_gone() == 0
        outcomes = [line.outcome for line in ours.world.attempts]
        assert outcomes == [AttemptOutcome.STALE, AttemptOutcome.ROTATED]


@in_virtual_time
async def test_an_import_during_a_refresh_is_not_overwritten_by_it() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        brought = ours.pleo.connect()
        one, two = desk(ours), desk(ours, "two")
        ours.world.on_arrival = settlement = HoldOne("apply", 2)
        refresh = two.call(two.generation())
        await settlement.reached.wait()
        await pass_time(31)
        await one.bring(brought.refresh_token, replace=True)
        imported = ours.grant()

        settlement.let_go()
        await refresh

        assert (ours.grant().pair, ours.grant().generation) == (imported.pair, 8)


@in_virtual_time
async def test_an_import_that_waited_for_a_consent_is_not_stored_over_it() -> None:
    """What it was to replace is gone, and its token may be one that the consent superseded."""
    async with fleet() as ours:
        ours.connect()
        brought = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one, two = desk(ours), desk(ours, "two")
        consent = one.call(one.complete(await one.consented()))
        await ours.pleo.sandbox.until(held=1)
        call = two.call(two.bring(brought.refresh_token, replace=True))
        await pass_time(1)

        ours.pleo.sandbox.release()

        assert isinstance(await consent, Grant)
        assert isinstance(await call, RefreshOutcomeUnknown)
        assert (ours.grant().generation, ours.counts().presentations) == (8, 0)
        assert (await two.bring(brought.refresh_token, replace=True)).generation == 9


@in_virtual_time
async def test_an_import_that_waited_does_not_revive_what_was_revoked_meanwhile() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        brought = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one, two = desk(ours), desk(ours, "two")
        refresh = one.call(one.generation())
        await ours.pleo.sandbox.until(held=1)
        call = two.call(two.bring(brought.refresh_token, replace=True))
        await pass_time(1)
        await one.revoke()

        ours.pleo.sandbox.release()
        await refresh

        assert isinstance(await call, RefreshOutcomeUnknown)
        assert ours.grant().state is GrantState.REVOKED


@in_virtual_time
async def test_a_refresh_is_not_presented_while_an_import_is_armed() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        brought = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one, two = desk(ours), desk(ours, "two")
        call = one.call(one.bring(brought.refresh_token, replace=True))
        await ours.pleo.sandbox.until(held=1)
        refresh = two.call(two.generation())
        await pass_time(3)
        assert ours.counts().presentations == 1

        ours.pleo.sandbox.release()

        assert await refresh == 8
        assert isinstance(await call, Grant)
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_a_change_of_company_is_stored_whole_and_frees_the_earlier_one() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await one.complete(await one.consented(ACME))
        await one.complete(await one.consented(BLUE, allow_subject_change=True))

        elsewhere = await one.complete(await one.consented(ACME, tenant="other"))

        assert (ours.grant().subject, elsewhere.subject) == (BLUE, ACME)


@in_virtual_time
async def test_a_change_to_a_company_of_another_tenant_leaves_both_grants() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await one.complete(await one.consented(ACME))
        await one.complete(await one.consented(BLUE, tenant="other"))
        came = await one.consented(BLUE, allow_subject_change=True)

        with pytest.raises(SubjectAlreadyConnected):
            await one.complete(came)

        assert (ours.grant().subject, ours.grant("other").subject) == (ACME, BLUE)
        assert (ours.grant().generation, ours.grant().attempt) == (1, None)
        assert len(exchanges(ours)) == 3
