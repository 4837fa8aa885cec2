"""What happens in a schedule, drawn from its seed before it begins.

Each seed draws first which kinds of things happen at all: a fault is found sooner where it is not
one of twenty.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from broker.sandbox.settings import ReuseMode, SecondConsent
from simulation.process import Deed, Trap

MAIN_SECONDS: Final = 150.0
"""Two or three rotations, and time for what is lost to be given up."""

What = Literal[
    "get", "rejected", "consent", "revoke", "import", "disconnect",
    "kill", "pause", "stop", "cut", "cut redis", "postgres", "read only", "flaky", "unheard",
    "slow", "redis", "mute redis", "flaky redis", "flush", "news", "pleo", "unreachable",
]  # fmt: skip

_CALLS: Final[tuple[What, ...]] = ("consent", "revoke", "import", "disconnect", "rejected")
_PROCESSES: Final[tuple[What, ...]] = ("kill", "pause", "stop", "cut", "cut redis")
_STORES: Final[tuple[What, ...]] = (
    "postgres", "read only", "flaky", "unheard", "slow", "redis", "mute redis", "flaky redis",
    "flush", "news",
)  # fmt: skip
_PLEO: Final[tuple[What, ...]] = ("pleo", "unreachable")

_POINTS: Final = (
    "apply<", "apply>", "present<", "sent", "present>", "put<", "put>", "find>", "read>", "drop<",
    "introspect>", "changes>", "announce<", "sweep<",
)  # fmt: skip
_LIKELY_POINTS: Final = ("sent", "present>", "apply<", "apply>", "put>", "present<")


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

    mode: ReuseMode
    second_consent: SecondConsent
    lifetime: float
    """Of an access token, in seconds."""

    slots: tuple[str, ...]
    tenants: tuple[str, ...]
    acts: tuple[Act, ...]
    traps: tuple[tuple[str, Trap], ...]
    """By slot."""

    stop_patience: float


def dice(seed: int, name: str) -> random.Random:
    """Returns the dice of a part of a schedule. No security: a run has to repeat itself."""
    return random.Random(f"{seed}/{name}")  # noqa: S311


def draw(seed: int) -> Plan:
    """Draws the schedule of a seed."""
    chance = dice(seed, "plan")
    slots = ("a", "b", "c")[: chance.choice((2, 2, 3))]
    tenants = ("acme", "blue")[: chance.choice((1, 1, 1, 2))]
    kinds = [
        *_some(_CALLS, chance), *_some(_PROCESSES, chance),
        *_some(_STORES, chance), *_some(_PLEO, chance),
    ]  # fmt: skip
    crowded = [chance.uniform(0.0, MAIN_SECONDS) for _ in range(chance.randint(1, 4))]
    places = _Places(slots=slots, tenants=tenants, crowded=(0.0, *crowded), chance=chance)
    acts = [places.act("get") for _ in range(chance.randint(20, 100))]
    acts += [places.act(chance.choice(kinds)) for _ in range(chance.randint(0, 12) if kinds else 0)]
    return Plan(
        mode=chance.choice(("strict", "strict", "grace", "lenient")),
        second_consent=chance.choice(("leaves", "ends", "replaces")),
        lifetime=chance.choice((60.0, 60.0, 90.0, 150.0)),
        slots=slots,
        tenants=tenants,
        acts=tuple(sorted(acts, key=lambda act: act.at)),
        traps=tuple(
            (chance.choice(slots), _trap(chance)) for _ in range(chance.choice((0, 1, 2, 4, 6)))
        ),
        stop_patience=chance.uniform(0.0, 5.0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """Where and when acts may be."""

    slots: tuple[str, ...]
    tenants: tuple[str, ...]
    crowded: tuple[float, ...]
    """Times at which much happens at once."""

    chance: random.Random

    def act(self, what: What) -> Act:
        chance = self.chance
        return Act(
            at=round(self._time(), 2),
            what=what,
            slot=chance.choice(self.slots),
            tenant=chance.choice(self.tenants),
            seconds=round(_duration(chance), 2),
            choice=chance.random(),
        )

    def _time(self) -> float:
        chance = self.chance
        start = chance.choice(self.crowded)
        draws: tuple[Callable[[], float], ...] = (
            lambda: chance.uniform(0.0, MAIN_SECONDS),
            lambda: start + chance.uniform(0.0, 0.1),
            lambda: start + chance.uniform(0.0, 3.0),
            lambda: start + chance.uniform(0.0, 60.0),
        )
        return min(chance.choice(draws)(), MAIN_SECONDS)


def _some(kinds: tuple[What, ...], chance: random.Random) -> list[What]:
    return chance.sample(kinds, chance.choice((0, 1, 1, 2, len(kinds))))


def _duration(chance: random.Random) -> float:
    """Returns seconds: mostly as long as a request, sometimes longer than an attempt."""
    draws: tuple[Callable[[], float], ...] = (
        lambda: chance.uniform(0.2, 3.0),
        lambda: chance.uniform(1.0, 15.0),
        lambda: chance.uniform(10.0, 80.0),
    )
    return chance.choice(draws)()


def _trap(chance: random.Random) -> Trap:
    deeds: tuple[Deed, ...] = (
        "kill", "kill", "pause", "pause", "postgres", "postgres", "read only", "redis", "redis",
        "flush", "cut", "cut redis",
    )  # fmt: skip
    points = chance.choice((_POINTS, _LIKELY_POINTS))
    return Trap(
        point=chance.choice(points),
        left=chance.choice((1, 1, 1, 2, 3, 5)),
        deeds=tuple(
            (chance.choice(deeds), round(_duration(chance), 2))
            for _ in range(chance.choice((1, 1, 2, 3)))
        ),
    )
