"""Exchanging a code: what each answer leads to, whose grant it is, who else is at the tenant."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.errors import (
    AuthorizationStateInvalid,
    BrokerError,
    CodeRejected,
    ExchangeOutcomeUnknown,
    ProviderRejectedClient,
    ProviderUnavailable,
    ReauthRequired,
    RefreshInProgress,
    StoreUnavailable,
    SubjectMismatch,
)
from broker.domain.grant import AttemptKind, Doubt, Grant, GrantState, ScopesSource, TokenPair
from broker.domain.history import AttemptOutcome
from broker.sandbox.faults import (
    Alter,
    Delay,
    Drop,
    Hold,
    Step,
    fail,
    rate_limit,
    refuse,
    rubbish,
)
from support.consent_service import (
    ACME,
    BLUE,
    SCOPES,
    Came,
    Desk,
    HoldOne,
    authorization,
    crash,
    desk,
    exchanges,
    looping,
)
from support.grants import THE_NOW, some_grant, some_reauth
from support.service import Fleet, fleet, seconds_gone
from support.virtual_time import in_virtual_time, let_others_run, pass_time

REFUSALS: list[tuple[Step, type[BrokerError], AttemptOutcome]] = [
    (refuse("invalid_grant"), CodeRejected, AttemptOutcome.REFUSED),
    (refuse("invalid_client"), ProviderRejectedClient, AttemptOutcome.MISCONFIGURED),
    (fail(502), ExchangeOutcomeUnknown, AttemptOutcome.UNKNOWN),
    (rubbish(), ExchangeOutcomeUnknown, AttemptOutcome.UNKNOWN),
    (Drop(when="after"), ExchangeOutcomeUnknown, AttemptOutcome.UNKNOWN),
    (Alter(omit=("refresh_token",)), ExchangeOutcomeUnknown, AttemptOutcome.ROTATED),
]


async def error_of(call: asyncio.Task[Grant | Exception]) -> BrokerError:
    error = await call
    assert isinstance(error, BrokerError), error
    return error


async def refused(one: Desk, came: Came) -> str:
    """Returns why a completion is refused, once and whenever it comes again."""
    first = await error_of(one.call(one.complete(came)))
    again = await error_of(one.call(one.complete(came)))
    assert (first.reason, first.metadata) == (again.reason, again.metadata)
    return first.reason


@pytest.mark.parametrize(("step", "why", "outcome"), REFUSALS)
@in_virtual_time
async def test_a_failed_exchange_is_told_again_and_sent_once(
    step: Step, why: type[BrokerError], outcome: AttemptOutcome
) -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(step)
        one = desk(ours)
        came = await one.consented()

        assert await refused(one, came) == why.reason

        assert len(exchanges(ours)) == 1
        assert authorization(ours, came).code_verifier is None
        assert [line.outcome for line in ours.world.attempts] == [outcome]
        assert ours.grant().state is GrantState.UNCONNECTED


@pytest.mark.parametrize(("step", "why", "outcome"), REFUSALS)
@in_virtual_time
async def test_a_failed_exchange_leaves_the_earlier_grant_alone(
    step: Step, why: type[BrokerError], outcome: AttemptOutcome
) -> None:
    async with fleet() as ours:
        before = ours.connect()
        ours.pleo.sandbox.faults.add(step)
        one = desk(ours)

        with pytest.raises(why):
            await one.complete(await one.consented())

        after = ours.grant()
        assert (after.pair, after.generation, after.state) == (before.pair, 7, GrantState.ACTIVE)
        assert (after.attempt is None) == (outcome is not AttemptOutcome.UNKNOWN)
        assert await one.generation() == 7


@in_virtual_time
async def test_after_an_unknown_outcome_nobody_presents_before_the_deadline() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Drop(when="after"))
        one = desk(ours)
        with pytest.raises(ExchangeOutcomeUnknown):
            await one.complete(await one.consented())

        came = await one.consented()
        grant = await one.complete(came)

        assert (grant.doubt, grant.generation) == (Doubt.NONE, 8)
        assert 30 <= seconds_gone() < 31
        assert ours.counts().presentations == 0


@in_virtual_time
async def test_a_code_that_pleo_did_not_process_can_come_again() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(rate_limit(retry_after="7"))
        one = desk(ours)
        came = await one.consented()

        with pytest.raises(ProviderUnavailable) as limited:
            await one.complete(came)

        assert limited.value.retry_after.total_seconds() == 7
        assert authorization(ours, came).spent_at is None
        assert (await one.complete(came)).generation == 1


@in_virtual_time
async def test_a_code_whose_verifier_does_not_open_is_not_sent() -> None:
    async with fleet() as ours:
        one = desk(ours)
        came = await one.consented()
        row = authorization(ours, came)
        ours.world.authorizations[row.state_hash] = replace(row, code_verifier=None)

        with pytest.raises(AuthorizationStateInvalid):
            await one.complete(came)

        assert exchanges(ours) == []


@in_virtual_time
async def test_a_claim_that_is_not_committed_sends_nothing() -> None:
    async with fleet() as ours:
        one = desk(ours)
        came = await one.consented()
        ours.world.fail_next("apply", times=3)
        with pytest.raises(StoreUnavailable):
            await one.complete(came)
        assert exchanges(ours) == []

        grant = await one.complete(came)

        assert (grant.generation, len(exchanges(ours))) == (1, 1)


@in_virtual_time
async def test_the_pair_is_held_until_postgresql_has_taken_it() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = desk(ours)
        came = await one.consented()
        call = one.call(one.complete(came))
        await ours.pleo.sandbox.until(held=1)
        ours.world.fail_next("apply", times=40)
        ours.redis.is_reachable = False
        ours.pleo.sandbox.release()
        await pass_time(60)
        assert len(one.service.holdings) > 0
        assert not call.done()

        grant = await call

        assert isinstance(grant, Grant)
        assert (len(one.service.holdings), ours.grant().generation) == (0, 1)
        assert len(exchanges(ours)) == 1


@in_virtual_time
async def test_a_consent_that_its_owner_could_not_store_is_adopted() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one, two = desk(ours), desk(ours, "two")
        came = await one.consented()
        call = one.call(one.complete(came))
        await ours.pleo.sandbox.until(held=1)
        ours.world.fail_next("apply", times=40)
        ours.pleo.sandbox.release()
        await pass_time(2)
        await one.service.settled(patience=1)
        assert isinstance(await call, RefreshInProgress)

        ours.world.fail_next("apply", times=0)
        await two.service.adoption.sweep()

        grant = ours.grant()
        assert (grant.state, grant.generation, grant.subject) == (GrantState.ACTIVE, 1, ACME)
        assert await two.generation() == 1
        assert len(exchanges(ours)) == 1


@in_virtual_time
async def test_shutdown_waits_while_pleo_is_asked_whose_the_pair_is() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Hold(), endpoint="api")
        one = desk(ours)
        came = await one.consented()
        call = one.call(one.complete(came))
        await ours.pleo.sandbox.until(held=1)

        settled = ours.tasks.create_task(one.service.settled(patience=0.1), name="shutdown")
        await pass_time(1)
        assert not settled.done()
        ours.pleo.sandbox.release()
        await settled

        assert ours.grant().generation == 1
        assert isinstance(await call, Grant)


@in_virtual_time
async def test_a_store_whose_acknowledgement_was_lost_is_found_stored() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = desk(ours)
        came = await one.consented()
        call = one.call(one.complete(came))
        await ours.pleo.sandbox.until(held=1)
        ours.world.fail_next("apply", when="departure")

        ours.pleo.sandbox.release()

        grant = await call
        assert isinstance(grant, Grant)
        assert (grant.generation, ours.grant().generation) == (1, 1)
        assert len(ours.world.attempts) == 1


@in_virtual_time
async def test_a_refusal_whose_acknowledgement_was_lost_is_told_once_in_the_history() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(refuse("invalid_grant"), Hold(when="after"))
        one = desk(ours)
        came = await one.consented()
        call = one.call(one.complete(came))
        await ours.pleo.sandbox.until(held=1)
        ours.world.fail_next("apply", when="departure")

        ours.pleo.sandbox.release()

        assert isinstance(await call, CodeRejected)
        assert await refused(one, came) == "CODE_REJECTED"
        assert len(ours.world.attempts) == 1


@in_virtual_time
async def test_an_outcome_is_kept_although_another_has_the_row_by_then() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(refuse("invalid_grant"), grant_type="authorization_code")
        one, two = desk(ours), desk(ours, "two")
        came = await one.consented()
        settlement = HoldOne("apply", 2)
        ours.world.on_arrival = settlement
        call = one.call(one.complete(came))
        await settlement.reached.wait()
        await pass_time(31)
        await two.complete(await two.consented())

        settlement.let_go()

        assert isinstance(await call, CodeRejected)
        assert await refused(two, came) == "CODE_REJECTED"
        assert (ours.grant().generation, ours.grant().state) == (1, GrantState.ACTIVE)


@in_virtual_time
async def test_a_state_that_was_spent_anew_is_not_made_good_by_a_late_word() -> None:
    """The acknowledgement of the first try to make it good was lost."""
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        came = await one.consented()
        ours.pleo.unreachable = "connect_refused"
        acknowledgement = HoldOne("apply", 2)
        ours.world.on_departure = acknowledgement
        first = one.call(one.complete(came))
        await acknowledgement.reached.wait()
        ours.pleo.unreachable = None
        ours.pleo.sandbox.faults.add(Hold())
        second = two.call(two.complete(came))
        await ours.pleo.sandbox.until(held=1)
        ours.world.fail_next("apply", when="departure")

        acknowledgement.let_go()

        assert isinstance(await first, ProviderUnavailable)
        assert authorization(ours, came).spent_at is not None
        ours.pleo.sandbox.release()
        assert isinstance(await second, Grant)
        assert len(exchanges(ours)) == 1


# Whose grant it is


@in_virtual_time
async def test_the_company_that_consented_is_remembered() -> None:
    async with fleet() as ours:
        one = desk(ours)

        grant = await one.complete(await one.consented(BLUE))

        assert grant.subject == ours.grant().subject == BLUE


@in_virtual_time
async def test_another_company_than_the_known_one_is_refused() -> None:
    async with fleet() as ours:
        before = ours.connect()
        one = desk(ours)
        came = await one.consented(BLUE)

        assert await refused(one, came) == "SUBJECT_MISMATCH"

        assert (ours.grant().pair, ours.grant().subject) == (before.pair, ACME)
        assert (ours.grant().generation, ours.grant().attempt) == (7, None)


@pytest.mark.parametrize(
    "before",
    [
        some_grant(state=GrantState.HELD, reauth=some_reauth()),
        some_grant(state=GrantState.REAUTH_REQUIRED, reauth=some_reauth()),
        some_grant(
            state=GrantState.REAUTH_REQUIRED,
            reauth=some_reauth(),
            quarantined_until=THE_NOW + timedelta(days=7),
        ),
        some_grant(state=GrantState.REAUTH_REQUIRED, reauth=some_reauth(), pair=None),
        some_grant(state=GrantState.REVOKED, revoked_at=THE_NOW, pair=None),
    ],
    ids=lambda grant: f"{grant.state.value}-{grant.quarantined_until}-{grant.pair is None}",
)
@in_virtual_time
async def test_of_a_grant_in_any_state_another_company_takes_nothing(before: Grant) -> None:
    async with fleet() as ours:
        before = replace(before, subject=ACME)
        ours.put(before)
        one = desk(ours)
        came = await one.consented(BLUE)

        assert await refused(one, came) == "SUBJECT_MISMATCH"

        after = ours.grant()
        assert replace(
            after, last_attempt=before.last_attempt, updated_at=None, created_at=None
        ) == replace(before, updated_at=None, created_at=None)


@in_virtual_time
async def test_another_company_is_let_in_where_that_was_said_at_the_start() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)

        grant = await one.complete(await one.consented(BLUE, allow_subject_change=True))

        assert (grant.subject, grant.generation) == (BLUE, 8)


@in_virtual_time
async def test_the_expected_company_counts_even_where_a_change_is_allowed() -> None:
    async with fleet() as ours:
        one = desk(ours)
        came = await one.consented(BLUE, expected_subject=ACME, allow_subject_change=True)

        assert await refused(one, came) == "SUBJECT_MISMATCH"
        assert ours.grant().state is GrantState.UNCONNECTED


@in_virtual_time
async def test_on_a_reconnect_a_company_that_pleo_does_not_name_is_refused() -> None:
    async with fleet() as ours:
        before = ours.connect()
        ours.pleo.sandbox.faults.add(fail(503), endpoint="api", times=None)
        one = desk(ours)
        came = await one.consented()

        assert await refused(one, came) == "SUBJECT_MISMATCH"
        assert (ours.grant().pair, ours.grant().attempt) == (before.pair, None)


@in_virtual_time
async def test_on_a_reconnect_pleo_is_asked_as_long_as_the_attempt_allows() -> None:
    """Refused, the customer may have lost the grant for an API that was down for a moment."""
    async with fleet() as ours:
        ours.connect()
        ours.pleo.sandbox.faults.add(fail(503), endpoint="api", times=7)
        one = desk(ours)

        grant = await one.complete(await one.consented())

        assert (grant.subject, grant.generation) == (ACME, 8)
        assert seconds_gone() > 5


@pytest.mark.parametrize("seconds", [0, 12])
@in_virtual_time
async def test_the_asking_ends_before_the_attempt_does(seconds: float) -> None:
    """After the deadline a refresh may be presented beside the consent."""
    async with fleet() as ours:
        ours.connect()
        ours.pleo.sandbox.faults.add(Delay(seconds=seconds, when="after"))
        ours.pleo.sandbox.faults.add(Hold(), endpoint="api", times=None)
        one = desk(ours)

        with pytest.raises(SubjectMismatch):
            await one.complete(await one.consented())

        assert 20 <= seconds_gone() <= 28


@in_virtual_time
async def test_a_grant_that_dies_after_a_dropped_consent_is_told_as_lost() -> None:
    """Whether a second consent ends the first grant is not known: it was not the customer."""
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(fail(503), endpoint="api", times=None)
        one = desk(ours)
        with pytest.raises(SubjectMismatch):
            await one.complete(await one.consented())
        ours.pleo.sandbox.server.disconnect(company=ACME)

        with pytest.raises(ReauthRequired) as required:
            await one.generation()

        assert required.value.metadata["cause"] == "ROTATION_LOST"


@in_virtual_time
async def test_another_companys_consent_casts_no_doubt_on_a_grant() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)

        with pytest.raises(SubjectMismatch):
            await one.complete(await one.consented(BLUE))

        assert ours.grant().doubt is Doubt.NONE


@in_virtual_time
async def test_at_first_a_company_that_pleo_does_not_name_is_let_in() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(fail(503), endpoint="api", times=None)
        one = desk(ours)

        grant = await one.complete(await one.consented())

        assert (grant.state, grant.subject) == (GrantState.ACTIVE, None)
        assert seconds_gone() == 0


@in_virtual_time
async def test_pleo_is_asked_again_whose_a_pair_is() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.pleo.sandbox.faults.add(fail(503), endpoint="api", times=1)
        one = desk(ours)

        grant = await one.complete(await one.consented())

        assert (grant.subject, grant.generation) == (ACME, 8)


@in_virtual_time
async def test_a_company_that_is_connected_elsewhere_is_refused() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await one.complete(await one.consented(tenant="first"))
        came = await one.consented(tenant="second")

        assert await refused(one, came) == "SUBJECT_ALREADY_CONNECTED"

        assert ours.grant("second").state is GrantState.UNCONNECTED
        assert ours.grant("first").generation == 1


@in_virtual_time
async def test_scopes_are_those_that_the_api_names() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Alter(replace={"scope": "users:read"}))
        one = desk(ours)

        grant = await one.complete(await one.consented())

        assert (grant.scopes, grant.scopes_source) == (SCOPES, ScopesSource.INTROSPECTION)


@in_virtual_time
async def test_scopes_are_else_those_of_the_token_response() -> None:
    async with fleet() as ours:
        faults = ours.pleo.sandbox.faults
        faults.add(Alter(replace={"scope": "users:read"}))
        faults.add(fail(503), endpoint="api", times=None)
        one = desk(ours)

        grant = await one.complete(await one.consented())

        expected = (("users:read",), ScopesSource.TOKEN_RESPONSE)
        assert (grant.scopes, grant.scopes_source) == expected


@in_virtual_time
async def test_scopes_are_at_last_those_that_were_requested() -> None:
    """RFC 6749 §5.1: silence means as requested."""
    async with fleet() as ours:
        faults = ours.pleo.sandbox.faults
        faults.add(Alter(omit=("scope",)))
        faults.add(fail(503), endpoint="api", times=None)
        one = desk(ours)

        grant = await one.complete(await one.consented())

        assert (grant.scopes, grant.scopes_source) == (SCOPES, ScopesSource.REQUESTED)


@in_virtual_time
async def test_a_refresh_token_alone_is_a_grant_whose_token_comes_later() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Alter(omit=("access_token",)))
        one = desk(ours)

        grant = await one.complete(await one.consented())

        assert (grant.state, grant.generation) == (GrantState.ACTIVE, 1)
        assert isinstance(grant.pair, TokenPair)
        assert grant.pair.access_token is None
        assert await one.generation() == 2


# Who else is at the tenant


@in_virtual_time
async def test_an_exchange_waits_for_a_refresh_that_is_on_the_wire() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"), grant_type="refresh_token")
        one, two = desk(ours), desk(ours, "two")
        came = await one.consented()
        refresh = two.call(two.generation())
        await ours.pleo.sandbox.until(held=1)
        call = one.call(one.complete(came))
        await pass_time(3)
        assert exchanges(ours) == []

        ours.pleo.sandbox.release()

        assert await refresh == 8
        grant = await call
        assert isinstance(grant, Grant)
        assert (grant.generation, len(exchanges(ours))) == (9, 1)


@in_virtual_time
async def test_a_refresh_is_not_presented_while_an_exchange_is_armed() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"), grant_type="authorization_code")
        one, two = desk(ours), desk(ours, "two")
        call = one.call(one.complete(await one.consented()))
        await ours.pleo.sandbox.until(held=1)
        refresh = two.call(two.generation())
        await pass_time(3)
        assert ours.counts().presentations == 0

        ours.pleo.sandbox.release()

        assert await refresh == 8
        assert isinstance(await call, Grant)
        assert ours.counts().presentations == 0


@in_virtual_time
async def test_a_consent_stored_during_a_refresh_is_not_overwritten_by_it() -> None:
    """Law 4: the refresh's pair came in time and is stored late."""
    async with fleet() as ours:
        ours.connect_expired()
        one, two = desk(ours), desk(ours, "two")
        came = await one.consented()
        settlement = HoldOne("apply", 2)
        ours.world.on_arrival = settlement
        refresh = two.call(two.generation())
        await settlement.reached.wait()
        call = one.call(one.complete(came))
        await pass_time(31)
        consented = ours.grant()

        settlement.let_go()
        await refresh

        assert isinstance(await call, Grant)
        assert (consented.generation, consented.pair) == (8, ours.grant().pair)
        assert await two.generation() == 8


