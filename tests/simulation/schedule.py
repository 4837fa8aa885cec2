"""One schedule: one seed, one world, one story."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from broker.domain.fleet import FleetState
from broker.domain.grant import TokenPair
from broker.sandbox.faults import Chance, Delay, Dice
from broker.sandbox.settings import Company, Settings
from broker.service import fetch
from simulation.cast import Cast, Clock
from simulation.deeds import Deeds
from simulation.ending import STUCK, Ending
from simulation.mutating import replaced
from simulation.people import People
from simulation.plan import Plan, dice
from simulation.profiles import TENANTS, draw
from simulation.story import Broken
from support.fake_lease import FakeRedis
from support.fake_provider import FakeProvider
from support.fake_world import FakeRow, FakeWorld
from support.grants import some_grant
from support.service import Fleet, virtual_now
from support.virtual_time import run_virtual

COMPANIES: Final = {
    tenant: Company(urn=f"urn:pleo:company:00000000-0000-4000-8000-{number:012}", name=tenant)
    for number, tenant in enumerate(TENANTS, 1)
}

PEOPLE: Final = frozenset(
    {"get", "rejected", "consent", "revoke", "import", "disconnect", "confirm", "discard"}
)

_LATENCIES: Final = (
    Chance(probability=0.5, steps=(Delay(seconds=0.1), Delay(seconds=0.1, when="after"))),
    Chance(probability=0.2, steps=(Delay(seconds=1.0), Delay(seconds=0.5, when="after"))),
    Chance(probability=0.1, steps=(Delay(seconds=2.5),)),
)
"""What Pleo takes for a token request where nothing is wrong; else no time at all."""

LONGEST_SECONDS: Final = 4000.0
"""Of a schedule: main part, twice the patience of the end, and what calls may take beside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a schedule went."""

    seed: int
    profile: str
    story: tuple[str, ...]
    broken: Broken | None
    presentations: int
    guarded: Mapping[str, int]
    """How often the guard came to each state, and each change of a grant's state was made."""


def run_schedule(seed: int) -> Outcome:
    """Runs the schedule of a seed. The same seed gives the same story, line by line.

    Without the debug mode of asyncio: it makes a schedule five times slower, and is on wherever
    the same code runs in unit tests.
    """
    plan = draw(seed)
    with replaced((fetch, "POLL", plan.poll)):
        return run_virtual(_run(seed, plan), debug=False)


def first_broken(seeds: Iterable[int]) -> Outcome | None:
    """Returns the first schedule of these in which a law is broken."""
    outcomes = (run_schedule(seed) for seed in seeds)
    return next((outcome for outcome in outcomes if outcome.broken is not None), None)


async def _run(seed: int, plan: Plan) -> Outcome:
    settings = Settings(
        companies=tuple(COMPANIES.values()),
        mode=plan.mode,
        second_consent=plan.second_consent,
        access_token_lifetime=timedelta(seconds=plan.lifetime),
    )
    async with (
        FakeProvider(settings, randomness=_randomness(dice(seed, "tokens"))) as pleo,
        asyncio.TaskGroup() as tasks,
    ):
        clock = Clock()
        world = FakeWorld(now=clock.now)
        # Grants were here before, so somebody has worked with this database.
        world.fleet = FleetState(timeline=world.live())
        fleet = Fleet(world=world, redis=FakeRedis(), pleo=pleo, tasks=tasks)
        cast = Cast(seed, plan, fleet, clock=clock)
        await _play(cast)
    return Outcome(
        seed=seed,
        profile=plan.profile,
        story=tuple(cast.story.lines),
        broken=cast.story.broken,
        presentations=pleo.sandbox.record.counts().presentations,
        guarded=dict(cast.commits.guard.counts),
    )


def _randomness(chance: random.Random) -> Callable[[int], str]:
    return lambda length: f"{chance.getrandbits(length * 4):0{length}x}"


async def _play(cast: Cast) -> None:
    plan = cast.plan
    rules = f"{plan.mode}, a second consent {plan.second_consent}, tokens of {plan.lifetime} s"
    cast.story.tell("-", f"{plan.profile}: {rules}")
    for tenant in plan.tenants:
        _connect(cast, tenant)
    cast.fleet.pleo.sandbox.faults.throw(Dice(seed=cast.seed, chances=_LATENCIES))
    urns = {tenant: company.urn for tenant, company in COMPANIES.items()}
    deeds, people = Deeds(cast, urns), People(cast=cast, companies=urns, left=set())
    for slot in plan.slots:
        deeds.start(slot)
    script = cast.fleet.tasks.create_task(_script(cast, deeds, people), name="the script")
    over = cast.fleet.tasks.create_task(cast.story.over.wait(), name="the first broken law")
    await asyncio.wait({script, over}, return_when=asyncio.FIRST_COMPLETED, timeout=LONGEST_SECONDS)
    if not script.done() and not over.done():
        cast.story.break_law(STUCK, "a call never ended")
    script.cancel()
    over.cancel()
    for process in cast.processes:
        process.kill()


async def _script(cast: Cast, deeds: Deeds, people: People) -> None:
    async with asyncio.TaskGroup() as crowd:
        for act in cast.plan.acts:
            await asyncio.sleep(max(0.0, act.at - asyncio.get_running_loop().time()))
            if act.what in PEOPLE:
                crowd.create_task(people.act(act), name=act.what)
            else:
                deeds.do(act)
        await asyncio.sleep(max(0.0, cast.plan.seconds - asyncio.get_running_loop().time()))
        deeds.end_all()
        await Ending(cast=cast, people=people).judge()


def _connect(cast: Cast, tenant: str) -> None:
    """Puts a grant into the world whose token lives, and is to be renewed."""
    company = COMPANIES[tenant].urn
    made = cast.fleet.pleo.connect(company)
    grant = some_grant(tenant=tenant, subject=company)
    now = virtual_now()
    pair = TokenPair(
        access_token=made.access_token,
        refresh_token=made.refresh_token,
        generation=grant.generation,
    )
    grant = replace(
        grant, pair=pair, renew_at=now, expires_at=now + timedelta(seconds=cast.plan.lifetime)
    )
    world = cast.fleet.world
    world.rows[tenant] = FakeRow(
        grant=grant, version=1, changed=world.begin(), exclusive_subject=None
    )
    cast.laws.begin(grant)
