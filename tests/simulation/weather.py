"""What is wrong with the world at a moment: PostgreSQL, Redis, and who reaches them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from broker.domain.errors import StoreUnavailable

WRITES: Final = frozenset({"apply", "start", "spend", "note_used", "apply fleet", "beat"})


@dataclass(slots=True, kw_only=True)
class Weather:
    """The faults in force. Changed by the schedule, asked by every port."""

    postgres_is_down: bool = False
    postgres_is_read_only: bool = False
    refused: float = 0.0
    """The share of PostgreSQL's calls that fail before they do anything."""

    unacknowledged: float = 0.0
    """The share of its calls that do what they shall, and whose answers are lost."""

    committed_late: float = 0.0
    """The share of its writes that fail for who asks, and are done all the same, later."""

    redis_trouble: float = 0.0
    """The share of Redis' calls that fail, before or after they do anything."""

    slow: float = 0.0
    """The share of all calls that take seconds."""

    without_postgres: set[str] = field(default_factory=set)
    """Replicas that do not reach it."""

    without_redis: set[str] = field(default_factory=set)

    @property
    def is_calm(self) -> bool:
        """Whether no call meets anything."""
        chances = (self.refused, self.unacknowledged, self.redis_trouble, self.slow)
        is_cut = self.without_postgres or self.without_redis
        return not (self.postgres_is_down or is_cut or any(chances))

    def clear(self) -> None:
        """Ends every fault."""
        self.postgres_is_down = self.postgres_is_read_only = False
        self.refused = self.unacknowledged = self.committed_late = 0.0
        self.redis_trouble = self.slow = 0.0
        self.without_postgres.clear()
        self.without_redis.clear()

    def meet_postgres(self, slot: str, method: str, chance: random.Random) -> None:
        """Stands before a call.

        Raises:
            StoreUnavailable: nothing was done.
        """
        is_refused = self.postgres_is_read_only and method in WRITES
        is_away = self.postgres_is_down or slot in self.without_postgres
        if is_away or is_refused or chance.random() < self.refused:
            raise StoreUnavailable("bad weather")

    def hear_postgres(self, slot: str, chance: random.Random) -> None:
        """Stands after a call.

        Raises:
            StoreUnavailable: all was done, and nobody knows.
        """
        is_away = self.postgres_is_down or slot in self.without_postgres
        if is_away or chance.random() < self.unacknowledged:
            raise StoreUnavailable("bad weather: the answer is lost")

    def is_redis_heard(self, slot: str, chance: random.Random) -> bool:
        """Whether a call, or its answer, comes through."""
        return slot not in self.without_redis and chance.random() >= self.redis_trouble

    def delay(self, chance: random.Random, *, is_brief: bool) -> float:
        """Returns how long a call is on its way, in seconds."""
        if self.slow and chance.random() < self.slow:
            return chance.uniform(0.0, 3.0)
        return 0.0 if is_brief else chance.random() ** 4 * 0.05
