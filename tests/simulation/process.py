"""One replica from its start to its end: it can be paused, and killed at every await.

A killed process does nothing any more, whatever its code does when it is cancelled: its ports are
dead, its memory is dropped with it, and what it had on the wire goes on at Pleo without it. A
paused one stands still at its ports; timers that ran out meanwhile find the time gone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

from broker.service.running import Service
from simulation.story import Story
from simulation.weather import Weather
from support.virtual_time import nap

T = TypeVar("T")

RECENTLY: Final = 30.0
"""Seconds after a pause in which the process may not yet have done what it would have done: more
than a quarantine, which is what others wait for it."""

LONG: Final = 0.1
"""Seconds: a call that takes longer may make news late."""

Deed = Literal[
    "kill", "pause", "postgres", "read only", "redis", "flush", "cut", "cut redis", "seals",
]  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Trap:
    """A fault that waits for a replica at the n-th passage of one of its ports."""

    point: str
    left: int
    deeds: tuple[tuple[Deed, float], ...]
    """What happens there, and for how many seconds."""


class Gone:
    """What a caller gets whose process was killed."""


@dataclass(slots=True, kw_only=True)
class Process:
    """The ports pass through `step`; `Cast` makes it and kills it."""

    slot: str
    """The replica that it is a process of."""

    name: str
    """In rows and history; no two processes share one."""

    story: Story
    weather: Weather
    chance: random.Random
    traps: list[Trap]
    spring: Callable[[Process, Trap], None]
    """Carries out what a trap is for."""

    is_dead: bool = False
    was_impaired: bool = False
    """Whether it was ever paused, or alone without PostgreSQL, or lost an escrow to a flush."""

    troubled_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    """When something last kept it from hearing news in time."""

    hands: dict[tuple[str, int], str] = field(default_factory=dict)
    """Refresh tokens that it was given and has not settled, by tenant and number of the attempt."""

    known: set[str] = field(default_factory=set)
    """Refresh tokens that it was given by Pleo, or found when it was about to present. Not those
    of a sweep, which knows nothing of who is about to present at that very moment."""

    remembered: set[str] = field(default_factory=set)
    """Refresh tokens that it had stored and PostgreSQL has lost."""

    sending: tuple[str, int] = ("", 0)
    """Tenant and number of the attempt that is sending at this very moment."""

    abandoned: list[object] = field(default_factory=list)
    """What a killed process never tidied up. Kept, because garbage collection would."""

    service: Service | None = None
    tasks: asyncio.TaskGroup | None = None
    host: asyncio.Task[None] | None = None
    _gate: asyncio.Event = field(default_factory=asyncio.Event)
    _paused_at: float = 0.0
    _stood_still: float = 0.0
    """Seconds, in the last pause and those shortly before it."""

    _impaired_at: float = -RECENTLY
    _cut_at: float = -RECENTLY

    def __post_init__(self) -> None:
        """Starts running."""
        self._gate.set()

    def has(self, refresh_token: str) -> bool:
        """Whether it keeps a refresh token."""
        return refresh_token in self.remembered or refresh_token in self.hands.values()

    @property
    def is_paused(self) -> bool:
        """Whether it stands still."""
        return not self._gate.is_set()

    async def step(self, point: str, *, is_brief: bool = False) -> None:
        """Passes a port: takes time, and is where faults meet it.

        `is_brief`: no time unless calls are slow. Before a call that only asks, where a moment
        more is nothing that a moment after its answer is not.
        """
        if self.is_dead:
            raise asyncio.CancelledError
        if self.traps:
            self.meet_traps(point)
        delay = self.weather.delay(self.chance, is_brief=is_brief)
        if delay:
            await nap(delay)
        while not self._gate.is_set():
            await self._gate.wait()
        if delay > LONG:
            self.troubled()
        if self.is_dead:
            raise asyncio.CancelledError

    def meet_traps(self, point: str) -> None:
        """Springs the traps of this point. `sent` is one that takes no time."""
        for trap in self.traps:
            if trap.point != point or trap.left <= 0:
                continue
            trap.left -= 1
            if not trap.left:
                self.spring(self, trap)

    def expects(self, *points: str) -> bool:
        """Whether something may happen to it at one of these ports."""
        is_trapped = any(trap.left > 0 and trap.point in points for trap in self.traps)
        return is_trapped or self.is_paused or not self.weather.is_calm

    def troubled(self) -> None:
        """Notes that news may be late."""
        self.troubled_at = asyncio.get_running_loop().time()

    def pause(self) -> None:
        """Lets it stand still."""
        self.was_impaired = True
        if not self.is_paused:
            self._paused_at = asyncio.get_running_loop().time()
        self._gate.clear()

    def go_on(self) -> None:
        """Lets it go on."""
        if self.is_paused:
            now = asyncio.get_running_loop().time()
            earlier = self._stood_still if self._paused_at < self._impaired_at + RECENTLY else 0.0
            self._stood_still = earlier + now - self._paused_at
            self._impaired_at = now
            self.troubled()
        self._gate.set()

    def kill(self) -> None:
        """Ends it where it is."""
        if self.is_paused:
            self._impaired_at = asyncio.get_running_loop().time()
        self.is_dead = True
        if self.host is not None:
            self.host.cancel()

    def note_cut(self) -> None:
        """Notes that it, unlike others perhaps, did not reach PostgreSQL."""
        self.was_impaired = True
        self._cut_at = asyncio.get_running_loop().time()

    def was_paused_lately(self) -> bool:
        """Whether it may be late through no fault of the code."""
        return self.is_paused or asyncio.get_running_loop().time() < self._impaired_at + RECENTLY

    def stood_still_for(self) -> float:
        """Returns for how many seconds it stood still lately."""
        return self._stood_still if self.was_paused_lately() else 0.0

    def was_cut_lately(self) -> bool:
        """Whether it could not store, through no fault of the code."""
        return asyncio.get_running_loop().time() < self._cut_at + RECENTLY

    async def ask(self, work: Callable[[Service], Awaitable[T]]) -> T | Exception | Gone:
        """Makes a call of this process from a task of its own, as a handler would."""
        service, tasks = self.service, self.tasks
        if self.is_dead or service is None or tasks is None:
            return Gone()

        async def handler() -> T | Exception:
            try:
                return await work(service)
            except Exception as error:  # noqa: BLE001 - whoever asked looks at it
                return error

        task = tasks.create_task(handler(), name=f"a call of {self.name}")
        await asyncio.wait({task})
        return Gone() if task.cancelled() else task.result()
