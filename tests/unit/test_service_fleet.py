"""The breaker at work, and what else the replicas share: one probe at a time, consents go on."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from broker.domain.breaker import Breaker, BreakerCause
from broker.domain.errors import (
    ProviderRejectedClient,
    ProviderUnavailable,
    RefreshOutcomeUnknown,
    StoreUnavailable,
)
from broker.domain.facts import BreakerMoved, EvidenceUnread
from broker.domain.fleet import FleetState
from broker.domain.grant import AttemptPhase, Doubt, GrantState
from broker.domain.share import NEWCOMERS
from broker.ports import FleetSnapshot
from broker.sandbox.faults import Delay, Hold, fail, rate_limit, refuse
from broker.service import fleet as fleets
from broker.service.fleet import BEAT_SECONDS, POLL_SECONDS, SETTLING_SECONDS, SILENT_SECONDS
from broker.service.messages import ServedToken
from broker.service.turnstile import BURST_SECONDS
from support.consent_service import BLUE, Desk, desk, looping
from support.fake_fleet import FakeFleetStore
from support.grants import THE_NOW, some_attempt
from support.incidents import ask, ask_all, presentations, put_fleet
from support.service import TIMES, Fleet, Recorder, fleet, seconds_gone, virtual_now
from support.virtual_time import in_virtual_time, let_others_run, pass_time

REJECTED = refuse("invalid_client", status=401)
SPAN = TIMES.span.total_seconds()


SIGNS = ("beats", "fleet")

ALLOWED = 50 * (1 + BURST_SECONDS) + 3
"""In one second at 50, of three replicas: each has its burst, and one more in a second's ends."""


def busiest_second(sent: list[float]) -> int:
    """Returns how many there were in the second that had most."""
    ordered = sorted(sent)
    return max(bisect_left(ordered, at + 1) - place for place, at in enumerate(ordered))


@asynccontextmanager
async def crowding(one: Desk, sent: list[float]) -> AsyncIterator[None]:
    """Sends as many through a replica's turnstile as it lets while the block runs."""

    async def send() -> None:
        while True:
            async with one.service.turnstile.turn():
                sent.append(seconds_gone())

    async with asyncio.TaskGroup() as tasks:
        senders = [tasks.create_task(send(), name="a sender") for _ in range(3)]
        yield
        for sender in senders:
            sender.cancel()


def names(count: int) -> list[str]:
    return [f"t{number}" for number in range(count)]


def connect(ours: Fleet, count: int) -> list[str]:
    for tenant in names(count):
        ours.connect_expired(tenant=tenant)
    return names(count)


def breaker_of(ours: Fleet) -> Breaker:
    breaker = ours.world.fleet.breaker
    assert breaker is not None
    return breaker


async def opened(one: Desk) -> None:
    """Lets Pleo reject our client once, for a grant of its own."""
    ours = one.fleet
    ours.connect_expired(tenant="first")
    ours.pleo.sandbox.faults.add(REJECTED)
    assert isinstance(await ask(one, "first"), ProviderRejectedClient)


async def until_probe(ours: Fleet) -> None:
    await pass_time((breaker_of(ours).probe_at - virtual_now()).total_seconds())


@in_virtual_time
async def test_after_one_rejected_client_nobody_else_is_presented() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await opened(one)

        answers = await ask_all(one, connect(ours, 20))

        assert {type(answer) for answer in answers} == {ProviderRejectedClient}
        assert presentations(ours) == 1
        assert ours.grant("first").state is GrantState.ACTIVE
        assert one.told.of(BreakerMoved) == [
            BreakerMoved(cause="CLIENT_REJECTED", code="invalid_client")
        ]


@in_virtual_time
async def test_a_token_within_its_life_is_served_meanwhile() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await opened(one)
        ours.connect_due(tenant="living")

        answer = await ask(one, "living")

        assert isinstance(answer, ServedToken)
        assert (answer.generation, answer.is_degraded) == (7, True)
        assert presentations(ours) == 1


