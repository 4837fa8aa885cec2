"""What all replicas share: the breaker and the guard's state, as this replica last heard.

PostgreSQL has the word. What is known here is at most a poll old (law 6), and whoever would change
it decides again where the row has changed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from broker.domain.breaker import (
    Breaker,
    admits,
    error_of_breaker,
    is_from_before,
    probing,
)
from broker.domain.errors import StoreUnavailable
from broker.domain.facts import BreakerMoved, GuardMoved, PastChanged
from broker.domain.fleet import FleetState
from broker.domain.guard import Guard, GuardState
from broker.domain.past import noticed, rewound
from broker.domain.share import replicas_share
from broker.domain.times import AttemptTimes
from broker.ports import FleetSnapshot, FleetStore, Observer
from broker.service.settle import Claimed

POLL_SECONDS: Final = 2.0
"""As the poll of grants: what one replica learns all act on within five seconds."""

BEAT_SECONDS: Final = 10.0
"""Between signs of life."""

SILENT_SECONDS: Final = 3 * BEAT_SECONDS
"""As `store.fleet.ALIVE_FOR`: after so long without a sign the others no longer count us."""

SETTLING_SECONDS: Final = POLL_SECONDS + 1.0
"""From its sign of life on, until all others have counted a replica: a poll, and one that is slow.
Meanwhile it counts them too, and those that started with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """The row, and the event loop's clock before it was asked for and when it came."""

    snapshot: FleetSnapshot
    asked_at: float
    answered_at: float

    def now(self) -> datetime:
        """Returns PostgreSQL's time at this moment, or a little more."""
        elapsed = asyncio.get_running_loop().time() - self.asked_at
        return self.snapshot.read_at + timedelta(seconds=elapsed)

    def earliest_now(self) -> datetime:
        """Returns PostgreSQL's time at this moment, or a little less."""
        elapsed = asyncio.get_running_loop().time() - self.answered_at
        return self.snapshot.read_at + timedelta(seconds=elapsed)

    def is_overtaken_by(self, known: _Seen) -> bool:
        """Whether it was asked for before something newer came; a database may be rewound."""
        is_older = self.snapshot.version < known.snapshot.version
        return is_older and self.asked_at <= known.asked_at


