"""Imports under faults: owners that die or fall silent, acknowledgements that are lost, races."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from broker.domain.errors import (
    ProviderUnavailable,
    RefreshInProgress,
    RefreshOutcomeUnknown,
    RefreshTokenRejected,
    StoreUnavailable,
    SubjectMismatch,
)
from broker.domain.grant import Doubt, Grant, GrantState
from broker.domain.imports import OUTCOME_UNKNOWN, SUPERSEDED, ImportOutcome
from broker.domain.secret import RefreshToken
from broker.sandbox.faults import Drop, Hold, rate_limit
from support.consent_service import ACME, BLUE, Desk, HoldOne, crash, desk, hold_each, the_import
from support.service import Fleet, fleet, seconds_gone
from support.virtual_time import in_virtual_time, let_others_run, pass_time


async def made(call: asyncio.Task[Grant | Exception]) -> Grant:
    grant = await call
    assert isinstance(grant, Grant), grant
    return grant


@in_virtual_time
async def test_a_claim_whose_acknowledgement_was_lost_presents_once() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect()
        ours.world.fail_next("apply", when="departure")

        grant = await desk(ours).bring(brought.refresh_token)

        assert (grant.generation, grant.last_attempt) == (1, 2)
        assert ours.counts().presentations == 1
        assert the_import(ours).outcome is ImportOutcome.STORED


@in_virtual_time
async def test_a_store_whose_acknowledgement_was_lost_is_found_stored() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = desk(ours)
        call = one.call(one.bring(brought.refresh_token))
        await ours.pleo.sandbox.until(held=1)
        ours.world.fail_next("apply", when="departure")

        ours.pleo.sandbox.release()

        assert (await made(call)).generation == ours.grant().generation == 1
        assert the_import(ours).outcome is ImportOutcome.STORED


@in_virtual_time
async def test_the_pair_is_held_until_postgresql_has_taken_it() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = desk(ours)
        call = one.call(one.bring(brought.refresh_token))
        await ours.pleo.sandbox.until(held=1)
        ours.world.fail_next("apply", times=40)
        ours.redis.is_reachable = False
        ours.pleo.sandbox.release()
        await pass_time(60)
        assert len(one.service.holdings) > 0

        grant = await made(call)

        assert (grant.generation, len(one.service.holdings)) == (1, 0)
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_a_token_whose_importer_died_before_sending_is_presented_by_the_next() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect()
        ours.world.on_departure = claim = HoldOne("apply", 1)
        one, two = desk(ours), desk(ours, "two")
        call = one.call(one.bring(brought.refresh_token))
        await claim.reached.wait()
        crash()
        assert isinstance(await call, RefreshInProgress)

        grant = await two.bring(brought.refresh_token)

        assert (grant.generation, grant.doubt) == (1, Doubt.NONE)
        assert ours.counts().presentations == 1
        # The attempt's 30 s, and 20 s in which a living owner could have stored a pair.
        assert seconds_gone() == pytest.approx(50, abs=0.5)


@in_virtual_time
async def test_a_silent_owner_may_store_what_it_holds_before_the_token_is_presented() -> None:
    """Law 3: presenting at once would have killed the pair that the owner holds."""
    async with fleet() as ours:
        brought = ours.pleo.connect()
        ours.world.on_arrival = settlement = HoldOne("apply", 2)
        one, two = desk(ours), desk(ours, "two")
        first = one.call(one.bring(brought.refresh_token))
        await settlement.reached.wait()
        second = two.call(two.bring(brought.refresh_token))
        await pass_time(45)
        assert not second.done()

        settlement.let_go()

        assert (await made(first)).generation == (await made(second)).generation == 1
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_a_record_that_changed_before_the_claim_is_read_again() -> None:
    """A late store changes the row, and not the number of its last attempt."""
    async with fleet() as ours:
        brought = ours.pleo.connect()
        settlement, claim = HoldOne("apply", 2), HoldOne("apply", 3)
        ours.world.on_arrival = hold_each(settlement, claim)
        one, two = desk(ours), desk(ours, "two")
        first = one.call(one.bring(brought.refresh_token))
        await settlement.reached.wait()
        second = two.call(two.bring(brought.refresh_token))
        await claim.reached.wait()
        settlement.let_go()
        await made(first)

        claim.let_go()

        assert (await made(second)).generation == 1
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_the_quarantine_begins_anew_when_another_owner_falls_silent() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect()
        one, two, three = (desk(ours, name) for name in ("one", "two", "three"))
        came = await three.consented()
        await _die_after_claiming(ours, one, brought.refresh_token)
        await pass_time(30)
        second = two.call(two.bring(brought.refresh_token))
        await pass_time(5)
        ours.world.on_departure = claim = HoldOne("apply", 1)
        paused = three.call(three.complete(came))

        assert (await made(second)).generation == 1
        assert seconds_gone() == pytest.approx(35 + 30 + 20, abs=0.8)

        claim.let_go()
        assert isinstance(await paused, ProviderUnavailable)


async def _die_after_claiming(ours: Fleet, one: Desk, refresh_token: RefreshToken) -> None:
    ours.world.on_departure = claim = HoldOne("apply", 1)
    call = one.call(one.bring(refresh_token))
    await claim.reached.wait()
    crash()
    await call


@in_virtual_time
async def test_attempts_of_a_slow_pleo_are_waited_for_as_well() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect()
        minute = timedelta(minutes=1)
        one, two = (desk(ours, name, http_timeout=minute) for name in ("one", "two"))
        await _die_after_claiming(ours, one, brought.refresh_token)

        await two.bring(brought.refresh_token)

        assert seconds_gone() == pytest.approx(80 + 70, abs=0.5)


@in_virtual_time
async def test_a_quarantine_does_not_count_while_postgresql_is_away() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect()
        one, two = desk(ours), desk(ours, "two")
        await _die_after_claiming(ours, one, brought.refresh_token)
        call = two.call(two.bring(brought.refresh_token))
        await pass_time(45)
        ours.world.fail_next("read")
        assert isinstance(await call, StoreUnavailable)

        await two.bring(brought.refresh_token)

        assert seconds_gone() == pytest.approx(45 + 20, abs=0.8)


@in_virtual_time
async def test_a_pair_that_died_with_its_owner_is_not_asked_for_a_third_time() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one, two = desk(ours), desk(ours, "two")
        call = one.call(one.bring(brought.refresh_token))
        await ours.pleo.sandbox.until(held=1)
        crash()
        await call
        ours.pleo.sandbox.release()

        for _ in range(3):
            with pytest.raises(RefreshTokenRejected):
                await two.bring(brought.refresh_token)

        assert ours.counts().presentations == 2
        assert ours.grant().state is GrantState.UNCONNECTED


@in_virtual_time
async def test_a_token_whose_last_answer_is_awaited_is_not_called_rejected() -> None:
    """Two replicas wait for an attempt's end: one presents again, the other has to wait on."""
    async with fleet() as ours:
        brought = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Drop())
        one, two = desk(ours), desk(ours, "two")
        with pytest.raises(RefreshOutcomeUnknown):
            await one.bring(brought.refresh_token)
        ours.pleo.sandbox.faults.add(Hold())
        calls = [each.call(each.bring(brought.refresh_token)) for each in (one, two)]
        await pass_time(31)
        await ours.pleo.sandbox.until(held=1)

        ours.pleo.sandbox.release()

        assert [(await made(call)).generation for call in calls] == [1, 1]
        assert ours.counts().presentations == 2


