"""How this replica is: what it stands on is asked in the background, and answered from memory.

Ready is a promise about this replica, not about the world. It becomes ready once everything that
serving needs has been seen good at the same time; from then on only a drain, or a fault that is
this replica's own, takes that away. An outage of PostgreSQL, which all replicas share, must not
take the tokens that they still have in memory away from callers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Final, Never, TypeAlias

from broker.domain.facts import LoopFailed
from broker.domain.trouble import Trouble
from broker.ports import Observer

# Law 6 gives five seconds until all replicas act on what one learnt; health is no slower.
_INTERVAL: Final = timedelta(seconds=3)
# Before it is ready, somebody waits: a rollout, or a person who typed `make run`.
_INTERVAL_AT_START: Final = timedelta(milliseconds=250)
# A dependency that takes longer for a trivial question is as good as away, and asking several times
# at once would not help.
_PATIENCE: Final = timedelta(seconds=5)

TIMEOUT: Final = "TIMEOUT"
"""The error of a check that gave no answer in time."""

DEFECT: Final = "DEFECT"
"""The error of a check that failed in a way nobody foresaw; the log has more."""


class Need(StrEnum):
    """What a check's subject is needed for."""

    SERVE = "serve"
    """Handing out tokens at all."""

    REFRESH = "refresh"
    """Presenting a refresh token to Pleo."""

    PERSIST = "persist"
    """Keeping what Pleo answers."""


Detail: TypeAlias = str | int | float
"""Something that a check saw, as JSON has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What a probe found."""

    error: str = ""
    """A code, as `STORE_UNAVAILABLE`; empty: all is well. Never prose of a driver's."""

    is_own_fault: bool = False
    """The error is about this replica alone: others may serve while it cannot."""

    details: Mapping[str, Detail] = field(default_factory=dict)
    """What was seen on the way, for people: never a secret, a tenant or a caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something to ask again and again."""

    name: str
    probe: Callable[[], Awaitable[CheckResult]]
    """Harmless and quick; safe to cancel. What it raises is a defect."""

    needed_for: frozenset[Need] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckState:
    """What is known about a check's subject."""

    name: str
    needed_for: frozenset[Need]
    is_good: bool = False
    is_own_fault: bool = False
    age: timedelta | None = None
    """Since the last answer; None: there is none yet."""

    last_error: str = ""
    """The code of the last time that it was not good; empty: there was none."""

    last_error_age: timedelta | None = None
    details: Mapping[str, Detail] = field(default_factory=dict)
    """Of the last answer that had any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSnapshot:
    """How this replica is at a moment."""

    is_ready: bool
    is_draining: bool
    checks: tuple[CheckState, ...]

    def check(self, name: str) -> CheckState:
        """Returns one check's state.

        Raises:
            KeyError: there is no such check.
        """
        for state in self.checks:
            if state.name == name:
                return state
        raise KeyError(name)

    @property
    def troubles(self) -> tuple[Trouble, ...]:
        """What is not good. What was not asked yet is not bad."""
        return tuple(
            Trouble(name=each.name, error=each.last_error)
            for each in self.checks
            if not each.is_good and each.age is not None
        )

    @property
    def can_serve(self) -> bool:
        """Tokens can be handed out: at least those in memory."""
        return self.is_ready

    @property
    def can_refresh(self) -> bool:
        """New tokens can be fetched from Pleo."""
        return self._has(Need.REFRESH)

    @property
    def can_persist(self) -> bool:
        """What is new can be kept."""
        return self._has(Need.PERSIST)

    def _has(self, need: Need) -> bool:
        return not self.is_draining and all(
            state.is_good for state in self.checks if need in state.needed_for
        )


Listener = Callable[[HealthSnapshot], None]
"""Called on the event loop's thread; quick, and never raises."""


