"""Kinds of weather, one of which each seed draws its schedule from.

`mixed` is anything at any time, and finds what needs one or two faults; the others are in
`scenes.py`. A fault is found sooner where it is not one of twenty: so `mixed` draws first which
kinds there are at all.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from broker.sandbox.settings import ReuseMode
from broker.service.fetch import POLL
from simulation import scenes
from simulation.incidents import incident
from simulation.plan import Act, Places, Plan, What, dice, duration
from simulation.process import Deed, Trap
from simulation.scenes import CALLS, LUCK, PROCESSES, Scene, Traps

_STORES: Final[tuple[What, ...]] = (
    "postgres", "read only", "flaky", "unheard", "late commits", "seals", "keys", "slow",
    "redis", "mute redis", "flaky redis", "flush", "news",
)  # fmt: skip
_PLEO: Final[tuple[What, ...]] = ("pleo", "slow pleo", "unreachable")

TENANTS: Final = ("acme", "blue", "cargo", "delta", "echo", "flux", "gala")
"""As many as the guard needs to doubt what they are told, and some."""

_HOURS: Final = 14400.0
"""Seconds: longer than any schedule."""

_RARELY: Final = (1.0, 1.0, 1.0)
"""Most of a schedule in which somebody waits would be such reads of what is as it was."""

_RENEWING: Final = 0.3
"""The share of schedules with planned work, which does first what callers would run into."""

_POINTS: Final = (
    "apply<", "apply>", "present<", "sent", "present>", "put<", "put>", "find<", "find>", "read>",
    "drop<", "drop>", "introspect>", "changes>", "announce<", "sweep<", "sweep>", "lease<",
)  # fmt: skip
_LIKELY_POINTS: Final = ("sent", "present>", "apply<", "apply>", "put>", "present<")


def seeds_of(profile: str) -> Iterator[int]:
    """Returns the seeds that are of one kind, for ever."""
    return (seed for seed in itertools.count() if _draw_profile(dice(seed, "plan")).name == profile)


def draw(seed: int) -> Plan:
    """Draws the schedule of a seed."""
    chance = dice(seed, "plan")
    profile = _draw_profile(chance)
    slots = ("a", "b", "c")[: chance.choice((2, 2, 3))]
    tenants = TENANTS[: chance.choice(profile.tenants)]
    seconds = chance.choice(profile.seconds)
    crowded = [chance.uniform(0.0, seconds) for _ in range(chance.randint(1, 4))]
    places = Places(
        slots=slots, tenants=tenants, seconds=seconds, crowded=(0.0, *crowded), chance=chance
    )
    acts, traps = profile.scene(places)
    return Plan(
        profile=profile.name,
        mode=chance.choice(profile.modes),
        second_consent=chance.choice(("leaves", "ends", "replaces")),
        lifetime=chance.choice((60.0, 60.0, 90.0)),
        seconds=seconds,
        slots=slots,
        tenants=tenants,
        acts=tuple(sorted(acts, key=lambda act: act.at)),
        traps=traps,
        stop_patience=chance.uniform(0.0, 5.0),
        guard_hold=chance.choice((30.0, 90.0, _HOURS)),
        guard_keeps=chance.choice((100.0, _HOURS)),
        verdict=chance.choice(("confirm", "discard")),
        poll=chance.choice((POLL, *_RARELY)),
        is_renewing=chance.random() < _RENEWING,
    )


def _draw_profile(chance: random.Random) -> _Profile:
    return chance.choices(_PROFILES, [each.weight for each in _PROFILES])[0]


def _mixed(places: Places) -> tuple[list[Act], Traps]:
    chance = places.chance
    kinds = [
        *_some(CALLS, chance), *_some(PROCESSES, chance), *_some(_STORES, chance),
        *_some(_PLEO, chance), *chance.sample(LUCK, chance.choice((0, 0, 0, 0, 1))),
    ]  # fmt: skip
    acts = [places.act("get") for _ in range(chance.randint(10, 60))]
    acts += [places.act(chance.choice(kinds)) for _ in range(chance.randint(0, 12) if kinds else 0)]
    traps = chance.choice((0, 1, 2, 4, 6))
    return acts, tuple((chance.choice(places.slots), _any_trap(chance)) for _ in range(traps))


def _some(kinds: tuple[What, ...], chance: random.Random) -> list[What]:
    return chance.sample(kinds, chance.choice((0, 1, 1, 2, len(kinds))))


def _any_trap(chance: random.Random) -> Trap:
    deeds: tuple[Deed, ...] = (
        "kill", "kill", "pause", "pause", "postgres", "postgres", "read only", "redis", "redis",
        "flush", "cut", "cut redis", "seals",
    )  # fmt: skip
    points = chance.choice((_POINTS, _LIKELY_POINTS))
    return Trap(
        point=chance.choice(points),
        left=chance.choice((1, 1, 1, 2, 3, 5)),
        deeds=tuple(
            (chance.choice(deeds), round(duration(chance), 2))
            for _ in range(chance.choice((1, 1, 2, 3)))
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Profile:
    """A kind of weather."""

    name: str
    weight: int
    scene: Scene
    seconds: tuple[float, ...]
    """How long it may last: as long as its story takes."""

    tenants: tuple[int, ...] = (1, 1, 1, 2)
    modes: tuple[ReuseMode, ...] = ("strict", "grace", "lenient")


_PROFILES: Final = (
    _Profile(name="mixed", weight=7, scene=_mixed, seconds=(40.0, 80.0, 140.0)),
    _Profile(name="silent", weight=4, scene=scenes.silent, seconds=(80.0,), tenants=(1,)),
    _Profile(name="refused", weight=1, scene=scenes.refused, seconds=(60.0,), tenants=(1,)),
    _Profile(name="leaving", weight=4, scene=scenes.leaving, seconds=(80.0,)),
    _Profile(name="race", weight=2, scene=scenes.race, seconds=(50.0, 90.0), tenants=(1,)),
    _Profile(name="escrows", weight=4, scene=scenes.escrows, seconds=(60.0, 100.0)),
    _Profile(name="handover", weight=2, scene=scenes.handover, seconds=(75.0,), tenants=(1,)),
    _Profile(name="crowded", weight=2, scene=scenes.crowded, seconds=(75.0,), tenants=(1,)),
    _Profile(name="forgotten", weight=2, scene=scenes.forgotten, seconds=(75.0,), tenants=(1,)),
    _Profile(
        name="outlived",
        weight=1,
        scene=scenes.outlived,
        seconds=(130.0,),
        tenants=(1,),
        modes=("strict", "grace", "grace", "lenient"),
    ),
    _Profile(name="unlucky", weight=2, scene=scenes.unlucky, seconds=(50.0, 90.0)),
    _Profile(name="failover", weight=3, scene=scenes.failover, seconds=(100.0, 140.0)),
    _Profile(name="incident", weight=2, scene=incident, seconds=(100.0, 150.0), tenants=(5, 6, 7)),
)

PROFILES: Final = tuple(each.name for each in _PROFILES)
"""Their names."""
