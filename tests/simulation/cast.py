"""The replicas of a schedule, and the one world that they share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.domain.decision import Why
from broker.domain.facts import (
    AttemptAnswered,
    AttemptClaimed,
    AttemptSending,
    AttemptSettled,
    DefectMet,
    EscrowAdopted,
    EscrowsUnreachable,
    EscrowWritten,
    Fact,
    LoopFailed,
    WrittenBack,
)
from broker.domain.grant import GrantState
from broker.domain.guard import FEWEST_GRANTS
from broker.domain.history import AttemptOutcome
from broker.service.build import build_service
from broker.service.foundation import Options, Ports
from broker.service.writing_back import TURN_SECONDS as RECALL_SECONDS
from simulation.commits import Commits
from simulation.keeping import Keeping
from simulation.laws import Laws
from simulation.losing import Losses
from simulation.plan import Plan, dice
from simulation.ports import (
    WayToAnnouncements,
    WayToEscrows,
    WayToLeases,
    WayToPleo,
)
from simulation.process import Process, Trap
from simulation.quiet import Silence
from simulation.renewals import WayToRenewals
from simulation.serving import DEFECT, Serving
from simulation.store_ports import WayToConsents, WayToFleet, WayToGrants
from simulation.story import Story
from simulation.weather import Weather
from support.consent_service import KEEPALIVE, REGISTRATION, LongChance
from support.fake_escrows import FakeEscrows
from support.fake_fleet import FakeFleetStore
from support.fake_lease import FakeAnnouncements, FakeLeases
from support.fake_records import FakeRecords
from support.fake_renewals import FakeRenewals
from support.fake_store import FakeConsentStore, FakeGrantStore
from support.service import Fleet, virtual_now

_OF_THE_GUARD = frozenset({"guard", "canary"})
"""Loops that do nothing until more grants are refused than most schedules have."""

_PLANNED_WORK = "renewals"
"""In some schedules: its flights are those that callers start here at any moment."""

_DEFINITE = frozenset({AttemptOutcome.ROTATED, AttemptOutcome.REFUSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The observer of a process: tells the story, and what the laws have to know."""

    process: Process
    story: Story
    laws: Laws

    def observe(self, fact: Fact) -> None:
        """See the port."""
        if self.process.is_dead:
            return
        match fact:
            case AttemptSending():
                self.process.sending = (fact.tenant, fact.number)
            case AttemptSettled():
                self._settled(fact)
            case EscrowAdopted():
                self._drop(fact.tenant, fact.number, fact.not_allowed)
                self.process.hands.pop((fact.tenant, fact.number), None)
                self._tell(f"has adopted escrow {fact.number}: {fact.not_allowed or 'stored'}")
            case DefectMet() | LoopFailed():
                self._failed(fact)
            case AttemptClaimed():
                what = f"claims attempt {fact.number} of {fact.tenant}"
                self._tell(f"{what} on generation {fact.base_generation}, doubt {fact.doubt.name}")
            case AttemptAnswered():
                self._tell(f"is answered {fact.outcome} {fact.error} (attempt {fact.number})")
            case _:
                self._keep(fact)

    def _keep(self, fact: Fact) -> None:
        match fact:
            case EscrowWritten():
                self._tell(f"escrows attempt {fact.number}, acknowledged {fact.is_acknowledged}")
            case EscrowsUnreachable():
                self._tell(f"cannot look for escrows, try {fact.tries}")
            case WrittenBack():
                what = f"writes generation {fact.generation} of {fact.tenant} back"
                self._tell(f"{what}: {fact.not_allowed or 'stored'}")
            case _:
                pass

    def _tell(self, what: str) -> None:
        self.story.tell(self.process.name, what)

    def _settled(self, fact: AttemptSettled) -> None:
        self._drop(fact.tenant, fact.number, fact.not_allowed)
        self.process.hands.pop((fact.tenant, fact.number), None)
        self._tell(f"settles attempt {fact.number}: {fact.not_allowed or fact.outcome}")
        if fact.not_allowed is None and fact.outcome in _DEFINITE and self._is_believed(fact):
            self.laws.settled(self.process, fact.tenant, fact.number)

    def _is_believed(self, fact: AttemptSettled) -> bool:
        """Whether a refusal has ended the grant: of an attempt whose arming is lost it has not."""
        row = self.laws.keeping.world.rows[fact.tenant].grant
        return fact.outcome is not AttemptOutcome.REFUSED or row.state is not GrantState.ACTIVE

    def _drop(self, tenant: str, number: int, not_allowed: Why | None) -> None:
        if not_allowed not in {None, Why.ALREADY}:
            self.laws.dropped(self.process, tenant, number)

    def _failed(self, fact: DefectMet | LoopFailed) -> None:
        # An error of the tree is named in capitals.
        if isinstance(fact, DefectMet) or not fact.error.isupper():
            self.story.break_law(DEFECT, f"{self.process.name}: {fact.error!r}")


