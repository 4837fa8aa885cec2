"""What this replica stands on, one check each: what it asks, and what it is needed for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from broker.domain.answers import CLIENT_SECRET, TOO_LATE
from broker.domain.errors import BrokerError, KeyUnavailable
from broker.domain.facts import AttemptAnswered, Fact
from broker.domain.history import AttemptOutcome
from broker.lease.client import RedisClient
from broker.lease.status import probe as probe_redis
from broker.ops.health import Check, CheckResult, Need
from broker.store.health import key_ids_in_use
from broker.store.health import probe as probe_postgres
from broker.store.home import Home, HomeDiffersError, settle_home
from broker.store.pool import DatabaseUnfit, Pool
from broker.store.privileges import judge_privileges
from broker.store.schema import PRIVILEGES_MISSING, SchemaFitness
from broker.store.sealing import Keyring

_ALL: Final = frozenset(Need)

_FAILING: Final = frozenset(
    {AttemptOutcome.UNKNOWN, AttemptOutcome.NOT_PROCESSED, AttemptOutcome.MISCONFIGURED}
)

_OURS: Final = frozenset({TOO_LATE, CLIENT_SECRET})
"""Codes of attempts that never reached for Pleo."""


class PleoWatch:
    """Knows Pleo by its last answer: it has no address that could be asked without harm."""

    def __init__(self) -> None:
        """Supposes that all is well."""
        self._error = ""

    def observe(self, fact: Fact) -> None:
        """As `ports.Observer` has it."""
        if not isinstance(fact, AttemptAnswered) or fact.error in _OURS:
            return
        self._error = (fact.error or fact.outcome.value) if fact.outcome in _FAILING else ""

    async def probe(self) -> CheckResult:
        """Returns what the last answer says."""
        return CheckResult(error=self._error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """What the checks ask."""

    pool: Pool
    """One that admits every database, with connections that nobody else waits for."""

    redis: RedisClient
    keyring: Keyring
    home: Home
    pleo: PleoWatch
    on_refused: Callable[[HomeDiffersError], None]
    """Told that the database is another broker's: this one must end."""


class HomeCheck:
    """Takes the database for this broker's home, once it can."""

    def __init__(self, subjects: Subjects) -> None:
        """Asks nothing yet."""
        self._subjects = subjects
        self._is_settled = False

    async def probe(self) -> CheckResult:
        """Leaves our name on the first start, and after that only remembers that it is there."""
        if self._is_settled:
            return CheckResult()
        pool = self._subjects.pool
        status = await probe_postgres(pool)
        if status.fitness is not SchemaFitness.FIT:
            return CheckResult(error=status.fitness.value)
        try:
            await settle_home(pool, self._subjects.keyring, self._subjects.home)
        except HomeDiffersError as error:
            self._subjects.on_refused(error)
            return CheckResult(error="HOME_DIFFERS", is_own_fault=True)
        self._is_settled = True
        return CheckResult()


class SchemaCheck:
    """Whether the schema is ours, and our role may use all of it."""

    def __init__(self, subjects: Subjects) -> None:
        """Asks nothing yet."""
        self._subjects = subjects
        self._may_use_all = False

    async def probe(self) -> CheckResult:
        """Looks at the schema each time, at the role until it has been good once."""
        status = await probe_postgres(self._subjects.pool)
        if status.fitness is not SchemaFitness.FIT:
            return CheckResult(error=status.fitness.value)
        if not self._may_use_all:
            # A release with a new table, and nobody has granted it.
            self._may_use_all = not (await judge_privileges(self._subjects.pool)).missing
        return CheckResult(error="" if self._may_use_all else PRIVILEGES_MISSING)


class KeysetCheck:
    """Whether this replica can open what the others have sealed."""

    def __init__(self, subjects: Subjects) -> None:
        """Asks nothing yet."""
        self._subjects = subjects
        self._has_seen_all = False

    async def probe(self) -> CheckResult:
        """Compares once with the keys that rows are sealed under; after that watches the file."""
        keyring = self._subjects.keyring
        keyring.reload_if_changed()
        if not self._has_seen_all:
            # Reads every row, so it is done until it has been good once.
            in_use = await key_ids_in_use(self._subjects.pool)
            if not all(keyring.can_open(key_id) for key_id in in_use):
                return CheckResult(error=KeyUnavailable.reason, is_own_fault=True)
            self._has_seen_all = True
        # The keys that were read last go on: worth a look, and no reason to stop serving.
        return CheckResult(error="KEYSET_UNREADABLE" if keyring.problem else "")


def checks(subjects: Subjects) -> Sequence[Check]:
    """Returns all of them."""

    async def postgres() -> CheckResult:
        status = await probe_postgres(subjects.pool)
        return CheckResult(error="" if status.is_writable else "READ_ONLY")

    async def redis() -> CheckResult:
        status = await probe_redis(subjects.redis)
        if not status.is_reachable:
            return CheckResult(error="REDIS_UNREACHABLE")
        evicts = status.maxmemory_policy not in {None, "noeviction"}
        return CheckResult(error="REDIS_EVICTS" if evicts else "")

    schema, home, keyset = SchemaCheck(subjects), HomeCheck(subjects), KeysetCheck(subjects)
    return (
        Check(name="postgres", probe=_named(postgres), needed_for=_ALL),
        Check(name="schema", probe=_named(schema.probe), needed_for=_ALL),
        Check(name="home", probe=_named(home.probe), needed_for=_ALL),
        Check(name="keyset", probe=_named(keyset.probe), needed_for=_ALL),
        Check(name="redis", probe=redis),
        Check(name="pleo", probe=subjects.pleo.probe, needed_for=frozenset({Need.REFRESH})),
    )


def _named(probe: Callable[[], Awaitable[CheckResult]]) -> Callable[[], Awaitable[CheckResult]]:
    """Calls the broker's own errors by their reasons."""

    async def named() -> CheckResult:
        try:
            return await probe()
        except DatabaseUnfit as error:
            return CheckResult(error=error.code)
        except BrokerError as error:
            return CheckResult(error=error.reason)
        # The schema is not there yet: what "schema" says, too.
        except asyncpg.UndefinedTableError:
            return CheckResult(error=SchemaFitness.TOO_OLD.value)
        # The role may not even look: the same, whichever check meets it first.
        except asyncpg.InsufficientPrivilegeError:
            return CheckResult(error=PRIVILEGES_MISSING)

    return named
