"""What other replicas did: announcements over Redis and, beside them, a poll of PostgreSQL (law 6).

Announcements are quick and may be lost; the poll is slower and leaves nothing out, so that what one
replica learns all act on within five seconds, with Redis or without.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final, Protocol, assert_never

from broker.domain.facts import MemoryDropped
from broker.ports import Announcements, GrantMoved, GrantStore, Observer, Resubscribed
from broker.service.fleet import Fleet
from broker.service.memory import Memory
from broker.service.recall import Recall
from broker.service.rows import Reading

POLL_SECONDS: Final = 2.0
"""Twice within the five seconds of law 6, one statement's time to spare."""

_PRESENT: Final = -1


class Follower(Protocol):
    """Who is told what memory is told, after it."""

    def moved(self, tenant: str) -> None:
        """Takes news of a grant, whoever changed it. Never raises, never blocks."""
        ...

    def all_moved(self) -> None:
        """News may have been missed."""
        ...


class News:
    """Keeps memory from growing old, and wakes who waits for another replica."""

    def __init__(
        self,
        store: GrantStore,
        announcements: Announcements,
        memory: Memory,
        observer: Observer,
        *,
        recall: Recall,
        fleet: Fleet,
    ) -> None:
        """Listens when `listen` and `poll` run."""
        self._fleet = fleet
        self._recall = recall
        self._store = store
        self._announcements = announcements
        self._memory = memory
        self._observer = observer
        # In the order of their coming, which a simulation has to repeat: a set has none.
        self._waiting: dict[str, list[asyncio.Event]] = {}
        self._followers: list[Follower] = []
        self._cursor = _PRESENT
        self._looked_at = 0.0  # on the loop's clock; of no account before the first look
        self._past_since = fleet.past_since

    def follow(self, follower: Follower) -> None:
        """Tells one more, from now on."""
        self._followers.append(follower)

    async def announce(self, moved: GrantMoved) -> None:
        """Tells everybody, this process first."""
        self._wake(moved.tenant)
        await self._announcements.announce(moved)

    async def wait(self, tenant: str, seconds: float) -> None:
        """Waits for news of a tenant, at most so long. Safe to cancel."""
        woken = asyncio.Event()
        self._waiting.setdefault(tenant, []).append(woken)
        try:
            async with asyncio.timeout(seconds):
                await woken.wait()
        except TimeoutError:
            pass  # the time is over: the caller reads the row, news or not
        finally:
            self._forget(tenant, woken)

    async def listen(self) -> None:
        """Follows the announcements until it is cancelled."""
        async for news in self._announcements.listen():
            match news:
                case Resubscribed():
                    self._drop_all("resubscribed")
                case GrantMoved():
                    self._take(news)
                case _:
                    assert_never(news)

    async def poll(self) -> None:
        """Looks once for what changed in PostgreSQL.

        That it is another one may be another replica's finding: to who was cut off for longer, a
        snapshot of the disks whose ids have caught up looks like what it knew.

        Raises:
            StoreUnavailable: nothing is missed; the next look begins where the last one ended.
        """
        asked_at = asyncio.get_running_loop().time()
        page = await self._store.changes(self._cursor)
        if page.is_rewound or self._fleet.past_since != self._past_since:
            self._drop_all("rewound")
            self._recall.doubt_all()
        if page.is_rewound:
            unseen_for = timedelta(seconds=asked_at - self._looked_at)
            await self._fleet.note_rewound(unseen_for=unseen_for)
        elif self._cursor == _PRESENT:
            # What was read before the first look may have changed before it, unseen.
            self._drop_all("first look")
        for moved in page.moved:
            self._take(moved)
        self._past_since = self._fleet.past_since
        self._cursor, self._looked_at = page.cursor, asked_at

    def _take(self, moved: GrantMoved) -> None:
        self._recall.moved(moved)
        if self._memory.moved(moved):
            self._observer.observe(MemoryDropped(tenant=moved.tenant, cause="moved"))
        self._wake(moved.tenant)

    def _drop_all(self, cause: str) -> None:
        self._memory.mark_all_stale()
        self._observer.observe(MemoryDropped(tenant=None, cause=cause))
        for follower in self._followers:
            follower.all_moved()

    def _wake(self, tenant: str) -> None:
        for woken in self._waiting.get(tenant, ()):
            woken.set()
        for follower in self._followers:
            follower.moved(tenant)

    def _forget(self, tenant: str, woken: asyncio.Event) -> None:
        waiting = self._waiting[tenant]
        waiting.remove(woken)
        if not waiting:
            del self._waiting[tenant]


def moved_to(reading: Reading) -> GrantMoved:
    """Returns the news that a written row is."""
    return GrantMoved(
        tenant=reading.grant.tenant,
        generation=reading.grant.generation,
        version=reading.snapshot.version,
    )