@in_virtual_time
async def test_who_waits_for_another_attempt_takes_nobodys_turn() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Hold())
        one, two = desk(ours), desk(ours, "two")
        first = one.call(one.bring(brought.refresh_token))
        await ours.pleo.sandbox.until(held=1)
        turns = two.service.turnstile.turn

        async with AsyncExitStack() as places:
            for _ in range(50):
                await places.enter_async_context(turns())
            second = two.call(two.bring(brought.refresh_token))
            await pass_time(1)

            assert two.service.turnstile.waiting == 0
        ours.pleo.sandbox.release()
        assert (await made(first)).generation == (await made(second)).generation == 1


@in_virtual_time
async def test_a_silent_owner_may_store_what_the_last_presentation_brought() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Drop())
        one, two = desk(ours), desk(ours, "two")
        with pytest.raises(RefreshOutcomeUnknown):
            await one.bring(brought.refresh_token)
        ours.world.on_arrival = settlement = HoldOne("apply", 2)
        first = one.call(one.bring(brought.refresh_token))
        await settlement.reached.wait()
        await pass_time(35)
        second = two.call(two.bring(brought.refresh_token))
        await pass_time(10)
        assert not second.done()

        settlement.let_go()

        assert (await made(first)).generation == (await made(second)).generation == 1
        assert ours.counts().presentations == 2


