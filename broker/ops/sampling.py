"""Says which of many events that are alike are worth a line.

The first is told at once; while it goes on, one in each interval, with how many were held back.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

INTERVAL_SECONDS: Final = 60.0
"""An outage of a night is some hundreds of lines for each thing that fails, not millions."""

MOST_KINDS: Final = 10_000
"""Some kinds name a tenant. The oldest is forgotten first, which costs a line too many at most."""


@dataclass(slots=True, kw_only=True)
class _Spell:
    """Events of one kind since one of them was told."""

    began: float
    held_back: int = 0


class Sampler:
    """Remembers what was told lately."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds that never go back."""
        self._clock = clock
        self._spells: dict[Hashable, _Spell] = {}

    def admit(self, kind: Hashable) -> int | None:
        """Returns how many of this kind were held back since the last; None: hold this back too."""
        now = self._clock()
        spell = self._spells.get(kind)
        if spell is not None and now < spell.began + INTERVAL_SECONDS:
            spell.held_back += 1
            return None
        self._begin(kind, now)
        return 0 if spell is None else spell.held_back

    def _begin(self, kind: Hashable, now: float) -> None:
        self._spells.pop(kind, None)  # so that the order of the dictionary is that of time
        if len(self._spells) == MOST_KINDS:
            del self._spells[next(iter(self._spells))]
        self._spells[kind] = _Spell(began=now)
