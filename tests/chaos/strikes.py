"""Processes killed and paused in the middle of refreshes, and one that is cut off from its stores.

Each victim refreshes a few tenants at the same time and is struck at a point of the first one's
refresh, so that the others are struck wherever they happen to be. All victims of a stage share one
wait: the attempts' deadlines and the quarantine. Their tenants' callers go on at the survivors.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle, islice
from typing import Final

from broker.sandbox.faults import Delay, Hold, Step
from chaos.calls import SECONDS, call
from chaos.cases import Allowance, Case, Place, place_of, release
from chaos.stage import Stage, Way
from chaos.traps import SetTrap, Trap
from support.replica import Replica
from support.waiting import comes_true, until

TENANTS: Final = 4
"""Of one victim: the one that the strike waits for, and others on their way."""

SURVIVORS: Final = 2
"""So that they also have to agree with each other."""

SPREAD_SECONDS: Final = 0.12
"""Over which a victim's refreshes begin, and about how long one takes with a slow Pleo."""

STORE_DELAY_SECONDS: Final = 0.02
"""Each way, between a victim and PostgreSQL: zones apart. Widens what lies around a commit."""

VICTIMS_CALL_SECONDS: Final = 3.0
"""A caller of a process that stands still goes elsewhere."""

PAUSE_SECONDS: Final = 52.0
"""Past an attempt's deadline (30 s), a quarantine (20 s), and whatever is held in Valkey."""

_ANYWHERE_SECONDS: Final = 0.35
"""In which a strike without a point falls: two spreads and the commits."""


_CLAIMED_AGAIN_SECONDS: Final = 60.0
"""An attempt's deadline, and what its callers' next call takes to come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """Whom to strike, where, and how Pleo behaves meanwhile."""

    fault: str
    point: Place | None = None
    """Of the first tenant's refresh; None: anywhere."""

    steps: tuple[Step, ...] = ()
    """Of Pleo, for the first tenant."""

    holds_others: bool = False
    """Pleo rotates the other tenants' pairs, and does not answer until the strike is over."""

    signal: signal.Signals = signal.SIGKILL
    delay_seconds: float = 0.0
    """From the point to the strike."""

    settings: tuple[tuple[str, str], ...] = ()
    """Of the victim."""


KILLS: Final = (
    Strike(fault="kill at flight_started", point=Place.STARTED),
    Strike(fault="kill at lease_answered", point=Place.LEASED),
    Strike(fault="kill at attempt_claimed", point=Place.CLAIMED),
    Strike(fault="kill when sent, before Pleo acts", point=Place.SENDING, steps=(Hold(),)),
    Strike(fault="kill when Pleo has rotated", point=Place.SENDING, steps=(Hold(when="after"),)),
    Strike(fault="kill at attempt_answered", point=Place.ANSWERED),
    Strike(fault="kill at attempt_answered + 30 ms", point=Place.ANSWERED, delay_seconds=0.03),
    Strike(fault="kill at attempt_settled", point=Place.SETTLED),
    Strike(fault="kill anywhere"),
    Strike(fault="kill anywhere"),
)
"""Every point of a refresh, and any moment."""

PAUSES: Final = (
    # One connection, which Pleo keeps busy: who has claimed waits for it, and has not sent.
    Strike(
        fault="pause between claim and sending",
        point=Place.CLAIMED,
        holds_others=True,
        signal=signal.SIGSTOP,
        delay_seconds=0.05,
        settings=(("BROKER_PLEO_MAX_CONCURRENCY", "1"),),
    ),
    Strike(fault="pause at lease_answered", point=Place.LEASED, signal=signal.SIGSTOP),
    Strike(fault="pause at attempt_claimed", point=Place.CLAIMED, signal=signal.SIGSTOP),
    Strike(fault="pause at attempt_sending", point=Place.SENDING, signal=signal.SIGSTOP),
    Strike(fault="pause at attempt_answered", point=Place.ANSWERED, signal=signal.SIGSTOP),
    Strike(fault="pause anywhere", signal=signal.SIGSTOP),
)
"""Past every deadline, and then awake again."""


@dataclass(slots=True, kw_only=True)
class Victim:
    """A process that is going to be struck."""

    strike: Strike
    replica: Replica
    cases: list[Case] = field(default_factory=list)

    @property
    def is_paused(self) -> bool:
        """Whether it wakes up again."""
        return self.strike.signal is signal.SIGSTOP


async def start_survivors(stage: Stage) -> None:
    """Starts those who are asked when the others have gone."""
    stage.replicas = await stage.start(SURVIVORS)


async def strike_all(stage: Stage, strikes: Sequence[Strike]) -> list[Case]:
    """Starts the victims, strikes, and returns all cases once everybody was told."""
    far = await stage.own_way()
    far.postgres.delay(STORE_DELAY_SECONDS)
    victims = [
        Victim(strike=each, replica=replica)
        for each in strikes
        for replica in await stage.start(1, far, **dict(each.settings))
    ]
    await _give_tenants(stage, victims)
    async with asyncio.TaskGroup() as tasks:
        for each in victims:
            tasks.create_task(_act(stage, each), name=each.strike.fault)
    return [case for each in victims for case in each.cases]


