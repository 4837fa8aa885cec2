"""GetGrant, ListGrants and RevokeGrant: what is shown, and in which order a grant ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.domain.errors import (
    BrokerError,
    InvalidRequest,
    KeyUnavailable,
    ProviderUnavailable,
    RecordUnreadable,
    RefreshOutcomeUnknown,
    StoreUnavailable,
    TenantNotFound,
)
from broker.domain.facts import GrantRevoked
from broker.domain.grant import Grant, GrantState, TokenPair
from broker.domain.history import GrantEvent
from broker.ports import ListQuery
from broker.sandbox.faults import Drop, Hold, fail
from support.consent_service import ACME, WEB, Desk, HoldOne, desk, exchanges, looping
from support.grants import THE_NOW, some_grant, some_reauth
from support.service import TIMES, Fleet, fleet, seconds_gone
from support.virtual_time import in_virtual_time, let_others_run, pass_time


def lives_at_pleo(ours: Fleet) -> bool:
    """Whether the company's installation is there."""
    sandbox = ours.pleo.sandbox
    return any(sandbox.server.realm.ledger.living(client_id="sandbox-client", company=ACME))


def connect_dead(ours: Fleet) -> None:
    """Puts a grant that Pleo has ended, and whose customer must consent again."""
    ours.connect_expired(state=GrantState.REAUTH_REQUIRED, reauth=some_reauth())


async def fails(one: Desk, why: type[BrokerError]) -> BrokerError:
    """Revokes at Pleo, which must not succeed."""
    with pytest.raises(why) as failed:
        await one.revoke(at_provider=True)
    return failed.value


@in_virtual_time
async def test_a_grant_is_shown_without_counting_as_use() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)

        grant = await one.service.broker.get_grant("acme")

        assert (grant.tenant, grant.generation) == ("acme", 7)
        assert len(one.service.usage) == 0


@in_virtual_time
async def test_a_tenant_that_nobody_connected_is_not_found() -> None:
    async with fleet() as ours:
        one = desk(ours)
        ours.put(some_grant(tenant="begun", state=GrantState.UNCONNECTED, pair=None))

        for tenant in ("begun", "nobody"):
            with pytest.raises(TenantNotFound):
                await one.service.broker.get_grant(tenant)
            with pytest.raises(TenantNotFound):
                await one.revoke(tenant=tenant)


@in_virtual_time
async def test_a_page_of_grants_comes_in_order_of_tenants() -> None:
    async with fleet() as ours:
        for tenant in ("c", "a", "b"):
            ours.connect(tenant=tenant)
        one = desk(ours)

        page = await one.service.broker.list_grants(ListQuery(after_tenant="a", limit=5))

        assert [(grant.tenant, grant.pair) for grant in page] == [("b", None), ("c", None)]


@in_virtual_time
async def test_a_revoked_grant_serves_no_token_and_is_still_shown() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)
        await one.generation()

        revoked = await one.revoke()

        assert (revoked.state, revoked.generation, revoked.pair) == (GrantState.REVOKED, 8, None)
        assert one.service.memory.fresh("acme") is None
        with pytest.raises(TenantNotFound) as gone:
            await one.generation()
        assert "revoked_at" in gone.value.metadata
        assert (await one.service.broker.get_grant("acme")).state is GrantState.REVOKED
        assert lives_at_pleo(ours)


@in_virtual_time
async def test_a_revocation_is_told_once_with_who_it_was() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)

        for at_provider in (False, True):
            await one.revoke(at_provider=at_provider)

        assert one.told.of(GrantRevoked) == [
            GrantRevoked(tenant="acme", generation=8, by=WEB, at_provider=False)
        ]


@in_virtual_time
async def test_other_replicas_stop_serving_a_revoked_grant() -> None:
    async with fleet() as ours:
        ours.connect()
        one, two = desk(ours), desk(ours, "two")
        await two.generation()
        async with looping(two, "announcements"):
            await one.revoke()
            await let_others_run()

            with pytest.raises(TenantNotFound):
                await two.generation()


@in_virtual_time
async def test_a_revocation_is_told_with_who_and_why() -> None:
    async with fleet() as ours:
        ours.connect()

        await desk(ours).revoke()

        assert ours.world.events == [
            GrantEvent(
                tenant="acme",
                actor=WEB,
                call="GrantService/RevokeGrant",
                reason="it is over",
                before=GrantState.ACTIVE,
                after=GrantState.REVOKED,
                generation=8,
            )
        ]


@in_virtual_time
async def test_revoking_a_revoked_grant_changes_nothing() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)
        first = await one.revoke()
        version = ours.world.rows["acme"].version

        for at_provider in (False, True):
            assert (await one.revoke(at_provider=at_provider)).generation == first.generation

        assert ours.world.rows["acme"].version == version
        assert len(ours.world.events) == 1
        assert lives_at_pleo(ours)


@in_virtual_time
async def test_a_revocation_does_not_wait_for_a_refresh() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = desk(ours)
        call = one.call(one.generation())
        await ours.pleo.sandbox.until(held=1)

        await one.revoke()
        assert not call.done()
        ours.pleo.sandbox.release()

        assert isinstance(await call, TenantNotFound)
        assert (ours.grant().state, ours.grant().pair) == (GrantState.REVOKED, None)


