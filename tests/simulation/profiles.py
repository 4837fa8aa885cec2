"""Kinds of weather, one of which each seed draws its schedule from.

`mixed` is anything at any time, and finds what needs one or two faults. Some rules are there for
four things that must come in one order within seconds: each of the others sets that stage, and
leaves the rest to chance. A fault is found sooner, too, where it is not one of twenty: so `mixed`
draws first which kinds there are at all.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from broker.service.adoption import SWEEP_SECONDS
from simulation.plan import LONGEST_CONSENT, Act, Places, Plan, What, dice, duration
from simulation.process import Deed, Trap

Traps: TypeAlias = tuple[tuple[str, Trap], ...]
Scene: TypeAlias = Callable[[Places], tuple[list[Act], Traps]]

_CALLS: Final[tuple[What, ...]] = ("consent", "revoke", "import", "disconnect", "rejected")
_PROCESSES: Final[tuple[What, ...]] = ("kill", "pause", "stop", "cut", "cut redis")
_STORES: Final[tuple[What, ...]] = (
    "postgres", "read only", "flaky", "unheard", "late commits", "seals", "keys", "slow",
    "redis", "mute redis", "flaky redis", "flush", "news",
)  # fmt: skip
_PLEO: Final[tuple[What, ...]] = ("pleo", "slow pleo", "unreachable")
_LUCK: Final[tuple[What, ...]] = ("clock", "late send", "twice")
"""What no client can help: rarely, because less is judged after it."""

_POINTS: Final = (
    "apply<", "apply>", "present<", "sent", "present>", "put<", "put>", "find<", "find>", "read>",
    "drop<", "drop>", "introspect>", "changes>", "announce<", "sweep<", "sweep>", "lease<",
)  # fmt: skip
_LIKELY_POINTS: Final = ("sent", "present>", "apply<", "apply>", "put>", "present<")
_HOLDING: Final = ("sent", "present>", "present>", "apply<", "put>")
"""Where a process has something that nobody else has, or may have it."""

_SENDING: Final = ("present<", "apply>")
"""Where it is about to send."""

ATTEMPT: Final = 30.0
"""Seconds from a claim to its deadline."""

QUARANTINE: Final = 20.0
"""Seconds from the next claim to its presentation."""


def seeds_of(profile: str) -> Iterator[int]:
    """Returns the seeds that are of one kind, for ever."""
    return (seed for seed in itertools.count() if _draw_profile(dice(seed, "plan")).name == profile)


def draw(seed: int) -> Plan:
    """Draws the schedule of a seed."""
    chance = dice(seed, "plan")
    profile = _draw_profile(chance)
    slots = ("a", "b", "c")[: chance.choice((2, 2, 3))]
    tenants = ("acme", "blue")[: chance.choice(profile.tenants)]
    seconds = chance.choice(profile.seconds)
    crowded = [chance.uniform(0.0, seconds) for _ in range(chance.randint(1, 4))]
    places = Places(
        slots=slots, tenants=tenants, seconds=seconds, crowded=(0.0, *crowded), chance=chance
    )
    acts, traps = profile.scene(places)
    return Plan(
        profile=profile.name,
        mode=chance.choice(("strict", "grace", "lenient")),
        second_consent=chance.choice(("leaves", "ends", "replaces")),
        lifetime=chance.choice((60.0, 60.0, 90.0)),
        seconds=seconds,
        slots=slots,
        tenants=tenants,
        acts=tuple(sorted(acts, key=lambda act: act.at)),
        traps=traps,
        stop_patience=chance.uniform(0.0, 5.0),
    )


def _draw_profile(chance: random.Random) -> _Profile:
    return chance.choices(_PROFILES, [each.weight for each in _PROFILES])[0]


def _mixed(places: Places) -> tuple[list[Act], Traps]:
    chance = places.chance
    kinds = [
        *_some(_CALLS, chance), *_some(_PROCESSES, chance), *_some(_STORES, chance),
        *_some(_PLEO, chance), *chance.sample(_LUCK, chance.choice((0, 0, 0, 0, 1))),
    ]  # fmt: skip
    acts = [places.act("get") for _ in range(chance.randint(10, 60))]
    acts += [places.act(chance.choice(kinds)) for _ in range(chance.randint(0, 12) if kinds else 0)]
    traps = chance.choice((0, 1, 2, 4, 6))
    return acts, tuple((chance.choice(places.slots), _any_trap(chance)) for _ in range(traps))


def _silent(places: Places) -> tuple[list[Act], Traps]:
    """Whoever has rotated the grant stands still, and comes back while another presents."""
    chance = places.chance
    holder = chance.choice(places.slots)
    until = chance.uniform(ATTEMPT, ATTEMPT + QUARANTINE + 30)
    points = chance.choice((_HOLDING, _HOLDING, _SENDING))
    traps = [(holder, places.trap(points, ("pause", until)))]
    if chance.random() < 0.3:
        other = chance.choice(places.slots)
        traps.append((other, places.trap(_HOLDING, ("pause", duration(chance)))))
    acts = _callers(places, 30)
    acts += [_slow_answer(places) for _ in range(chance.choice((0, 1, 1, 2)))]
    what = chance.choice(_LUCK[1:]) if chance.random() < 0.1 else chance.choice(_CALLS)
    acts += [places.act(what, at=chance.uniform(ATTEMPT, places.seconds))] * chance.choice((0, 1))
    return acts, tuple(traps)


def _leaving(places: Places) -> tuple[list[Act], Traps]:
    """The customer leaves, comes back, or comes twice, while somebody has an answer in hand."""
    chance = places.chance
    holder = chance.choice(places.slots)
    until = chance.uniform(ATTEMPT - 10, ATTEMPT + QUARANTINE + 20)
    traps = ((holder, places.trap(_HOLDING, ("pause", until))),)
    acts = _callers(places, 25)
    if chance.random() < 0.5:
        acts.append(places.act("disconnect", at=0.0))
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.uniform(0.0, until + 10)
        acts.append(places.act(chance.choice(("consent", "import", *_CALLS)), at=at))
    acts += [_slow_answer(places) for _ in range(chance.choice((0, 1, 1)))]
    return acts, traps


def _race(places: Places) -> tuple[list[Act], Traps]:
    """Replicas that decide on what they read a moment too long ago, where leases do not help."""
    chance = places.chance
    traps = [
        (slot, places.trap(("read>", "apply<", "apply>", "lease<"), deed, left=left))
        for slot in places.slots
        for left in (chance.randint(1, 6), chance.randint(1, 12))
        for deed in [_pause(chance, 0.5, 12.0)]
    ]
    acts = [
        places.act("get", at=start + chance.uniform(0.0, 0.03), slot=slot)
        for due in (0.0, 41.0, 82.0)
        for start in (due + chance.uniform(0.0, 1.0), due + chance.uniform(1.0, 5.0))
        for slot in places.slots
    ]
    if chance.random() < 0.6:
        acts.append(places.act("redis", at=0.0, seconds=chance.choice((3.0, places.seconds))))
    if chance.random() < 0.4:
        acts.append(places.act("lost answer", at=0.0))
    kinds: tuple[What, ...] = ("redis", "flaky redis", "slow", "rejected", "consent", "slow pleo")
    acts += [places.act(chance.choice(kinds)) for _ in range(chance.randint(0, 4))]
    return acts, tuple(traps)


def _escrows(places: Places) -> tuple[list[Act], Traps]:
    """PostgreSQL is away, some with pairs stand still or die, and others find what they left."""
    chance = places.chance
    outage: Deed = chance.choice(("postgres", "postgres", "read only", "cut", "seals"))
    away = chance.uniform(3.0, 70.0)
    first, second = chance.choice(places.slots), chance.choice(places.slots)
    traps = [(first, places.trap(("sent", "present>", "apply<"), (outage, away)))]
    ends: tuple[tuple[Deed, ...], ...] = (("pause",), ("kill",), ("kill", "redis"), ("flush",))
    deeds = [(deed, chance.uniform(5.0, 90.0)) for deed in chance.choice(ends)]
    traps.append((first, places.trap(("put>", "put>", "put<", "present>"), *deeds)))
    end: tuple[Deed, float] = (chance.choice(("kill", "pause")), chance.uniform(1.0, 60.0))
    traps.append((second, places.trap(("find>", "apply<", "present>", "drop<", "drop>"), end)))
    acts = _callers(places, 25)
    kinds: tuple[What, ...] = ("consent", "import", "revoke", "postgres", "kill", "flush", "redis")
    acts += [places.act(chance.choice(kinds)) for _ in range(chance.randint(0, 4))]
    acts += [_slow_answer(places) for _ in range(chance.choice((0, 0, 1)))]
    return acts, tuple(traps)


def _handover(places: Places) -> tuple[list[Act], Traps]:
    """A pair comes into escrow at the moment at which another looks for it, or after."""
    chance = places.chance
    holder, other = chance.sample(places.slots, 2)
    meeting = ATTEMPT + QUARANTINE + chance.uniform(0.0, 8.0)
    stall = _pause(chance, 1.0, 10.0)
    left = chance.choice((1, 1, 2))
    traps = (
        (holder, places.trap(("present>",), ("pause", meeting), ("cut", 90.0))),
        (other, places.trap(("find<", "find>"), stall, left=left)),
        (holder, places.trap(("put>", "drop>"), (chance.choice(("kill", "pause")), 30.0))),
    )
    acts = [places.act("get", at=0.0, slot=holder)]
    acts += [places.act("get", at=at, slot=other) for at in (ATTEMPT, ATTEMPT + 2, 55.0, 60.0)]
    acts += _callers(places, 5)
    whats: tuple[What, ...] = ("revoke", "consent", "import", "slow pleo")
    for what in chance.sample(whats, chance.choice((0, 1, 1, 2))):
        acts.append(places.act(what, at=meeting + chance.uniform(-8.0, 8.0)))
    return acts, traps


def _crowded(places: Places) -> tuple[list[Act], Traps]:
    """A refresh and a consent both have pairs that PostgreSQL does not take."""
    chance = places.chance
    # Whoever consents completes at the first replica.
    first, holder = places.slots[:2]
    consent = places.act("consent", at=chance.uniform(2.0, ATTEMPT), slot=first)
    stall: Deed = chance.choice(("pause", "cut"))
    until = ATTEMPT + chance.uniform(0.5, 20.0)
    if stall == "cut":
        # Both happen between two sweeps: who has read an escrow has a copy.
        comes_at = chance.randint(2, 8) * SWEEP_SECONDS + chance.uniform(0.1, 1.0)
        consent = replace(consent, at=comes_at - consent.choice * LONGEST_CONSENT)
        until = comes_at + chance.uniform(0.2, 3.0)
    traps = (
        (holder, places.trap(("present>",), (stall, until))),
        (first, places.trap(("present>",), ("cut", chance.uniform(10.0, 60.0)))),
        (first, places.trap(("put>",), ("kill", chance.uniform(6.0, 60.0)))),
    )
    acts = [places.act("get", at=0.0, slot=holder), consent]
    times = (chance.uniform(ATTEMPT, places.seconds) for _ in range(8))
    return acts + [places.act("get", at=at) for at in times], traps


def _forgotten(places: Places) -> tuple[list[Act], Traps]:
    """An escrow outlives its owner, and then whoever might have read it."""
    chance = places.chance
    holder, other = chance.sample(places.slots, 2)
    ends: list[tuple[Deed, float]] = [("kill", chance.uniform(6.0, 80.0))]
    if chance.random() < 0.5:
        ends.append(("redis", chance.uniform(40.0, 90.0)))
    traps = (
        (holder, places.trap(("present>",), ("postgres", chance.uniform(4.0, 30.0)))),
        (holder, places.trap(("put>",), *ends)),
        (other, places.trap(("drop>",), ("kill", chance.uniform(1.0, 60.0)))),
    )
    acts = [places.act("get", at=0.0, slot=holder)]
    times = (chance.uniform(ATTEMPT - 5, places.seconds) for _ in range(10))
    return acts + [places.act("get", at=at) for at in times], traps


def _unlucky(places: Places) -> tuple[list[Act], Traps]:
    """Pleo's answers are lost, come late, or say nothing, one after another."""
    chance = places.chance
    whats: tuple[What, ...] = ("lost answer", "not processed", "slow pleo", "pleo")
    row = chance.choices(whats, (4, 3, 2, 1), k=chance.randint(2, 4))
    acts = [places.act(what, at=0.0, seconds=chance.uniform(1.0, 17.0)) for what in row]
    acts += [places.act("get", at=0.01), *_callers(places, 15)]
    if chance.random() < 0.5:
        acts.append(places.act(chance.choice((*_CALLS, *_PROCESSES))))
    return acts, ()


