"""Stages for the rules that are there for four things in one order within seconds.

Each sets its stage, so that what it is about is likely, and leaves the rest to chance.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

from broker.service.adoption import SWEEP_SECONDS
from simulation.plan import LONGEST_CONSENT, Act, Places, What, duration
from simulation.process import Deed, Trap

Traps: TypeAlias = tuple[tuple[str, Trap], ...]
Scene: TypeAlias = Callable[[Places], tuple[list[Act], Traps]]

CALLS: Final[tuple[What, ...]] = ("consent", "revoke", "import", "disconnect", "rejected")
PROCESSES: Final[tuple[What, ...]] = ("kill", "pause", "stop", "cut", "cut redis")
LUCK: Final[tuple[What, ...]] = ("clock", "late send", "twice")
"""What no client can help: rarely, because less is judged after it."""

_HOLDING: Final = ("sent", "present>", "present>", "apply<", "put>")
"""Where a process has something that nobody else has, or may have it."""

_SENDING: Final = ("present<", "apply>")
"""Where it is about to send."""

LONGEST_ANSWER: Final = 17.0
"""Seconds that Pleo may take for a request that is still answered in time."""

ATTEMPT: Final = 30.0
"""Seconds from a claim to its deadline."""

QUARANTINE: Final = 20.0
"""Seconds from the next claim to its presentation."""


def silent(places: Places) -> tuple[list[Act], Traps]:
    """Whoever has rotated the grant stands still, and comes back while another presents."""
    chance = places.chance
    holder = chance.choice(places.slots)
    points: tuple[str, ...] = chance.choice((_HOLDING, _SENDING))
    until = chance.uniform(ATTEMPT, 80.0)
    if chance.random() < 0.6:
        points, until = ("present>",), ATTEMPT + QUARANTINE + chance.uniform(0.2, 24.0)
    traps = [(holder, places.trap(points, ("pause", until)))]
    if chance.random() < 0.2:
        other = chance.choice(places.slots)
        traps.append((other, places.trap(_HOLDING, ("pause", duration(chance)))))
    acts = [places.act("get", at=0.0, slot=holder), *_later_callers(places, 15)]
    acts += [_slow_answer(places) for _ in range(chance.choice((1, 1, 2)))]
    what = chance.choice(LUCK[1:]) if chance.random() < 0.1 else chance.choice(CALLS)
    acts += [places.act(what, at=chance.uniform(ATTEMPT, places.seconds))] * chance.choice((0, 1))
    return acts, tuple(traps)


def refused(places: Places) -> tuple[list[Act], Traps]:
    """Whoever was told that the grant is dead stands still, and says so late."""
    chance = places.chance
    # Whoever consents completes at the first replica.
    first, holder = places.slots[:2]
    until = ATTEMPT + chance.uniform(0.5, QUARANTINE)
    traps = ((holder, places.trap(("present>",), ("pause", until))),)
    acts = [places.act("disconnect", at=0.0), places.act("get", at=0.01, slot=holder)]
    acts += _later_callers(places, 10)
    if chance.random() < 0.5:
        acts.append(places.act("consent", at=chance.uniform(ATTEMPT - 5, until), slot=first))
    return acts, traps


def leaving(places: Places) -> tuple[list[Act], Traps]:
    """The customer leaves, comes back, or comes twice, while somebody has an answer in hand."""
    chance = places.chance
    holder = chance.choice(places.slots)
    until = chance.uniform(ATTEMPT - 10, ATTEMPT + QUARANTINE + 20)
    traps = ((holder, places.trap(_HOLDING, ("pause", until))),)
    acts = _callers(places, 25)
    if chance.random() < 0.3:
        acts.append(places.act("disconnect", at=0.0))
    if chance.random() < 0.3:
        acts.append(places.act("slow pleo", at=0.0, seconds=chance.uniform(5.0, 17.0)))
        what: What = chance.choice(("consent", "import"))
        acts.append(places.act(what, at=chance.uniform(0.2, 8.0)))
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.uniform(0.0, until + 10)
        acts.append(places.act(chance.choice(("consent", "import", *CALLS)), at=at))
    acts += [_slow_answer(places) for _ in range(chance.choice((0, 1, 1)))]
    return acts, traps


def race(places: Places) -> tuple[list[Act], Traps]:
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


def escrows(places: Places) -> tuple[list[Act], Traps]:
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


def handover(places: Places) -> tuple[list[Act], Traps]:
    """A pair comes into escrow at the moment at which another looks for it, or after."""
    chance = places.chance
    holder, other = chance.sample(places.slots, 2)
    meeting = ATTEMPT + QUARANTINE + chance.uniform(0.0, 8.0)
    look, left, stall = ("find<", "find>"), chance.choice((1, 1, 2)), _pause(chance, 1.0, 10.0)
    acts = [places.act("get", at=0.0, slot=holder)]
    acts += [places.act("get", at=at, slot=other) for at in (ATTEMPT, ATTEMPT + 2, 55.0, 60.0)]
    thirds = [slot for slot in places.slots if slot not in {holder, other}]
    if thirds and chance.random() < 0.7:
        # After the arming, before the look that counts: and the row moves on as well.
        meeting = ATTEMPT + QUARANTINE + chance.uniform(0.3, 3.5)
        look, left, stall = ("find<", "find<"), 2, _pause(chance, 5.0, 9.5)
        what: What = chance.choice(("revoke", "revoke", "consent"))
        if chance.random() < 0.6:
            acts.append(places.act(what, at=meeting + chance.uniform(0.3, 3.0), slot=thirds[0]))
    else:
        acts += _callers(places, 5)
        whats: tuple[What, ...] = ("revoke", "consent", "import", "slow pleo")
        for each in chance.sample(whats, chance.choice((0, 1, 1, 2))):
            acts.append(places.act(each, at=meeting + chance.uniform(-8.0, 8.0)))
    traps = (
        (holder, places.trap(("present>",), ("pause", meeting), ("cut", 90.0))),
        (other, places.trap(look, stall, left=left)),
        (holder, places.trap(("put>", "drop>"), (chance.choice(("kill", "pause")), 30.0))),
    )
    return acts, traps


def crowded(places: Places) -> tuple[list[Act], Traps]:
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


def forgotten(places: Places) -> tuple[list[Act], Traps]:
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
    acts = [places.act("get", at=0.0, slot=holder), *_later_callers(places, 10)]
    if chance.random() < 0.4:
        acts.append(places.act("flush", at=chance.uniform(SWEEP_SECONDS + 0.5, ATTEMPT)))
    return acts, traps


def unlucky(places: Places) -> tuple[list[Act], Traps]:
    """Pleo's answers are lost, come late, or say nothing, one after another."""
    chance = places.chance
    whats: tuple[What, ...] = ("lost answer", "not processed", "slow pleo", "pleo")
    row = chance.choices(whats, (4, 3, 2, 1), k=chance.randint(2, 4))
    if chance.random() < 0.5:
        row = ["lost answer", "not processed"]
    acts = [places.act(what, at=0.0, seconds=chance.uniform(1.0, 17.0)) for what in row]
    acts += [places.act("get", at=0.01), *_callers(places, 15)]
    if chance.random() < 0.5:
        acts.append(places.act(chance.choice((*CALLS, *PROCESSES))))
    return acts, ()