@in_virtual_time
async def test_what_died_with_the_owner_of_the_last_presentation_is_given_up() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Drop())
        one, two = desk(ours), desk(ours, "two")
        with pytest.raises(RefreshOutcomeUnknown):
            await one.bring(brought.refresh_token)
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        call = one.call(one.bring(brought.refresh_token))
        await pass_time(31)
        await ours.pleo.sandbox.until(held=1)
        crash()
        await call

        with pytest.raises(RefreshTokenRejected) as rejected:
            await two.bring(brought.refresh_token)

        assert rejected.value.metadata == {"error": OUTCOME_UNKNOWN}
        # Twice the attempt's 30 s, and 20 s in which a living owner could have stored a pair.
        assert seconds_gone() == pytest.approx(80, abs=0.5)


@in_virtual_time
async def test_a_late_word_does_not_undo_what_the_next_import_stored() -> None:
    """The acknowledgement was lost of "not processed"; meanwhile another one succeeded."""
    async with fleet() as ours:
        brought = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(rate_limit())
        one, two = desk(ours), desk(ours, "two")
        ours.world.on_departure = acknowledgement = HoldOne("apply", 2)
        first = one.call(one.bring(brought.refresh_token))
        await acknowledgement.reached.wait()
        await two.bring(brought.refresh_token)
        ours.world.fail_next("apply", when="departure")

        acknowledgement.let_go()

        assert isinstance(await first, ProviderUnavailable)
        assert the_import(ours).outcome is ImportOutcome.STORED
        assert (await two.bring(brought.refresh_token)).generation == 1
        assert ours.counts().presentations == 2


@in_virtual_time
async def test_a_newer_token_is_not_put_back_over_what_became_of_it() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect(BLUE)
        one, two = desk(ours), desk(ours, "two")
        ours.world.on_departure = acknowledgement = HoldOne("apply", 2)
        first = one.call(one.bring(brought.refresh_token, expected_subject=ACME))
        await acknowledgement.reached.wait()
        await two.bring(brought.refresh_token)
        ours.world.fail_next("apply", when="departure")

        acknowledgement.let_go()

        assert isinstance(await first, SubjectMismatch)
        assert the_import(ours).outcome is ImportOutcome.STORED
        assert the_import(ours).refresh_token is None


@in_virtual_time
async def test_a_newer_token_is_put_on_record_although_another_has_the_row() -> None:
    """Law 3: nobody else has it."""
    async with fleet() as ours:
        brought = ours.pleo.connect(BLUE)
        one, two = desk(ours), desk(ours, "two")
        ours.world.on_arrival = settlement = HoldOne("apply", 2)
        first = one.call(one.bring(brought.refresh_token, expected_subject=ACME))
        await settlement.reached.wait()
        await pass_time(31)
        await two.complete(await two.consented(ACME))
        ours.world.fail_next("find_import", times=2)

        settlement.let_go()

        assert isinstance(await first, SubjectMismatch)
        assert the_import(ours).error == SUPERSEDED
        assert the_import(ours).refresh_token not in (None, brought.refresh_token)
        assert (ours.grant().subject, ours.grant().generation) == (ACME, 1)


