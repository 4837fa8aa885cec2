"""Who watches which tenants, and what they are told: the state at once, then every change of it.

A watched tenant is a topic. How it stands is found out as for any caller, by one look at a time;
news of the grant, the token's renewal time and the end of what waiting mends bring the next one,
news before all others.
So a subscription counts as use, and what an announcement does not tell, the poll of PostgreSQL
does (law 6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from broker.domain.errors import BrokerError, GrantError, TransientError
from broker.domain.freshness import REUSE_MARGIN
from broker.service.messages import ServedToken
from broker.service.places import Haste, Places
from broker.service.watch import State, Watch

Look = Callable[[str], Awaitable[ServedToken]]
"""Gets a tenant's token as for a caller who waits a few seconds. Raises a `BrokerError`."""

MOST_LOOKS: Final = 200
"""At once. A replica that starts is asked for all its tenants in a moment: more of them would stand
in PostgreSQL's queue before callers who wait for one."""

SPREAD_SECONDS: Final = 5.0
"""Over which all topics are looked at where news may have been missed: what law 6 allows."""

_DUE_SECONDS: Final = 0.05
"""After a renewal time, so that the token is due for certain."""

_DEGRADED_SECONDS: Final = 5.0
"""Between looks while a token stands in: each reads PostgreSQL, for thousands of tenants while Pleo
is away, and a rotation by anybody is news at once."""

_SHORTEST_SECONDS: Final = 1.0
"""Between looks at what does not get better by itself at once."""

_LONGEST_SECONDS: Final = 30.0
"""Until a look at what waiting mends: an outage that is over is noticed as a heartbeat is."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Topic:
    tenant: str
    # In the order of their coming, which a simulation has to repeat: a set has none.
    watches: dict[Watch, None] = field(default_factory=dict)
    is_looking: bool = False
    is_due_again: bool = False
    haste: Haste = Haste.DUE
    """Of the next look."""

    timer: asyncio.TimerHandle | None = None

    def set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        """Has one look ahead at most."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = timer


class Watching:
    """The topics of this process. Told of news by `moved`; looks while `run` runs."""

    def __init__(self, look: Look) -> None:
        """`look`: how a tenant stands; what it finds is what callers would get."""
        self._look = look
        self._topics: dict[str, _Topic] = {}
        self._open: dict[Watch, None] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._places = Places(MOST_LOOKS)
        self._is_draining = False

    def __len__(self) -> int:
        """How many tenants are watched."""
        return len(self._topics)

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """Returns a watch of no tenant yet, for as long as the block runs."""
        watch = Watch()
        self._open[watch] = None
        if self._is_draining:
            watch.end()
        try:
            yield watch
        finally:
            del self._open[watch]
            for tenant in watch.tenants:
                self._leave(watch, tenant)

    def subscribe(self, watch: Watch, tenant: str) -> None:
        """Tells how a tenant stands, again where it was told before, and then what changes."""
        watch.expect(tenant)
        topic = self._topics.setdefault(tenant, _Topic(tenant=tenant))
        topic.watches[watch] = None
        self._begin(topic, Haste.ASKED)

    def unsubscribe(self, watch: Watch, tenant: str) -> None:
        """Tells no more of a tenant; one that is not watched stays so."""
        if tenant in watch.tenants:
            watch.forget(tenant)
            self._leave(watch, tenant)

    def moved(self, tenant: str) -> None:
        """Takes news of a grant. Costs a look-up where nobody watches it."""
        topic = self._topics.get(tenant)
        if topic is not None:
            self._begin(topic, Haste.NEWS)

    def all_moved(self) -> None:
        """News may have been missed: looks at all, one after another."""
        loop = asyncio.get_running_loop()
        for index, topic in enumerate(self._topics.values()):
            if topic.is_looking:
                topic.is_due_again = True  # its timer would go when that look sets the next one
                continue
            delay = SPREAD_SECONDS * index / len(self._topics)
            topic.set_timer(loop.call_later(delay, self._begin, topic))

    def drain(self) -> None:
        """Ends all watches, so that callers move on to other replicas before this one goes."""
        self._is_draining = True
        for watch in self._open:
            watch.end()

    async def run(self) -> None:
        """Looks until it is cancelled. What was subscribed to before is looked at now."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                try:
                    for topic in self._topics.values():
                        self._begin(topic)
                    await asyncio.get_running_loop().create_future()
                finally:
                    self._tasks = None  # first: a group that ends takes no more, and would raise
        finally:
            for topic in self._topics.values():
                topic.is_looking = False  # a look that was cancelled before its first step

    def _leave(self, watch: Watch, tenant: str) -> None:
        topic = self._topics[tenant]
        del topic.watches[watch]
        if not topic.watches:
            topic.set_timer(None)
            del self._topics[tenant]

    def _begin(self, topic: _Topic, haste: Haste = Haste.DUE) -> None:
        topic.is_due_again, topic.haste = True, min(topic.haste, haste)
        self._places.hurry(topic, topic.haste)
        if self._tasks is not None and not topic.is_looking:
            topic.set_timer(None)
            topic.is_looking = True
            self._tasks.create_task(self._follow(topic), name=f"look at {topic.tenant}")

    async def _follow(self, topic: _Topic) -> None:
        """Looks until nothing has moved since the look began: news on the way brings another."""
        state: State | None = None
        try:
            while topic.is_due_again and topic.watches:
                state = await self._state(topic)
                for watch in topic.watches:
                    watch.tell(topic.tenant, state)
        except Exception:
            self._tasks = None  # ends the group, see `run`
            raise
        finally:
            topic.is_looking = False
        delay = None if state is None else _until_next_look(state)
        if topic.watches and delay is not None:
            loop = asyncio.get_running_loop()
            topic.set_timer(loop.call_later(delay, self._begin, topic))

    async def _state(self, topic: _Topic) -> State:
        async with self._places.place(topic, topic.haste):
            # Not before: news that comes while it waits for a place is no news to this look.
            topic.is_due_again, topic.haste = False, Haste.DUE
            try:
                return await self._look(topic.tenant)
            except BrokerError as error:
                return error


def _until_next_look(state: State) -> float | None:
    """Returns after how many seconds to look again without news; None: only news changes it."""
    match state:
        case ServedToken(is_degraded=False):
            return (state.reuse_for + REUSE_MARGIN).total_seconds() + _DUE_SECONDS
        case ServedToken():
            return _DEGRADED_SECONDS
        case GrantError():
            return None
        case TransientError(retry_after=span):
            return min(max(span.total_seconds(), _SHORTEST_SECONDS), _LONGEST_SECONDS)
        case _:
            return _LONGEST_SECONDS
