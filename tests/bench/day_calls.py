"""Who asks for which tenant's token when, over a day: the habits of a population."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from random import Random
from typing import Final

SYNC_SECONDS: Final = 300.0
"""Between calls of what is synchronised all day."""

OFFICE_SECONDS: Final = 240.0
"""Between calls for a customer whose people are at work, on average."""

IDLE_SECONDS: Final = 86_400.0
"""Between calls for the others, on average."""

_DAY: Final = 86_400.0


class Calls:
    """When each tenant is asked for next, of a population with its habits."""

    def __init__(self, chance: Random, *, always: int, office: int, count: int) -> None:
        """`always`: synchronised all day; `office`: used by people; the others hardly ever."""
        self._chance = chance
        self._always, self._office = always, always + office
        self._hours = [
            (chance.gauss(8.5, 0.75) * 3600, chance.gauss(17.0, 1.0) * 3600) for _ in range(office)
        ]
        self._next = [(self._first(number), number) for number in range(count)]
        heapify(self._next)
        self._again: list[tuple[float, int]] = []
        self._repeating: set[int] = set()

    def _first(self, number: int) -> float:
        if number < self._always:
            return self._chance.random() * SYNC_SECONDS
        if number < self._office:
            return self._hours[number - self._always][0]
        return self._chance.expovariate(1 / IDLE_SECONDS)

    def before(self, at: float) -> list[int]:
        """Returns who is asked for by then."""
        asked = []
        while self._again and self._again[0][0] <= at:
            _, number = heappop(self._again)
            self._repeating.discard(number)
            asked.append(number)
        while self._next[0][0] <= at:
            when, number = heappop(self._next)
            asked.append(number)
            heappush(self._next, (when + self._gap(number, when), number))
        return asked

    def again(self, number: int, at: float) -> None:
        """Has somebody ask once more, who got nothing; once for each tenant."""
        if number not in self._repeating:
            self._repeating.add(number)
            heappush(self._again, (at, number))

    def _gap(self, number: int, when: float) -> float:
        if number < self._always:
            return SYNC_SECONDS
        if number >= self._office:
            return self._chance.expovariate(1 / IDLE_SECONDS)
        gap = self._chance.expovariate(1 / OFFICE_SECONDS)
        begins, ends = self._hours[number - self._always]
        return gap if when + gap < ends else begins + _DAY - when