class Health:
    """Asks, remembers, tells. All of it is for the event loop's thread."""

    def __init__(self, checks: Sequence[Check], *, observer: Observer) -> None:
        """`run` does the asking; until then nothing is good."""
        self._checks = tuple(checks)
        self._observer = observer
        self._known = {each.name: _Known() for each in checks}
        self._was_ready = False
        self._is_draining = False
        self._listeners: list[Listener] = []

    def __repr__(self) -> str:
        """What it would answer."""
        bad = [name for name, known in self._known.items() if not known.is_good]
        return f"<Health ready={self.is_ready} draining={self._is_draining} not good={bad}>"

    @property
    def is_ready(self) -> bool:
        """Whether callers may be sent here."""
        own_faults = any(known.result.is_own_fault for known in self._known.values())
        return self._was_ready and not self._is_draining and not own_faults

    def snapshot(self) -> HealthSnapshot:
        """Returns how it is now. No I/O."""
        return HealthSnapshot(
            is_ready=self.is_ready,
            is_draining=self._is_draining,
            checks=tuple(self._state(each) for each in self._checks),
        )

    def on_change(self, listener: Listener) -> None:
        """Tells `listener` how it is now, and whenever readiness or a check turns."""
        self._listeners.append(listener)
        listener(self.snapshot())

    def drain(self) -> None:
        """Takes readiness away for good, before anything stops."""
        self._is_draining = True
        self._tell()

    async def run(self) -> Never:
        """Asks each check at once, and again and again, each in its own time, until cancelled."""
        async with asyncio.TaskGroup() as task_group:
            for each in self._checks:
                task_group.create_task(self._watch(each), name=f"health {each.name}")
        # Without checks there is nothing to wait for; with them the group never ends by itself.
        await asyncio.Future()
        raise AssertionError  # a future that nobody completes does not return

    async def _watch(self, check: Check) -> Never:
        while True:
            self._note(check, await self._ask(check))
            interval = _INTERVAL if self._was_ready else _INTERVAL_AT_START
            await asyncio.sleep(interval.total_seconds())

    async def _ask(self, check: Check) -> CheckResult:
        try:
            async with asyncio.timeout(_PATIENCE.total_seconds()):
                return await check.probe()
        except TimeoutError:
            return CheckResult(error=TIMEOUT)
        except Exception as error:  # noqa: BLE001 - a broken check must not take the replica down
            self._observer.observe(
                LoopFailed(loop=f"health {check.name}", error=type(error).__name__)
            )
            return CheckResult(error=DEFECT)

    def _note(self, check: Check, result: CheckResult) -> None:
        known = self._known[check.name]
        before = (known.is_good, self.is_ready)
        now = asyncio.get_running_loop().time()
        failed = (result.error, now) if result.error else (known.last_error, known.last_error_at)
        self._known[check.name] = replace(
            known,
            result=result,
            at=now,
            last_error=failed[0],
            last_error_at=failed[1],
            details=result.details or known.details,
        )
        self._was_ready = self._was_ready or self._is_all_there()
        if (not result.error, self.is_ready) != before:
            self._tell()

    def _is_all_there(self) -> bool:
        return all(
            self._known[each.name].is_good for each in self._checks if Need.SERVE in each.needed_for
        )

    def _tell(self) -> None:
        snapshot = self.snapshot()
        for listener in self._listeners:
            listener(snapshot)

    def _state(self, check: Check) -> CheckState:
        known = self._known[check.name]
        return CheckState(
            name=check.name,
            needed_for=check.needed_for,
            is_good=known.is_good,
            is_own_fault=known.result.is_own_fault,
            age=_since(known.at),
            last_error=known.last_error,
            last_error_age=_since(known.last_error_at),
            details=known.details,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What was found last, on the event loop's clock."""

    result: CheckResult = CheckResult()
    at: float | None = None
    last_error: str = ""
    last_error_at: float | None = None
    details: Mapping[str, Detail] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        return self.at is not None and not self.result.error


def _since(at: float | None) -> timedelta | None:
    if at is None:
        return None
    return timedelta(seconds=asyncio.get_running_loop().time() - at)