@in_virtual_time
async def test_one_probe_at_a_time_goes_through() -> None:
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        await opened(one)
        await two.service.fleet.poll()
        tenants = connect(ours, 10)
        ours.pleo.sandbox.faults.add(Hold())
        await until_probe(ours)

        calls = [each.call(ask(each, tenant)) for tenant in tenants for each in (one, two)]
        await pass_time(1)
        on_the_wire = presentations(ours) - 1
        ours.pleo.sandbox.release()
        answers = await asyncio.gather(*calls)

        assert on_the_wire == 1
        assert sum(isinstance(answer, ServedToken) for answer in answers) >= 1
        assert ours.world.fleet.breaker is None


@in_virtual_time
async def test_the_first_success_closes_it_for_all_within_a_poll() -> None:
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        await opened(one)
        async with looping(two, "fleet"):
            tenants = connect(ours, 2)
            await until_probe(ours)
            assert isinstance(await ask(one, tenants[0]), ServedToken)
            await pass_time(POLL_SECONDS)

            assert isinstance(await ask(two, tenants[1]), ServedToken)
            assert [told.cause for told in two.told.of(BreakerMoved)] == ["CLIENT_REJECTED", ""]


@in_virtual_time
async def test_a_probe_that_is_rejected_makes_the_next_wait_longer() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await opened(one)
        ours.pleo.sandbox.faults.add(REJECTED, times=None)
        tenants = connect(ours, 200)

        for tenant in tenants:
            assert isinstance(await ask(one, tenant), ProviderRejectedClient)
            await pass_time(1)

        assert presentations(ours) == 1 + 8  # after 1, 2, 4, 8, 16, 32, 60, 60 s


@in_virtual_time
async def test_a_storm_of_lost_answers_opens_it() -> None:
    async with fleet() as ours:
        one = desk(ours)
        tenants = connect(ours, 10)
        ours.pleo.sandbox.faults.add(fail(502), times=None)

        answers = await ask_all(one, tenants)

        kinds = [type(answer) for answer in answers]
        assert kinds == [RefreshOutcomeUnknown] * 5 + [ProviderUnavailable] * 5
        assert presentations(ours) == 5
        assert breaker_of(ours).cause is BreakerCause.OUTCOMES_UNKNOWN


@in_virtual_time
async def test_two_grants_told_to_wait_stop_all_until_then() -> None:
    async with fleet() as ours:
        one = desk(ours)
        tenants = connect(ours, 5)
        ours.pleo.sandbox.faults.add(rate_limit(retry_after="60"), times=2)
        await ask_all(one, tenants[:2])

        await pass_time(59)
        early = await ask_all(one, tenants[2:])
        await pass_time(1)
        late = await ask_all(one, tenants[2:])

        assert {type(answer) for answer in early} == {ProviderUnavailable}
        assert {type(answer) for answer in late} == {ServedToken}


@in_virtual_time
async def test_one_grant_told_to_wait_stops_nobody_else() -> None:
    async with fleet() as ours:
        one = desk(ours)
        tenants = connect(ours, 2)
        ours.pleo.sandbox.faults.add(rate_limit(retry_after="60"))

        limited, other = await ask_all(one, tenants)

        assert isinstance(limited, ProviderUnavailable)
        assert isinstance(other, ServedToken)


@in_virtual_time
async def test_consents_go_through_an_open_breaker() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await opened(one)

        grant = await one.complete(await one.consented(BLUE, tenant="new"))

        assert grant.state is GrantState.ACTIVE
        assert breaker_of(ours).cause is BreakerCause.CLIENT_REJECTED