def _pause(chance: random.Random, least: float, most: float) -> tuple[Deed, float]:
    return "pause", chance.uniform(least, most)


def _callers(places: Places, count: int) -> list[Act]:
    """Returns calls all over the time, and some at once."""
    times = [places.chance.uniform(0.0, places.seconds) for _ in range(count)]
    return [places.act("get", at=at) for at in (0.0, 0.1, 1.0, *times)]


def _slow_answer(places: Places) -> Act:
    """Lets Pleo take its time for one that is asked after the first."""
    chance = places.chance
    at = chance.uniform(2.0, ATTEMPT + QUARANTINE)
    return places.act("slow pleo", at=at, seconds=chance.uniform(2.0, 17.0))


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


_PROFILES: Final = (
    _Profile(name="mixed", weight=7, scene=_mixed, seconds=(40.0, 80.0, 140.0)),
    _Profile(name="silent", weight=4, scene=_silent, seconds=(90.0,)),
    _Profile(name="leaving", weight=4, scene=_leaving, seconds=(80.0,)),
    _Profile(name="race", weight=2, scene=_race, seconds=(50.0, 90.0), tenants=(1,)),
    _Profile(name="escrows", weight=4, scene=_escrows, seconds=(60.0, 100.0)),
    _Profile(name="handover", weight=2, scene=_handover, seconds=(75.0,), tenants=(1,)),
    _Profile(name="crowded", weight=2, scene=_crowded, seconds=(75.0,), tenants=(1,)),
    _Profile(name="forgotten", weight=2, scene=_forgotten, seconds=(75.0,), tenants=(1,)),
    _Profile(name="unlucky", weight=2, scene=_unlucky, seconds=(50.0, 90.0)),
)
