"""CompleteAuthorization: who may complete, once, and the same result for whoever comes again."""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.errors import (
    AuthorizationStateInvalid,
    BrokerError,
    CodeRejected,
    ConsentDenied,
    ProviderUnavailable,
    RefreshInProgress,
)
from broker.domain.grant import AttemptKind, Grant, GrantState
from broker.domain.hashing import sha256
from broker.sandbox.faults import Hold, refuse
from broker.service.messages import AuthorizationDenied
from support.consent_service import (
    DENIED,
    CompleteChanges,
    HoldOne,
    another_code,
    authorization,
    crash,
    desk,
    exchanges,
    hold_each,
)
from support.grants import some_attempt
from support.service import Gate, fleet, seconds_gone, virtual_now
from support.virtual_time import in_virtual_time, let_others_run, pass_time

STRANGERS: list[CompleteChanges] = [
    {"tenant": "other"},
    {"caller": "uri:spiffe://example.org/stranger"},
    {"session_binding": b"derived from another cookie"},
]


@in_virtual_time
async def test_a_browser_that_cannot_wait_is_told_before_its_deadline_and_comes_again() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one, two = desk(ours), desk(ours, "two")
        came = await one.consented()

        for each in (one, two):
            with pytest.raises(RefreshInProgress):
                await each.complete(came, budget=timedelta(seconds=5))
        ours.pleo.sandbox.release()

        assert (await two.complete(came)).generation == (await one.complete(came)).generation == 1
        assert len(exchanges(ours)) == 1


@in_virtual_time
async def test_a_consent_becomes_a_grant_that_serves() -> None:
    async with fleet() as ours:
        one = desk(ours)
        grant = await one.complete(await one.consented())

        assert (grant.state, grant.generation) == (GrantState.ACTIVE, 1)
        assert await one.generation() == 1
        assert len(exchanges(ours)) == ours.counts().consents == 1


@pytest.mark.parametrize("changes", STRANGERS)
@in_virtual_time
async def test_a_stranger_sends_nothing_and_spends_the_state(changes: CompleteChanges) -> None:
    """RFC 9700 §2.1."""
    async with fleet() as ours:
        one = desk(ours)
        came = await one.consented()

        with pytest.raises(AuthorizationStateInvalid):
            await one.complete(came, **changes)
        with pytest.raises(AuthorizationStateInvalid):
            await one.complete(came)

        assert exchanges(ours) == []
        assert authorization(ours, came).code_verifier is None


@in_virtual_time
async def test_a_customer_who_comes_too_late_starts_again() -> None:
    async with fleet() as ours:
        one = desk(ours)
        came = await one.consented()
        await pass_time(600)

        with pytest.raises(AuthorizationStateInvalid):
            await one.complete(came)

        assert exchanges(ours) == []
        assert authorization(ours, came).spent_at is not None


@in_virtual_time
async def test_a_state_that_nobody_was_given_is_invalid() -> None:
    async with fleet() as ours:
        one = desk(ours)
        came = await one.consented()

        with pytest.raises(AuthorizationStateInvalid):
            await one.complete(came, state="guessed")

        assert exchanges(ours) == []
        assert (await one.complete(came)).generation == 1


@in_virtual_time
async def test_a_denial_is_told_as_often_as_it_comes() -> None:
    async with fleet() as ours:
        one = desk(ours)
        came = await one.consented()

        for _ in range(2):
            with pytest.raises(ConsentDenied) as denied:
                await one.complete(came, result=DENIED)
            assert denied.value.metadata == {"error": "access_denied"}
        with pytest.raises(AuthorizationStateInvalid):
            await one.complete(came)

        assert exchanges(ours) == []


@in_virtual_time
async def test_a_stranger_spends_the_state_for_a_denial_too() -> None:
    async with fleet() as ours:
        one = desk(ours)
        came = await one.consented()
        with pytest.raises(AuthorizationStateInvalid):
            await one.complete(came, tenant="other")

        with pytest.raises(AuthorizationStateInvalid):
            await one.complete(came, result=AuthorizationDenied(error="access_denied"))


@in_virtual_time
async def test_the_same_code_again_brings_the_same_grant() -> None:
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        came = await one.consented()
        first = await one.complete(came)

        again, elsewhere = await one.complete(came), await two.complete(came)

        assert first.generation == again.generation == elsewhere.generation == 1
        assert len(exchanges(ours)) == 1


@in_virtual_time
async def test_another_code_with_the_same_state_is_invalid() -> None:
    async with fleet() as ours:
        one = desk(ours)
        came = await one.consented()
        await one.complete(came)

        with pytest.raises(AuthorizationStateInvalid):
            await one.complete(came, result=another_code())

        assert len(exchanges(ours)) == 1
        assert (await one.complete(came)).generation == 1