class Fleet:
    """The fleet, as one replica knows it."""

    def __init__(
        self,
        store: FleetStore,
        observer: Observer,
        *,
        times: AttemptTimes,
        replica: str,
        build: str,
    ) -> None:
        """`replica`, `build`: this process's name, and the broker's version."""
        self._store = store
        self._observer = observer
        self._times = times
        self.replica = replica
        self._build = build
        self._seen: _Seen | None = None
        self._told = FleetState()
        self._beaten_at = -math.inf
        self._known_from = -math.inf

    @property
    def guard(self) -> Guard:
        """The guard, as last heard."""
        return self._state.guard

    @property
    def breaker(self) -> Breaker | None:
        """The breaker, as last heard."""
        return self._state.breaker

    @property
    def past_since(self) -> datetime | None:
        """When the database was found to be another one, as last heard; None: it never was."""
        return self._state.timeline_since

    @property
    def _state(self) -> FleetState:
        return self._seen.snapshot.state if self._seen else FleetState()

    def share_of(self, rate: float) -> float:
        """Returns this replica's part of a rate that is the fleet's."""
        now = asyncio.get_running_loop().time()
        is_new = now < self._known_from or now - self._beaten_at >= SILENT_SECONDS
        alive = self._seen.snapshot.alive if self._seen else 0
        return replicas_share(rate, alive=alive, is_new=is_new)

    def is_holding(self) -> bool:
        """Whether a refused grant is to be held instead of given up."""
        return self.guard.state is GuardState.HOLDING

    async def poll(self) -> None:
        """Reads the row once, and notes in it where the database has become another one.

        Raises:
            StoreUnavailable: what was known stays.
        """
        await self._read()
        await self.change(lambda state, _: state)

    async def note_rewound(self, *, unseen_for: timedelta) -> None:
        """Notes that the database has lost commits, whatever it calls itself.

        `unseen_for`: since the last look. What another replica has noted meanwhile is this change:
        who was paused, or cut off, holds the fleet up no second time.

        Raises:
            StoreUnavailable: it may have been noted.
        """
        within = max(self._times.span, unseen_for)
        # PostgreSQL's own word, read after the loss: `_Seen.now` is ahead where a look stood still,
        # and a change that is noted ahead of time would pass for a clock set back.
        at = (await self._read()).snapshot.read_at
        await self.change(lambda state, _: rewound(state, at, noted_within=within))

    async def beat(self) -> None:
        """Gives a sign of life once. After a long silence, as at first, others must count us anew.

        Raises:
            StoreUnavailable: they may have heard it.
        """
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        await self._store.beat(self.replica, self._build)
        if asked_at - self._beaten_at >= SILENT_SECONDS:
            self._known_from = loop.time() + SETTLING_SECONDS
        self._beaten_at = asked_at

    def check(self, tenant: str) -> None:
        """Refuses what would only have to wait in vain, without asking anybody.

        Raises:
            ProviderRejectedClient, ProviderUnavailable: the breaker is open and no probe is due.
        """
        seen = self._seen
        breaker = self.breaker
        if seen is not None and breaker is not None and not admits(breaker, seen.now()):
            raise error_of_breaker(breaker, tenant=tenant, now=seen.now())

    async def admit(self, tenant: str) -> bool:
        """Lets a refresh through: each while the breaker is closed, else one probe at a time.

        Returns whether it is the probe: one that presents nothing is to be given back.

        Raises:
            ProviderRejectedClient, ProviderUnavailable: it has to wait.
            StoreUnavailable: nobody knows whose the probe is.
        """
        if self._seen is None:
            await self._read()  # a process that has just started has heard nothing yet
        self.check(tenant)
        if self.breaker is None:
            return False
        is_probe = await self.change(self._probe)
        if not is_probe:
            self.check(tenant)  # another has taken the probe, or the breaker is closed by now
        return is_probe

    def is_overtaken(self, claimed: Claimed) -> bool:
        """Whether the breaker has opened since an attempt was claimed, which is no probe then."""
        seen, breaker, started_at = self._seen, self.breaker, claimed.attempt.started_at
        if seen is None or breaker is None:
            return False
        return is_from_before(started_at, breaker, seen.now())

    async def give_back(self) -> None:
        """Lets another refresh probe, where the one that was admitted presented nothing.

        Raises:
            StoreUnavailable: the next probe goes when this one would have been given up.
        """
        await self.change(_without_probe)

    def _probe(self, state: FleetState, now: datetime) -> FleetState:
        if state.breaker is None or not admits(state.breaker, now):
            return state
        return replace(state, breaker=probing(state.breaker, now=now, span=self._times.span))

    async def decide(self, propose: Callable[[FleetState, datetime], FleetState]) -> bool:
        """As `change`, for what counts from now on: of a time not ahead of PostgreSQL's.

        A decision that is ahead of its time passes for one of before the clock was set back, as
        which it counts for nothing; and time itself decides no sooner than it should.
        """
        return await self.change(propose, clock=_Seen.earliest_now)

    async def change(
        self,
        propose: Callable[[FleetState, datetime], FleetState],
        *,
        clock: Callable[[_Seen], datetime] = _Seen.now,
    ) -> bool:
        """Changes the row as proposed; says whether there was anything to change.

        Raises:
            StoreUnavailable: it may have been changed.
        """
        seen = self._seen or await self._read()
        while True:
            before, now = seen.snapshot, clock(seen)
            after = propose(noticed(before.state, before.live, before.read_at), now)
            if after == before.state:
                return False
            asked_at = asyncio.get_running_loop().time()
            written = await self._store.apply(before, after)
            if written is not None:
                self._take(_seen(written, asked_at))
                return True
            seen = await self._read()
            if not seen.snapshot.live:
                raise StoreUnavailable("a standby answers reads")  # see `Rows.write`

    async def _read(self) -> _Seen:
        asked_at = asyncio.get_running_loop().time()
        seen = _seen(await self._store.read(), asked_at)
        self._take(seen)
        return seen

    def _take(self, seen: _Seen) -> None:
        if self._seen is not None and seen.is_overtaken_by(self._seen):
            return
        self._seen = seen
        before, after = self._told, seen.snapshot.state
        self._told = after
        if _cause(before.breaker) != _cause(after.breaker):
            code = after.breaker.code if after.breaker else ""
            self._observer.observe(BreakerMoved(cause=_cause(after.breaker), code=code))
        if before.timeline not in {"", after.timeline}:
            self._observer.observe(PastChanged(before=before.timeline, after=after.timeline))
        if before.guard.state is not after.guard.state:
            guard = after.guard
            self._observer.observe(
                GuardMoved(state=guard.state, by=guard.decided_by, reason=guard.reason)
            )


def _seen(snapshot: FleetSnapshot, asked_at: float) -> _Seen:
    """Returns what has just come."""
    answered_at = asyncio.get_running_loop().time()
    return _Seen(snapshot=snapshot, asked_at=asked_at, answered_at=answered_at)


def _without_probe(state: FleetState, now: datetime) -> FleetState:
    if state.breaker is None:
        return state
    return replace(state, breaker=replace(state.breaker, probe_at=now))


def _cause(breaker: Breaker | None) -> str:
    return breaker.cause.value if breaker else ""