async def _give_tenants(stage: Stage, victims: Sequence[Victim]) -> None:
    cases = await stage.due_cases("", len(victims) * TENANTS)
    for case, victim in zip(cases, islice(cycle(victims), len(cases)), strict=True):
        case.fault, case.owner = victim.strike.fault, victim.replica
        case.allowance, case.is_paused = Allowance.PROCESS, victim.is_paused
        victim.cases.append(case)


async def _act(stage: Stage, victim: Victim) -> None:
    strike, (first, *others) = victim.strike, victim.cases
    _slow_down(stage, strike, first, others)
    point, delay = strike.point, strike.delay_seconds
    if point is None:
        point, delay = Place.STARTED, stage.chance.uniform(0, _ANYWHERE_SECONDS)
    set_trap = SetTrap(
        Trap(event=point, tenant=first.tenant, delay_seconds=delay, signal=strike.signal),
        victim.replica,
    )
    async with asyncio.TaskGroup() as tasks:
        for case in victim.cases:
            tasks.create_task(_ask(stage, victim, case), name=case.tenant)
        await set_trap.struck()
        wake_at = time.monotonic() + PAUSE_SECONDS
        await _take_note(stage, victim)
    if victim.is_paused:
        await asyncio.sleep(wake_at - time.monotonic())
        await _wake(stage, victim)


def _slow_down(stage: Stage, strike: Strike, first: Case, others: Sequence[Case]) -> None:
    faults = stage.brokers.sandbox.faults
    if strike.steps:
        company = first.customer.company
        faults.add(*strike.steps, grant_type="refresh_token", company=company)
    for case in others:
        before, after = (stage.chance.uniform(0, SPREAD_SECONDS) for _ in range(2))
        steps: tuple[Step, ...] = (Delay(seconds=before), Delay(seconds=after, when="after"))
        if strike.holds_others:
            steps = (Hold(when="after"),)
        faults.add(*steps, grant_type="refresh_token", company=case.customer.company)


async def _take_note(stage: Stage, victim: Victim) -> None:
    if not victim.is_paused:
        await victim.replica.ended()
    for case in victim.cases:
        case.place = place_of(victim.replica, case.tenant)
    release(stage.brokers.sandbox, victim.cases)


async def _ask(stage: Stage, victim: Victim, case: Case) -> None:
    # The one that the strike waits for comes last: the others are to be under way.
    is_first = case is victim.cases[0]
    await asyncio.sleep(SPREAD_SECONDS if is_first else stage.chance.uniform(0, SPREAD_SECONDS))
    case.calls.append(await call(victim.replica, case.tenant, seconds=VICTIMS_CALL_SECONDS))
    await stage.ask_on(case)


async def _wake(stage: Stage, victim: Victim) -> None:
    """Lets it go on with what it was doing, and asks both it and the others once more."""
    woken_at = datetime.now(UTC)
    os.kill(victim.replica.pid, signal.SIGCONT)
    for case in victim.cases:
        case.woken_at = woken_at
        # Joins the flight that stood still, if there is one.
        case.calls.append(await call(victim.replica, case.tenant, seconds=SECONDS))
        await stage.ask_on(case)


async def cut_off(stage: Stage) -> list[Case]:
    """Cuts a holder of a pair off from both stores, until somebody else is about to present.

    It must have its pair in PostgreSQL before that one may: this is what the quarantine is for.
    """
    way = await stage.own_way()
    (holder,) = await stage.start(1, way)
    cases = await stage.due_cases("holder cut off till quarantine", 2)
    for case in cases:
        case.owner = holder
        stage.brokers.sandbox.faults.add(
            Hold(when="after"), grant_type="refresh_token", company=case.customer.company
        )
    async with asyncio.TaskGroup() as tasks:
        for case in cases:
            tasks.create_task(_hold_alone(stage, case, holder), name=case.tenant)
        await _cut_and_mend(stage, way, cases)
    return cases


async def _cut_and_mend(stage: Stage, way: Way, cases: Sequence[Case]) -> None:
    held = {each.customer.company for each in cases}
    room = stage.brokers.sandbox.room
    await until(lambda: {each.company for each in room.held.values()} >= held)
    way.cut()
    release(stage.brokers.sandbox, cases)
    claimants = stage.replicas

    def are_claimed() -> bool:
        return all(_is_claimed(claimants, each) for each in cases)

    if not await comes_true(are_claimed, seconds=_CLAIMED_AGAIN_SECONDS):
        cases[0].notes.append("nobody else claimed")
    await way.mend()


def _is_claimed(claimants: Sequence[Replica], case: Case) -> bool:
    return any(each.seen("attempt_claimed", tenant=case.tenant) for each in claimants)


async def _hold_alone(stage: Stage, case: Case, holder: Replica) -> None:
    case.calls.append(await call(holder, case.tenant, seconds=VICTIMS_CALL_SECONDS))
    await stage.ask_on(case)
