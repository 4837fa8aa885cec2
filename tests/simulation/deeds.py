"""What goes wrong in a schedule, and when it is well again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final, Literal

from broker.ports import GrantMoved
from broker.sandbox.faults import (
    Alter,
    Delay,
    Drop,
    Half,
    Hang,
    Step,
    fail,
    rate_limit,
    refuse,
    rubbish,
)
from simulation.cast import Cast
from simulation.laws import NOTHING_LOST
from simulation.plan import Act
from simulation.process import Gone, Process, Trap
from simulation.serving import DEFECT

# None is processed later than the attempt's deadline: that is `late send`.
_FAULTS: Final[tuple[Step, ...]] = (
    Drop(when="before"),
    Drop(when="after"),
    Drop(when="after"),
    Half(),
    Hang(when="before"),
    Hang(when="after"),
    Delay(seconds=0.5),
    Delay(seconds=6),
    Delay(seconds=17),
    Delay(seconds=3, when="after"),
    Delay(seconds=14, when="after"),
    Delay(seconds=40, when="after"),
    rubbish(),
    rate_limit(),
    rate_limit(retry_after="20"),
    fail(503),
    fail(502, when="after"),
    refuse("invalid_client", status=401),
    Alter(omit=("expires_in",)),
    Alter(omit=("access_token",)),
)


_LOST: Final[tuple[Step, ...]] = (
    Drop(when="after"),
    Half(),
    Hang(when="after"),
    Delay(seconds=40, when="after"),
    fail(502, when="after"),
)
"""Ways in which nobody gets what Pleo issued."""

LONGEST_DELAY: Final = 17.0
"""Seconds for a request that was sent at the last moment and is answered in time."""

LATE_BY: Final = 22.0
"""Seconds for one that was sent early and is acted upon after its deadline."""


class Deeds:
    """Does what acts and traps are for."""

    def __init__(self, cast: Cast, companies: Mapping[str, str]) -> None:
        """`companies`: by tenant."""
        self._cast = cast
        self._companies = companies

    def start(self, slot: str) -> None:
        """Starts a process of a replica, unless one runs."""
        if self._cast.on(slot) is None:
            self._cast.start(slot, self.spring)

    def spring(self, process: Process, trap: Trap) -> None:
        """Carries out a trap."""
        if self._cast.are_faults_over:
            return
        for deed, seconds in trap.deeds:
            self._tell(f"{deed} of {process.name} at {trap.point}, for {seconds} s")
            match deed:
                case "kill" if not process.is_dead:
                    self.kill(process, seconds)
                case "pause":
                    self.pause(process, seconds)
                case _:
                    self._spoil(deed, process.slot, seconds)

    def do(self, act: Act) -> None:
        """Carries out an act that is no call."""
        process = self._cast.on(act.slot)
        self._tell(f"{act.what} ({act.slot}), for {act.seconds} s")
        match act.what:
            case "kill" if process:
                self.kill(process, act.seconds)
            case "pause" if process:
                self.pause(process, act.seconds)
            case "stop" if process:
                stopping = self._stop(process, act.seconds)
                self._cast.fleet.tasks.create_task(stopping, name="an operator")
            case "pleo" | "slow pleo" | "lost answer" | "not processed" | "late send":
                fault = _fault(act)
                self._tell(f"Pleo meets the next request with {type(fault).__name__} {fault.when}")
                self._cast.fleet.pleo.sandbox.faults.add(fault, times=1 + int(act.choice * 40) % 2)
            case "twice":
                self._double()
            case "wrong click":
                self._refuse_all(act)
            case "clock":
                self._turn_clock(act)
            case "failover":
                self._lag(act)
            case "keys":
                self._lose_key(act)
            case _:
                self._spoil(act.what, act.slot, act.seconds)

    def _double(self) -> None:
        """Lets the network deliver the next token request twice."""
        if self._cast.plan.mode != "lenient":
            for tenant in self._cast.plan.tenants:
                self._cast.laws.haunt(tenant, "what comes twice ends the grant, or is lost")
        self._cast.fleet.pleo.doubled += 1

    def _refuse_all(self, act: Act) -> None:
        """Lets Pleo refuse living grants for a time: all of them, or all but one."""
        faults = self._cast.fleet.pleo.sandbox.faults
        spared = act.tenant if act.choice < 0.3 else ""
        rules = [
            faults.add(refuse("invalid_grant"), times=None, grant_type="refresh_token", company=urn)
            for tenant, urn in self._companies.items()
            if tenant != spared
        ]

        def undo() -> None:
            for rule in rules:
                rule.remaining = 0

        self._later(act.seconds, undo)

    def _turn_clock(self, act: Act) -> None:
        """Lets PostgreSQL's clock jump, as where another machine takes over."""
        self._cast.laws.clock_jumps()
        self._cast.quiet.stir()
        self._cast.clock.offset += timedelta(seconds=act.seconds * (1 if act.choice < 0.5 else -1))

    def _lag(self, act: Act) -> None:
        """Lets a standby hear nothing more of PostgreSQL, and take over later."""
        if self._cast.losses.lag():
            self._later(act.seconds, lambda: self._take_over(act))

    def _take_over(self, act: Act) -> None:
        if self._cast.are_faults_over:
            return
        self._tell("a standby takes over")
        self._cast.losses.take_over()
        self._cast.quiet.stir()
        if act.choice < 0.5:
            self._spoil("postgres", act.slot, 20 * act.choice)

    def _lose_key(self, act: Act) -> None:
        """Lets a tenant's pair be sealed under a key that the replicas do not have yet."""
        self._cast.quiet.stir()
        unreadable = self._cast.fleet.world.unreadable
        unreadable[act.tenant] = True
        self._later(act.seconds, lambda: unreadable.pop(act.tenant, None))

    def kill(self, process: Process, seconds: float) -> None:
        """Ends a process at once; another comes later."""
        process.kill()
        self._later(seconds, lambda: self.start(process.slot))

    def pause(self, process: Process, seconds: float) -> None:
        """Lets a process stand still; its leases run out under it."""
        process.pause()
        self._cast.fleet.redis.stall()
        self._later(seconds, process.go_on)

    async def _stop(self, process: Process, seconds: float) -> None:
        """Ends a process in order, as a rollout does."""
        patience = self._cast.plan.stop_patience
        ended = await process.ask(lambda service: service.settled(patience=patience))
        if isinstance(ended, Gone):
            return
        self._tell(f"{process.name} has ended in order")
        keeping = self._cast.keeping
        process.is_dead = True
        for refresh_token in process.hands.values():
            keepers = keeping.keepers(refresh_token, is_protected=True)
            is_safe = keepers or not keeping.is_alive(refresh_token)
            if not is_safe and not process.was_impaired:
                what = f"{process.name} leaves with {keeping.name(refresh_token)}"
                self._cast.story.break_law(NOTHING_LOST, what)
        self.kill(process, seconds)

    def _spoil(self, what: str, slot: str, seconds: float) -> None:
        """Makes the weather worse, for a time or until the end."""
        self._cast.quiet.stir()
        weather, fleet = self._cast.weather, self._cast.fleet
        redis, pleo, world = fleet.redis, fleet.pleo, fleet.world
        lasting: dict[str, tuple[object, str, object, object]] = {
            "postgres": (weather, "postgres_is_down", True, False),
            "read only": (weather, "postgres_is_read_only", True, False),
            "redis": (redis, "is_reachable", False, True),
            "mute redis": (redis, "is_answering", False, True),
            "unreachable": (pleo, "unreachable", "connect_refused", None),
            "flaky": (weather, "refused", 0.2, 0.0),
            "unheard": (weather, "unacknowledged", 0.2, 0.0),
            "late commits": (weather, "committed_late", 0.2, 0.0),
            "slow": (weather, "slow", 0.1, 0.0),
            "seals": (world, "seals", False, True),
            "flaky redis": (weather, "redis_trouble", 0.3, 0.0),
            "news": (redis, "deliveries", _odd_deliveries(), _at_once),
        }
        cut = {"cut": weather.without_postgres, "cut redis": weather.without_redis}
        if what in lasting:
            owner, name, bad, good = lasting[what]
            setattr(owner, name, bad)
            self._later(seconds, lambda: setattr(owner, name, good))
        elif what in cut:
            cut[what].add(slot)
            self._later(seconds, lambda: cut[what].discard(slot))
        elif what == "flush":
            self._flush()

    def _flush(self) -> None:
        """Redis forgets: what only it had is lost, and that is nobody's fault."""
        for (_, number), escrow in self._cast.fleet.redis.escrows.items():
            refresh_token = escrow.issued.refresh_token.reveal()
            self._tell(f"the escrow of attempt {number} is forgotten")
            for process in self._cast.keeping.received.get(refresh_token, []):
                process.was_impaired = True
            self._cast.keeping.escrowed.discard(refresh_token)
        self._cast.fleet.redis.flush()

    def end_all(self) -> None:
        """Lets everything be well again, for good."""
        cast = self._cast
        cast.are_faults_over = True
        cast.weather.clear()
        redis, pleo = cast.fleet.redis, cast.fleet.pleo
        redis.is_reachable = redis.is_answering = True
        redis.deliveries = _at_once
        pleo.unreachable, pleo.doubled = None, 0
        cast.fleet.world.seals = True
        cast.fleet.world.unreadable.clear()
        pleo.sandbox.faults.clear()
        pleo.sandbox.release()
        for process in cast.processes:
            process.go_on()
        for slot in cast.plan.slots:
            self.start(slot)
        cast.quiet.stir()
        self._tell("all is well again")

    def _later(self, seconds: float, undo: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_later(seconds, self._undo, undo)

    def _undo(self, undo: Callable[[], object]) -> None:
        try:
            undo()
        except Exception as error:  # noqa: BLE001 - a loop would only tell it, and go on
            self._cast.story.break_law(DEFECT, f"of the simulation: {error!r}")

    def _tell(self, what: str) -> None:
        self._cast.story.tell("-", what)


def _fault(act: Act) -> Step:
    match act.what:
        case "slow pleo":
            when: Literal["before", "after"] = "before" if act.choice < 0.5 else "after"
            return Delay(seconds=min(act.seconds, LONGEST_DELAY), when=when)
        case "lost answer":
            return _LOST[int(act.choice * len(_LOST))]
        case "not processed":
            return rate_limit()
        case "late send":
            return Delay(seconds=LATE_BY + act.seconds / 2)
        case _:
            return _FAULTS[int(act.choice * len(_FAULTS))]


def _at_once(_: GrantMoved) -> Sequence[float]:
    return (0.0,)


def _odd_deliveries() -> Callable[[GrantMoved], Sequence[float]]:
    """Returns a way in which announcements are lost, late, and doubled in turn."""
    ways: tuple[Sequence[float], ...] = ((), (0.0, 0.0), (3.0,), (0.0,), (0.2, 9.0))
    count = 0

    def deliveries(_: GrantMoved) -> Sequence[float]:
        nonlocal count
        count += 1
        return ways[count % len(ways)]

    return deliveries
