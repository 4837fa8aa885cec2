"""PostgreSQL away after a rotation: the pair outlives its owner; nobody presents the dead one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.decision import Why
from broker.domain.errors import (
    KeyUnavailable,
    RefreshOutcomeUnknown,
    StoreUnavailable,
)
from broker.domain.escrow import Escrow
from broker.domain.facts import EscrowAdopted, EscrowsUnreachable, EscrowWritten
from broker.domain.grant import AttemptPhase, Doubt, FailureKind, GrantState, TokenPair
from broker.domain.history import AttemptOutcome
from broker.sandbox.faults import Hold
from broker.service.arming import blind_tries
from broker.service.messages import ServedToken
from support.fake_escrows import FakeEscrows
from support.fake_world import Call
from support.grants import THE_NOW, some_attempt, some_grant, some_issue
from support.service import Fleet, Replica, fleet
from support.virtual_time import in_virtual_time, let_others_run, pass_time


async def refuse_writes(call: Call) -> None:
    """PostgreSQL answers questions and takes nothing."""
    if call.method == "apply":
        raise StoreUnavailable("the test refuses writes")


async def let_pass(_: Call) -> None:
    """PostgreSQL is back."""


async def left_in_escrow(ours: Fleet, owner: Replica) -> None:
    """A refresh whose pair lies in escrow, and whose owner is dead."""
    ours.connect_expired()
    ours.pleo.sandbox.faults.add(Hold(when="after"))
    call = owner.call()
    await ours.pleo.sandbox.until(held=1)
    ours.world.on_arrival = refuse_writes
    ours.pleo.sandbox.release()
    await call
    owner.flights.abandon()
    await let_others_run()
    ours.world.on_arrival = let_pass


def refresh_token(ours: Fleet) -> str:
    pair = ours.grant().pair
    assert isinstance(pair, TokenPair)
    assert pair.refresh_token is not None
    return pair.refresh_token.reveal()


def is_pleos_newest(ours: Fleet) -> bool:
    (grant,) = ours.pleo.sandbox.server.realm.ledger.grants
    return grant.ended is None and refresh_token(ours) == grant.current.refresh_token


def some_escrow(ours: Fleet, number: int = 13) -> Escrow:
    escrow = Escrow(tenant="acme", attempt=some_attempt(number=number), issued=some_issue())
    ours.redis.escrows["acme", number] = escrow
    return escrow


@in_virtual_time
async def test_a_pair_that_postgresql_does_not_take_goes_into_escrow() -> None:
    async with fleet() as ours:
        one = ours.replica()

        await left_in_escrow(ours, one)

        assert [told.is_acknowledged for told in one.told.of(EscrowWritten)] == [True]
        assert list(ours.redis.escrows) == [("acme", 13)]
        assert ours.grant().generation == 7


@in_virtual_time
async def test_its_owner_stores_it_and_deletes_the_escrow() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = ours.replica()
        call = one.call()
        await ours.pleo.sandbox.until(held=1)
        ours.world.on_arrival = refuse_writes
        ours.pleo.sandbox.release()
        got = await call
        assert ours.redis.escrows

        ours.world.on_arrival = let_pass
        await one.landed()

        assert isinstance(got, ServedToken)
        assert got.is_degraded
        assert (ours.grant().generation, ours.redis.escrows) == (8, {})
        assert is_pleos_newest(ours)


@in_virtual_time
async def test_it_is_remembered_before_its_escrow_goes() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = ours.replica()
        call = one.call()
        await ours.pleo.sandbox.until(held=1)
        ours.world.on_arrival = refuse_writes
        ours.pleo.sandbox.release()
        await call
        remembered: list[int] = []

        class Watched(dict[tuple[str, int], Escrow]):
            def pop(self, *of: object) -> Escrow | None:  # type: ignore[override]
                remembered.append(len(one.recall))
                return super().pop(*of)  # type: ignore[call-overload, no-any-return]

        ours.redis.escrows = Watched(ours.redis.escrows)
        ours.world.on_arrival = let_pass
        await one.landed()

        assert remembered == [1]


@in_virtual_time
async def test_another_replica_adopts_what_a_dead_one_left() -> None:
    async with fleet() as ours:
        one, two = ours.replica("one"), ours.replica("two")
        await left_in_escrow(ours, one)

        await two.adoption.sweep()

        got = await two.get()
        assert (got.generation, got.is_degraded) == (8, False)
        assert is_pleos_newest(ours)
        assert ours.counts().presentations == 1
        assert ours.redis.escrows == {}


@in_virtual_time
async def test_whoever_claims_next_adopts_the_pair_and_presents_nothing() -> None:
    async with fleet() as ours:
        one, two = ours.replica("one"), ours.replica("two")
        await left_in_escrow(ours, one)
        await pass_time(31)

        got = await two.get()

        assert got.generation == 8
        assert ours.counts().presentations == 1
        assert ours.grant().attempt is None
        assert is_pleos_newest(ours)


@in_virtual_time
async def test_what_is_escrowed_during_the_arming_is_seen_after_it() -> None:
    async with fleet() as ours:
        ours.connect_expired(
            attempt=some_attempt(number=12, attempt_id="dead", deadline=THE_NOW), last_attempt=12
        )
        one = ours.replica()
        looks = 0

        async def escrow_at_the_arming(call: Call) -> None:
            nonlocal looks
            attempt = ours.grant().attempt
            if call.method == "apply" and attempt and attempt.phase is AttemptPhase.CLAIMED:
                looks += 1
                some_escrow(ours, number=12)

        ours.world.on_departure = escrow_at_the_arming
        ours.world.on_arrival = escrow_at_the_arming
        call = one.call()
        await pass_time(60)

        assert looks
        assert ours.counts().presentations == 0
        await call


@in_virtual_time
async def test_unreachable_is_not_taken_for_no_escrow() -> None:
    async with fleet() as ours:
        ours.connect_expired(
            attempt=some_attempt(number=12, attempt_id="dead", deadline=THE_NOW), last_attempt=12
        )
        ours.redis.is_reachable = False
        one = ours.replica()

        error = await one.call(budget=timedelta(minutes=2))

        assert isinstance(error, RefreshOutcomeUnknown)
        assert ours.counts().presentations == 0
        grant = ours.grant()
        assert (grant.attempt, grant.doubt) == (None, Doubt.ABANDONED)
        assert (grant.failures.kind, grant.failures.count) == (FailureKind.OUTCOME_UNKNOWN, 1)


@in_virtual_time
async def test_after_a_quarter_of_an_hour_it_is_presented_all_the_same() -> None:
    async with fleet() as ours:
        ours.connect_expired(
            attempt=some_attempt(number=12, attempt_id="dead", deadline=THE_NOW), last_attempt=12
        )
        ours.redis.is_reachable = False
        one = ours.replica()

        while not ours.counts().presentations:
            await one.call(budget=timedelta(minutes=2))
            await pass_time(61)

        told = one.told.of(EscrowsUnreachable)
        assert [each.presents for each in told].count(True) == 2
        assert told[-1].tries == 16
        assert ours.counts().presentations == 1


@pytest.mark.parametrize(("seconds", "tries"), [(20, 15), (30, 14), (70, 10)])
def test_a_quarter_of_an_hour_is_fewer_tries_with_longer_quarantines(
    seconds: int, tries: int
) -> None:
    assert blind_tries(timedelta(seconds=seconds)) == tries


@in_virtual_time
async def test_an_escrow_that_a_consent_has_overtaken_changes_nothing() -> None:
    async with fleet() as ours:
        one = ours.replica()
        consented = some_grant(generation=9, pair_attempt=14, consent_attempt=14, pair_base=None)
        ours.put(consented)
        some_escrow(ours)

        await one.adoption.sweep()

        assert replace(ours.grant(), updated_at=None) == consented
        assert one.told.of(EscrowAdopted)[0].not_allowed is Why.MOVED_ON
        assert [line.outcome for line in ours.world.attempts] == [AttemptOutcome.STALE]
        assert ours.redis.escrows == {}


@in_virtual_time
async def test_what_was_read_is_held_though_redis_forgets_it() -> None:
    async with fleet() as ours:
        one, two = ours.replica("one"), ours.replica("two")
        await left_in_escrow(ours, one)
        ours.world.on_arrival = refuse_writes
        with pytest.raises(StoreUnavailable):
            await two.adoption.sweep()
        ours.redis.flush()

        ours.world.on_arrival = let_pass
        await two.adoption.sweep()

        assert is_pleos_newest(ours)
        assert len(two.adoption) == 0


@in_virtual_time
async def test_an_escrow_that_cannot_be_sealed_here_keeps_none_of_the_others_waiting() -> None:
    async with fleet() as ours:
        one = ours.replica()
        ours.put(some_grant())
        ours.put(some_grant(tenant="other", subject=None))
        some_escrow(ours)
        ours.redis.escrows["other", 13] = replace(some_escrow(ours), tenant="other")

        async def refuse_acme(call: Call) -> None:
            if call.method == "apply" and call.tenant == "acme":
                raise KeyUnavailable("the test lets sealing fail")

        ours.world.on_arrival = refuse_acme
        await one.adoption.sweep()

        assert (ours.grant("acme").generation, ours.grant("other").generation) == (7, 8)
        assert len(one.adoption) == 1


@in_virtual_time
async def test_a_defect_at_one_escrow_keeps_no_other_waiting() -> None:
    async with fleet() as ours:
        one, two = ours.replica(), ours.replica("two")
        odd = Escrow(tenant="odd", attempt=some_attempt(), issued=some_issue())
        await FakeEscrows(ours.redis).put(odd)
        await left_in_escrow(ours, one)

        async def break_on_odd(call: Call) -> None:
            if call.tenant == "odd":
                raise ZeroDivisionError

        ours.world.on_arrival = break_on_odd
        with pytest.raises(ZeroDivisionError):
            await two.adoption.sweep()

        assert is_pleos_newest(ours)


@in_virtual_time
async def test_a_sweep_waits_for_an_armed_attempt_of_somebody_else() -> None:
    async with fleet() as ours:
        one = ours.replica()
        other = some_attempt(number=14, attempt_id="other", deadline=THE_NOW + timedelta(minutes=1))
        ours.put(some_grant(attempt=other, last_attempt=14))
        some_escrow(ours)

        await one.adoption.sweep()

        assert ours.grant().generation == 7
        assert list(ours.redis.escrows) == [("acme", 13)]
        await pass_time(61)
        await one.adoption.sweep()
        assert ours.grant().generation == 8


@in_virtual_time
async def test_an_acknowledged_escrow_holds_up_shutdown_no_longer() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = ours.replica()
        call = one.call()
        await ours.pleo.sandbox.until(held=1)
        ours.world.on_arrival = refuse_writes
        ours.redis.is_reachable = False
        ours.pleo.sandbox.release()
        await pass_time(5)
        assert len(one.holdings) == 1

        ours.redis.is_reachable = True
        await pass_time(3)

        assert len(one.holdings) == 0
        await call
        one.flights.abandon()


@in_virtual_time
async def test_a_row_of_the_same_version_does_not_bring_the_dead_token_back() -> None:
    async with fleet() as ours:
        one = ours.replica()
        await left_in_escrow(ours, one)

        one.memory.keep(await one.rows.read("acme"))

        standing_in = one.memory.living("acme", above_generation=0)
        assert standing_in is not None
        assert standing_in.generation == 8


@in_virtual_time
async def test_news_of_a_consent_end_what_stands_in() -> None:
    async with fleet() as ours:
        one = ours.replica()
        await left_in_escrow(ours, one)
        ours.put(replace(some_grant(state=GrantState.REVOKED, revoked_at=THE_NOW), generation=9))

        await one.news.poll()
        await one.news.poll()
        ours.put(replace(ours.grant(), generation=10))
        await one.news.poll()

        assert one.memory.unstored("acme", above_generation=0) is None