@in_virtual_time
async def test_without_postgresql_a_grant_goes_on_serving() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)
        await one.generation()
        ours.world.fail_next("apply")

        with pytest.raises(StoreUnavailable):
            await one.revoke()

        assert (await one.generation(), ours.grant().state) == (7, GrantState.ACTIVE)


# Also at Pleo


@in_virtual_time
async def test_at_pleo_nothing_is_deleted_where_the_setting_forbids_it() -> None:
    async with fleet() as ours:
        before = ours.connect()
        one = desk(ours, may_delete_at_provider=False)

        error = await fails(one, InvalidRequest)

        assert isinstance(error, InvalidRequest)
        assert [violation.field for violation in error.violations] == ["revoke_at_provider"]
        assert ours.grant() == before
        assert (await one.revoke()).state is GrantState.REVOKED


@in_virtual_time
async def test_serving_ends_before_pleo_is_asked() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.pleo.sandbox.faults.add(Hold(), endpoint="api")
        one = desk(ours)
        await one.generation()

        call = one.call(one.revoke(at_provider=True))
        await ours.pleo.sandbox.until(held=1)

        assert ours.grant().state is GrantState.REVOKED
        assert isinstance(ours.grant().pair, TokenPair)
        with pytest.raises(TenantNotFound):
            await one.generation()
        ours.pleo.sandbox.release()
        await call


@in_virtual_time
async def test_after_pleo_the_tokens_are_destroyed() -> None:
    async with fleet() as ours:
        ours.connect()

        revoked = await desk(ours).revoke(at_provider=True)

        assert (revoked.state, revoked.pair) == (GrantState.REVOKED, None)
        assert ours.grant().pair is None
        assert not lives_at_pleo(ours)
        told = [(event.actor, event.call, event.before) for event in ours.world.events]
        assert told == [
            (WEB, "GrantService/RevokeGrant", GrantState.ACTIVE),
            (WEB, "GrantService/RevokeGrant#provider", GrantState.REVOKED),
        ]


@in_virtual_time
async def test_a_deletion_that_failed_goes_on_when_it_is_repeated() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.pleo.sandbox.faults.add(fail(503), endpoint="api", times=2)
        one, two = desk(ours), desk(ours, "two")

        for each in (one, two):
            await fails(each, ProviderUnavailable)
            assert isinstance(ours.grant().pair, TokenPair)
            assert ours.grant().state is GrantState.REVOKED
        revoked = await one.revoke(at_provider=True)

        assert (revoked.generation, revoked.pair, lives_at_pleo(ours)) == (8, None, False)


async def is_revoked_but_not_at_pleo(ours: Fleet, one: Desk) -> None:
    """The tokens are kept for the deletion, which comes with the next call."""
    ours.connect()
    ours.pleo.sandbox.faults.add(fail(503), endpoint="api")
    await fails(one, ProviderUnavailable)


@in_virtual_time
async def test_nothing_is_deleted_at_pleo_while_a_consent_is_under_way() -> None:
    """The deletion would end the new grant with the old one."""
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        await is_revoked_but_not_at_pleo(ours, one)
        ours.pleo.sandbox.faults.add(Hold(when="after"), grant_type="authorization_code")
        call = two.call(two.complete(await two.consented()))
        await ours.pleo.sandbox.until(held=1)

        error = await fails(one, RefreshOutcomeUnknown)
        ours.pleo.sandbox.release()

        assert isinstance(error, RefreshOutcomeUnknown)
        assert not error.may_channel_retry
        assert isinstance(await call, Grant)
        assert (ours.grant().state, lives_at_pleo(ours)) == (GrantState.ACTIVE, True)


@in_virtual_time
async def test_a_consent_that_was_stored_since_is_not_deleted_at_pleo() -> None:
    async with fleet() as ours:
        ours.connect()
        one, two = desk(ours), desk(ours, "two")
        came = await two.consented()
        ours.world.on_arrival = deletion = HoldOne("apply", 2)
        call = one.call(one.revoke(at_provider=True))
        await deletion.reached.wait()
        await two.complete(came)

        deletion.let_go()

        assert isinstance(await call, RefreshOutcomeUnknown)
        assert (ours.grant().state, lives_at_pleo(ours)) == (GrantState.ACTIVE, True)


@in_virtual_time
async def test_a_consent_waits_until_the_deletion_is_over() -> None:
    async with fleet() as ours:
        ours.connect()
        one, two = desk(ours), desk(ours, "two")
        came = await two.consented()
        ours.pleo.sandbox.faults.add(Hold(), endpoint="api")
        revocation = one.call(one.revoke(at_provider=True))
        await ours.pleo.sandbox.until(held=1)
        consent = two.call(two.complete(came))
        await pass_time(1)
        assert exchanges(ours) == []

        ours.pleo.sandbox.release()

        assert isinstance(await revocation, Grant)
        assert isinstance(await consent, Grant)
        assert (ours.grant().state, lives_at_pleo(ours)) == (GrantState.ACTIVE, True)


