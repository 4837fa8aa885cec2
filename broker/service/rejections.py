"""Reports that Pleo's API rejected a token: whether one is believed, once for all reporters.

The rules are `domain/rejection.py`; here Pleo is asked whether the token lives after all, and the
believed report is committed, so that every replica stops serving that generation.

Pleo kills a token before we have its successor. A report that comes in between waits for whoever is
at it, here or in another replica, and is judged when that is over.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from broker.domain.decision import Changed, Unchanged, Why
from broker.domain.errors import RefreshInProgress
from broker.domain.facts import RejectionReported
from broker.domain.freshness import access_token_of
from broker.domain.grant import GrantState
from broker.domain.rejection import Verdict, believe, judge
from broker.ports import Observer, Provider
from broker.service.fetch import POLL
from broker.service.memory import Memory
from broker.service.news import News
from broker.service.rows import Act, Proposal, Reading, Rows


class Rejections:
    """Judges reports. Called inside a flight, so once for all who report the same at once."""

    def __init__(
        self,
        rows: Rows,
        memory: Memory,
        provider: Provider,
        observer: Observer,
        *,
        news: News,
        interval: timedelta,
        longest: timedelta,
    ) -> None:
        """`interval`: between rotations because of reports; it doubles while they go on.

        `longest`: how long attempts are waited for.
        """
        self._rows = rows
        self._memory = memory
        self._provider = provider
        self._observer = observer
        self._news = news
        self._interval = interval
        self._longest = longest.total_seconds()

    async def generation_to_beat(self, tenant: str, rejected_generation: int) -> int:
        """Returns the generation above which the reporter gets a token; 0: any will do.

        Raises:
            StoreUnavailable: the row cannot be read or written.
            RefreshInProgress: attempts went on for longer than anybody waits.
        """
        reading, verdict = await self._judged(tenant, rejected_generation)
        if verdict is None:
            return 0
        self._observer.observe(
            RejectionReported(
                tenant=tenant, generation=rejected_generation, verdict=verdict.name.lower()
            )
        )
        if verdict is not Verdict.BELIEVED:
            return 0
        if reading.grant.rejection.generation >= rejected_generation:
            return rejected_generation  # believed before: Pleo need not be asked again
        if await self._lives(reading):
            return 0
        return await self._believe(reading, rejected_generation)

    async def _judged(
        self, tenant: str, rejected_generation: int
    ) -> tuple[Reading, Verdict | None]:
        """Returns the row once nobody is at it, and the verdict; None: of a grant that is none."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._longest
        while True:
            reading = await self._rows.read(tenant)
            if reading.grant.state is not GrantState.ACTIVE:
                return reading, None
            verdict = judge(reading.grant, rejected_generation, reading.now)
            if verdict is not Verdict.UNDER_WAY:
                return reading, verdict
            if loop.time() >= give_up_at:
                raise RefreshInProgress("attempts go on: ask again", tenant=tenant)
            await self._news.wait(tenant, POLL)

    async def _lives(self, reading: Reading) -> bool:
        access_token = access_token_of(reading.grant)
        if access_token is None:
            return False
        return (await self._provider.introspect(access_token)).is_live is True

    async def _believe(self, reading: Reading, rejected_generation: int) -> int:
        def propose(current: Reading) -> Proposal:
            grant = current.grant
            is_known = grant.rejection.generation >= rejected_generation
            if grant.generation != rejected_generation or is_known:
                return Proposal(decision=Unchanged(why=Why.MOVED_ON))
            after = believe(grant, shortest=self._interval, now=current.now)
            return Proposal(decision=Changed(after=after))

        written = await self._rows.write(reading, propose, Act(call="rejected"))
        self._memory.keep(written.reading)
        return rejected_generation
