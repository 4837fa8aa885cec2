"""A day's grants and Pleo, in virtual time: rows as values, and the queue of what is due.

The rules are the domain's: when a grant is due, what may be renewed, how long a failure waits, and
when the breaker opens. Left out on purpose are the two commits of a rotation and all that may go
wrong with them: the simulation of faults has that (`tests/simulation`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from heapq import heappop, heappush
from random import Random
from typing import Final

from broker.domain.answers import Answer, Rotated, Unknown
from broker.domain.backoff import next_failure
from broker.domain.evidence import BREAKER_WINDOW, Evidence
from broker.domain.freshness import renewal_time
from broker.domain.grant import AttemptPhase, Doubt, FailureKind, FailureRecord, Grant
from broker.domain.renewal import TAKEN_FOR, Planned, due_since, is_late, may_be_renewed
from broker.ports import Due
from support.grants import THE_NOW, some_attempt, some_grant
from support.virtual_time import nap

LIFETIME: Final = timedelta(minutes=15)

AHEAD: Final = timedelta(seconds=90)

KEEPALIVE: Final = timedelta(days=20)

_ATTEMPT: Final = timedelta(seconds=30)
"""Until the deadline of an attempt."""

_ROTATED: Final = Rotated(
    access_token=None, refresh_token=None, token_type="Bearer", expires_in=LIFETIME, scopes=None
)

_UNAVAILABLE: Final = Unknown(code="http_503")


def now() -> datetime:
    """PostgreSQL's clock: midnight when the loop begins."""
    return THE_NOW + timedelta(seconds=asyncio.get_running_loop().time())


def seconds_of(at: datetime) -> float:
    """Returns when that is on the loop's clock."""
    return (at - THE_NOW).total_seconds()


class Grants:
    """All rows; stands in for the store of last use as well."""

    def __init__(self, chance: Random, *, always: int, count: int) -> None:
        """The first `always` are in use when the day begins, the others have expired."""
        self._chance = chance
        self.rows = [self._first(number, is_used=number < always) for number in range(count)]
        self.taken_until = [0.0] * count
        self.flying: dict[int, asyncio.Future[None]] = {}
        """Refreshes under way, and queued ones of callers: done when they have ended."""

        self.due = {which: DueQueue(self, which) for which in Planned}

    def _first(self, number: int, *, is_used: bool) -> Grant:
        age = LIFETIME * self._chance.random() if is_used else KEEPALIVE * self._chance.random()
        refreshed_at = THE_NOW - age
        grant = some_grant(tenant=str(number), subject=None, lifetime=LIFETIME)
        grant = self._renewed(grant, refreshed_at)
        return replace(grant, last_used_at=refreshed_at if is_used else None)

    def _renewed(self, grant: Grant, sent_at: datetime) -> Grant:
        expires_at = sent_at + LIFETIME
        return replace(
            grant,
            generation=grant.generation + 1,
            pair=replace(grant.pair, generation=grant.generation + 1) if grant.pair else None,
            refreshed_at=sent_at,
            expires_at=expires_at,
            renew_at=renewal_time(
                expires_at,
                lifetime=LIFETIME,
                ahead=AHEAD,
                jitter=self._chance.random(),
                was_late=is_late(grant, sent_at),
            ),
            attempt=None,
            doubt=Doubt.NONE,
            failures=FailureRecord(),
        )

    def begin(self, number: int) -> None:
        """Has everybody share what is done about a grant from now on."""
        self.flying[number] = asyncio.get_running_loop().create_future()

    def end(self, number: int) -> None:
        """Wakes who shares it."""
        self.flying.pop(number).set_result(None)

    def settle(self, number: int, answer: Answer, sent_at: datetime) -> None:
        """Writes what came of an attempt."""
        grant = self.rows[number]
        if isinstance(answer, Rotated):
            self.rows[number] = self._renewed(grant, sent_at)
        else:
            deadline = sent_at + _ATTEMPT
            self.rows[number] = replace(
                grant,
                attempt=some_attempt(phase=AttemptPhase.UNKNOWN, deadline=deadline),
                doubt=Doubt.DISCLAIMED,
                failures=next_failure(
                    grant.failures,
                    kind=FailureKind.OUTCOME_UNKNOWN,
                    code="http_503",
                    now=now(),
                    not_before=deadline,
                ),
            )
        for queue in self.due.values():
            queue.put(number)

    async def note_used(self, tenants: Sequence[str]) -> None:
        """As `ports.GrantStore` has it."""
        at = now()
        for number in map(int, tenants):
            self.rows[number] = replace(self.rows[number], last_used_at=at)
            self.due[Planned.IN_USE].put(number)

    def free_from(self, number: int) -> float:
        """Returns from when nothing is in the way of a renewal, on the loop's clock."""
        grant = self.rows[number]
        waits = [self.taken_until[number]]
        if grant.attempt is not None:
            waits.append(seconds_of(grant.attempt.deadline))
        if grant.failures.next_try_at is not None:
            waits.append(seconds_of(grant.failures.next_try_at))
        return max(waits)