def outlived(places: Places) -> tuple[list[Act], Traps]:
    """Whoever rotated the grant comes back after another did so too, whose answer is lost."""
    chance = places.chance
    holder, other = chance.sample(places.slots, 2)
    meanwhile = ATTEMPT + QUARANTINE
    until = meanwhile + ATTEMPT + chance.uniform(1.0, QUARANTINE + 10.0)
    acts = [places.act("get", at=0.0, slot=holder)]
    acts += [places.act("get", at=at, slot=other) for at in (ATTEMPT, ATTEMPT + 2.0, 40.0)]
    acts.append(places.act("lost answer", at=chance.uniform(1.0, ATTEMPT)))
    if chance.random() < 0.4:
        acts.append(places.act("not processed", at=chance.uniform(meanwhile + 12.0, until)))
    times = (chance.uniform(meanwhile + ATTEMPT, places.seconds) for _ in range(12))
    acts += [places.act("get", at=at) for at in (*times, until, until + 1.0)]
    return acts, ((holder, places.trap(("present>",), ("pause", until))),)


def failover(places: Places) -> tuple[list[Act], Traps]:
    """A standby that lags behind takes over; who has stored what it lacks lives, or not."""
    chance = places.chance
    holder = chance.choice(places.slots)
    lags_from, lag = chance.choice((0.0, 0.0, chance.uniform(0.0, 30.0))), chance.uniform(0.2, 25.0)
    takes_over = lags_from + lag
    acts = [places.act("failover", at=lags_from, seconds=lag)]
    acts += [places.act("get", at=0.01, slot=holder), *_callers(places, 10)]
    times = (chance.uniform(takes_over, places.seconds) for _ in range(8))
    acts += [places.act("get", at=at) for at in times]
    if chance.random() < 0.4:
        at = chance.choice((0.0, chance.uniform(lags_from, takes_over)))
        acts.append(places.act("slow pleo", at=at, seconds=chance.uniform(1.0, LONGEST_ANSWER)))
    if chance.random() < 0.5:
        near = max(0.0, takes_over + chance.uniform(-4.0, 4.0))
        acts.append(places.act(chance.choice(("kill", "kill", *PROCESSES)), at=near, slot=holder))
    for _ in range(chance.choice((0, 0, 1, 2))):
        at = chance.uniform(lags_from, takes_over + 5.0)
        acts.append(places.act(chance.choice((*CALLS, "lost answer", "redis", "postgres")), at=at))
    if chance.random() < 0.2:
        acts.append(places.act("failover", at=chance.uniform(takes_over, places.seconds - 30)))
    traps = [(holder, places.trap(_HOLDING, ("pause", chance.uniform(5.0, 60.0))))]
    return acts, tuple(traps if chance.random() < 0.3 else ())


def _pause(chance: random.Random, least: float, most: float) -> tuple[Deed, float]:
    return "pause", chance.uniform(least, most)


def _callers(places: Places, count: int) -> list[Act]:
    """Returns calls all over the time, and some at once."""
    times = [places.chance.uniform(0.0, places.seconds) for _ in range(count)]
    return [places.act("get", at=at) for at in (0.0, 0.1, 1.0, *times)]


def _later_callers(places: Places, count: int) -> list[Act]:
    """Returns calls from about when the first attempt's deadline passes."""
    times = [places.chance.uniform(ATTEMPT - 5, places.seconds) for _ in range(count)]
    return [places.act("get", at=at) for at in times]


def _slow_answer(places: Places) -> Act:
    """Lets Pleo take its time for one that is asked after the first."""
    chance = places.chance
    at = chance.uniform(2.0, ATTEMPT + QUARANTINE)
    return places.act("slow pleo", at=at, seconds=chance.uniform(2.0, 17.0))
