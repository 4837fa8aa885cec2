"""Flights and holdings: what is shared, what outlives callers, what shutdown waits for."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from broker.domain.errors import ProviderUnavailable, RefreshInProgress
from broker.domain.facts import DefectMet, FlightEnded
from broker.service.flights import Flight, Flights
from broker.service.holdings import Holdings
from support.service import CountingChance, Recorder
from support.virtual_time import in_virtual_time, let_others_run, pass_time


def some_flights(tasks: asyncio.TaskGroup, told: Recorder | None = None) -> Flights[str]:
    return Flights[str](tasks, told or Recorder(), chance=CountingChance("one"))


class Work:
    """What a flight does: waits for a word, and counts how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self._word = asyncio.get_running_loop().create_future()

    async def __call__(self, _: Flight[str]) -> str:
        self.begun += 1
        return str(await self._word)

    def end(self, word: str) -> None:
        self._word.set_result(word)

    def fail(self, error: BaseException) -> None:
        self._word.set_exception(error)


@in_virtual_time
async def test_all_who_ask_for_the_same_share_one_work() -> None:
    async with asyncio.TaskGroup() as tasks:
        flights, work = some_flights(tasks), Work()

        joined = [flights.join("a", "acme", work) for _ in range(3)]
        await let_others_run()
        work.end("landed")

        assert [await flight.landing for flight in joined] == ["landed"] * 3
        assert work.begun == 1


@in_virtual_time
async def test_who_comes_after_the_landing_gets_a_new_flight() -> None:
    async with asyncio.TaskGroup() as tasks:
        flights, work, newer = some_flights(tasks), Work(), Work()
        first = flights.join("a", "acme", work)
        work.end("old")
        await first.landing
        await flights.settled()
        assert flights.find("a") is None

        second = flights.join("a", "acme", newer)
        newer.end("new")

        assert await second.landing == "new"


@in_virtual_time
async def test_another_key_is_another_flight() -> None:
    async with asyncio.TaskGroup() as tasks:
        flights, work = some_flights(tasks), Work()

        first, second = (flights.join(key, "acme", work) for key in ("a", "b"))

        assert first is not second
        assert (flights.find("a"), len(flights)) == (first, 2)
        work.end("landed")


@in_virtual_time
async def test_an_error_goes_to_everybody_and_ends_nobody_else() -> None:
    told = Recorder()
    async with asyncio.TaskGroup() as tasks:
        flights, work = some_flights(tasks, told), Work()
        flight = flights.join("a", "acme", work)
        work.fail(ProviderUnavailable("down", tenant="acme"))

        assert await flight.landed(60)
        assert isinstance(flight.landing.exception(), ProviderUnavailable)
        await flights.settled()

    assert [ended.reason for ended in told.of(FlightEnded)] == ["PROVIDER_UNAVAILABLE"]


@in_virtual_time
async def test_a_defect_is_told_once_by_the_id_that_all_get() -> None:
    told, defect = Recorder(), ZeroDivisionError()
    async with asyncio.TaskGroup() as tasks:
        flights, work = some_flights(tasks, told), Work()
        joined = [flights.join("a", "acme", work) for _ in range(3)]
        work.fail(defect)
        await flights.settled()

    errors = {flight.landing.exception() for flight in joined}
    assert [str(error) for error in errors] == ["a defect of the broker, in its log as one-1"]
    met = DefectMet(defect_id="one-1", where="flight of acme", error=defect)
    assert told.of(DefectMet) == [met]
    assert [ended.reason for ended in told.of(FlightEnded)] == ["INTERNAL_ERROR"]


@pytest.mark.parametrize("turns", [0, 5])
@in_virtual_time
async def test_a_flight_cut_short_by_the_end_still_answers(turns: int) -> None:
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        flights, work = some_flights(tasks), Work()
        flight = flights.join("a", "acme", work)
        await let_others_run(turns=turns)

        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await flights.settled()

    assert isinstance(flight.landing.exception(), RefreshInProgress)
    assert len(flights) == 0


@in_virtual_time
async def test_waiting_for_a_landing_is_bounded_and_harmless() -> None:
    async with asyncio.TaskGroup() as tasks:
        flights, work = some_flights(tasks), Work()
        flight = flights.join("a", "acme", work)

        assert not await flight.landed(2)
        assert not await flight.landed(-1)
        work.end("landed")

        assert await flight.landed(2)


@in_virtual_time
async def test_an_overdue_provider_ends_the_wait_and_not_the_flight() -> None:
    async with asyncio.TaskGroup() as tasks:
        flights, work = some_flights(tasks), Work()
        flight = flights.join("a", "acme", work)

        flight.overdue.set_result(None)

        assert not await flight.landed_or_overdue(60)
        assert asyncio.get_running_loop().time() == 0
        work.end("landed")


@in_virtual_time
async def test_a_flight_lands_once() -> None:
    flight = Flight[str]("acme", 1)

    flight.land("first")
    flight.land("second")
    flight.fail(ProviderUnavailable("late"))

    assert flight.landing.result() == "first"
    assert flight.told().reason == ""


@in_virtual_time
async def test_nobody_waits_for_nothing() -> None:
    async with asyncio.TaskGroup() as tasks:
        await some_flights(tasks).settled()
        await Holdings().none_left()


@in_virtual_time
async def test_two_flights_settle_with_the_later_one() -> None:
    async with asyncio.TaskGroup() as tasks:
        flights, works = some_flights(tasks), [Work(), Work()]
        for number, work in enumerate(works):
            flights.join(number, "acme", work)
        settled = tasks.create_task(flights.settled(), name="settled")
        works[0].end("landed")
        await pass_time(1)
        assert not settled.done()

        works[1].end("landed")

        await settled


@in_virtual_time
async def test_who_waits_for_flights_waits_for_one_begun_at_the_last_moment() -> None:
    async with asyncio.TaskGroup() as tasks:
        told, work, next_work = Recorder(), Work(), Work()
        flights = some_flights(tasks, told)
        flight = flights.join("a", "acme", work)
        # Runs in the turn in which the waiter is woken, and before it.
        flight.landing.add_done_callback(
            lambda _: asyncio.get_running_loop().call_soon(flights.join, "b", "acme", next_work)
        )
        settled = tasks.create_task(flights.settled(), name="settled")
        await let_others_run()
        work.end("landed")
        await pass_time(1)

        assert not settled.done()
        next_work.end("landed")


@in_virtual_time
async def test_a_pair_passed_on_within_one_turn_is_held_all_the_time() -> None:
    async with asyncio.TaskGroup() as tasks:
        holdings = Holdings()
        with holdings.hold():
            waiting = tasks.create_task(holdings.none_left(), name="shutdown")
            await let_others_run()
        with holdings.hold():
            await let_others_run()

            assert len(holdings) == 1
            assert not waiting.done()


@in_virtual_time
async def test_shutdown_waits_for_the_last_one_held() -> None:
    async with asyncio.TaskGroup() as tasks:
        holdings = Holdings()
        with holdings.hold():
            with holdings.hold():
                waiting = tasks.create_task(holdings.none_left(), name="shutdown")
                await let_others_run()
            await let_others_run()
            assert not waiting.done()

        await waiting
        assert len(holdings) == 0
