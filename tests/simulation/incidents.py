"""The stage of the fleet guard: so many are refused within seconds that nobody believes it.

Pleo refuses grants that live, or all companies leave at once; engineers decide, or a canary does,
or nobody; and meanwhile some come back by themselves, and some processes stand still.
"""

from __future__ import annotations

from typing import Final

from simulation.plan import Act, Places, What
from simulation.process import Deed
from simulation.scenes import LONGEST_ANSWER, QUARANTINE, Traps

_DECISIONS: Final[tuple[What, ...]] = ("confirm", "discard")

_DECIDING: Final = ("find<", "find>", "read>", "apply<", "tenants>", "apply fleet<")
"""Where a process is about to do what the guard stands for."""

_MEANWHILE: Final[tuple[What, ...]] = ("consent", "consent", "import", "revoke", "disconnect")

_BACK: Final[tuple[What, ...]] = ("consent", "import")

_TROUBLE: Final[tuple[What, ...]] = (
    "kill", "pause", "stop", "postgres", "redis", "flaky", "unheard", "late commits", "slow",
    "lost answer", "slow pleo", "failover", "wrong click",
)  # fmt: skip

DUE: Final = 40.0
"""Seconds after which a token of a minute is to be renewed again."""


def incident(places: Places) -> tuple[list[Act], Traps]:
    """All are refused at once, and a story of it."""
    return places.chance.choices((_any, _coming_back, _rewound, _late), (5, 1, 1, 1))[0](places)


def _coming_back(places: Places) -> tuple[list[Act], Traps]:
    """Customers come back while somebody who is about to give them up stands still."""
    chance = places.chance
    # Whoever consents completes at the first replica.
    first, decides = places.slots[:2]
    at = QUARANTINE + chance.uniform(3.0, 15.0)
    acts = [places.act("wrong click", at=0.0, seconds=chance.uniform(5.0, 60.0))]
    acts += [*_all_ask(places, 0.0), places.act("confirm", at=at, slot=decides)]
    for tenant in chance.sample(places.tenants, chance.randint(2, 4)):
        back_at, what = at + chance.uniform(-3.0, 6.0), chance.choice(_BACK)
        acts.append(places.act(what, at=back_at, slot=first, tenant=tenant))
    stall: tuple[Deed, float] = ("pause", chance.uniform(2.0, 10.0))
    return acts, ((decides, places.trap(("find<", "find>"), stall, left=chance.randint(1, 3))),)


def _rewound(places: Places) -> tuple[list[Act], Traps]:
    """An engineer confirms, thinks better of it, and PostgreSQL forgets that it was so."""
    chance = places.chance
    confirmed_at = chance.uniform(3.0, 8.0)
    lags_from = confirmed_at + chance.uniform(0.2, 2.0)
    discarded_at = lags_from + chance.uniform(0.5, 5.0)
    lag = max(0.0, QUARANTINE - lags_from) + chance.uniform(0.5, 6.0)
    acts = [places.act("wrong click", at=0.0, seconds=chance.uniform(2.0, confirmed_at))]
    acts += [*_all_ask(places, 0.0), places.act("confirm", at=confirmed_at)]
    acts += [places.act("failover", at=lags_from, seconds=lag)]
    acts += [places.act("discard", at=discarded_at)]
    times = (discarded_at + chance.uniform(0.1, 5.0) for _ in range(6))
    return acts + [places.act("get", at=at) for at in times], ()


def _late(places: Places) -> tuple[list[Act], Traps]:
    """Somebody who has counted too many stands still before it is written, and it is decided."""
    chance = places.chance
    counts, decides = chance.sample(places.slots, 2)
    stands_still = chance.uniform(3.0, 15.0)
    acts = [places.act("wrong click", at=0.0, seconds=chance.uniform(2.0, 60.0))]
    for number, tenant in enumerate(places.tenants):
        slot = counts if number % 2 else decides
        acts.append(places.act("get", at=chance.uniform(0.0, 0.3), slot=slot, tenant=tenant))
    at = chance.uniform(1.0, stands_still)
    acts.append(places.act(chance.choice(_DECISIONS), at=at, slot=decides))
    times = (chance.uniform(0.0, places.seconds) for _ in range(10))
    acts += [places.act("get", at=at) for at in times]
    return acts, ((counts, places.trap(("apply fleet<",), ("pause", stands_still))),)


def _any(places: Places) -> tuple[list[Act], Traps]:
    """They are refused for a while; then somebody decides, or nobody does."""
    chance = places.chance
    begins = chance.choice((0.0, 0.0, DUE + chance.uniform(0.0, 5.0)))
    lasts = chance.choice((chance.uniform(2.0, 10.0), chance.uniform(20.0, 90.0)))
    acts = [places.act("wrong click", at=begins, seconds=lasts)]
    if chance.random() < 0.15:  # they mean it
        acts = [places.act("disconnect", at=begins, tenant=each) for each in places.tenants]
    acts += _all_ask(places, begins)
    # Whoever is let out is presented again, and a discard may come while all is still refused.
    for _ in range(chance.choice((0, 1, 1, 2))):
        at = begins + chance.choice((chance.uniform(0.5, 30.0), chance.uniform(15.0, 90.0)))
        acts.append(places.act(chance.choice(_DECISIONS), at=at))
    for _ in range(chance.choice((0, 0, 1, 3))):
        acts.append(places.act(chance.choice(_MEANWHILE), at=begins + chance.uniform(0.0, 60.0)))
    for _ in range(chance.choice((0, 0, 0, 1, 2))):
        at = begins + chance.uniform(0.0, 40.0)
        seconds = min(LONGEST_ANSWER, chance.uniform(0.5, 60.0))
        acts.append(places.act(chance.choice(_TROUBLE), at=at, seconds=seconds))
    return acts, _traps(places)


def _all_ask(places: Places, begins: float) -> list[Act]:
    """Returns calls for every tenant at the beginning, and for some now and then."""
    chance = places.chance
    spread = chance.choice((0.1, 3.0, 20.0))
    acts = [
        places.act("get", at=at + chance.uniform(0.0, spread), tenant=each)
        for each in places.tenants
        for at in (0.0, begins, begins + DUE)
    ]
    times = [chance.uniform(0.0, places.seconds) for _ in range(15)]
    return acts + [places.act("get", at=at) for at in times]


def _traps(places: Places) -> Traps:
    chance = places.chance
    deeds: tuple[Deed, ...] = ("pause", "pause", "kill", "cut")
    return tuple(
        (
            chance.choice(places.slots),
            places.trap(
                _DECIDING,
                (chance.choice(deeds), chance.uniform(0.5, 30.0)),
                left=chance.randint(1, 12),
            ),
        )
        for _ in range(chance.choice((0, 0, 1, 3)))
    )
