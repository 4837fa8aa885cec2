"""What happens in a schedule: acts at their times, and traps that wait for a replica."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from broker.sandbox.settings import ReuseMode, SecondConsent
from simulation.process import Deed, Trap

What = Literal[
    "get", "rejected", "consent", "revoke", "import", "disconnect",
    "kill", "pause", "stop", "cut", "cut redis", "postgres", "read only", "flaky", "unheard",
    "late commits", "seals", "keys", "clock", "slow", "redis", "mute redis", "flaky redis",
    "flush", "news", "pleo", "slow pleo", "lost answer", "not processed", "unreachable",
    "late send", "twice", "failover", "wrong click", "confirm", "discard",
]  # fmt: skip


LONGEST_CONSENT: Final = 5.0
"""Seconds that a customer takes at Pleo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that happens at a time."""

    at: float
    what: What
    slot: str
    tenant: str
    seconds: float
    """How long it lasts; of a call: its budget."""

    choice: float
    """In [0, 1): decides what the kind leaves open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A schedule."""

    profile: str
    """Which kind of weather it was drawn from."""

    mode: ReuseMode
    second_consent: SecondConsent
    lifetime: float
    """Of an access token, in seconds."""

    seconds: float
    """Until all is made well again."""

    slots: tuple[str, ...]
    tenants: tuple[str, ...]
    acts: tuple[Act, ...]
    traps: tuple[tuple[str, Trap], ...]
    """By slot."""

    stop_patience: float
    guard_hold: float
    """Seconds until refusals count that nobody has decided about."""

    guard_keeps: float
    """Seconds that what the guard gives up can be taken back."""

    verdict: What
    """What an engineer decides in the end, where the guard holds still."""

    poll: float
    """Seconds until who waits for another replica reads again."""

    is_renewing: bool
    """Whether planned work runs."""


def dice(seed: int, name: str) -> random.Random:
    """Returns the dice of a part of a schedule. No security: a run has to repeat itself."""
    return random.Random(f"{seed}/{name}")  # noqa: S311


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where and when acts may be."""

    slots: tuple[str, ...]
    tenants: tuple[str, ...]
    seconds: float
    crowded: tuple[float, ...]
    """Times at which much happens at once."""

    chance: random.Random

    def act(
        self,
        what: What,
        *,
        at: float | None = None,
        seconds: float | None = None,
        slot: str | None = None,
        tenant: str | None = None,
    ) -> Act:
        """Draws what is not given."""
        chance = self.chance
        return Act(
            at=round(self._time() if at is None else at, 2),
            what=what,
            slot=slot or chance.choice(self.slots),
            tenant=tenant or chance.choice(self.tenants),
            seconds=round(duration(chance) if seconds is None else seconds, 2),
            choice=chance.random(),
        )

    def _time(self) -> float:
        chance = self.chance
        start = chance.choice(self.crowded)
        draws: tuple[Callable[[], float], ...] = (
            lambda: chance.uniform(0.0, self.seconds),
            lambda: start + chance.uniform(0.0, 0.1),
            lambda: start + chance.uniform(0.0, 3.0),
            lambda: start + chance.uniform(0.0, 60.0),
        )
        return min(chance.choice(draws)(), self.seconds)

    def trap(self, points: tuple[str, ...], *deeds: tuple[Deed, float], left: int = 1) -> Trap:
        """Sets a trap at one of these points."""
        return Trap(point=self.chance.choice(points), left=left, deeds=deeds)


def duration(chance: random.Random) -> float:
    """Returns seconds: mostly as long as a request, sometimes longer than an attempt."""
    draws: tuple[Callable[[], float], ...] = (
        lambda: chance.uniform(0.2, 3.0),
        lambda: chance.uniform(1.0, 15.0),
        lambda: chance.uniform(10.0, 80.0),
    )
    return chance.choice(draws)()