@in_virtual_time
async def test_who_waits_at_the_turnstile_as_it_opens_is_not_presented() -> None:
    async with fleet() as ours:
        one = desk(ours)
        tenants = connect(ours, 150)
        ours.pleo.sandbox.faults.add(Hold(), REJECTED, times=50)
        ours.pleo.sandbox.faults.add(REJECTED, times=None)
        calls = [one.call(ask(one, tenant)) for tenant in tenants]
        await pass_time(5)  # fifty are inside, and a hundred wait
        inside = presentations(ours)

        ours.pleo.sandbox.release()
        answers = await asyncio.gather(*calls)

        assert inside == 50
        assert {type(answer) for answer in answers} == {ProviderRejectedClient}
        assert presentations(ours) <= inside + 2  # probes, seconds later


@in_virtual_time
async def test_a_lost_acknowledgement_of_a_probe_costs_its_span_at_most() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await opened(one)
        tenant, other = connect(ours, 2)
        await until_probe(ours)
        ours.world.fail_next("apply fleet", when="departure")

        assert isinstance(await ask(one, tenant), StoreUnavailable)

        await one.service.fleet.poll()
        await pass_time(SPAN - 1)
        assert isinstance(await ask(one, other), ProviderRejectedClient)
        await pass_time(1)
        assert isinstance(await ask(one, other), ServedToken)


@in_virtual_time
async def test_a_probe_that_is_not_claimed_is_followed_by_another() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await opened(one)
        tenant, other = connect(ours, 2)
        await until_probe(ours)
        ours.world.fail_next("apply", times=3)

        assert isinstance(await ask(one, tenant), StoreUnavailable)

        await pass_time(SPAN)
        assert isinstance(await ask(one, other), ServedToken)
        assert ours.world.fleet.breaker is None


@in_virtual_time
async def test_a_probe_that_finds_its_grant_refreshed_is_given_back() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await opened(one)
        tenant, other = connect(ours, 2)
        await until_probe(ours)
        gate = ours.watch("apply fleet")
        asked = asyncio.create_task(ask(one, tenant))
        await gate.reached.wait()

        ours.connect(tenant=tenant, generation=8)
        gate.open()

        assert isinstance(await asked, ServedToken)

        assert isinstance(await ask(one, other), ServedToken)
        assert presentations(ours) == 2


@pytest.mark.parametrize("when", ["arrival", "departure"])
@in_virtual_time
async def test_an_answer_that_cannot_be_noted_leaves_it_for_the_next(when: str) -> None:
    async with fleet() as ours:
        one = desk(ours)
        await opened(one)
        tenant, other = connect(ours, 2)
        await until_probe(ours)
        ours.world.fail_next("weigh", when="arrival" if when == "arrival" else "departure")

        assert isinstance(await ask(one, tenant), ServedToken)

        assert [told.tenant for told in one.told.of(EvidenceUnread)] == [tenant]
        await pass_time(SPAN)
        assert isinstance(await ask(one, other), ServedToken)
        assert ours.world.fleet.breaker is None


@in_virtual_time
async def test_a_replica_that_has_just_started_asks_how_it_stands() -> None:
    async with fleet() as ours:
        await opened(desk(ours))

        answer = await ask(desk(ours, "two"), connect(ours, 1)[0])

        assert isinstance(answer, ProviderRejectedClient)
        assert presentations(ours) == 1


@in_virtual_time
async def test_a_probe_that_waited_in_the_queue_closes_it_all_the_same() -> None:
    async with fleet() as ours:
        ours.rate = 1.0
        one = ours.replica()
        tenants = connect(ours, 4)
        ours.pleo.sandbox.faults.add(Delay(seconds=0.5), REJECTED)

        # All have read their rows before it opens, and the third goes through after two seconds.
        await asyncio.gather(*(one.call(tenant) for tenant in tenants))

        assert ours.world.fleet.breaker is None