class DueQueue:
    """What an index is to PostgreSQL: the longest overdue first, without a look at all rows."""

    def __init__(self, grants: Grants, which: Planned) -> None:
        self._grants = grants
        self._which = which
        self._later: list[tuple[float, float, int, int]] = []
        self._ready: list[tuple[float, int, int]] = []
        self._known: set[tuple[int, int]] = set()
        for number in range(len(grants.rows)):
            self.put(number)

    def __len__(self) -> int:
        """How many are due."""
        self._move(asyncio.get_running_loop().time())
        return len(self._ready)

    def put(self, number: int) -> None:
        """Takes note of a row that may have become due, or will be."""
        grant = self._grants.rows[number]
        since = due_since(grant, self._which, keepalive=KEEPALIVE)
        place = (number, grant.generation)
        if since is not None and place not in self._known:
            self._known.add(place)
            at = seconds_of(since)
            heappush(self._later, (at, at, *place))

    def take(self, limit: int, at: float) -> list[Due]:
        """Takes what is due and free."""
        self._move(at)
        found: list[Due] = []
        while self._ready and len(found) < limit:
            since, number, generation = heappop(self._ready)
            if self._is_over(number, generation):
                continue
            free_from = self._grants.free_from(number)
            if free_from > at or number in self._grants.flying:
                heappush(self._later, (max(free_from, at + 1), since, number, generation))
                continue
            # The domain's word, once the rest is out of the way.
            assert may_be_renewed(self._grants.rows[number], now())
            self._grants.taken_until[number] = at + TAKEN_FOR.total_seconds()
            heappush(self._later, (self._grants.taken_until[number], since, number, generation))
            found.append(Due(tenant=str(number), delay=timedelta(seconds=at - since)))
        return found

    def _move(self, at: float) -> None:
        while self._later and self._later[0][0] <= at:
            _, since, number, generation = heappop(self._later)
            heappush(self._ready, (since, number, generation))

    def _is_over(self, number: int, generation: int) -> bool:
        grant = self._grants.rows[number]
        since = due_since(grant, self._which, keepalive=KEEPALIVE)
        is_over = grant.generation != generation or since is None
        if is_over:
            self._known.discard((number, generation))
        return is_over


class DayRenewals:
    """Upholds `ports.Renewals`."""

    def __init__(self, grants: Grants) -> None:
        self._grants = grants

    async def take(self, which: Planned, *, limit: int) -> Sequence[Due]:
        """See the port."""
        return self._grants.due[which].take(limit, asyncio.get_running_loop().time())


class Pleo:
    """Answers after a while; during its outage with 503. Knows what the breaker weighs."""

    def __init__(self, chance: Random, *, outage: tuple[float, float]) -> None:
        """`outage`: from when until when, in seconds of the day."""
        self._chance = chance
        self._outage = outage
        self._recent: deque[tuple[float, int, bool]] = deque()

    async def present(self, number: int) -> Answer:
        """Takes some 200 ms, now and then a second."""
        await nap(0.2 * self._chance.lognormvariate(-0.08, 0.4))
        at = asyncio.get_running_loop().time()
        is_out = self._outage[0] <= at < self._outage[1]
        self._recent.append((at, number, is_out))
        return _UNAVAILABLE if is_out else _ROTATED

    def evidence(self) -> Evidence:
        """Counts as the store does."""
        oldest = asyncio.get_running_loop().time() - BREAKER_WINDOW.total_seconds()
        while self._recent and self._recent[0][0] < oldest:
            self._recent.popleft()
        unknown = {number for _, number, is_lost in self._recent if is_lost}
        return Evidence(
            at=now(),
            refused_grants=0,
            answered=0,
            unknown_grants=len(unknown),
            limited_grants=0,
            sent=len(self._recent),
        )
