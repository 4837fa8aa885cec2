"""What each answer of Pleo leads to, for the row, for callers, and for the next presentation."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from broker.domain.decision import Why
from broker.domain.errors import (
    BrokerError,
    GrantHeld,
    ProviderRejectedClient,
    ProviderUnavailable,
    ReauthRequired,
    RefreshOutcomeUnknown,
    TenantNotFound,
    TransientError,
)
from broker.domain.facts import (
    AttemptAnswered,
    AttemptSending,
    AttemptSettled,
    ReauthBecameRequired,
    Source,
    TokenServed,
)
from broker.domain.grant import (
    Attempt,
    AttemptPhase,
    Doubt,
    FailureKind,
    Grant,
    GrantState,
    ReauthCause,
)
from broker.domain.history import AttemptOutcome
from broker.domain.requests import RefreshRequest
from broker.sandbox.faults import Alter, Drop, Hang, Hold, fail, rate_limit, refuse
from broker.sandbox.settings import ReuseMode
from broker.service.messages import ServedToken
from broker.service.settle import Claimed
from broker.service.wire import presented_token
from support.grants import THE_NOW, some_attempt, some_reauth
from support.service import Fleet, Replica, fleet, seconds_gone
from support.virtual_time import in_virtual_time, let_others_run, pass_time


def attempt_of(ours: Fleet) -> Attempt:
    attempt = ours.grant().attempt
    assert attempt is not None
    return attempt


async def error_of(one: Replica) -> BrokerError:
    error = await one.call()
    assert isinstance(error, BrokerError)
    return error


@in_virtual_time
async def test_a_refresh_stores_the_new_pair_and_serves_it() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()

        got = await one.get()

        grant = ours.grant()
        assert (got.generation, grant.generation, grant.attempt) == (8, 8, None)
        assert (grant.pair_attempt, grant.pair_base) == (13, 7)
        assert one.told.of(TokenServed) == [TokenServed(source=Source.REFRESH, degraded=False)]
        assert [told.outcome for told in one.told.of(AttemptSettled)] == [AttemptOutcome.ROTATED]


@in_virtual_time
async def test_a_refused_grant_needs_a_new_consent() -> None:
    async with fleet() as ours:
        ours.connect_due()
        ours.pleo.sandbox.faults.add(refuse("invalid_grant"))
        one = ours.replica()

        with pytest.raises(ReauthRequired) as raised:
            await one.get()

        assert raised.value.metadata["cause"] == ReauthCause.EXPIRED_OR_REVOKED.value
        assert (ours.grant().state, ours.grant().attempt) == (GrantState.REAUTH_REQUIRED, None)
        (told,) = one.told.of(ReauthBecameRequired)
        assert (told.cause, told.provider_error) == (
            ReauthCause.EXPIRED_OR_REVOKED,
            "invalid_grant",
        )
        (event,) = ours.world.events
        assert (event.before, event.after) == (GrantState.ACTIVE, GrantState.REAUTH_REQUIRED)
        assert (event.call, event.reason) == ("REFRESH REFUSED", "invalid_grant")


@in_virtual_time
async def test_a_dead_grant_is_never_presented_however_often_it_is_asked_for() -> None:
    async with fleet() as ours:
        ours.connect_expired(state=GrantState.REAUTH_REQUIRED, reauth=some_reauth())
        one = ours.replica()

        errors = [await error_of(one) for _ in range(1000)]

        assert {type(error) for error in errors} == {ReauthRequired}
        assert ours.counts().presentations == 0


@in_virtual_time
async def test_a_held_grant_is_not_presented_and_stands_in() -> None:
    async with fleet() as ours:
        ours.connect_due(tenant="living", state=GrantState.HELD)
        ours.connect_expired(tenant="dead", state=GrantState.HELD)
        one = ours.replica()

        living, dead = await one.get("living"), await one.call("dead")

        assert living.is_degraded
        assert isinstance(dead, GrantHeld)
        assert ours.counts().presentations == 0


LOST = [Drop(when="after"), Drop(when="before"), fail(502), fail(502, when="after")]


@pytest.mark.parametrize("step", LOST)
@in_virtual_time
async def test_an_unknown_outcome_keeps_the_attempt_and_its_deadline(step: Drop) -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(step)
        one = ours.replica()

        error = await error_of(one)

        deadline = THE_NOW + timedelta(seconds=30)
        grant = ours.grant()
        assert isinstance(error, RefreshOutcomeUnknown)
        assert error.retry_after == timedelta(seconds=30)
        assert (attempt_of(ours).phase, attempt_of(ours).deadline) == (
            AttemptPhase.UNKNOWN,
            deadline,
        )
        assert (grant.doubt, grant.state) == (Doubt.DISCLAIMED, GrantState.ACTIVE)
        assert grant.failures.kind is FailureKind.OUTCOME_UNKNOWN
        assert grant.failures.next_try_at == deadline


@in_virtual_time
async def test_nothing_is_presented_before_an_unknown_attempts_deadline() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Drop(when="before"))
        one, two = ours.replica("one"), ours.replica("two")
        errors = [await error_of(one)]
        for _ in range(29):
            await pass_time(1)
            errors += [await error_of(one), await error_of(two)]

        assert {type(error) for error in errors} == {RefreshOutcomeUnknown}
        assert ours.counts().presentations == 1


@pytest.mark.parametrize("mode", ["strict", "grace"])
@in_virtual_time
async def test_after_the_deadline_it_is_presented_exactly_once_more(mode: ReuseMode) -> None:
    async with fleet(mode) as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Drop(when="after"))
        one, two = ours.replica("one"), ours.replica("two")
        await error_of(one)
        await pass_time(30)

        got = await asyncio.gather(*(each.call() for each in (one, two) for _ in range(100)))

        assert ours.counts().presentations == 2
        assert ours.counts().overlapping == 0
        if mode == "grace":
            assert {served.generation for served in got if isinstance(served, ServedToken)} == {8}
            assert ours.grant().doubt is Doubt.NONE
        else:
            causes = {error.metadata["cause"] for error in got if isinstance(error, ReauthRequired)}
            assert causes == {ReauthCause.ROTATION_LOST.value}


@in_virtual_time
async def test_a_living_token_stands_in_while_the_outcome_is_unknown() -> None:
    async with fleet() as ours:
        ours.connect_due()
        ours.pleo.sandbox.faults.add(Drop(when="before"))
        one = ours.replica()

        first, second = await one.get(), await one.get()

        assert first.is_degraded
        assert second.is_degraded
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_unknown_again_and_again_backs_off_up_to_a_minute() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(fail(503), times=None)
        one = ours.replica()
        presented_at: list[float] = []
        while len(presented_at) < 9:
            before = ours.counts().presentations
            error = await error_of(one)
            assert isinstance(error, RefreshOutcomeUnknown)
            presented_at += [seconds_gone()] * (ours.counts().presentations - before)
            await pass_time(error.retry_after.total_seconds())

        pauses = [later - earlier for earlier, later in pairwise(presented_at)]
        assert pauses == [30, 30, 30, 30, 30, 32, 60, 60]
        assert ours.grant().failures.count == 9


@in_virtual_time
async def test_an_answer_is_listened_for_until_shortly_before_the_deadline() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hang())
        one = ours.replica()
        call = one.call()

        await one.landed()

        assert seconds_gone() == 28
        assert isinstance(await call, RefreshOutcomeUnknown)
        assert attempt_of(ours).phase is AttemptPhase.UNKNOWN


@in_virtual_time
async def test_a_late_answer_still_counts() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = ours.replica()
        call = one.call()
        await ours.pleo.sandbox.until(held=1)
        await pass_time(27)

        ours.pleo.sandbox.release()
        await one.landed()

        assert isinstance(await call, RefreshOutcomeUnknown)
        assert (await one.get()).generation == 8


@in_virtual_time
async def test_a_rate_limit_is_kept_to_and_clears_the_attempt() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(rate_limit(retry_after="120"))
        one = ours.replica()

        errors = [await error_of(one) for _ in range(3)]

        assert [type(error) for error in errors] == [ProviderUnavailable] * 3
        assert isinstance(errors[0], TransientError)
        assert errors[0].retry_after == timedelta(seconds=120)
        assert (ours.grant().attempt, ours.grant().doubt) == (None, Doubt.NONE)
        await pass_time(119)
        await error_of(one)
        assert ours.counts().presentations == 1
        await pass_time(1)
        assert (await one.get()).generation == 8


@in_virtual_time
async def test_a_pleo_that_cannot_be_reached_is_tried_again_after_a_second() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.unreachable = "connect_refused"
        one = ours.replica()
        error = await error_of(one)
        ours.pleo.unreachable = None

        await pass_time(1)

        assert isinstance(error, ProviderUnavailable)
        assert error.metadata == {"code": "connect_refused"}
        assert (await one.get()).generation == 8


@in_virtual_time
async def test_a_refused_client_leaves_the_grant_active() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(refuse("invalid_client", status=401))
        one = ours.replica()

        error = await error_of(one)

        grant = ours.grant()
        assert isinstance(error, ProviderRejectedClient)
        assert error.metadata == {"error": "invalid_client"}
        assert (grant.state, grant.attempt) == (GrantState.ACTIVE, None)
        assert grant.failures.kind is FailureKind.CLIENT_REJECTED
        await pass_time(1)
        assert (await one.get()).generation == 8


@in_virtual_time
async def test_an_attempt_that_came_too_late_to_be_sent_is_no_failure() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        claimed = await one.claims.claim_refresh(await one.rows.read("acme"))
        assert isinstance(claimed, Claimed)
        await pass_time(10.5)
        presented = presented_token(claimed.reading.grant)
        request = RefreshRequest(refresh_token=presented)

        presentation = await one.wire.present(claimed, request)
        await one.settler.settle(
            claimed, one.settler.refresh_ending(claimed, presentation, presented)
        )

        assert (ours.grant().attempt, ours.grant().failures.count) == (None, 0)
        assert ours.counts().presentations == 0
        assert one.told.of(AttemptSending) == []
        assert one.told.of(AttemptAnswered)[0].duration == timedelta(0)


@in_virtual_time
async def test_a_pair_without_access_token_is_kept_and_refreshed_at_once() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Alter(omit=("access_token", "expires_in")))

        got = await ours.replica().get()

        assert got.generation == 9
        assert ours.counts().presentations == ours.counts().rotations == 2


@in_virtual_time
async def test_pairs_without_access_token_again_and_again_are_backed_off() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Alter(omit=("access_token",)), times=5)
        one = ours.replica()

        assert isinstance(await error_of(one), ProviderUnavailable)
        assert isinstance(await error_of(one), ProviderUnavailable)

        assert ours.counts().presentations == 2
        assert ours.grant().failures.code == "no_access_token"


@in_virtual_time
async def test_a_missing_refresh_token_means_that_the_presented_one_stays() -> None:
    async with fleet() as ours:
        before = ours.connect_expired()
        ours.pleo.sandbox.faults.add(Alter(omit=("refresh_token",)))
        one = ours.replica()

        await one.get()

        assert presented_token(ours.grant()) == presented_token(before)
        assert "no_refresh_token" in one.told.of(AttemptAnswered)[0].flags


@in_virtual_time
async def test_an_abandoned_attempt_that_ends_in_a_refusal_is_a_lost_rotation() -> None:
    async with fleet() as ours:
        ours.connect_expired(attempt=some_attempt(number=12, attempt_id="dead", deadline=THE_NOW))
        ours.pleo.sandbox.faults.add(refuse("invalid_grant"))
        one = ours.replica()

        error = await error_of(one)

        assert isinstance(error, ReauthRequired)
        assert error.metadata["cause"] == ReauthCause.ROTATION_LOST.value


@in_virtual_time
async def test_a_success_after_a_wrong_refusal_brings_the_grant_back() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = ours.replica()
        call = one.call()
        await ours.pleo.sandbox.until(held=1)
        grant = ours.grant()
        ours.put(_dead(grant))

        ours.pleo.sandbox.release()
        await call

        assert (ours.grant().state, ours.grant().generation) == (GrantState.ACTIVE, 8)
        assert one.told.of(AttemptSettled)[0].not_allowed is None


@in_virtual_time
async def test_a_success_after_a_revocation_is_dropped() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = ours.replica()
        call = one.call()
        await ours.pleo.sandbox.until(held=1)
        ours.put(replace(ours.grant(), state=GrantState.REVOKED, generation=8, pair=None))

        ours.pleo.sandbox.release()
        error = await call

        assert isinstance(error, TenantNotFound)
        assert (ours.grant().state, ours.grant().pair) == (GrantState.REVOKED, None)
        assert one.told.of(AttemptSettled)[0].not_allowed is Why.STATE


@pytest.mark.parametrize("stage", ["claim", "quarantine", "wire", "settlement"])
@in_virtual_time
async def test_a_refresh_cut_off_at_any_stage_harms_nobody(stage: str) -> None:
    """The process dies: what is committed must be enough for the next one."""
    async with fleet() as ours:
        dead = some_attempt(number=12, attempt_id="dead", deadline=THE_NOW)
        ours.connect_expired(attempt=dead if stage == "quarantine" else None)
        one, two = ours.replica("one"), ours.replica("two")
        refresh = ours.tasks.create_task(_refresh(one), name="refresh")
        await _reach(ours, stage)

        refresh.cancel()
        await asyncio.wait({refresh})
        await pass_time(31)
        ours.pleo.sandbox.release()
        ours.watch()
        presented = ours.counts().presentations
        call = two.call(budget=timedelta(minutes=2))
        await two.landed()

        assert ours.counts().presentations == presented + 1
        assert ours.counts().overlapping == 0
        is_lost = stage in {"wire", "settlement"}
        assert isinstance(await call, ReauthRequired if is_lost else ServedToken)


async def _refresh(one: Replica) -> None:
    await one.refresher.refresh(await one.rows.read("acme"), asyncio.Future())


async def _reach(ours: Fleet, stage: str) -> None:
    """Lets a refresh go on until it waits at a stage."""
    match stage:
        case "claim":
            await ours.watch("apply").reached.wait()
        case "quarantine":
            await pass_time(5)
        case "wire":
            ours.pleo.sandbox.faults.add(Hold(when="after"))
            await ours.pleo.sandbox.until(held=1)
        case _:
            await ours.watch("apply", passing=1).reached.wait()
    await let_others_run()


def _dead(grant: Grant) -> Grant:
    return replace(grant, state=GrantState.REAUTH_REQUIRED, reauth=some_reauth())