@in_virtual_time
async def test_a_long_queue_costs_no_attempt_its_time() -> None:
    async with fleet() as ours:
        ours.rate = 1.0
        one = ours.replica()
        tenants = connect(ours, 25)

        await asyncio.gather(*(one.call(tenant) for tenant in tenants))

        assert presentations(ours) == 25
        assert seconds_gone() == pytest.approx(24, abs=0.5)
        assert {ours.grant(tenant).last_attempt for tenant in tenants} == {13}


def connect_abandoned(ours: Fleet, tenant: str) -> None:
    """Puts a grant whose attempt was armed and never settled, and is over."""
    attempt = some_attempt(deadline=THE_NOW, phase=AttemptPhase.ARMED)
    ours.connect_expired(tenant=tenant, attempt=attempt, last_attempt=13)


@in_virtual_time
async def test_a_quarantine_keeps_no_place() -> None:
    async with fleet() as ours:
        one = ours.replica()
        for number in range(60):
            connect_abandoned(ours, f"silent-{number}")
        ours.connect_expired()
        calls = [one.call(f"silent-{number}") for number in range(60)]
        await pass_time(1)

        assert isinstance(await one.call(), ServedToken)

        assert seconds_gone() < 2
        assert {type(await call) for call in calls} == {ServedToken}


@in_virtual_time
async def test_what_comes_out_of_a_quarantine_is_not_presented_as_it_is_open() -> None:
    async with fleet() as ours:
        one = desk(ours)
        connect_abandoned(ours, "silent")
        silent = one.call(ask(one, "silent"))
        await pass_time(19.5)
        ours.pleo.sandbox.faults.add(REJECTED, times=None)
        await opened(one)

        answer = await silent

        assert isinstance(answer, ProviderRejectedClient)
        grant = ours.grant("silent")
        assert (grant.attempt, grant.doubt) == (None, Doubt.ABANDONED)
        assert presentations(ours) == 1


@in_virtual_time
async def test_a_probe_may_come_out_of_a_quarantine() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await opened(one)
        connect_abandoned(ours, "silent")
        await until_probe(ours)

        assert isinstance(await ask(one, "silent"), ServedToken)

        assert ours.world.fleet.breaker is None


@in_virtual_time
async def test_a_probe_that_a_quarantine_ends_without_presenting_is_given_back() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await opened(one)
        connect_abandoned(ours, "silent")
        (other,) = connect(ours, 1)
        await until_probe(ours)
        silent = one.call(ask(one, "silent"))
        await pass_time(5)
        ours.connect(tenant="silent", generation=8, last_attempt=14)
        assert isinstance(await silent, ServedToken)

        assert isinstance(await ask(one, other), ServedToken)

        assert ours.world.fleet.breaker is None


@in_virtual_time
async def test_replicas_share_the_rate_by_their_signs_of_life() -> None:
    async with fleet() as ours:
        ours.rate = 50
        one = desk(ours)
        async with looping(one, *SIGNS):
            async with looping(desk(ours, "two"), *SIGNS):
                await pass_time(BEAT_SECONDS)
                both = one.service.turnstile.rate
            await pass_time(SILENT_SECONDS + POLL_SECONDS)

            assert (both, one.service.turnstile.rate) == (25, 50)


@in_virtual_time
async def test_replicas_that_start_together_stay_within_the_rate() -> None:
    async with fleet() as ours, AsyncExitStack() as running:
        ours.rate = 50
        sent: list[float] = []
        for name in ("one", "two", "three"):
            started = desk(ours, name)
            await running.enter_async_context(crowding(started, sent))
            await running.enter_async_context(looping(started, *SIGNS))

        await pass_time(10)

        assert busiest_second(sent) <= ALLOWED
        assert sum(at >= 5 for at in sent) == pytest.approx(5 * 50, rel=0.05)


