"""A PostgreSQL that has lost commits: nobody claims for a while, and what is remembered is back."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.decision import Why
from broker.domain.errors import (
    InternalError,
    ProviderUnavailable,
    ReauthRequired,
    RefreshInProgress,
    StoreUnavailable,
    TenantNotFound,
)
from broker.domain.escrow import Escrow
from broker.domain.facts import AttemptClaimed, AttemptSettled, PastChanged, WrittenBack
from broker.domain.grant import Doubt, Grant, GrantState, ReauthCause, UnreadablePair
from broker.sandbox.faults import Hold, fail
from broker.service.settle import Claimed
from broker.service.wire import presented_token
from support.consent_service import Desk, desk, exchanges, looping
from support.fake_world import Call, Saved
from support.grants import THE_NOW, some_attempt, some_issue
from support.service import TIMES, Fleet, Gate, Replica, fleet, seconds_gone, virtual_now
from support.virtual_time import in_virtual_time, let_others_run, pass_time

SPAN = TIMES.span.total_seconds()
QUARANTINE = TIMES.quarantine.total_seconds()


async def watching(one: Replica) -> None:
    """Lets a replica know the past, as its loops do."""
    await one.known.poll()
    await one.news.poll()


async def restored(ours: Fleet, saved: Saved, *replicas: Replica) -> None:
    """Loses what came after the backup, and lets replicas notice."""
    ours.world.restore(saved)
    for each in replicas:
        await watching(each)
        await each.writing_back.turn()


async def lost_rotation(ours: Fleet, *, of: Replica) -> Saved:
    """A pair that Pleo rotated and PostgreSQL stored, and the backup from before."""
    await watching(of)
    saved = ours.world.save()
    await of.get()
    await pass_time(1)
    return saved


async def no_gate(_: Call) -> None:
    """Lets everybody pass, but for whom another holds already."""


def is_pleos_newest(ours: Fleet) -> bool:
    (grant,) = ours.pleo.sandbox.server.realm.ledger.grants
    stored = presented_token(ours.grant()).reveal()
    return grant.ended is None and stored == grant.current.refresh_token


def expire(ours: Fleet) -> None:
    """Ends the access token, as time would."""
    ours.put(replace(ours.grant(), renew_at=THE_NOW, expires_at=THE_NOW))


@in_virtual_time
async def test_nobody_presents_until_a_lost_attempt_must_be_over() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        await watching(one)
        await restored(ours, ours.world.save(), one)

        error = await one.call()
        await pass_time(SPAN - 0.1)
        late = await one.call()

        assert isinstance(error, StoreUnavailable)
        assert error.retry_after == TIMES.span
        assert isinstance(late, StoreUnavailable)
        assert one.told.of(AttemptClaimed) == []


@in_virtual_time
async def test_after_that_each_row_is_presented_after_a_quarantine() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        await watching(one)
        await restored(ours, ours.world.save(), one)
        await pass_time(SPAN)

        await one.get()

        assert one.told.of(AttemptClaimed)[0].doubt is Doubt.ABANDONED
        assert seconds_gone() == SPAN + QUARANTINE
        assert ours.grant().doubt is Doubt.NONE


@in_virtual_time
async def test_nobody_claims_before_the_change_is_noted() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        await watching(one)
        ours.world.restore(ours.world.save())
        await pass_time(10 * SPAN)

        assert isinstance(await one.call(), StoreUnavailable)
        assert ours.counts().presentations == 0


@in_virtual_time
async def test_a_claim_decided_on_the_lost_past_is_not_written() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        await watching(one)
        reading = await one.rows.read("acme")
        ours.world.restore(ours.world.save())

        claimed = await one.claims.claim_refresh(reading)

        assert not isinstance(claimed, Claimed)
        assert ours.grant().attempt is None


@in_virtual_time
async def test_nothing_is_armed_while_claims_wait() -> None:
    async with fleet() as ours:
        ours.connect_expired(doubt=Doubt.ABANDONED)
        one = ours.replica()
        await watching(one)
        claimed = await one.claims.claim_refresh(await one.rows.read("acme"))
        assert isinstance(claimed, Claimed)
        await restored(ours, ours.world.save(), one)

        armed = await one.arming.armed(claimed)

        assert not isinstance(armed, Claimed)
        assert ours.grant().attempt is None


@in_virtual_time
async def test_a_snapshot_of_the_disks_is_noticed_by_the_poll() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one, two = ours.replica(), ours.replica("two")
        await watching(two)
        saved = await lost_rotation(ours, of=one)
        for each in (one, two):
            await each.news.poll()
        ours.world.restore(saved, is_told=False)

        await watching(two)

        assert isinstance(await two.call(), StoreUnavailable)
        await watching(one)
        await one.writing_back.turn()
        assert is_pleos_newest(ours)


@in_virtual_time
async def test_who_sees_no_rewinding_compares_what_it_remembers_all_the_same() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one, two = ours.replica(), ours.replica("two")
        await watching(two)
        saved = await lost_rotation(ours, of=one)
        await watching(two)
        known = ours.world.transaction
        ours.world.restore(saved, is_told=False)
        await watching(two)
        ours.world.transaction = max(known, ours.world.transaction)

        await watching(one)
        await one.writing_back.turn()

        assert is_pleos_newest(ours)


@in_virtual_time
async def test_all_replicas_wait_from_the_moment_one_has_noticed() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one, two = ours.replica(), ours.replica("two")
        await watching(one)
        await watching(two)
        await restored(ours, ours.world.save(), one)
        since = ours.world.fleet.timeline_since
        await pass_time(SPAN / 2)

        await watching(two)

        assert ours.world.fleet.timeline_since == since
        assert len(two.told.of(PastChanged)) == 1
        assert (await two.rows.read("acme")).is_held_up()


@in_virtual_time
async def test_who_hears_of_it_much_later_holds_nobody_up_again() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one, two = ours.replica(), ours.replica("two")
        await watching(one)
        await watching(two)
        await pass_time(1)
        await restored(ours, ours.world.save(), one)
        since = ours.world.fleet.timeline_since
        await pass_time(10 * SPAN)

        await watching(two)

        assert ours.world.fleet.timeline_since == since
        assert not (await two.rows.read("acme")).is_held_up()


@in_virtual_time
async def test_who_stood_still_over_its_look_does_not_note_a_time_ahead() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one, two = ours.replica(), ours.replica("two")
        await watching(one)
        await watching(two)
        await pass_time(1)
        still = Gate("read fleet")
        ours.world.on_arrival = still
        looks = ours.tasks.create_task(two.known.poll(), name="a look that stands still")
        await still.reached.wait()
        await pass_time(1.5 * SPAN)
        ours.world.on_arrival = no_gate
        await restored(ours, ours.world.save(), one)
        await pass_time(0.5 * SPAN)
        still.open()
        await looks

        await two.news.poll()

        since = ours.world.fleet.timeline_since
        assert since is not None
        assert since <= virtual_now()
        assert (await one.rows.read("acme")).is_held_up()


@in_virtual_time
async def test_who_stood_still_notes_another_timeline_at_its_own_time() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        await watching(one)
        still = Gate("read fleet")
        ours.world.on_arrival = still
        looks = ours.tasks.create_task(one.known.poll(), name="a look that stands still")
        await still.reached.wait()
        await pass_time(2 * SPAN)
        ours.world.restore(ours.world.save())

        still.open()
        await looks

        assert ours.world.fleet.timeline_since == virtual_now()
        assert (await one.rows.read("acme")).is_held_up()


@in_virtual_time
async def test_a_living_token_stands_in_while_claims_wait() -> None:
    async with fleet() as ours:
        ours.connect_due()
        one = ours.replica()
        await watching(one)
        await restored(ours, ours.world.save(), one)

        got = await one.get()

        assert (got.generation, got.is_degraded) == (7, True)
        assert seconds_gone() == 0


@in_virtual_time
async def test_a_lost_pair_is_written_back_by_who_stored_it() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        saved = await lost_rotation(ours, of=one)

        await restored(ours, saved, one)

        assert (ours.grant().generation, ours.grant().doubt) == (8, Doubt.ABANDONED)
        assert is_pleos_newest(ours)
        assert one.told.of(WrittenBack) == [
            WrittenBack(tenant="acme", generation=8, not_allowed=None)
        ]
        assert not (await one.get()).is_degraded
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_it_is_written_back_where_the_row_is_read_first() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        saved = await lost_rotation(ours, of=one)
        ours.world.restore(saved)
        one.memory.mark_all_stale()
        await pass_time(1)

        got = await one.get()

        assert (got.generation, ours.grant().generation) == (8, 8)
        assert is_pleos_newest(ours)


@in_virtual_time
async def test_several_lost_generations_come_back_at_once() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one, two = ours.replica(), ours.replica("two")
        await watching(two)
        saved = await lost_rotation(ours, of=one)
        expire(ours)
        await two.get()
        await pass_time(1)

        await restored(ours, saved, two, one)

        assert (ours.grant().generation, ours.grant().pair_base) == (9, 8)
        assert is_pleos_newest(ours)
        assert one.told.of(WrittenBack) == []


@in_virtual_time
async def test_a_pair_on_its_way_is_stored_over_a_row_that_lost_its_base() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        saved = await lost_rotation(ours, of=one)
        expire(ours)
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one.memory.mark_all_stale()
        call = one.call()
        await ours.pleo.sandbox.until(held=1)
        one.recall.forget("acme")
        ours.world.restore(saved)

        ours.pleo.sandbox.release()
        await call
        await one.landed()

        assert (ours.grant().generation, ours.grant().doubt) == (9, Doubt.ABANDONED)
        assert is_pleos_newest(ours)
        assert one.told.of(AttemptSettled)[-1].not_allowed is None


@in_virtual_time
async def test_what_nobody_remembers_is_presented_once_and_was_lost() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one, two = ours.replica(), ours.replica("two")
        await watching(two)
        saved = await lost_rotation(ours, of=one)
        await restored(ours, saved, two)
        await pass_time(SPAN)

        error = await two.call()

        assert isinstance(error, ReauthRequired)
        assert error.metadata["cause"] == ReauthCause.ROTATION_LOST
        assert ours.counts().presentations_of_superseded == 1
        assert await two.call() is not None
        assert ours.counts().presentations == 2


@in_virtual_time
async def test_a_report_of_a_lost_generation_is_answered_with_the_new_token() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        two = desk(ours, "two")
        await two.service.fleet.poll()
        saved = await lost_rotation(ours, of=ours.replica())
        lost = 8
        ours.world.restore(saved)
        await two.service.fleet.poll()
        await two.complete(await two.consented())
        presented = ours.counts().presentations

        served = await two.service.broker.get_access_token(
            "acme", rejected_generation=lost, budget=TIMES.span
        )

        assert served.generation > lost
        assert ours.counts().presentations == presented


@in_virtual_time
async def test_it_is_tried_again_when_postgresql_did_not_take_it() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        saved = await lost_rotation(ours, of=one)
        ours.world.restore(saved)
        await watching(one)
        ours.world.seals = False
        await one.writing_back.turn()
        assert ours.grant().generation == 7

        ours.world.seals = True
        await one.writing_back.turn()

        assert ours.grant().generation == 8


@in_virtual_time
async def test_a_row_that_cannot_be_compared_is_in_no_others_way() -> None:
    async with fleet() as ours:
        one = ours.replica()
        await watching(one)
        for tenant in ("lost", "locked"):
            ours.connect(tenant=tenant, subject=None)
        saved = ours.world.save()
        for tenant in ("lost", "locked"):
            one.recall.keep(replace(ours.grant(tenant), generation=8, pair_attempt=13))
        ours.world.restore(saved)
        await watching(one)

        async def locked(call: Call) -> None:
            if call.tenant == "locked":
                raise StoreUnavailable("somebody's transaction has locked the row")

        ours.world.on_arrival = locked
        for _ in range(2):
            with suppress(StoreUnavailable):
                await one.writing_back.turn()

        assert ours.grant("lost").generation == 8


@in_virtual_time
async def test_the_newer_token_of_another_replica_stands_in() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one, two = ours.replica(), ours.replica("two")
        await watching(two)
        saved = await lost_rotation(ours, of=one)
        newer = await two.get()
        await restored(ours, saved, two)
        await pass_time(1)

        got = await two.get()

        assert (got.access_token, got.is_degraded) == (newer.access_token, True)


@in_virtual_time
async def test_an_exchange_waits_for_its_turn() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await one.service.fleet.poll()
        ours.world.restore(ours.world.save())
        await one.service.fleet.poll()
        came = await one.consented()

        grant = await one.complete(came)

        assert isinstance(grant, Grant)
        assert SPAN <= seconds_gone() < SPAN + 1
        assert len(exchanges(ours)) == 1


@in_virtual_time
async def test_a_lost_consent_comes_back_with_its_company() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await one.service.fleet.poll()
        await one.service.news.poll()
        saved = ours.world.save()
        stored = await one.complete(await one.consented())
        await pass_time(1)
        ours.world.restore(saved)

        async with looping(one, "fleet", "changes"):
            await one.service.writing_back.turn()

        assert ours.grant().subject == stored.subject
        assert ours.grant().state is GrantState.ACTIVE
        assert is_pleos_newest(ours)


@in_virtual_time
async def test_a_lost_revocation_comes_back_without_tokens() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)
        await one.service.fleet.poll()
        await one.service.news.poll()
        saved = ours.world.save()
        await one.revoke()
        await pass_time(1)
        ours.world.restore(saved)

        async with looping(one, "fleet", "changes"):
            await one.service.writing_back.turn()

        assert (ours.grant().state, ours.grant().pair) == (GrantState.REVOKED, None)


@in_virtual_time
async def test_who_dropped_a_pair_for_a_revocation_remembers_it_too() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one, other = ours.replica(), desk(ours)
        await watching(one)
        saved = ours.world.save()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        call = one.call()
        await ours.pleo.sandbox.until(held=1)
        await other.revoke()
        ours.pleo.sandbox.release()
        with suppress(TenantNotFound):
            await call
        await one.landed()

        await restored(ours, saved, one)

        assert one.told.of(AttemptSettled)[-1].not_allowed is Why.STATE
        assert (ours.grant().state, ours.grant().pair) == (GrantState.REVOKED, None)


@in_virtual_time
async def test_a_late_pair_does_not_hide_a_lost_revocation() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = desk(ours)
        await one.service.fleet.poll()
        await one.service.news.poll()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        call = one.call(one.generation())
        await ours.pleo.sandbox.until(held=1)
        saved = ours.world.save()
        await one.revoke()
        ours.world.restore(saved)
        ours.pleo.sandbox.release()
        await call

        async with looping(one, "fleet", "changes"):
            await one.service.writing_back.turn()

        assert (ours.grant().state, ours.grant().pair) == (GrantState.REVOKED, None)


@in_virtual_time
async def test_a_row_that_did_not_open_here_is_not_written_back() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        await watching(one)
        saved = ours.world.save()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        call = one.call()
        await ours.pleo.sandbox.until(held=1)
        unreadable = UnreadablePair(generation=9, key_id=5, is_key_missing=True)
        ours.put(replace(ours.grant(), generation=9, pair=unreadable, pair_attempt=20))
        ours.pleo.sandbox.release()
        await call
        await one.landed()

        await restored(ours, saved, one)

        assert one.told.of(AttemptSettled)[-1].not_allowed is Why.MOVED_ON
        assert not isinstance(await one.call(), InternalError)


@in_virtual_time
async def test_a_lost_revocation_is_still_to_be_told_to_pleo() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)
        await one.service.fleet.poll()
        await one.service.news.poll()
        saved = ours.world.save()
        ours.pleo.sandbox.faults.add(fail(503), endpoint="api")
        with pytest.raises(ProviderUnavailable):
            await one.revoke(at_provider=True)
        ours.world.restore(saved)

        async with looping(one, "fleet", "changes", "recall"):
            await pass_time(SPAN + 5)
        revoked = await one.revoke(at_provider=True)

        assert (revoked.state, revoked.pair) == (GrantState.REVOKED, None)
        (at_pleo,) = ours.pleo.sandbox.server.realm.ledger.grants
        assert at_pleo.ended is not None


@in_virtual_time
async def test_tokens_that_were_destroyed_are_not_remembered() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)
        await one.service.fleet.poll()
        await one.service.news.poll()
        saved = ours.world.save()
        await one.revoke(at_provider=True)
        ours.world.restore(saved)

        async with looping(one, "fleet", "changes", "recall"):
            await pass_time(SPAN)

        assert (ours.grant().state, ours.grant().pair) == (GrantState.REVOKED, None)


@in_virtual_time
async def test_an_import_that_waits_too_long_is_told_so() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await one.service.fleet.poll()
        ours.world.restore(ours.world.save())
        call = one.call(one.bring(ours.pleo.connect().refresh_token))
        await let_others_run()

        await pass_time(3 * SPAN)

        assert isinstance(await call, RefreshInProgress)
        assert ours.counts().presentations == 0


@in_virtual_time
async def test_who_has_adopted_an_escrow_remembers_it_too() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        await watching(one)
        saved = ours.world.save()
        ours.redis.escrows["acme", 13] = Escrow(
            tenant="acme", attempt=some_attempt(), issued=some_issue()
        )
        await one.adoption.sweep()

        await restored(ours, saved, one)

        assert (ours.grant().generation, ours.grant().pair_attempt) == (8, 13)


@in_virtual_time
async def test_what_is_as_it_was_is_compared_once() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        await lost_rotation(ours, of=one)
        await restored(ours, ours.world.save(), one)

        assert one.recall.doubted() == []
        assert len(one.recall) == 1
        assert one.told.of(WrittenBack) == []


@in_virtual_time
async def test_it_waits_while_another_presents_what_the_row_says() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        saved = await lost_rotation(ours, of=one)
        ours.world.restore(saved)
        await watching(one)
        deadline = THE_NOW + timedelta(seconds=10)
        theirs = some_attempt(number=2_000_000_000, attempt_id="theirs", deadline=deadline)
        ours.put(replace(ours.grant(), attempt=theirs))
        await one.writing_back.turn()
        assert ours.grant().generation == 7

        await pass_time(10)
        await one.writing_back.turn()

        assert ours.grant().generation == 8


@in_virtual_time
async def test_a_company_that_another_tenant_has_by_now_is_left_to_it() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await one.service.fleet.poll()
        await one.service.news.poll()
        saved = ours.world.save()
        await one.complete(await one.consented())
        await pass_time(1)
        ours.world.restore(saved)
        two = desk(ours, "two")
        async with looping(two, "fleet"):
            await two.complete(await two.consented(tenant="other"))

        await one.service.news.poll()
        await one.service.writing_back.turn()

        assert list(ours.world.rows) == ["other"]
        assert [told.not_allowed for told in one.told.of(WrittenBack)] == [Why.STATE]
        assert isinstance(await one.call(one.generation()), TenantNotFound)
        assert len(one.told.of(WrittenBack)) == 1


@in_virtual_time
async def test_a_state_is_not_called_spent_because_the_past_changed() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)
        await one.service.fleet.poll()
        came = await one.consented()
        is_lost = False

        async def lose_at_the_claim(call: Call) -> None:
            nonlocal is_lost
            if call.method == "apply" and not is_lost:
                is_lost = True
                ours.world.restore(ours.world.save())

        ours.world.on_arrival = lose_at_the_claim
        async with looping(one, "fleet"):
            grant = await one.complete(came)

        assert (grant.consent_attempt, len(exchanges(ours))) == (ours.grant().pair_attempt, 1)


LOOPS = ("announcements", "changes", "escrows", "fleet", "recall")


async def fail_over_again_and_again(ours: Fleet, both: list[Desk], chance: random.Random) -> None:
    """At any moment of a refresh, or of several in a row, by one replica or by both."""
    calls = []
    for _ in range(4):
        saved = ours.world.save()
        for _ in range(chance.randrange(4)):
            expire(ours)
            one = chance.choice(both)
            calls.append(one.call(one.generation()))
            await pass_time(chance.choice([0.1, 0.5, 1.0, 3.0]))
        ours.world.restore(saved)
        await pass_time(chance.choice([0, 1, 3, 30, 60]))
    await asyncio.gather(*calls)
    await pass_time(200)


@pytest.mark.parametrize("seed", range(25))
@in_virtual_time
async def test_while_replicas_live_no_failover_costs_a_customer(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - nothing to guess

    async def take_time(_: Call) -> None:
        await pass_time(chance.uniform(0, 0.3))

    async with fleet() as ours:
        ours.connect()
        ours.world.on_arrival = ours.world.on_departure = take_time
        both = [desk(ours), desk(ours, "two")]
        async with looping(both[0], *LOOPS), looping(both[1], *LOOPS):
            await pass_time(5)
            await fail_over_again_and_again(ours, both, chance)
            expire(ours)
            await pass_time(5)
            generations = [await one.generation() for one in both]

        assert ours.counts().presentations_of_superseded == 0
        assert generations == [ours.grant().generation] * 2
        assert is_pleos_newest(ours)
