"""One round: a strict Pleo, a Pleo with grace and the stores' outages, each on a stage of its own.

The three run at the same time, because most of a round is waiting for deadlines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from broker.dev.rundir import RunDirectory
from chaos.cases import Case
from chaos.other_outages import OTHER_OUTAGES
from chaos.outages import Outage, endure
from chaos.postgres_outages import POSTGRES_OUTAGES
from chaos.silences import lose_answers
from chaos.stage import Mode, Stage, stage
from chaos.strikes import KILLS, PAUSES, Strike, cut_off, start_survivors, strike_all
from chaos.verdicts import Verdict, judge

BYSTANDERS: Final = 40
"""Whose refreshes nothing befalls. So many that those refused by a strict Pleo after a kill are few
among all: a fleet in which a fifth are refused has another trouble.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A case and its verdict."""

    case: Case
    verdict: Verdict
    what_was_said: str = ""
    """By the brokers about a tenant whose verdict is not good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What happens in a round."""

    strikes: tuple[tuple[Mode, tuple[Strike, ...]], ...]
    outages: tuple[Outage, ...]


FULL: Final = Plan(
    strikes=(("strict", (*KILLS, *PAUSES)), ("grace", (*KILLS, *PAUSES))),
    outages=(*POSTGRES_OUTAGES, *OTHER_OUTAGES),
)

_TIME: Final = "%Y-%m-%dT%H:%M:%S.%fZ"
"""As the brokers' logs have it."""

Told = Callable[[Sequence[Judged]], None]
"""Told of cases when they are judged."""


async def play(run: RunDirectory, plan: Plan, *, seed: int, told: Told) -> list[Judged]:
    """Plays a round; the seed decides what the processes' scheduling leaves open."""
    async with asyncio.TaskGroup() as tasks:
        playing = [
            tasks.create_task(_strike(run, mode, strikes, seed=seed, told=told), name=mode)
            for mode, strikes in plan.strikes
        ]
        playing.append(
            tasks.create_task(_break(run, plan.outages, seed=seed, told=told), name="outages")
        )
    return [each for one in playing for each in one.result()]


async def _strike(
    run: RunDirectory, mode: Mode, strikes: Sequence[Strike], *, seed: int, told: Told
) -> list[Judged]:
    async with stage(run, mode, mode=mode, seed=seed) as made:
        await start_survivors(made)
        async with asyncio.TaskGroup() as tasks:
            acts = [strike_all(made, strikes), cut_off(made), lose_answers(made), _stand_by(made)]
            playing = [tasks.create_task(each, name="act") for each in acts]
        return await _judge(made, [case for each in playing for case in each.result()], told)


async def _stand_by(made: Stage) -> list[Case]:
    cases = await made.due_cases("nothing (bystanders)", BYSTANDERS)
    for case in cases:
        await made.ask_on(case)
    return cases


async def _break(
    run: RunDirectory, outages: Sequence[Outage], *, seed: int, told: Told
) -> list[Judged]:
    async with stage(run, "outages", mode="strict", seed=seed) as made:
        return await _judge(made, await endure(made, outages), told)


async def _judge(made: Stage, cases: Sequence[Case], told: Told) -> list[Judged]:
    sandbox, judged = made.brokers.sandbox, []
    for case, row in zip(cases, await made.rows(cases), strict=True):
        verdict = judge(case, row, sandbox)
        said = "" if verdict.is_good else _said(made, case)
        judged.append(Judged(case=case, verdict=verdict, what_was_said=said))
    told(judged)
    return judged


def _said(made: Stage, case: Case) -> str:
    """Returns what the brokers and Pleo say of a tenant, in the order of time."""
    lines = [
        (str(each["timestamp"]), f"{replica.name} {each}")
        for replica in made.brokers.replicas
        for each in replica.told_of(case.tenant)
    ]
    shown = made.brokers.sandbox.record.of(case.customer.company)
    lines += [(each.arrived_at.strftime(_TIME), f"Pleo {each}") for each in shown]
    lines += [(each.asked_at.strftime(_TIME), f"caller {each}") for each in case.calls]
    return "\n".join(" ".join(each) for each in sorted(lines))
