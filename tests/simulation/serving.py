"""What callers are told, judged by what PostgreSQL said while they waited (laws 5, 6 and 8)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from broker.domain.errors import BrokerError, GrantHeld, ReauthRequired, TenantNotFound
from broker.domain.grant import Grant, GrantState
from broker.service.messages import ServedToken
from simulation.laws import PLEOS_WORD, Laws
from simulation.process import Process
from simulation.story import Story

WITHIN: Final = 5.5
"""Seconds in which what one replica commits reaches all, half a second for the statements."""

NEWS: Final = "what one replica learns, all act on"
IN_TIME: Final = "callers are answered in time"
DEFECT: Final = "an error that no rule foresaw"

_NOT_FOUND: Final = frozenset({GrantState.UNCONNECTED, GrantState.REVOKED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A call of GetAccessToken."""

    process: Process
    tenant: str
    budget: timedelta
    at: float
    """When it came, on the loop's clock."""


class Serving:
    """Judges what callers get."""

    def __init__(self, story: Story, laws: Laws) -> None:
        self._story = story
        self._laws = laws

    def judge(self, asked: Asked, told: ServedToken | Exception) -> None:
        """Judges an answer at the moment at which it is given."""
        now = asyncio.get_running_loop().time()
        if isinstance(told, ServedToken):
            self._judge_token(asked, told, now)
        elif isinstance(told, ReauthRequired):
            self._judge_state(asked, frozenset({GrantState.REAUTH_REQUIRED}), PLEOS_WORD)
        elif isinstance(told, GrantHeld):
            self._judge_state(asked, frozenset({GrantState.HELD}), NEWS)
        elif isinstance(told, TenantNotFound):
            self._judge_state(asked, _NOT_FOUND, NEWS)
        elif not isinstance(told, BrokerError):
            self._story.break_law(DEFECT, repr(told))
        if not asked.process.was_paused_lately() and now - asked.at > asked.budget.total_seconds():
            self._story.break_law(IN_TIME, f"a caller waited for {now - asked.at:.1f} s")

    def _judge_state(self, asked: Asked, states: frozenset[GrantState], law: str) -> None:
        # Who joins a flight gets what it has read before, and before it stood still.
        stood_still = asked.process.stood_still_for()
        since = min(asked.at, asyncio.get_running_loop().time() - WITHIN - stood_still)
        rows = self._during(asked.tenant, since)
        if not any(row.state in states for row in rows):
            self._story.break_law(law, f"{asked.process.name} says so, and no row ever did")

    def _judge_token(self, asked: Asked, told: ServedToken, now: float) -> None:
        if told.is_degraded or asked.process.troubled_at > now - 2 * WITHIN:
            return
        rows = self._during(asked.tenant, now - WITHIN)
        if not any(_allows(row, told.generation) for row in rows):
            what = f"{asked.process.name} serves generation {told.generation} of {asked.tenant}"
            self._story.break_law(NEWS, f"{what}, as fresh")

    def _during(self, tenant: str, since: float) -> list[Grant]:
        """Returns the rows there were since a moment, the one in force at it included."""
        rows = self._laws.states.get(tenant, [])
        earlier = [row for at, row in rows if at <= since]
        later = [row for at, row in rows if at > since]
        first = earlier[-1:] or [row for _, row in rows[:1]]
        world = self._laws.keeping.world.rows.get(tenant)
        present = [world.grant] if world else [Grant(tenant=tenant)]
        return [*first, *later] if rows else present


def _allows(row: Grant, generation: int) -> bool:
    return (
        row.state in {GrantState.ACTIVE, GrantState.HELD}
        and row.generation == generation
        and row.rejection.generation < generation
    )
