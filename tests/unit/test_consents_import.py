"""ImportGrant: one presentation of a token at most, whoever brings it and however often."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace as replaced
from datetime import timedelta

import pytest

from broker.domain.errors import (
    BrokerError,
    InvalidRequest,
    KeyUnavailable,
    ProviderRejectedClient,
    ProviderUnavailable,
    RefreshInProgress,
    RefreshOutcomeUnknown,
    RefreshTokenRejected,
    StoreUnavailable,
    SubjectAlreadyConnected,
    SubjectMismatch,
)
from broker.domain.freshness import LONGEST_LIFETIME
from broker.domain.grant import Grant, GrantState, ScopesSource, TokenPair
from broker.domain.history import AttemptOutcome
from broker.domain.imports import OUTCOME_UNKNOWN, ImportOutcome
from broker.domain.secret import RefreshToken, Secret
from broker.sandbox.faults import Alter, Drop, Hold, Revoke, Step, fail, rate_limit, refuse
from support.consent_service import ACME, BLUE, HoldOne, desk, the_import
from support.fake_provider import Connected
from support.service import TIMES, Fleet, fleet, seconds_gone, virtual_now
from support.virtual_time import in_virtual_time, let_others_run, pass_time

A_WHILE = timedelta(minutes=10)

NOT_PROCESSED: list[tuple[Step, type[BrokerError]]] = [
    (rate_limit(), ProviderUnavailable),
    (refuse("invalid_client"), ProviderRejectedClient),
]


def pair_of(grant: Grant) -> TokenPair:
    assert isinstance(grant.pair, TokenPair)
    return grant.pair


def is_held_by_pleo(ours: Fleet, made: Connected) -> bool:
    """Whether an access token is alive at Pleo."""
    sandbox = ours.pleo.sandbox
    return sandbox.server.accepted(made.access_token.reveal(), now=sandbox.now()) is not None


@in_virtual_time
async def test_an_imported_token_is_rotated_and_serves() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        one = desk(ours)

        grant = await one.bring(made.refresh_token)

        assert (grant.state, grant.generation, grant.subject) == (GrantState.ACTIVE, 1, ACME)
        assert await one.generation() == ours.counts().rotations == 1
        assert the_import(ours).refresh_token is None
        assert grant.import_fingerprint == the_import(ours).fingerprint


@in_virtual_time
async def test_the_same_token_again_presents_nothing() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        one, two = desk(ours), desk(ours, "two")
        first = await one.bring(made.refresh_token)

        again = [await each.bring(made.refresh_token, replace=True) for each in (one, two)]

        assert [grant.generation for grant in again] == [first.generation] * 2
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_many_who_bring_a_token_at_once_present_it_once() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        desks = [desk(ours, name) for name in ("one", "two", "three")]

        calls = [each.call(each.bring(made.refresh_token)) for each in desks for _ in range(10)]
        got = await asyncio.gather(*calls)

        assert [grant.generation for grant in got if isinstance(grant, Grant)] == [1] * 30
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_who_asks_for_something_else_waits_for_the_first() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = desk(ours)
        first = one.call(one.bring(made.refresh_token))
        await ours.pleo.sandbox.until(held=1)

        second = one.call(one.bring(made.refresh_token, scopes=("users:read",)))
        await pass_time(3)
        ours.pleo.sandbox.release()

        assert isinstance(await first, Grant)
        assert isinstance(await second, Grant)
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_a_token_is_sealed_before_it_is_presented() -> None:
    """Law 2."""
    async with fleet() as ours:
        made = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Hold())
        one = desk(ours)

        call = one.call(one.bring(made.refresh_token))
        await ours.pleo.sandbox.until(held=1)

        record = the_import(ours)
        assert (record.refresh_token, record.presentations) == (made.refresh_token, 1)
        assert record.outcome is ImportOutcome.PENDING
        ours.pleo.sandbox.release()
        await call


@in_virtual_time
async def test_without_a_key_nothing_is_presented() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        ours.world.seals = False

        with pytest.raises(KeyUnavailable):
            await desk(ours).bring(made.refresh_token)

        assert ours.counts().presentations == 0


@in_virtual_time
async def test_a_refused_token_is_not_presented_again() -> None:
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        unknown = RefreshToken(Secret("nobody-issued-this"))

        for each in (one, two, one):
            with pytest.raises(RefreshTokenRejected) as refused:
                await each.bring(unknown)
            assert refused.value.metadata == {"error": "invalid_grant"}

        assert ours.counts().presentations == 1
        assert ours.grant().state is GrantState.UNCONNECTED
        assert the_import(ours).refresh_token is None


@in_virtual_time
async def test_a_token_without_answer_is_presented_once_more_at_most() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Drop(), times=None)
        one = desk(ours)

        for _ in range(2):
            with pytest.raises(RefreshOutcomeUnknown):
                await one.bring(made.refresh_token)
        with pytest.raises(RefreshTokenRejected) as rejected:
            await one.bring(made.refresh_token)

        assert rejected.value.metadata == {"error": OUTCOME_UNKNOWN}
        assert the_import(ours).refresh_token is None
        assert ours.counts().presentations == 2
        assert seconds_gone() == pytest.approx(30, abs=0.3)


@in_virtual_time
async def test_a_token_without_answer_says_when_to_come_again() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Drop())
        one = desk(ours)
        with pytest.raises(RefreshOutcomeUnknown) as unknown:
            await one.bring(made.refresh_token)

        await pass_time(unknown.value.retry_after.total_seconds())
        grant = await one.bring(made.refresh_token)

        assert (grant.generation, seconds_gone()) == (1, 30)
        assert ours.counts().presentations_of_superseded == 0


@pytest.mark.parametrize(("step", "why"), NOT_PROCESSED)
@in_virtual_time
async def test_what_pleo_did_not_process_does_not_count(step: Step, why: type[BrokerError]) -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(step, times=3)
        one = desk(ours)

        for _ in range(3):
            with pytest.raises(why):
                await one.bring(made.refresh_token)

        assert the_import(ours).presentations == 0
        assert (await one.bring(made.refresh_token)).generation == 1


@in_virtual_time
async def test_an_answer_without_a_refresh_token_keeps_the_brought_one() -> None:
    """RFC 6749 §6."""
    async with fleet(mode="lenient") as ours:
        made = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Alter(omit=("refresh_token",)))

        grant = await desk(ours).bring(made.refresh_token)

        assert pair_of(grant).refresh_token == made.refresh_token


@in_virtual_time
async def test_scopes_are_those_of_the_caller_where_pleo_names_none() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Alter(omit=("scope",)))
        ours.pleo.sandbox.faults.add(fail(503), endpoint="api", times=None)

        grant = await desk(ours).bring(made.refresh_token, scopes=("users:read",))

        assert (grant.scopes, grant.scopes_source) == (("users:read",), ScopesSource.IMPORTED)


# An earlier grant of the tenant


@in_virtual_time
async def test_an_active_grant_goes_only_when_that_was_said() -> None:
    async with fleet() as ours:
        before = ours.connect()
        made = ours.pleo.connect()
        one = desk(ours)
        with pytest.raises(InvalidRequest) as refused:
            await one.bring(made.refresh_token)
        assert [violation.field for violation in refused.value.violations] == ["replace"]
        assert (ours.grant(), ours.counts().presentations) == (before, 0)

        grant = await one.bring(made.refresh_token, replace=True)

        assert (grant.generation, await one.generation()) == (8, 8)


@in_virtual_time
async def test_an_import_waits_for_a_refresh_that_is_on_the_wire() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        made = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one, two = desk(ours), desk(ours, "two")
        refresh = two.call(two.generation())
        await ours.pleo.sandbox.until(held=1)
        call = one.call(one.bring(made.refresh_token, replace=True))
        await pass_time(3)
        assert ours.counts().presentations == 1

        ours.pleo.sandbox.release()

        assert await refresh == 8
        grant = await call
        assert isinstance(grant, Grant)
        assert grant.generation == 9


@in_virtual_time
async def test_a_revoked_grant_is_not_revived_by_its_first_token() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        one = desk(ours)
        await one.bring(made.refresh_token)
        await one.revoke()

        with pytest.raises(RefreshTokenRejected) as refused:
            await one.bring(made.refresh_token)

        assert refused.value.metadata == {"error": "already_presented"}
        assert ours.counts().presentations_of_superseded == 0


@in_virtual_time
async def test_a_kept_token_that_a_refresh_rotated_is_not_presented_after_a_revocation() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        one = desk(ours)
        living = virtual_now() + A_WHILE
        await one.bring(made.refresh_token, access_token=made.access_token, expires_at=living)
        await pass_time(A_WHILE.total_seconds())
        assert await one.generation() == 2
        await one.revoke()

        with pytest.raises(RefreshTokenRejected):
            await one.bring(made.refresh_token)

        assert ours.counts().presentations_of_superseded == 0


@in_virtual_time
async def test_a_revoked_tenant_can_be_imported_with_another_token() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)
        await one.revoke()

        grant = await one.bring(ours.pleo.connect().refresh_token)

        assert (grant.state, grant.generation) == (GrantState.ACTIVE, 9)


@in_virtual_time
async def test_a_revocation_during_an_import_is_not_undone_by_it() -> None:
    async with fleet() as ours:
        ours.connect()
        made = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = desk(ours)
        call = one.call(one.bring(made.refresh_token, replace=True))
        await ours.pleo.sandbox.until(held=1)

        await one.revoke()
        ours.pleo.sandbox.release()

        error = await call
        assert isinstance(error, RefreshOutcomeUnknown)
        assert not error.may_channel_retry
        assert ours.grant().state is GrantState.REVOKED
        assert [line.outcome for line in ours.world.attempts] == [AttemptOutcome.STALE]


@in_virtual_time
async def test_what_came_too_late_is_kept_for_whoever_still_wants_it() -> None:
    """Law 3: the newest token is on record, and is the one that is presented then."""
    async with fleet() as ours:
        ours.connect()
        made = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = desk(ours)
        call = one.call(one.bring(made.refresh_token, replace=True))
        await ours.pleo.sandbox.until(held=1)
        await one.revoke()
        ours.pleo.sandbox.release()
        await call

        grant = await one.bring(made.refresh_token)

        assert (grant.state, ours.counts().rotations) == (GrantState.ACTIVE, 2)
        assert ours.counts().presentations_of_superseded == 0


# An access token that lives


@in_virtual_time
async def test_with_a_living_access_token_nothing_is_presented_before_its_end() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        one = desk(ours)
        living = virtual_now() + A_WHILE

        grant = await one.bring(
            made.refresh_token, access_token=made.access_token, expires_at=living
        )

        assert grant.renew_at == grant.expires_at == living
        assert pair_of(grant).access_token == made.access_token
        assert (grant.subject, grant.scopes) == (ACME, ("export-items:read",))
        await pass_time(A_WHILE.total_seconds() - 1)
        assert (await one.generation(), ours.counts().presentations) == (1, 0)
        await pass_time(1)
        assert (await one.generation(), ours.counts().rotations) == (2, 1)


@in_virtual_time
async def test_a_kept_token_that_comes_again_is_found() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        one = desk(ours)
        living = virtual_now() + A_WHILE
        first = await one.bring(
            made.refresh_token, access_token=made.access_token, expires_at=living
        )

        again = await one.bring(made.refresh_token)

        assert again.generation == first.generation == 1
        assert ours.counts().presentations == 0
        assert [line.outcome for line in ours.world.attempts] == [AttemptOutcome.LET_GO]


@in_virtual_time
async def test_a_life_that_nobody_believes_is_cut_to_a_day() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        forever = virtual_now() + timedelta(days=400)

        grant = await desk(ours).bring(
            made.refresh_token, access_token=made.access_token, expires_at=forever
        )

        assert grant.renew_at == grant.expires_at == virtual_now() + LONGEST_LIFETIME


@pytest.mark.parametrize("lived_for", [timedelta(0), timedelta(seconds=-1)])
@in_virtual_time
async def test_an_access_token_at_its_end_is_dead(lived_for: timedelta) -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        over = virtual_now() + lived_for

        await desk(ours).bring(made.refresh_token, access_token=made.access_token, expires_at=over)

        assert ours.counts().rotations == 1


@in_virtual_time
async def test_an_access_token_without_an_end_is_not_relied_on() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()

        await desk(ours).bring(made.refresh_token, access_token=made.access_token)

        assert ours.counts().rotations == 1


@in_virtual_time
async def test_an_access_token_that_pleo_calls_dead_is_not_kept() -> None:
    async with fleet() as ours:
        dead, made = ours.pleo.connect(), ours.pleo.connect(BLUE)
        ours.pleo.sandbox.server.disconnect(company=ACME)
        living = virtual_now() + A_WHILE

        grant = await desk(ours).bring(
            made.refresh_token, access_token=dead.access_token, expires_at=living
        )

        assert (ours.counts().rotations, grant.subject) == (1, BLUE)


@in_virtual_time
async def test_an_access_token_that_pleo_says_nothing_about_is_kept() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(fail(503), endpoint="api", times=None)
        living = virtual_now() + A_WHILE

        grant = await desk(ours).bring(
            made.refresh_token, access_token=made.access_token, expires_at=living
        )

        assert (ours.counts().presentations, grant.subject) == (0, None)


@in_virtual_time
async def test_after_an_unknown_answer_an_access_token_is_not_relied_on() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Drop())
        ours.pleo.sandbox.faults.add(fail(503), endpoint="api", times=None)
        one, living = desk(ours), virtual_now() + A_WHILE
        with pytest.raises(RefreshOutcomeUnknown):
            await one.bring(made.refresh_token)

        await one.bring(made.refresh_token, access_token=made.access_token, expires_at=living)

        assert (ours.counts().presentations, ours.counts().rotations) == (2, 1)


# Whose it is


@in_virtual_time
async def test_a_company_that_is_known_to_be_wrong_is_not_presented() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect(BLUE)
        one, living = desk(ours), virtual_now() + A_WHILE

        with pytest.raises(SubjectMismatch):
            await one.bring(
                made.refresh_token,
                access_token=made.access_token,
                expires_at=living,
                expected_subject=ACME,
            )

        assert ours.world.rows == {}
        assert (ours.world.imports, ours.counts().presentations) == ({}, 0)


@in_virtual_time
async def test_another_company_than_the_tenants_is_refused() -> None:
    async with fleet() as ours:
        before = ours.connect()
        made = ours.pleo.connect(BLUE)

        with pytest.raises(SubjectMismatch):
            await desk(ours).bring(made.refresh_token, replace=True)

        assert (ours.grant().pair, ours.grant().attempt) == (before.pair, None)


@in_virtual_time
async def test_whose_an_imported_pair_is_is_asked_as_long_as_the_attempt_allows() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(fail(503), endpoint="api", times=7)

        grant = await desk(ours).bring(made.refresh_token, expected_subject=ACME)

        assert (grant.subject, ours.counts().presentations) == (ACME, 1)


@in_virtual_time
async def test_of_a_wrong_company_the_newest_token_is_kept_and_presented_next() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect(BLUE)
        one = desk(ours)
        with pytest.raises(SubjectMismatch):
            await one.bring(made.refresh_token, expected_subject=ACME)
        kept = the_import(ours)
        assert kept.refresh_token not in (None, made.refresh_token)
        assert (kept.outcome, kept.presentations) == (ImportOutcome.PENDING, 0)

        grant = await one.bring(made.refresh_token, expected_subject=BLUE)

        assert (grant.subject, ours.counts().rotations) == (BLUE, 2)
        assert ours.counts().presentations_of_superseded == 0


@in_virtual_time
async def test_a_newer_token_on_record_is_not_kept_with_an_old_access_token() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect(BLUE)
        one, living = desk(ours), virtual_now() + A_WHILE
        with pytest.raises(SubjectMismatch):
            await one.bring(made.refresh_token, expected_subject=ACME)
        ours.pleo.sandbox.faults.add(fail(503), endpoint="api", times=2)

        await one.bring(made.refresh_token, access_token=made.access_token, expires_at=living)

        assert ours.counts().rotations == 2


@in_virtual_time
async def test_a_newer_token_that_does_not_open_is_not_replaced_by_the_brought_one() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect(BLUE)
        one = desk(ours)
        with pytest.raises(SubjectMismatch):
            await one.bring(made.refresh_token, expected_subject=ACME)
        ((key, record),) = ours.world.imports.items()
        ours.world.imports[key] = replaced(record, refresh_token=None)

        with pytest.raises(KeyUnavailable):
            await one.bring(made.refresh_token)

        assert ours.counts().presentations == 1


@in_virtual_time
async def test_a_brought_token_that_does_not_open_is_presented_as_brought() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        one = desk(ours)
        ours.pleo.sandbox.faults.add(rate_limit())
        with pytest.raises(ProviderUnavailable):
            await one.bring(made.refresh_token)
        ((key, record),) = ours.world.imports.items()
        ours.world.imports[key] = replaced(record, refresh_token=None)

        assert (await one.bring(made.refresh_token)).generation == 1


@in_virtual_time
async def test_a_company_that_is_connected_elsewhere_is_refused_and_its_token_kept() -> None:
    async with fleet() as ours:
        one = desk(ours)
        first, second = ours.pleo.connect(), ours.pleo.connect()
        await one.bring(first.refresh_token, tenant="first")

        with pytest.raises(SubjectAlreadyConnected):
            await one.bring(second.refresh_token, tenant="second")

        kept = [each for each in ours.world.imports.values() if each.tenant == "second"]
        assert [each.outcome for each in kept] == [ImportOutcome.PENDING]
        assert kept[0].refresh_token not in (None, second.refresh_token)
        assert ours.grant("second").state is GrantState.UNCONNECTED


@in_virtual_time
async def test_a_living_token_of_a_company_that_is_connected_elsewhere_stays_as_it_was() -> None:
    async with fleet() as ours:
        one, living = desk(ours), virtual_now() + A_WHILE
        first, second = ours.pleo.connect(), ours.pleo.connect()
        await one.bring(first.refresh_token, tenant="first")

        with pytest.raises(SubjectAlreadyConnected):
            await one.bring(
                second.refresh_token,
                tenant="second",
                access_token=second.access_token,
                expires_at=living,
            )

        kept = [each for each in ours.world.imports.values() if each.tenant == "second"]
        assert [(each.refresh_token, each.error) for each in kept] == [(second.refresh_token, "")]
        assert is_held_by_pleo(ours, second)


@in_virtual_time
async def test_a_customer_who_disconnects_during_an_import_is_refused() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Revoke())

        with pytest.raises(RefreshTokenRejected):
            await desk(ours).bring(made.refresh_token)


# Callers and shutdown


@in_virtual_time
async def test_a_caller_that_goes_away_changes_nothing() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = desk(ours)
        call = one.call(one.bring(made.refresh_token))
        await ours.pleo.sandbox.until(held=1)

        call.cancel()
        await let_others_run()
        ours.pleo.sandbox.release()
        await one.service.grant_flights.settled()

        assert (ours.grant().generation, ours.counts().presentations) == (1, 1)


@in_virtual_time
async def test_who_has_to_wait_for_too_long_is_told_that_it_goes_on() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Drop())
        one = desk(ours)
        with pytest.raises(RefreshOutcomeUnknown):
            await one.bring(made.refresh_token)

        with pytest.raises(RefreshInProgress):
            await one.bring(made.refresh_token, budget=timedelta(seconds=20))

        assert seconds_gone() == pytest.approx(19.7, abs=0.1)
        assert (await one.bring(made.refresh_token)).generation == 1
        assert ours.counts().presentations == 2


@in_virtual_time
async def test_a_broker_that_is_stopping_presents_nothing_new() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        one = desk(ours)
        await one.service.settled(patience=1)

        with pytest.raises(RefreshInProgress):
            await one.bring(made.refresh_token)

        assert ours.counts().presentations == 0


@in_virtual_time
async def test_without_postgresql_nothing_is_presented() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        one = desk(ours)
        ours.world.fail_next("find_import")

        with pytest.raises(StoreUnavailable):
            await one.bring(made.refresh_token)

        assert ours.counts().presentations == 0


@in_virtual_time
async def test_an_import_claims_when_it_is_its_turn() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        one = desk(ours)
        async with AsyncExitStack() as places:
            for _ in range(50):
                await places.enter_async_context(one.service.turnstile.turn())
            call = one.call(one.bring(made.refresh_token))
            await pass_time(16)
            assert "acme" not in ours.world.rows

        assert isinstance(await call, Grant)
        assert is_held_by_pleo(ours, made) is False


@in_virtual_time
async def test_an_import_that_presents_nothing_waits_for_no_turn() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        one = desk(ours)
        living = virtual_now() + A_WHILE
        async with AsyncExitStack() as places:
            for _ in range(50):
                await places.enter_async_context(one.service.turnstile.turn())

            grant = await one.bring(
                made.refresh_token, access_token=made.access_token, expires_at=living
            )

        assert (grant.generation, ours.counts().presentations) == (1, 0)


@in_virtual_time
async def test_a_kept_token_waits_for_a_consent_whose_process_stood_still() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        one, two = desk(ours), desk(ours, "two")
        came = await one.consented()
        stands_still = HoldOne("apply", 2)
        ours.world.on_arrival = stands_still
        exchange = one.call(one.complete(came))
        await stands_still.reached.wait()
        await pass_time(TIMES.span.total_seconds())
        living = virtual_now() + A_WHILE

        bring = two.call(
            two.bring(
                made.refresh_token,
                access_token=made.access_token,
                expires_at=living,
                replace=True,
            )
        )
        await pass_time(1)
        stands_still.let_go()

        assert isinstance(await exchange, Grant)
        assert isinstance(await bring, RefreshOutcomeUnknown)
        assert pair_of(ours.grant()).access_token != made.access_token


@in_virtual_time
async def test_a_record_that_is_newer_than_the_row_makes_nobody_reconnect() -> None:
    async with fleet() as ours:
        made = ours.pleo.connect()
        one, two = desk(ours), desk(ours, "two")
        late = HoldOne("find_import", 1)
        ours.world.on_arrival = late
        second = two.call(two.bring(made.refresh_token))
        await late.reached.wait()
        first = await one.bring(made.refresh_token)

        late.let_go()

        assert await second == first
        assert ours.counts().presentations == 1
