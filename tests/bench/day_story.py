"""A day's callers and replicas, in virtual time: the real scheduling, and who waits for it."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Final, cast

from bench.day_calls import Calls
from bench.day_pleo import DayRenewals, Grants, Pleo, now
from broker.domain.answers import Rotated
from broker.domain.breaker import after_answer, is_worth_weighing
from broker.domain.errors import BrokerError
from broker.domain.freshness import Freshness, freshness
from broker.domain.next_step import Refresh, Refuse, decide_next
from broker.domain.renewal import Planned
from broker.service.fleet import BEAT_SECONDS, POLL_SECONDS, Fleet
from broker.service.loops import repeat
from broker.service.renewing import Renewing
from broker.service.turnstile import Priority, Turnstile
from broker.service.usage import FLUSH_SECONDS, Usage
from broker.service.waiting import PATIENCE
from support.fake_fleet import FakeFleetStore
from support.fake_world import FakeWorld
from support.service import TIMES
from support.virtual_time import nap

if TYPE_CHECKING:
    from broker.domain.facts import Fact
    from broker.domain.fleet import FleetState
    from broker.ports import GrantStore

REPLICAS: Final = 3

_CALL_SECONDS: Final = 29.7
"""Of a caller without a deadline, less the margin for the answer."""

_AGAIN_SECONDS: Final = 30.0

_TICK: Final = 0.1
"""Seconds to which calls are rounded."""


@dataclass(slots=True, kw_only=True)
class Told:
    """What happened, by second or by minute of the day."""

    refreshes: Counter[int] = field(default_factory=Counter)
    planned: Counter[int] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    """By how they ended."""

    waits: list[tuple[float, float]] = field(default_factory=list)
    """When somebody had to wait, and for how long."""

    failed: Counter[int] = field(default_factory=Counter)
    degraded: Counter[int] = field(default_factory=Counter)
    backlog: list[int] = field(default_factory=list)
    """Grants in use past their renewal time, each minute."""

    def observe(self, fact: Fact) -> None:
        """As `ports.Observer` has it."""


class Replica:
    """One broker's scheduling."""

    def __init__(self, day: Day, name: str) -> None:
        self._day = day
        store = FakeFleetStore(day.world)
        self.fleet = Fleet(store, day.told, times=TIMES, replica=name, build="day")
        self.turnstile = Turnstile(
            most_at_once=50, rate=lambda: self.fleet.share_of(day.asked.rate)
        )
        # Of the store only the writing of last use is asked.
        self.usage = Usage(cast("GrantStore", day.grants))
        self.renewing = Renewing(
            DayRenewals(day.grants),
            self._renew,
            day.told,
            fleet=self.fleet,
            turnstile=self.turnstile,
        )

    def begin(self, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Runs what runs in the background."""
        loops = {
            "renewals": (self.renewing.run, POLL_SECONDS),
            "usage": (self.usage.flush, FLUSH_SECONDS),
            "fleet": (self.fleet.poll, POLL_SECONDS),
            "beats": (self.fleet.beat, BEAT_SECONDS),
        }
        return [
            tasks.create_task(repeat(name, turn, pause=pause, observer=self._day.told), name=name)
            for name, (turn, pause) in loops.items()
        ]

    async def _renew(self, tenant: str) -> None:
        number = int(tenant)
        if number not in self._day.grants.flying:
            self._day.grants.begin(number)
            try:
                await self._present(number, is_planned=True)
            finally:
                self._day.grants.end(number)

    async def fly(self, number: int) -> None:
        """Gets a grant fresh for callers, in a flight that has begun."""
        try:
            self.fleet.check(str(number))
            async with self.turnstile.turn(Priority.CALLER):
                await self._present(number, is_planned=False)
        except BrokerError:
            return  # whoever waits sees that there is no newer token
        finally:
            self._day.grants.end(number)

    def refuses(self, number: int) -> bool:
        """Whether callers who need a refresh would be refused at once."""
        grant = self._day.grants.rows[number]
        if isinstance(decide_next(grant, above_generation=0, now=now()), Refuse):
            return True
        try:
            self.fleet.check(grant.tenant)
        except BrokerError:
            return True
        return False

    async def _present(self, number: int, *, is_planned: bool) -> None:
        day = self._day
        is_probe = await self.fleet.admit(str(number))
        step = decide_next(day.grants.rows[number], above_generation=0, now=now())
        if not isinstance(step, Refresh):
            if is_probe:
                await self.fleet.give_back()
            if isinstance(step, Refuse):
                raise step.error
            return
        sent_at, second = now(), int(asyncio.get_running_loop().time())
        day.told.refreshes[second] += 1
        day.told.planned[second] += is_planned
        answer = await day.pleo.present(number)
        day.grants.settle(number, answer, sent_at)
        if self.fleet.breaker is not None or is_worth_weighing(answer):
            evidence = day.pleo.evidence()

            def weighed(state: FleetState, _: object) -> FleetState:
                after = after_answer(state.breaker, answer, evidence, claimed_at=sent_at)
                return replace(state, breaker=after)

            await self.fleet.change(weighed)
        if not isinstance(answer, Rotated):
            after = decide_next(day.grants.rows[number], above_generation=0, now=now())
            if isinstance(after, Refuse):
                raise after.error


class Day:
    """Everything."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        chance = Random(asked.seed)  # noqa: S311 - a simulation
        always, office = asked.grants // 20, asked.grants // 4
        self.told, self.world = Told(), FakeWorld(now=now)
        self.grants = Grants(chance, always=always, count=asked.grants)
        self.calls = Calls(chance, always=always, office=office, count=asked.grants)
        begins = 3600 * asked.outage
        self.pleo = Pleo(chance, outage=(begins, begins + 3600 * asked.outage_hours))
        self._chance = chance

    async def run(self, minute: Callable[[], None]) -> None:
        """Lets the day go by."""
        async with asyncio.TaskGroup() as tasks:
            replicas = [Replica(self, f"replica-{number}") for number in range(REPLICAS)]
            loops = [loop for replica in replicas for loop in replica.begin(tasks)]
            for tick in range(round(3600 * self.asked.hours / _TICK)):
                for number in self.calls.before(tick * _TICK):
                    self._call(self._chance.choice(replicas), number, tasks)
                if tick % round(60 / _TICK) == 0:
                    self.told.backlog.append(len(self.grants.due[Planned.IN_USE]))
                    minute()
                await nap(_TICK)
            for loop in loops:
                loop.cancel()

    def _call(self, replica: Replica, number: int, tasks: asyncio.TaskGroup) -> None:
        grant = self.grants.rows[number]
        how_fresh = freshness(grant, now())
        if how_fresh is Freshness.FRESH:
            self.told.calls["from memory"] += 1
            replica.usage.note(grant.tenant)
            return
        is_living = how_fresh is Freshness.DUE
        if number not in self.grants.flying:
            if replica.refuses(number):
                self._end(replica, number, "degraded" if is_living else "refused")
                return
            self.grants.begin(number)
            tasks.create_task(replica.fly(number), name="a flight")
        call = self._wait(replica, number, is_living=is_living)
        tasks.create_task(call, name="a caller")

    async def _wait(self, replica: Replica, number: int, *, is_living: bool) -> None:
        loop, generation = asyncio.get_running_loop(), self.grants.rows[number].generation
        began, flight = loop.time(), self.grants.flying.get(number)
        if flight is not None:  # or it has ended in the same turn of the loop
            await asyncio.wait({flight}, timeout=PATIENCE if is_living else _CALL_SECONDS)
        self.told.waits.append((began, loop.time() - began))
        if self.grants.rows[number].generation > generation:
            self._end(replica, number, "waited")
        else:
            self._end(replica, number, "degraded" if is_living else "refused")

    def _end(self, replica: Replica, number: int, how: str) -> None:
        at = asyncio.get_running_loop().time()
        self.told.calls[how] += 1
        if how == "refused":
            self.told.failed[int(at // 60)] += 1
            self.calls.again(number, at + _AGAIN_SECONDS)
            return
        self.told.degraded[int(at // 60)] += how == "degraded"
        replica.usage.note(self.grants.rows[number].tenant)
