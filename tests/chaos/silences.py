"""Pleo rotates and loses its answer: a reset, an end, a gateway's error, half a body, silence."""

from __future__ import annotations

import asyncio
from typing import Final

from broker.sandbox.faults import Drop, Half, Hang, Step, fail
from chaos.cases import Allowance, Case
from chaos.stage import Stage

SILENCES: Final[tuple[tuple[str, Step], ...]] = (
    ("Pleo: reset after rotating", Drop(when="after")),
    ("Pleo: end after rotating", Drop(when="after", cut="close")),
    ("Pleo: 502 after rotating", fail(502, when="after")),
    ("Pleo: half an answer", Half()),
    ("Pleo: silence after rotating", Hang()),
)


async def lose_answers(stage: Stage) -> list[Case]:
    """Asks on until every tenant is told for good; the survivors of the stage are asked."""
    cases = await stage.due_cases("", len(SILENCES))
    for case, (fault, step) in zip(cases, SILENCES, strict=True):
        case.fault, case.allowance = fault, Allowance.PROVIDER
        company = case.customer.company
        stage.brokers.sandbox.faults.add(step, grant_type="refresh_token", company=company)
    async with asyncio.TaskGroup() as tasks:
        for case in cases:
            tasks.create_task(stage.ask_on(case), name=case.tenant)
    return cases
