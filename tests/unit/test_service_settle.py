"""Settling: a pair in hand is never dropped, and nothing else outlives its attempt (law 3)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from broker.domain.decision import Decision, Why
from broker.domain.errors import (
    InternalError,
    KeyUnavailable,
    RecordUnreadable,
    StoreUnavailable,
    SubjectAlreadyConnected,
)
from broker.domain.facts import (
    AttemptClaimed,
    AttemptSettled,
    DefectMet,
    HistoryLost,
    ReauthBecameRequired,
    SettlementDelayed,
)
from broker.domain.grant import AttemptPhase, Doubt, Grant, GrantState, TokenPair
from broker.domain.history import AttemptOutcome
from broker.domain.refresh_writes import store_rotated
from broker.sandbox.faults import Hold, refuse
from broker.service.messages import ServedToken
from broker.service.rows import BesideNotAppliedError, Reading
from broker.service.settle import FIRST_PAUSE, Claimed, Ending
from broker.service.wire import presented_token
from support.fake_world import Call
from support.grants import THE_NOW, some_grant, some_issue
from support.service import Fleet, Replica, fleet, seconds_gone
from support.virtual_time import in_virtual_time, let_others_run, pass_time


class Refusing:
    """A hook that raises this at the next writes after the first, which is the claim."""

    def __init__(self, *errors: BaseException, method: str = "apply") -> None:
        self._errors = list(errors)
        self._method = method
        self._claims = 1

    async def __call__(self, call: Call) -> None:
        if call.method != self._method:
            return
        if self._claims:
            self._claims -= 1
        elif self._errors:
            raise self._errors.pop(0)


class Hanging:
    """A hook that keeps every call of the settlement waiting, and then loses it."""

    def __init__(self, *, seconds: float) -> None:
        self.began: list[float] = []
        self._seconds = seconds
        self._before = ["read", "read", "read fleet", "apply"]

    async def __call__(self, call: Call) -> None:
        if self._before:
            assert call.method == self._before.pop(0)
            return
        self.began.append(seconds_gone())
        await pass_time(self._seconds)
        raise StoreUnavailable("a connection that has gone silent")


def away(*, times: int) -> list[StoreUnavailable]:
    return [StoreUnavailable("away") for _ in range(times)]


def refresh_token_of(grant: Grant) -> str:
    assert isinstance(grant.pair, TokenPair)
    assert grant.pair.refresh_token is not None
    return grant.pair.refresh_token.reveal()


def is_pleos_newest(ours: Fleet) -> bool:
    """Whether the refresh token in PostgreSQL is the one that Pleo honours."""
    (grant,) = ours.pleo.sandbox.server.realm.ledger.grants
    return grant.ended is None and refresh_token_of(ours.grant()) == grant.current.refresh_token


@in_virtual_time
async def test_a_pair_is_stored_before_it_is_served() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        gate = ours.watch("apply", passing=1)
        call = one.call()
        await gate.reached.wait()
        await pass_time(1)

        assert not call.done()
        assert one.memory.fresh("acme") is None
        gate.open()
        await call
        assert is_pleos_newest(ours)


@pytest.mark.parametrize("tries", [1, 200])
@in_virtual_time
async def test_a_pair_is_tried_until_postgresql_takes_it(tries: int) -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.world.on_arrival = Refusing(*away(times=tries))
        one = ours.replica()
        call = one.call()

        await one.landed()

        assert is_pleos_newest(ours)
        assert ours.counts().presentations == 1
        assert len(one.told.of(SettlementDelayed)) == tries
        assert (await call) is not None


@in_virtual_time
async def test_a_pair_in_hand_waits_no_longer_than_two_seconds() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        ours.world.on_arrival = Refusing(*away(times=1000))
        call = one.call()
        await pass_time(100)

        ours.world.on_arrival = Refusing()
        back_at = seconds_gone()
        await one.landed()

        assert seconds_gone() <= back_at + 2
        assert isinstance(await call, ServedToken)


@in_virtual_time
async def test_after_a_try_that_hung_there_is_no_pause_but_a_breath() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        hanging = Hanging(seconds=6)
        ours.world.on_arrival = hanging
        call = one.call()
        await pass_time(60)

        ours.world.on_arrival = Refusing()
        await one.landed()

        between = [later - earlier for earlier, later in pairwise(hanging.began)]
        assert between == pytest.approx([6 + FIRST_PAUSE] * len(between))
        assert len(between) > 5
        assert isinstance(await call, ServedToken)


@in_virtual_time
async def test_a_pair_that_is_not_stored_stands_in_and_is_never_fresh() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.world.on_arrival = Refusing(*away(times=40))
        one = ours.replica()

        first = await one.get()
        waited = seconds_gone()
        second = await one.get()

        assert (first.generation, first.is_degraded, first.reuse_for) == (8, True, timedelta(0))
        assert (second.access_token, seconds_gone()) == (first.access_token, waited)
        assert one.memory.fresh("acme") is None
        await one.landed()
        got = await one.get()
        assert (got.access_token, got.is_degraded) == (first.access_token, False)
        assert is_pleos_newest(ours)


@pytest.mark.parametrize(
    "odd",
    [
        KeyUnavailable("no key"),
        RecordUnreadable("does not open"),
        ZeroDivisionError("a driver's whim"),
        TimeoutError(),
    ],
)
@in_virtual_time
async def test_a_pair_is_kept_whatever_is_raised(odd: Exception) -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.world.on_arrival = Refusing(odd, *away(times=2), odd)
        one = ours.replica()

        got = await one.get()

        assert got.generation == 8
        assert is_pleos_newest(ours)
        delays = one.told.of(SettlementDelayed)
        assert [(told.holds_pair, told.tries) for told in delays] == [
            (True, tries) for tries in (1, 2, 3, 4)
        ]


@in_virtual_time
async def test_what_nobody_foresaw_is_reported_once_as_a_defect() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        odd = ZeroDivisionError("a driver's whim")
        ours.world.on_arrival = Refusing(KeyUnavailable("no key"), odd, ValueError(), odd)
        one = ours.replica()

        await one.get()

        assert [(told.where, told.error) for told in one.told.of(DefectMet)] == [("settle", odd)]
        assert one.told.of(DefectMet)[0].defect_id == "one-2"


@pytest.mark.parametrize("away_at", ["apply", "read"])
@in_virtual_time
async def test_a_lost_acknowledgement_is_recognised_by_reading_again(away_at: str) -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        ours.world.on_departure = Refusing(*away(times=1))
        if away_at == "read":
            # The look before the claim and the one under the lease go through.
            ours.world.on_arrival = _ReadFails(after=2)

        got = await one.get()

        assert got.generation == 8
        assert ours.grant().generation == 8
        assert one.told.of(AttemptSettled)[0].not_allowed is Why.ALREADY
        assert [line.outcome for line in ours.world.attempts] == [AttemptOutcome.ROTATED]


@in_virtual_time
async def test_a_late_pair_is_stored_though_somebody_else_has_claimed() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one, two = ours.replica("one"), ours.replica("two")
        ours.world.on_arrival = Refusing(*away(times=1000))
        early = one.call()
        await pass_time(31)
        ours.world.on_arrival = Refusing()

        got = await two.get()

        assert got.generation == 8
        assert isinstance(await early, ServedToken)
        assert is_pleos_newest(ours)
        assert two.told.of(AttemptClaimed)[0].doubt is Doubt.ABANDONED
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_a_late_pair_is_dropped_where_a_consent_came_between() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        gate = ours.watch("apply", passing=1)
        call = one.call()
        await gate.reached.wait()
        consented = replace(some_grant(generation=8), pair_attempt=14, consent_attempt=14)
        ours.put(consented)

        gate.open()
        await call

        assert replace(ours.grant(), updated_at=None) == consented
        assert one.told.of(AttemptSettled)[0].not_allowed is Why.MOVED_ON
        (line,) = ours.world.attempts
        assert (line.attempt.number, line.outcome) == (13, AttemptOutcome.STALE)
        assert (line.http_status, line.generation_after) == (200, 8)


@in_virtual_time
async def test_the_line_of_a_dropped_pair_is_tried_once_and_holds_up_nothing() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        gate = ours.watch("apply", passing=1)
        call = one.call()
        await gate.reached.wait()
        ours.put(some_grant(generation=8, pair_attempt=14, consent_attempt=14))
        settled_and_line = 2
        ours.world.fail_next("apply", times=settled_and_line)

        gate.open()
        await call

        assert ours.world.attempts == []
        assert [told.number for told in one.told.of(HistoryLost)] == [13]
        assert len(one.holdings) == 0


@in_virtual_time
async def test_shutdown_is_held_up_until_the_pair_is_stored() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        ours.world.on_arrival = Refusing(*away(times=20))
        ours.redis.is_reachable = False
        one = ours.replica()
        call = one.call()
        await ours.pleo.sandbox.until(held=1)
        shutdown = ours.tasks.create_task(one.holdings.none_left(), name="shutdown")
        await let_others_run()

        ours.pleo.sandbox.release()
        await pass_time(5)
        assert not shutdown.done()

        await shutdown
        assert is_pleos_newest(ours)
        await call


@in_virtual_time
async def test_a_settlement_that_is_cancelled_leaves_the_loop() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        ours.world.on_arrival = Refusing(*away(times=1000))
        reading = await one.rows.read("acme")
        refresh = ours.tasks.create_task(one.refresher.refresh(reading, _never()), name="refresh")
        await pass_time(3)

        refresh.cancel()
        await asyncio.wait({refresh})

        assert refresh.cancelled()
        assert len(one.holdings) == 0
        assert ours.grant().attempt is not None


@pytest.mark.parametrize(
    "final", [SubjectAlreadyConnected(tenant="acme", subject="urn:x"), BesideNotAppliedError()]
)
@in_virtual_time
async def test_what_is_not_to_be_stored_leaves_the_loop(final: Exception) -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        ours.world.on_arrival = Refusing(final)
        claimed = await _claimed(one)

        with pytest.raises(type(final)):
            await one.settler.settle(claimed, _storing(claimed))

        assert one.told.of(SettlementDelayed) == []


@in_virtual_time
async def test_what_holds_no_pair_is_given_up_at_the_deadline() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(refuse("invalid_grant"))
        ours.world.on_arrival = Refusing(*away(times=1000))
        one = ours.replica()

        call = one.call(budget=timedelta(minutes=5))

        assert isinstance(await call, StoreUnavailable)
        assert 30 <= seconds_gone() <= 32
        assert ours.grant().state is GrantState.ACTIVE
        assert ours.grant().attempt is not None


@in_virtual_time
async def test_what_holds_no_pair_is_tried_again_before_the_deadline() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(refuse("invalid_grant"))
        ours.world.on_arrival = Refusing(*away(times=5))
        one = ours.replica()

        await one.call()

        assert ours.grant().state is GrantState.REAUTH_REQUIRED
        assert [told.holds_pair for told in one.told.of(SettlementDelayed)] == [False] * 5


@in_virtual_time
async def test_what_holds_no_pair_is_not_kept_for_a_defect() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(refuse("invalid_grant"))
        odd = ZeroDivisionError()
        ours.world.on_arrival = Refusing(odd)
        one = ours.replica()

        assert isinstance(await one.call(), InternalError)
        assert [met.error for met in one.told.of(DefectMet)] == [odd]
        assert len(one.holdings) == 0


@in_virtual_time
async def test_a_refusal_is_believed_of_the_owner_alone() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(refuse("invalid_grant"))
        one = ours.replica()
        gate = ours.watch("apply", passing=1)
        call = one.call()
        await gate.reached.wait()
        moved_on = some_grant(generation=8, pair_attempt=14, consent_attempt=14)
        ours.put(moved_on)

        gate.open()

        assert not isinstance(await call, Exception)
        assert ours.grant() == moved_on
        assert one.told.of(ReauthBecameRequired) == []


@in_virtual_time
async def test_the_history_tells_how_an_attempt_ended() -> None:
    async with fleet() as ours:
        ours.connect_expired()

        await ours.replica().get()

        (line,) = ours.world.attempts
        assert (line.outcome, line.http_status, line.error) == (AttemptOutcome.ROTATED, 200, "")
        assert (line.generation_after, line.duration) == (8, timedelta(0))
        assert line.attempt.phase is AttemptPhase.ARMED


@in_virtual_time
async def test_a_history_that_is_refused_rolls_nothing_back() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.world.takes_history = False

        await ours.replica().get()

        assert is_pleos_newest(ours)
        assert ours.grant().doubt is Doubt.NONE


@in_virtual_time
async def test_times_count_from_when_the_request_was_sent() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = ours.replica()
        call = one.call()
        await ours.pleo.sandbox.until(held=1)
        await pass_time(9)

        ours.pleo.sandbox.release()
        await call

        grant = ours.grant()
        assert grant.expires_at == THE_NOW + timedelta(minutes=15)
        assert grant.renew_at == grant.expires_at - timedelta(seconds=90)
        assert grant.lifetime == timedelta(minutes=15)


def test_presenting_without_a_token_is_a_defect() -> None:
    with pytest.raises(ValueError, match="ACTIVE"):
        presented_token(some_grant(pair=None))


class _ReadFails:
    """A hook that lets one read fail, after some."""

    def __init__(self, *, after: int) -> None:
        self._left = after

    async def __call__(self, call: Call) -> None:
        if call.method == "read":
            self._left -= 1
            if self._left == -1:
                raise StoreUnavailable("away")


async def _claimed(one: Replica) -> Claimed:
    claimed = await one.claims.claim_refresh(await one.rows.read("acme"))
    assert isinstance(claimed, Claimed)
    return claimed


def _storing(claimed: Claimed) -> Ending:
    def decide(reading: Reading) -> Decision:
        return store_rotated(reading.grant, claimed.attempt, some_issue(), now=reading.now)

    return Ending(decide=decide, outcome=AttemptOutcome.ROTATED, holds_pair=True)


def _never() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()