@in_virtual_time
async def test_many_calls_in_many_replicas_send_the_code_once() -> None:
    async with fleet() as ours:
        desks = [desk(ours, name) for name in ("one", "two", "three")]
        came = await desks[0].consented()

        calls = [each.call(each.complete(came)) for each in desks for _ in range(10)]
        got = await asyncio.gather(*calls)

        assert [grant.generation for grant in got if isinstance(grant, Grant)] == [1] * 30
        assert len(exchanges(ours)) == 1


@in_virtual_time
async def test_a_reloaded_page_joins_the_exchange_in_this_process() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = desk(ours)
        came = await one.consented()
        first = one.call(one.complete(came))
        await ours.pleo.sandbox.until(held=1)

        again = one.call(one.complete(came))
        await let_others_run()
        ours.pleo.sandbox.release()

        assert await first == await again
        assert (seconds_gone(), len(exchanges(ours))) == (0, 1)


@in_virtual_time
async def test_a_reloaded_page_waits_as_long_as_this_process_holds_the_pair() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = desk(ours)
        came = await one.consented()
        first = one.call(one.complete(came))
        await ours.pleo.sandbox.until(held=1)
        ours.world.fail_next("apply", times=40)
        ours.pleo.sandbox.release()
        await pass_time(1)

        again = await one.complete(came)

        assert (again.generation, generation_of(await first)) == (1, 1)
        assert seconds_gone() > 60


@in_virtual_time
async def test_a_reloaded_page_waits_for_the_exchange_of_another_replica() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one, two = desk(ours), desk(ours, "two")
        came = await one.consented()
        first = one.call(one.complete(came))
        await ours.pleo.sandbox.until(held=1)

        again = two.call(two.complete(came))
        await pass_time(5)
        assert not again.done()
        ours.pleo.sandbox.release()

        assert generation_of(await first) == generation_of(await again) == 1
        assert len(exchanges(ours)) == 1


def generation_of(got: Grant | Exception) -> int:
    assert isinstance(got, Grant), got
    return got.generation


@in_virtual_time
async def test_an_exchange_is_joined_although_its_claim_was_made_twice() -> None:
    """The acknowledgement of the claim was lost: the attempt has the next number then."""
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one, two = desk(ours), desk(ours, "two")
        came = await one.consented()
        ours.world.fail_next("apply", when="departure")
        first = one.call(one.complete(came))
        await ours.pleo.sandbox.until(held=1)

        again = two.call(two.complete(came))
        await pass_time(1)
        ours.pleo.sandbox.release()

        assert generation_of(await first) == generation_of(await again) == 1
        assert (ours.grant().consent_attempt, len(exchanges(ours))) == (2, 1)


@in_virtual_time
async def test_a_refused_code_is_refused_as_often_as_it_comes() -> None:
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        ours.pleo.sandbox.faults.add(refuse("invalid_grant"))
        came = await one.consented()
        first = one.call(one.complete(came))

        reasons = [await first, await two.call(two.complete(came))]

        assert [told(error) for error in reasons] == [("CODE_REJECTED", "invalid_grant")] * 2
        assert len(exchanges(ours)) == 1


def told(error: object) -> tuple[str, str]:
    assert isinstance(error, BrokerError), error
    return error.reason, error.metadata.get("error", "")


@in_virtual_time
async def test_another_code_that_comes_at_once_is_invalid() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = desk(ours)
        came = await one.consented()
        gate = ours.watch("apply")
        first = one.call(one.complete(came))
        second = one.call(one.complete(came, result=another_code()))
        await gate.reached.wait()
        gate.open()
        await ours.pleo.sandbox.until(held=1)

        ours.pleo.sandbox.release()

        assert generation_of(await first) == 1
        assert told(await second) == ("AUTHORIZATION_STATE_INVALID", "")
        assert len(exchanges(ours)) == 1


@in_virtual_time
async def test_a_state_that_was_denied_before_the_claim_is_invalid() -> None:
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        came = await one.consented()
        gate = ours.watch("apply")
        first = one.call(one.complete(came))
        await gate.reached.wait()
        with pytest.raises(ConsentDenied):
            await two.complete(came, result=DENIED)

        gate.open()

        assert told(await first) == ("AUTHORIZATION_STATE_INVALID", "")
        assert exchanges(ours) == []


@in_virtual_time
async def test_a_state_that_is_deleted_before_the_claim_is_invalid() -> None:
    async with fleet() as ours:
        one = desk(ours)
        came = await one.consented()
        gate = ours.watch("apply")
        first = one.call(one.complete(came))
        await gate.reached.wait()
        ours.world.authorizations.clear()

        gate.open()

        assert told(await first) == ("AUTHORIZATION_STATE_INVALID", "")
        assert exchanges(ours) == []