@in_virtual_time
async def test_a_row_that_changes_once_more_does_not_lose_the_newer_token() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect(BLUE)
        one, two = desk(ours), desk(ours, "two")
        # The import: claim, settlement; the consent: claim, store; then the record, late.
        settlement, late = HoldOne("apply", 2), HoldOne("apply", 5)
        ours.world.on_arrival = hold_each(settlement, late)
        first = one.call(one.bring(brought.refresh_token, expected_subject=ACME))
        await settlement.reached.wait()
        await pass_time(31)
        await two.complete(await two.consented(ACME))
        settlement.let_go()
        await late.reached.wait()
        await two.revoke()

        late.let_go()

        assert isinstance(await first, SubjectMismatch)
        assert the_import(ours).refresh_token not in (None, brought.refresh_token)
        assert ours.grant().state is GrantState.REVOKED


@in_virtual_time
async def test_a_newer_token_is_not_put_over_what_came_of_an_import_meanwhile() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect(BLUE)
        one, two = desk(ours), desk(ours, "two")
        # The import: claim, settlement; the consent: claim, store; then the record, late.
        settlement, late = HoldOne("apply", 2), HoldOne("apply", 5)
        ours.world.on_arrival = hold_each(settlement, late)
        first = one.call(one.bring(brought.refresh_token, expected_subject=ACME))
        await settlement.reached.wait()
        await pass_time(31)
        await two.complete(await two.consented(ACME))
        settlement.let_go()
        await late.reached.wait()
        with pytest.raises(RefreshTokenRejected):
            await two.bring(brought.refresh_token, replace=True)

        late.let_go()

        assert isinstance(await first, SubjectMismatch)
        assert the_import(ours).outcome is ImportOutcome.REFUSED


@in_virtual_time
async def test_shutdown_waits_while_pleo_is_asked_whose_a_token_is() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Hold(), endpoint="api")
        one = desk(ours)
        call = one.call(one.bring(brought.refresh_token))
        await ours.pleo.sandbox.until(held=1)

        stopping = ours.tasks.create_task(one.service.settled(patience=0.1), name="stopping")
        await pass_time(1)
        assert not stopping.done()
        ours.pleo.sandbox.release()
        await stopping

        assert (ours.grant().generation, (await made(call)).generation) == (1, 1)


@in_virtual_time
async def test_a_newer_token_waits_for_postgresql_as_a_pair_does() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect(BLUE)
        ours.pleo.sandbox.faults.add(Hold(), endpoint="api")
        one = desk(ours)
        call = one.call(one.bring(brought.refresh_token, expected_subject=ACME))
        await ours.pleo.sandbox.until(held=1)
        ours.world.fail_next("apply", times=40)
        ours.pleo.sandbox.release()
        await pass_time(60)
        assert len(one.service.holdings) > 0

        assert isinstance(await call, SubjectMismatch)
        assert the_import(ours).refresh_token not in (None, brought.refresh_token)


@in_virtual_time
async def test_a_refusal_that_postgresql_does_not_take_is_asked_for_once_more() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect()
        ours.pleo.sandbox.server.disconnect(company=ACME)
        ours.pleo.sandbox.faults.add(Hold())
        one = desk(ours)
        call = one.call(one.bring(brought.refresh_token))
        await ours.pleo.sandbox.until(held=1)
        ours.world.fail_next("apply", times=1000)
        ours.pleo.sandbox.release()
        assert isinstance(await call, StoreUnavailable)
        ours.world.fail_next("apply", times=0)

        with pytest.raises(RefreshTokenRejected):
            await one.bring(brought.refresh_token)
        await let_others_run()

        assert ours.counts().presentations == 2