@in_virtual_time
async def test_of_two_consents_at_once_the_later_one_stands() -> None:
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        first, second = await one.consented(), await two.consented()

        got = await asyncio.gather(one.complete(first), two.complete(second))

        generations = sorted(grant.generation for grant in got)
        assert generations == [1, 2]
        assert (ours.grant().generation, ours.grant().consent_attempt) == (2, 2)


@in_virtual_time
async def test_a_revocation_during_an_exchange_is_not_undone_by_it() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = desk(ours)
        came = await one.consented()
        call = one.call(one.complete(came))
        await ours.pleo.sandbox.until(held=1)

        await one.revoke()
        ours.pleo.sandbox.release()

        assert isinstance(await call, ExchangeOutcomeUnknown)
        assert await refused(one, came) == "EXCHANGE_OUTCOME_UNKNOWN"
        assert (ours.grant().state, ours.grant().pair) == (GrantState.REVOKED, None)
        assert [line.outcome for line in ours.world.attempts] == [AttemptOutcome.STALE]


@in_virtual_time
async def test_attempts_without_end_send_the_customer_away_with_the_code() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Drop(when="after"), grant_type="refresh_token", times=None)
        one, two = desk(ours), desk(ours, "two")
        came = await one.consented()
        await _keep_presenting(ours, two)

        with pytest.raises(RefreshInProgress):
            await one.complete(came)

        assert authorization(ours, came).spent_at is None
        assert exchanges(ours) == []