@in_virtual_time
async def test_a_deletion_that_came_late_to_its_turn_is_not_sent() -> None:
    """Beyond its own time a consent may have begun."""
    async with fleet() as ours:
        one = desk(ours)
        await is_revoked_but_not_at_pleo(ours, one)
        ours.world.on_departure = claim = HoldOne("apply", 1)
        call = one.call(one.revoke(at_provider=True))
        await claim.reached.wait()
        await pass_time(11)

        claim.let_go()

        assert isinstance(await call, RefreshOutcomeUnknown)
        assert (lives_at_pleo(ours), ours.grant().attempt) == (True, None)


@in_virtual_time
async def test_a_deletion_that_failed_makes_way_for_the_next_consent() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await is_revoked_but_not_at_pleo(ours, one)

        await one.complete(await one.consented())

        assert (ours.grant().state, seconds_gone()) == (GrantState.ACTIVE, 0)


@in_virtual_time
async def test_after_a_lost_answer_a_consent_waits_for_the_deletions_deadline() -> None:
    """Pleo may delete the installation yet, and the new grant with it."""
    async with fleet() as ours:
        ours.connect()
        ours.pleo.sandbox.faults.add(Drop(), endpoint="api")
        one = desk(ours)
        await fails(one, RefreshOutcomeUnknown)

        await one.complete(await one.consented())

        assert ours.grant().state is GrantState.ACTIVE
        assert seconds_gone() >= TIMES.span.total_seconds()


@in_virtual_time
async def test_a_deletion_without_an_answer_goes_on_after_its_deadline() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.pleo.sandbox.faults.add(Drop(), endpoint="api")
        one = desk(ours)
        await fails(one, RefreshOutcomeUnknown)
        await pass_time(TIMES.span.total_seconds())

        revoked = await one.revoke(at_provider=True)

        assert (revoked.pair, lives_at_pleo(ours)) == (None, False)


@in_virtual_time
async def test_tokens_that_were_kept_for_pleo_can_be_destroyed_without_it() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.pleo.sandbox.faults.add(fail(503), endpoint="api")
        one = desk(ours)
        await fails(one, ProviderUnavailable)

        assert (await one.revoke()).pair is None
        assert lives_at_pleo(ours)


@in_virtual_time
async def test_a_dead_access_token_is_renewed_before_the_grant_ends() -> None:
    async with fleet() as ours:
        ours.connect_expired()

        revoked = await desk(ours).revoke(at_provider=True)

        assert (revoked.generation, ours.counts().rotations) == (9, 1)
        assert not lives_at_pleo(ours)


@in_virtual_time
async def test_where_pleo_cannot_even_be_asked_nothing_is_changed() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.unreachable = "connect_refused"
        one = desk(ours)

        await fails(one, ProviderUnavailable)

        assert ours.grant().state is GrantState.ACTIVE


@in_virtual_time
async def test_a_grant_that_pleo_has_ended_is_not_deleted_there() -> None:
    async with fleet() as ours:
        connect_dead(ours)

        revoked = await desk(ours).revoke(at_provider=True)

        assert (revoked.state, revoked.pair, ours.counts().presentations) == (
            GrantState.REVOKED,
            None,
            0,
        )


@in_virtual_time
async def test_a_grant_that_turns_out_to_be_dead_is_revoked_all_the_same() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.server.disconnect(company=ACME)

        revoked = await desk(ours).revoke(at_provider=True)

        assert (revoked.state, revoked.pair) == (GrantState.REVOKED, None)


@in_virtual_time
async def test_tokens_that_died_before_pleo_took_the_deletion_are_told_apart() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.pleo.sandbox.faults.add(fail(503), endpoint="api")
        one = desk(ours)
        await fails(one, ProviderUnavailable)
        await pass_time(600)

        error = await fails(one, ProviderUnavailable)

        assert error.metadata == {"code": "access_token_expired"}
        assert isinstance(ours.grant().pair, TokenPair)
        assert (await one.revoke()).pair is None


@in_virtual_time
async def test_a_kept_pair_without_access_token_cannot_delete_anything() -> None:
    async with fleet() as ours:
        grant = ours.connect()
        assert isinstance(grant.pair, TokenPair)
        pair = replace(grant.pair, access_token=None)
        ours.put(replace(grant, state=GrantState.REVOKED, pair=pair, revoked_at=THE_NOW))

        error = await fails(desk(ours), ProviderUnavailable)

        assert error.metadata == {"code": "access_token_expired"}


@pytest.mark.parametrize(
    ("is_key_missing", "why"), [(True, KeyUnavailable), (False, RecordUnreadable)]
)
@in_virtual_time
async def test_kept_tokens_that_do_not_open_are_our_fault(
    is_key_missing: bool,  # noqa: FBT001 - a parameter of the test
    why: type[BrokerError],
) -> None:
    async with fleet() as ours:
        ours.connect()
        ours.pleo.sandbox.faults.add(fail(503), endpoint="api")
        one = desk(ours)
        await fails(one, ProviderUnavailable)
        ours.world.unreadable["acme"] = is_key_missing

        await fails(one, why)

        assert ours.grant().pair is not None
