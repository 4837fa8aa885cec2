"""The fleet guard at work: what it holds, what ends a hold, and that nothing is held for ever."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.errors import (
    CodeRejected,
    GrantHeld,
    ReauthRequired,
    RefreshTokenRejected,
    StoreUnavailable,
)
from broker.domain.escrow import Escrow
from broker.domain.evidence import GUARD_WINDOW
from broker.domain.facts import GuardMoved, ReauthBecameRequired
from broker.domain.grant import AttemptKind, Doubt, GrantState
from broker.domain.guard import BROKER, Guard, GuardState, Release
from broker.sandbox.faults import Hold, refuse
from broker.service.guard import BATCH, BLIND_AFTER, TIDY_SECONDS, Released
from broker.service.messages import ServedToken
from support.consent_service import Desk, HoldOne, another_code, desk, looping
from support.fake_escrows import FakeEscrows
from support.fake_world import Call
from support.grants import some_attempt, some_issue, some_reauth
from support.incidents import (
    FIVE,
    all_well,
    ask,
    ask_all,
    held_five,
    presentations,
    put_held,
    refused,
    states,
)
from support.service import GUARD_HOLD, TIMES, Fleet, fleet, virtual_now
from support.virtual_time import in_virtual_time, let_others_run, pass_time

ACTIVE = GrantState.ACTIVE
HELD = GrantState.HELD
REAUTH = GrantState.REAUTH_REQUIRED

QUARANTINE = TIMES.quarantine.total_seconds()
DAY = timedelta(days=1).total_seconds()


async def confirm(one: Desk) -> Released:
    return await one.service.guard.release(Release.CONFIRM, by="anna", reason="they all left")


async def discard(one: Desk) -> Released:
    return await one.service.guard.release(Release.DISCARD, by="anna", reason="Pleo was ill")


async def given_up_five(one: Desk) -> None:
    await held_five(one)
    await pass_time(QUARANTINE)
    assert await confirm(one) == Released(released=5, remaining=0)


async def _takes_a_moment(_: Call) -> None:
    await pass_time(0.01)


def guard_of(ours: Fleet) -> Guard:
    return ours.world.fleet.guard


@in_virtual_time
async def test_the_fifth_refusal_is_held_and_so_are_the_four_before() -> None:
    async with fleet() as ours:
        one = desk(ours)

        answers = await refused(one)

        assert [type(answer) for answer in answers] == [ReauthRequired] * 4 + [GrantHeld]
        await one.service.guard.turn()
        assert states(ours) == {HELD}
        assert {type(answer) for answer in await ask_all(one, FIVE)} == {GrantHeld}
        assert presentations(ours) == 5
        assert [told.state for told in one.told.of(GuardMoved)] == [GuardState.HOLDING]


@in_virtual_time
async def test_the_first_of_a_slow_burst_is_taken_back_by_any_replica() -> None:
    """Believed almost a window before the fifth; its token is there still, also after a tidying."""
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        await refused(one, FIVE[:1])
        assert states(ours, FIVE[:1]) == {REAUTH}
        await pass_time(GUARD_WINDOW.total_seconds() - 1)
        await refused(one, FIVE[1:])

        async with looping(two, "guard", "tidying"):
            await pass_time(5)

        assert states(ours) == {HELD}
        assert all(ours.grant(tenant).can_be_presented() for tenant in FIVE)


@in_virtual_time
async def test_a_refusal_that_could_not_be_weighed_is_weighed_at_the_next_turn() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await refused(one, FIVE[:4])
        ours.world.fail_next("read fleet", times=2)
        await refused(one, FIVE[4:])
        assert states(ours) == {REAUTH}

        await one.service.guard.turn()

        assert states(ours) == {HELD}


@pytest.mark.parametrize("method", ["weigh", "apply fleet"])
@in_virtual_time
async def test_a_weighing_that_broke_off_is_made_good_at_the_next_turn(method: str) -> None:
    async with fleet() as ours:
        one = desk(ours)
        await refused(one, FIVE[:4])
        ours.world.fail_next(method, times=2)
        await refused(one, FIVE[4:])
        assert states(ours) == {REAUTH}

        await one.service.guard.turn()

        assert states(ours) == {HELD}


@in_virtual_time
async def test_a_shutdown_waits_for_a_refusal_that_is_being_weighed() -> None:
    async with fleet() as ours:
        one = desk(ours)
        weighing = HoldOne("weigh", 1)
        ours.world.on_arrival = weighing
        asked = one.call(refused(one, ["acme"]))
        await weighing.reached.wait()

        leaving = one.call(one.service.settled(patience=1))
        await pass_time(5)
        weighing.let_go()
        await leaving
        await asked

        # Else its token is presented again, and the customer who left is called a lost rotation.
        grant = ours.grant()
        assert (grant.state, grant.attempt) == (REAUTH, None)


@in_virtual_time
async def test_a_poll_that_was_overtaken_forgets_no_hold() -> None:
    async with fleet() as ours:
        one = desk(ours)
        late = HoldOne("read fleet", 1)
        ours.world.on_departure = late
        polling = one.call(one.service.fleet.poll())
        await late.reached.wait()
        await refused(one)

        late.let_go()
        await polling

        assert one.service.fleet.is_holding()
        assert len(one.told.of(GuardMoved)) == 1


@in_virtual_time
async def test_who_is_given_up_is_told_as_who_was_refused() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await given_up_five(one)

        told = one.told.of(ReauthBecameRequired)
        assert [each.tenant for each in told] == [*FIVE[:4], *FIVE]
        assert {each.provider_error for each in told} == {"invalid_grant"}


@in_virtual_time
async def test_refusals_of_grants_in_doubt_are_no_incident() -> None:
    async with fleet() as ours:
        one = desk(ours)

        answers = await refused(one, FIVE, doubt=Doubt.DISCLAIMED)

        assert {type(answer) for answer in answers} == {ReauthRequired}
        assert guard_of(ours).state is GuardState.WATCHING


@in_virtual_time
async def test_refusals_of_grants_in_doubt_are_held_in_an_incident_of_others() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await refused(one)

        answers = await refused(one, ["sixth"], doubt=Doubt.DISCLAIMED)

        assert [type(answer) for answer in answers] == [GrantHeld]


@in_virtual_time
async def test_four_refusals_are_believed() -> None:
    async with fleet() as ours:
        one = desk(ours)

        answers = await refused(one, FIVE[:4])
        await one.service.guard.turn()

        assert {type(answer) for answer in answers} == {ReauthRequired}
        assert states(ours, FIVE[:4]) == {REAUTH}
        assert guard_of(ours).state is GuardState.WATCHING


@pytest.mark.parametrize(("well", "state"), [(20, GuardState.HOLDING), (21, GuardState.WATCHING)])
@in_virtual_time
async def test_a_fifth_of_all_refreshes_is_too_many(well: int, state: GuardState) -> None:
    async with fleet() as ours:
        one = desk(ours)
        await all_well(one, well)

        await refused(one)

        assert guard_of(ours).state is state


@in_virtual_time
async def test_refusals_of_more_than_five_minutes_ago_do_not_count() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await refused(one, FIVE[:4])
        await pass_time(GUARD_WINDOW.total_seconds())

        await refused(one, FIVE[4:])

        assert states(ours) == {REAUTH}


@in_virtual_time
async def test_refused_codes_and_imports_do_not_count() -> None:
    async with fleet() as ours:
        one = desk(ours)
        for number in range(5):
            ours.pleo.sandbox.faults.add(refuse("invalid_grant"))
            token = ours.pleo.connect().refresh_token
            brought = await one.call(one.bring(token, tenant=f"new-{number}"))
            assert isinstance(brought, RefreshTokenRejected)
            came = await one.consented(tenant=f"other-{number}")
            assert isinstance(
                await one.call(one.complete(came, result=another_code())), CodeRejected
            )

        await refused(one, FIVE[:4])

        assert guard_of(ours).state is GuardState.WATCHING


@in_virtual_time
async def test_one_grant_refused_five_times_is_one_grant() -> None:
    async with fleet() as ours:
        one = desk(ours)

        for _ in range(5):
            await refused(one, FIVE[:1])

        assert guard_of(ours).state is GuardState.WATCHING


@in_virtual_time
async def test_refusals_that_come_together_see_one_another() -> None:
    async with fleet() as ours:
        one = desk(ours)
        for tenant in FIVE:
            ours.connect_expired(tenant=tenant)
        ours.pleo.sandbox.faults.add(Hold(), refuse("invalid_grant"), times=5)
        calls = [one.call(ask(one, tenant)) for tenant in FIVE]
        await pass_time(1)
        ours.world.on_arrival = _takes_a_moment

        ours.pleo.sandbox.release()
        await asyncio.gather(*calls)
        await one.service.guard.turn()

        assert states(ours) == {HELD}


@pytest.mark.parametrize("has_polled", [True, False])
@in_virtual_time
async def test_a_replica_that_has_not_heard_of_the_hold_holds_too(*, has_polled: bool) -> None:
    async with fleet() as ours:
        two = desk(ours, "two")
        if has_polled:
            await two.service.fleet.poll()
        await held_five(desk(ours))
        await pass_time(GUARD_WINDOW.total_seconds())

        (answer,) = await refused(two, ["late"])

        assert isinstance(answer, GrantHeld)


@in_virtual_time
async def test_a_replica_that_has_heard_nothing_yet_gives_nothing_up() -> None:
    async with fleet() as ours:
        await held_five(desk(ours))
        await pass_time(QUARANTINE)
        two = desk(ours, "two")

        async with looping(two, *two.service.loops()):
            await let_others_run()

        assert states(ours) == {HELD}


@in_virtual_time
async def test_a_replica_that_stood_still_destroys_nothing_of_a_hold() -> None:
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        await two.service.fleet.poll()
        await refused(one)
        await pass_time(GUARD_WINDOW.total_seconds())

        await two.service.guard.tidy()

        assert states(ours, FIVE[:4]) == {REAUTH}
        await one.service.guard.turn()
        assert states(ours) == {HELD}


@in_virtual_time
async def test_nobody_decides_and_the_refusals_count() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await held_five(one)
        await pass_time(GUARD_HOLD.total_seconds() - 1)
        await one.service.guard.turn()
        assert states(ours) == {HELD}

        await pass_time(1)
        await one.service.guard.turn()

        assert states(ours) == {REAUTH}
        assert guard_of(ours).decided_by == BROKER
        assert {type(answer) for answer in await ask_all(one, FIVE)} == {ReauthRequired}
        assert presentations(ours) == 5
        await one.service.guard.turn()
        assert guard_of(ours) == Guard(counted_from=guard_of(ours).counted_from)


@in_virtual_time
async def test_a_discard_within_the_quarantine_brings_them_back() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await given_up_five(one)
        await pass_time(6 * DAY)
        await one.service.guard.tidy()

        released = await discard(one)

        assert released == Released(released=5, remaining=0)
        assert states(ours) == {ACTIVE}
        answers = await ask_all(one, FIVE)
        assert [answer.generation for answer in answers if isinstance(answer, ServedToken)] == [
            8
        ] * 5
        assert presentations(ours) == 10


@in_virtual_time
async def test_after_the_quarantine_the_tokens_are_destroyed() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await given_up_five(one)
        await pass_time(7 * DAY - 1)
        await one.service.guard.tidy()
        kept = [ours.grant(tenant).pair is not None for tenant in FIVE]
        await pass_time(1)

        await one.service.guard.tidy()

        assert kept == [True] * 5
        assert [ours.grant(tenant).pair for tenant in FIVE] == [None] * 5
        assert await discard(one) == Released(released=0, remaining=0)


@in_virtual_time
async def test_outside_the_guard_a_token_is_destroyed_after_the_window() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await refused(one, ["gone"])
        async with looping(one, "fleet", "tidying"):
            await pass_time(GUARD_WINDOW.total_seconds() - 1)
            assert ours.grant("gone").pair is not None
            await pass_time(TIDY_SECONDS + 1)

            assert ours.grant("gone").pair is None
            assert isinstance(await ask(one, "gone"), ReauthRequired)


@in_virtual_time
async def test_a_confirmation_waits_for_the_quarantine_and_goes_on_by_itself() -> None:
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        await held_five(one)

        released = await confirm(one)

        assert released == Released(released=0, remaining=5)
        await pass_time(QUARANTINE)
        await two.service.fleet.poll()
        await two.service.guard.turn()
        assert states(ours) == {REAUTH}
        event = ours.world.events[-1]
        assert (event.actor, event.call, event.reason) == ("anna", "guard CONFIRM", "they all left")


@in_virtual_time
async def test_a_confirmation_waits_for_a_live_attempt() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await held_five(one)
        await pass_time(QUARANTINE)
        deadline = virtual_now() + timedelta(seconds=30)
        attempt = some_attempt(kind=AttemptKind.EXCHANGE, number=99, deadline=deadline)
        ours.put(replace(ours.grant("t1"), attempt=attempt, last_attempt=99))

        released = await confirm(one)

        assert released == Released(released=4, remaining=1)
        await pass_time(30)
        await one.service.guard.turn()
        assert ours.grant("t1").state is REAUTH


@in_virtual_time
async def test_a_newer_pair_in_escrow_is_adopted_instead() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await held_five(one)
        escrow = Escrow(tenant="t1", attempt=some_attempt(number=12), issued=some_issue())
        ours.put(replace(ours.grant("t1"), pair_attempt=11))
        assert await FakeEscrows(ours.redis).put(escrow)
        await pass_time(QUARANTINE)

        released = await confirm(one)

        assert released == Released(released=4, remaining=0)
        assert (ours.grant("t1").state, ours.grant("t1").generation) == (ACTIVE, 8)
        assert states(ours, FIVE[1:]) == {REAUTH}


@in_virtual_time
async def test_without_redis_nothing_is_given_up_for_fifteen_minutes() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await held_five(one)
        await pass_time(QUARANTINE)
        ours.redis.is_reachable = False

        assert await confirm(one) == Released(released=0, remaining=5)

        await pass_time(BLIND_AFTER.total_seconds() - 1)
        await one.service.guard.turn()
        assert states(ours) == {HELD}
        await pass_time(1)
        await one.service.guard.turn()
        assert states(ours) == {REAUTH}


@pytest.mark.parametrize("has_redis", [True, False])
@in_virtual_time
async def test_what_a_hold_left_behind_is_given_up_later(*, has_redis: bool) -> None:
    async with fleet() as ours:
        one = desk(ours)
        ours.connect_expired(state=HELD, reauth=some_reauth())
        ours.redis.is_reachable = has_redis
        await pass_time(QUARANTINE if has_redis else BLIND_AFTER.total_seconds())

        await one.service.guard.tidy()

        assert ours.grant().state is REAUTH
        assert ours.grant().quarantined_until is not None


@in_virtual_time
async def test_a_held_grant_can_be_revoked() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await held_five(one)

        await one.revoke(tenant="t1")
        await discard(one)

        assert ours.grant("t1").state is GrantState.REVOKED
        assert states(ours, FIVE[1:]) == {ACTIVE}


@in_virtual_time
async def test_a_new_consent_ends_the_hold_of_a_grant() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await held_five(one)
        came = await one.consented(tenant="t1", allow_subject_change=True)

        await one.complete(came)
        await pass_time(QUARANTINE)
        await confirm(one)

        assert (ours.grant("t1").state, ours.grant("t1").reauth) == (ACTIVE, None)
        assert states(ours, FIVE[1:]) == {REAUTH}


@pytest.mark.parametrize("release", Release)
@in_virtual_time
async def test_two_replicas_release_at_once_and_each_grant_once(release: Release) -> None:
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        await held_five(one)
        await pass_time(QUARANTINE)
        before = len(ours.world.events)

        async with asyncio.TaskGroup() as tasks:
            both = [
                tasks.create_task(each.service.guard.release(release, by="anna", reason=""))
                for each in (one, two)
            ]

        assert sum(task.result().released for task in both) == 5
        assert len(ours.world.events) == before + 5
        assert guard_of(ours).state is GuardState.WATCHING


@pytest.mark.parametrize("release", Release)
@in_virtual_time
async def test_a_hold_of_many_is_released_to_the_last(release: Release) -> None:
    async with fleet() as ours:
        tenants = put_held(ours, BATCH + 1)
        one = desk(ours)
        await pass_time(QUARANTINE)
        hook = HoldOne("tenants", 2)
        ours.world.on_departure = hook
        calling = one.call(one.service.guard.release(release, by="anna", reason=""))
        await hook.reached.wait()
        calling.cancel()  # the engineer's replica goes: the turns of others do the rest
        two = desk(ours, "two")

        for _ in range(3):
            await two.service.fleet.poll()
            await two.service.guard.turn()

        assert states(ours, tenants) == {REAUTH if release is Release.CONFIRM else ACTIVE}
        assert guard_of(ours).state is GuardState.WATCHING


@pytest.mark.parametrize("release", Release)
@in_virtual_time
async def test_a_pair_that_does_not_open_holds_up_no_other(release: Release) -> None:
    async with fleet() as ours:
        tenants = put_held(ours, 3)
        ours.world.unreadable[tenants[0]] = True
        await pass_time(QUARANTINE)

        released = await desk(ours).service.guard.release(release, by="anna", reason="")

        assert released == Released(released=3, remaining=0)
        assert guard_of(ours).state is GuardState.WATCHING


@pytest.mark.parametrize("when", ["arrival", "departure"])
@pytest.mark.parametrize("method", ["apply fleet", "apply", "tenants", "read"])
@in_virtual_time
async def test_a_release_survives_an_outage_in_between(method: str, when: str) -> None:
    async with fleet() as ours:
        one = desk(ours)
        await held_five(one)
        await pass_time(QUARANTINE)
        ours.world.fail_next(method, when="arrival" if when == "arrival" else "departure")

        outcome = await one.call(discard(one))
        assert isinstance(outcome, StoreUnavailable)
        if guard_of(ours).state is GuardState.HOLDING:
            await discard(one)
        for _ in range(2):
            await one.service.fleet.poll()
            await one.service.guard.turn()

        assert states(ours) == {ACTIVE}
        assert guard_of(ours).state is GuardState.WATCHING


@in_virtual_time
async def test_a_second_engineer_decides_otherwise_and_wins() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await held_five(one)
        await confirm(one)

        released = await discard(one)

        assert released == Released(released=5, remaining=0)
        assert states(ours) == {ACTIVE}


@in_virtual_time
async def test_without_a_hold_there_is_nothing_to_release() -> None:
    async with fleet() as ours:
        one = desk(ours)

        assert await confirm(one) == Released(released=0, remaining=0)
        assert await discard(one) == Released(released=0, remaining=0)
        assert guard_of(ours).state is GuardState.WATCHING


@in_virtual_time
async def test_a_release_is_on_record_though_nothing_is_held() -> None:
    async with fleet() as ours:
        one = desk(ours)

        await confirm(one)
        await discard(one)

        assert [(act.actor, act.call, act.reason) for act in ours.world.acts] == [
            ("anna", "guard CONFIRM", "they all left"),
            ("anna", "guard DISCARD", "Pleo was ill"),
        ]
        assert [(act.before, act.after) for act in ours.world.acts] == [
            ("WATCHING", "WATCHING"),
            ("WATCHING", "DISCARDING"),
        ]


@in_virtual_time
async def test_a_release_that_cannot_be_put_on_record_does_nothing() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await held_five(one)
        ours.world.fail_next("note")

        with pytest.raises(StoreUnavailable):
            await confirm(one)

        assert states(ours) == {HELD}


@in_virtual_time
async def test_refusals_after_a_decision_are_counted_anew() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await held_five(one)
        await discard(one)
        ours.pleo.sandbox.faults.add(refuse("invalid_grant"), times=None)

        few = await ask_all(one, FIVE[:4])
        await one.service.guard.turn()

        assert {type(answer) for answer in few} == {ReauthRequired}
        assert isinstance(await ask(one, "t5"), GrantHeld)


@pytest.mark.parametrize("release", Release)
@in_virtual_time
async def test_what_was_counted_before_a_decision_undoes_none(release: Release) -> None:
    """Two see that the refusals are too many; the second writes it when all is decided."""
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        await refused(one, FIVE[:4])
        slow = HoldOne("apply fleet", 1)
        ours.world.on_arrival = slow
        late = two.call(refused(two, FIVE[4:]))
        await slow.reached.wait()
        await refused(one, ["t6"])
        await one.service.guard.release(release, by="anna", reason="we saw it")

        slow.let_go()
        await late

        assert guard_of(ours).state is not GuardState.HOLDING
        assert guard_of(ours).counted_from is not None


@in_virtual_time
async def test_a_decision_is_about_those_too_that_no_turn_has_held_back_yet() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await refused(one)

        released = await discard(one)

        assert released == Released(released=5, remaining=0)
        assert states(ours) == {ACTIVE}


@in_virtual_time
async def test_an_outage_as_long_as_the_hold_leaves_nobody_out_of_it() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await refused(one)
        await pass_time(GUARD_HOLD.total_seconds())

        await one.service.guard.turn()

        assert states(ours) == {REAUTH}
        assert all(ours.grant(tenant).quarantined_until for tenant in FIVE)


@in_virtual_time
async def test_after_lost_commits_a_confirmation_waits_for_who_remembers_more() -> None:
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        await one.service.news.poll()
        await held_five(one)
        await pass_time(QUARANTINE)
        saved = ours.world.save()
        await discard(one)
        await ask(one, "t1")
        ours.world.restore(saved)
        await two.service.fleet.poll()

        assert await confirm(two) == Released(released=0, remaining=5)
        await one.service.news.poll()
        await one.service.writing_back.turn()
        await pass_time(TIMES.span.total_seconds())
        await two.service.guard.turn()

        assert states(ours, FIVE[:1]) == {ACTIVE}
        assert states(ours, FIVE[1:]) == {REAUTH}


@in_virtual_time
async def test_a_decision_after_a_slow_look_is_not_ahead_of_its_time() -> None:
    """Or what was counted until then would be counted again, and hold what it was about."""
    async with fleet() as ours:
        one = desk(ours)
        await held_five(one)
        slow = HoldOne("read fleet", 1)
        ours.world.on_arrival = slow
        deciding = one.call(discard(one))
        await slow.reached.wait()
        await pass_time(10)

        slow.let_go()
        await deciding

        assert guard_of(ours).counted_from == virtual_now()