async def _keep_presenting(ours: Fleet, two: Desk) -> None:
    """Puts an attempt on the row that is live for minutes."""
    await two.call(two.generation())
    attempt = ours.grant().attempt
    assert attempt is not None
    far = replace(attempt, deadline=THE_NOW.replace(hour=13), kind=AttemptKind.REFRESH)
    ours.put(replace(ours.grant(), attempt=far))


@in_virtual_time
async def test_a_dead_exchange_makes_way_for_the_next_consent() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one, two = desk(ours), desk(ours, "two")
        call = one.call(one.complete(await one.consented()))
        await ours.pleo.sandbox.until(held=1)
        crash()
        assert isinstance(await call, RefreshInProgress)

        grant = await two.complete(await two.consented())

        assert (grant.generation, grant.doubt) == (1, Doubt.NONE)
        assert 30 <= seconds_gone() < 31
        outcomes = [line.outcome for line in ours.world.attempts]
        assert outcomes == [AttemptOutcome.ABANDONED, AttemptOutcome.ROTATED]


@in_virtual_time
async def test_a_slow_answer_is_read_until_shortly_before_the_deadline() -> None:
    async with fleet() as ours:
        ours.pleo.sandbox.faults.add(Delay(seconds=25, when="after"))
        one = desk(ours)

        grant = await one.complete(await one.consented())

        assert (grant.generation, seconds_gone()) == (1, 25)


@in_virtual_time
async def test_every_replica_hears_of_a_new_consent() -> None:
    async with fleet() as ours:
        ours.connect()
        one, two = desk(ours), desk(ours, "two")
        assert await two.generation() == 7
        async with looping(two, "announcements"):
            await one.complete(await one.consented())
            await let_others_run()

            assert await two.generation() == await one.generation() == 8