@dataclass(slots=True, kw_only=True)
class Clock:
    """PostgreSQL's clock: goes with the loop's, and can be turned."""

    offset: timedelta = timedelta(0)

    def now(self) -> datetime:
        """Returns the time of day."""
        return virtual_now() + self.offset


class Cast:
    """Starts, pauses and ends processes."""

    def __init__(self, seed: int, plan: Plan, fleet: Fleet, *, clock: Clock) -> None:
        """`fleet`: the world; its replicas are made here. `clock`: PostgreSQL's."""
        self.clock = clock
        self.seed = seed
        self.plan = plan
        self.fleet = fleet
        self.story = Story()
        self.weather = Weather()
        self.processes: list[Process] = []
        self.keeping = Keeping(
            world=fleet.world, redis=fleet.redis, pleo=fleet.pleo, processes=self.processes
        )
        self.laws = Laws(self.story, self.keeping)
        self.commits = Commits(self.laws)
        self.quiet = Silence()
        self.losses = Losses(self.laws, self.commits)
        fleet.pleo.on_acting = self.laws.reached
        self.serving = Serving(self.story, self.laws)
        self.are_faults_over = False

    def on(self, slot: str) -> Process | None:
        """Returns the living process of a replica."""
        living = [each for each in self.processes if each.slot == slot and not each.is_dead]
        return living[-1] if living else None

    def start(self, slot: str, spring: Callable[[Process, Trap], None]) -> None:
        """Starts a process."""
        number = 1 + sum(each.slot == slot for each in self.processes)
        traps = [] if self.are_faults_over else [trap for of, trap in self.plan.traps if of == slot]
        process = Process(
            slot=slot,
            name=f"{slot}{number}",
            story=self.story,
            weather=self.weather,
            chance=dice(self.seed, f"{slot}{number}"),
            traps=traps,
            spring=spring,
        )
        self.processes.append(process)
        process.host = self.fleet.tasks.create_task(self._live(process), name=process.name)
        self.story.tell(process.name, "starts")

    async def _live(self, process: Process) -> None:
        # The end of a process is nobody's business but its own.
        with suppress(asyncio.CancelledError):
            async with asyncio.TaskGroup() as tasks:
                ports, options = self._ports(process), self._options(process)
                process.service, process.tasks = build_service(ports, options, tasks), tasks
                for name, loop in process.service.loops().items():
                    if name == _PLANNED_WORK and not self.plan.is_renewing:
                        continue
                    if name in _OF_THE_GUARD and len(self.plan.tenants) < FEWEST_GRANTS:
                        continue  # it never holds
                    turns = self._recall(loop) if name == "recall" else loop()
                    tasks.create_task(turns, name=f"{name} of {process.name}")

    async def _recall(self, loop: Callable[[], Coroutine[None, None, None]]) -> None:
        """Compares what PostgreSQL may have lost, which is nothing until it loses something."""
        await self.losses.quiet.pass_turns(RECALL_SECONDS)
        await loop()

    def _ports(self, process: Process) -> Ports:
        world, redis, pleo = self.fleet.world, self.fleet.redis, self.fleet.pleo
        grants = FakeGrantStore(world)
        return Ports(
            store=WayToGrants(
                process=process,
                inner=grants,
                world=world,
                commits=self.commits,
                quiet=self.quiet,
                elsewhere=self.fleet.tasks,
            ),
            fleet=WayToFleet(
                process=process,
                inner=FakeFleetStore(world),
                world=world,
                guard=self.commits.guard,
                quiet=self.quiet.fleet,
            ),
            renewals=WayToRenewals(
                process=process,
                inner=FakeRenewals(world, keepalive=KEEPALIVE),
                world=world,
                quiet=self.quiet.commits,
            ),
            consents=WayToConsents(process=process, inner=FakeConsentStore(world)),
            records=FakeRecords(world),
            leases=WayToLeases(process=process, inner=FakeLeases(redis)),
            announcements=WayToAnnouncements(process=process, inner=FakeAnnouncements(redis)),
            escrows=WayToEscrows(
                process=process,
                inner=FakeEscrows(redis),
                world=world,
                redis=redis,
                quiet=self.quiet.escrows,
                laws=self.laws,
            ),
            provider=WayToPleo(process=process, inner=pleo, laws=self.laws),
            chance=LongChance(process.name),
            observer=Told(process=process, story=self.story, laws=self.laws),
        )

    def _options(self, process: Process) -> Options:
        return Options(
            replica=process.name,
            registration=REGISTRATION,
            rejection_interval=timedelta(seconds=10),
            guard_hold=timedelta(seconds=self.plan.guard_hold),
            quarantine=timedelta(seconds=self.plan.guard_keeps),
        )