@in_virtual_time
async def test_who_joins_others_adds_little_until_they_have_counted_it() -> None:
    async with fleet() as ours, AsyncExitStack() as running:
        ours.rate = 50
        sent: list[float] = []
        for name, pause in (("one", 9.5), ("two", 10)):
            started = desk(ours, name)
            await running.enter_async_context(crowding(started, sent))
            await running.enter_async_context(looping(started, *SIGNS))
            await pass_time(pause)

        assert busiest_second(sent) <= ALLOWED + 50 / NEWCOMERS
        assert busiest_second([at for at in sent if at >= 14]) <= ALLOWED


@in_virtual_time
async def test_after_a_long_outage_of_postgresql_nobody_thinks_to_be_alone() -> None:
    async with fleet() as ours, AsyncExitStack() as running:
        ours.rate = 50
        replicas = [desk(ours, name) for name in ("one", "two", "three")]
        for pause, each in enumerate(replicas):
            await running.enter_async_context(looping(each, *SIGNS))
            await pass_time(1 + pause)
        ours.world.fail_next("beat", times=12)
        rates = []

        for _ in range(120):
            await pass_time(0.5)
            rates.append(sum(each.service.turnstile.rate for each in replicas))

        assert max(rates) <= 50 + 2 * 50 / NEWCOMERS
        assert rates[-1] == pytest.approx(50)


@in_virtual_time
async def test_until_it_is_heard_of_a_replica_takes_a_newcomers_share() -> None:
    async with fleet() as ours:
        ours.rate = 50
        one = desk(ours)
        ours.world.fail_next("beat", times=2)

        async with looping(one, *SIGNS):
            unheard = [one.service.turnstile.rate]
            await pass_time(BEAT_SECONDS + SETTLING_SECONDS)
            unheard.append(one.service.turnstile.rate)
            await pass_time(BEAT_SECONDS)

            assert (unheard, one.service.turnstile.rate) == ([5, 5], 50)


@in_virtual_time
async def test_what_was_known_stays_while_postgresql_is_away() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await opened(one)
        ours.world.fail_next("read fleet")

        assert isinstance(await one.call(one.service.fleet.poll()), StoreUnavailable)

        assert one.service.fleet.breaker == breaker_of(ours)


@in_virtual_time
async def test_a_breaker_that_others_closed_is_not_probed() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await opened(one)
        await until_probe(ours)
        put_fleet(ours, FleetState())

        assert isinstance(await ask(one, connect(ours, 1)[0]), ServedToken)

        assert ours.world.fleet.breaker is None
        assert one.service.fleet.breaker is None


@in_virtual_time
async def test_a_probe_that_another_took_is_waited_for() -> None:
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        await opened(one)
        await two.service.fleet.poll()
        tenant, other = connect(ours, 2)
        ours.pleo.sandbox.faults.add(Hold())
        await until_probe(ours)
        probe = one.call(ask(one, tenant))
        await let_others_run()

        answer = await ask(two, other)

        assert isinstance(answer, ProviderRejectedClient)
        ours.pleo.sandbox.release()
        assert isinstance(await probe, ServedToken)


@in_virtual_time
async def test_answers_from_before_it_opened_close_nothing() -> None:
    async with fleet() as ours:
        one = desk(ours)
        (slow,) = connect(ours, 1)
        ours.pleo.sandbox.faults.add(Hold())
        early = one.call(ask(one, slow))
        await pass_time(1)
        await opened(one)

        ours.pleo.sandbox.release()
        assert isinstance(await early, ServedToken)

        assert breaker_of(ours).probes == 0


class SplitFleetStore(FakeFleetStore):
    """Behind a proxy that sends reads to a standby, and writes to the primary."""

    async def read(self) -> FleetSnapshot:
        return replace(await super().read(), live="")


@in_virtual_time
async def test_a_row_that_only_a_standby_shows_is_not_tried_for_ever() -> None:
    async with fleet() as ours:
        split = fleets.Fleet(
            SplitFleetStore(ours.world),
            Recorder(),
            times=TIMES,
            replica="one",
            build="",
        )

        with pytest.raises(StoreUnavailable):
            await split.note_rewound(unseen_for=TIMES.span)