@in_virtual_time
async def test_a_code_that_never_left_can_come_again() -> None:
    async with fleet() as ours:
        one = desk(ours)
        came = await one.consented()
        ours.pleo.unreachable = "connect_refused"
        with pytest.raises(ProviderUnavailable):
            await one.complete(came)
        ours.pleo.unreachable = None

        grant = await one.complete(came)

        assert (grant.generation, len(exchanges(ours))) == (1, 1)


@in_virtual_time
async def test_who_waited_for_a_code_that_never_left_hears_so() -> None:
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        came = await one.consented()
        ours.pleo.unreachable = "connect_refused"
        ours.world.on_arrival = gate = Gate("apply", passing=1)
        first = one.call(one.complete(came))
        await gate.reached.wait()
        second = two.call(two.complete(came))
        await pass_time(1)

        gate.open()

        assert told(await first)[0] == told(await second)[0] == "PROVIDER_UNAVAILABLE"
        assert exchanges(ours) == []


@in_virtual_time
async def test_who_lost_to_a_code_that_never_left_hears_so_too() -> None:
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        came = await one.consented()
        ours.pleo.unreachable = "connect_refused"
        late_read, settlement, look = HoldOne("read", 1), HoldOne("apply", 2), HoldOne("find", 3)
        ours.world.on_arrival = hold_each(late_read, settlement, look)
        second = two.call(two.complete(came))
        await late_read.reached.wait()
        first = one.call(one.complete(came))
        await settlement.reached.wait()
        await pass_time(31)
        late_read.let_go()
        await look.reached.wait()
        settlement.let_go()
        await let_others_run()

        look.let_go()

        assert told(await first)[0] == told(await second)[0] == "PROVIDER_UNAVAILABLE"
        assert exchanges(ours) == []


@in_virtual_time
async def test_an_exchange_that_died_is_unknown_to_whoever_comes_again() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one, two = desk(ours), desk(ours, "two")
        came = await one.consented()
        first = one.call(one.complete(came))
        await ours.pleo.sandbox.until(held=1)
        second = two.call(two.complete(came))
        await let_others_run()

        crash()

        assert told(await first)[0] == "REFRESH_IN_PROGRESS"
        assert told(await second)[0] == "EXCHANGE_OUTCOME_UNKNOWN"
        assert seconds_gone() == pytest.approx(30, abs=0.3)
        assert len(exchanges(ours)) == 1


@in_virtual_time
async def test_an_authorization_that_is_deleted_meanwhile_is_unknown() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one, two = desk(ours), desk(ours, "two")
        came = await one.consented()
        first = one.call(one.complete(came))
        await ours.pleo.sandbox.until(held=1)
        second = two.call(two.complete(came))
        await pass_time(1)
        ours.world.authorizations.clear()

        ours.pleo.sandbox.release()

        assert generation_of(await first) == 1
        assert told(await second)[0] == "EXCHANGE_OUTCOME_UNKNOWN"


@in_virtual_time
async def test_who_waits_for_exchanges_without_end_is_asked_to_come_again() -> None:
    async with fleet() as ours:
        one = desk(ours)
        came = await one.consented()
        await one.complete(came)
        state_hash = sha256(came.state)
        lost = replace(ours.world.authorizations[state_hash], outcome=None)
        ours.world.authorizations[state_hash] = lost
        endless = virtual_now() + timedelta(minutes=5)
        attempt = some_attempt(number=2, kind=AttemptKind.EXCHANGE, deadline=endless)
        ours.put(replace(ours.grant(), attempt=attempt, last_attempt=2))

        with pytest.raises(RefreshInProgress):
            await one.complete(came)

        assert seconds_gone() == pytest.approx(60, abs=0.3)


@in_virtual_time
async def test_a_browser_that_goes_away_changes_nothing() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = desk(ours)
        came = await one.consented()
        first, second = one.call(one.complete(came)), one.call(one.complete(came))
        await ours.pleo.sandbox.until(held=1)

        first.cancel()
        await let_others_run()
        ours.pleo.sandbox.release()

        assert generation_of(await second) == 1
        assert first.cancelled()


@in_virtual_time
async def test_an_exchange_that_all_have_left_is_followed_to_its_end() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = desk(ours)
        came = await one.consented()
        call = one.call(one.complete(came))
        await ours.pleo.sandbox.until(held=1)

        call.cancel()
        await let_others_run()
        ours.pleo.sandbox.release()
        await one.service.grant_flights.settled()

        assert (await one.complete(came)).generation == 1
        assert len(exchanges(ours)) == 1


@in_virtual_time
async def test_callers_of_one_failure_do_not_add_to_its_traceback() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(refuse("invalid_grant"))
        one = desk(ours)
        came = await one.consented()

        calls = [one.call(one.complete(came)) for _ in range(20)]
        errors = await asyncio.gather(*calls)

        (error,) = set(errors)
        assert isinstance(error, CodeRejected)
        assert len(traceback.extract_tb(error.__traceback__)) < 10
