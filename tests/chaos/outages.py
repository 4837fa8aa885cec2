"""What it is to break something while tenants are due and callers ask: the frame of every outage.

Nothing in it may cost a pair: whatever is rotated is stored in the end, and nothing is shown twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from broker.sandbox.faults import Delay, Hold, Step
from chaos.cases import Case
from chaos.stage import Stage
from support.replica import Replica
from support.waiting import until

OUTAGE_SECONDS: Final = 2.0
"""Longer than any timeout towards Valkey, as long as those for a connection to PostgreSQL."""

SOON_SECONDS: Final = 0.15
"""In which callers come, and within which outages begin: about what a refresh takes."""

SLOW_PLEO_SECONDS: Final = 0.15
"""At most, before it acts and after: so that an outage falls around the answer as well."""

_READY_SECONDS: Final = 60.0
"""For a broker that starts while a dozen others are busy."""

Act = Callable[[Stage, Sequence[Case]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """What breaks, and for how many tenants."""

    fault: str
    act: Act
    """Runs while callers ask; they go on until they are told for good."""

    is_held: bool = False
    """Pleo rotates, and answers when `act` releases it. Otherwise it is a little slow."""

    pleo_seconds: float = SLOW_PLEO_SECONDS
    tenants: int = 6
    callers: int = 3
    """Of each tenant, at whichever replicas."""

    seconds: float = SOON_SECONDS
    """In which the callers come."""


async def endure(stage: Stage, outages: Sequence[Outage]) -> list[Case]:
    """Lets one outage happen after the other."""
    stage.replicas = await stage.start(3, stage.way)
    return [case for each in outages for case in await _endure(stage, each)]


async def _endure(stage: Stage, outage: Outage) -> list[Case]:
    cases = await stage.due_cases(outage.fault, outage.tenants)
    for case in cases:
        steps = (Hold(when="after"),) if outage.is_held else _slowly(stage, outage)
        company = case.customer.company
        stage.brokers.sandbox.faults.add(*steps, grant_type="refresh_token", company=company)
    async with asyncio.TaskGroup() as tasks:
        for case in cases:
            begin = stage.chance.uniform(0, outage.seconds)
            for _ in range(outage.callers):
                tasks.create_task(_ask(stage, case, begin), name=case.tenant)
        await outage.act(stage, cases)
    return cases


def _slowly(stage: Stage, outage: Outage) -> tuple[Step, ...]:
    before, after = (stage.chance.uniform(0, outage.pleo_seconds) for _ in range(2))
    return Delay(seconds=before), Delay(seconds=after, when="after")


async def _ask(stage: Stage, case: Case, begin: float) -> None:
    await asyncio.sleep(begin)
    await stage.ask_on(case)


async def soon(stage: Stage) -> None:
    """Lets some of the refreshes begin, and some end."""
    await asyncio.sleep(stage.chance.uniform(0, 2 * SOON_SECONDS))


async def all_rotated(stage: Stage, cases: Sequence[Case]) -> None:
    """Waits until Pleo has rotated every tenant's pair and answered none of them."""
    companies = {each.customer.company for each in cases}
    room = stage.brokers.sandbox.room
    await until(lambda: {each.company for each in room.held.values()} >= companies)


async def ready(stage: Stage, replicas: Sequence[Replica]) -> None:
    """Waits until brokers that were launched may be asked."""
    for each in replicas:
        await each.saw("broker_started")
        await stage.brokers.until_ready(each, seconds=_READY_SECONDS)
