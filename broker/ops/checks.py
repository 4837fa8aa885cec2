"""What this replica stands on, one check each: what it asks, and what it is needed for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from broker.domain.breaker import Breaker
from broker.domain.errors import BrokerError, KeyUnavailable, RecordUnreadable
from broker.lease.client import RedisClient
from broker.ops.health import Check, CheckResult, Need
from broker.ops.pleo_watch import PleoWatch
from broker.ops.redis_check import redis_result
from broker.store.connecting import DatabaseUnfit
from broker.store.health import key_ids_in_use
from broker.store.health import probe as probe_postgres
from broker.store.home import Home, HomeDiffersError, settle_home
from broker.store.pool import Pool
from broker.store.privileges import judge_privileges
from broker.store.schema import PRIVILEGES_MISSING, SchemaFitness
from broker.store.sealing import KeyDescription, Keyring

_ALL: Final = frozenset(Need)

CLOCK_SKEW: Final = timedelta(seconds=5)
"""NTP keeps clocks within milliseconds; a few seconds are what nobody would look for."""

EXPIRES_SOON_SHARE: Final = 10
"""Of its life: whoever renews certificates does it at half or two thirds, be it a year or an hour,
so that in the last tenth nobody does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateLife:
    """From when until when a certificate is good."""

    begins_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """What the checks ask."""

    pool: Pool
    """One that admits every database, with connections that nobody else waits for."""

    refused_write: Callable[[], str]
    """Returns why PostgreSQL lately refused a write; empty: it did not."""

    redis: RedisClient
    keyring: Keyring
    home: Home
    pleo: PleoWatch
    breaker: Callable[[], Breaker | None]
    """The fleet's, as last heard."""

    certificate: Callable[[], CertificateLife | None]
    """Returns how long the server's certificate lives; None: there is no TLS."""

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
        details = {"version": status.schema_version}
        if status.fitness is not SchemaFitness.FIT:
            return CheckResult(error=status.fitness.value, details=details)
        if not self._may_use_all:
            # A release with a new table, and nobody has granted it.
            self._may_use_all = not (await judge_privileges(self._subjects.pool)).missing
        error = "" if self._may_use_all else PRIVILEGES_MISSING
        return CheckResult(error=error, details=details)


class KeysetCheck:
    """Whether this replica can open what the others have sealed."""

    def __init__(self, subjects: Subjects) -> None:
        """Asks nothing yet."""
        self._subjects = subjects
        self._compared: Sequence[KeyDescription] | None = None

    async def probe(self) -> CheckResult:
        """Compares with the keys that rows are under: at the start, and when something changed.

        That is the keyset, or that somebody met a row under a key that is not in it.
        """
        keyring = self._subjects.keyring
        keyring.reload_if_changed()
        keys = keyring.describe()
        if keyring.has_lacked() or keys != self._compared:
            # Once with these keys: what is sealed later is sealed with a key that is known here,
            # unless one was promoted that was not rolled out to everybody before.
            self._compared = None
            in_use = await key_ids_in_use(self._subjects.pool)
            if not all(keyring.can_open(key_id) for key_id in in_use):
                return CheckResult(error=KeyUnavailable.reason, is_own_fault=True)
            self._compared = keys
        # The keys that were read last go on: worth a look, and no reason to stop serving.
        return CheckResult(
            error="KEYSET_UNREADABLE" if keyring.problem else "",
            details={"primary_key_id": keyring.newest().primary_key_id},
        )


def checks(subjects: Subjects) -> Sequence[Check]:
    """Returns all of them."""

    async def records() -> CheckResult:
        # Each is one tenant's; all others are served, here and everywhere.
        return CheckResult(error=RecordUnreadable.reason if subjects.keyring.unreadable else "")

    home, keyset = HomeCheck(subjects), KeysetCheck(subjects)
    return (
        *_database_checks(subjects),
        Check(name="home", probe=_named(home.probe), needed_for=_ALL),
        Check(name="keyset", probe=_named(keyset.probe), needed_for=_ALL),
        Check(name="records", probe=records),
        *_provider_checks(subjects),
        *_local_checks(subjects),
    )


def _database_checks(subjects: Subjects) -> Iterator[Check]:
    skew = CheckResult()

    async def postgres() -> CheckResult:
        nonlocal skew
        before = datetime.now(UTC)
        status = await probe_postgres(subjects.pool)
        skew = clock_result(status.clock, before=before, after=datetime.now(UTC))
        # A full disk answers reads: what was written meanwhile tells.
        return CheckResult(error=subjects.refused_write() if status.is_writable else "READ_ONLY")

    async def clock() -> CheckResult:
        return skew  # as it was when PostgreSQL last told its own

    schema = SchemaCheck(subjects)
    yield Check(name="postgres", probe=_named(postgres), needed_for=_ALL)
    yield Check(name="schema", probe=_named(schema.probe), needed_for=_ALL)
    yield Check(name="clock", probe=clock)


def _provider_checks(subjects: Subjects) -> Iterator[Check]:
    async def breaker() -> CheckResult:
        found = subjects.breaker()
        return CheckResult(error=f"BREAKER_OPEN_{found.cause.value}" if found else "")

    refreshing = frozenset({Need.REFRESH})
    yield Check(name="pleo", probe=subjects.pleo.probe, needed_for=refreshing)
    yield Check(name="breaker", probe=breaker, needed_for=refreshing)


def _local_checks(subjects: Subjects) -> Iterator[Check]:
    async def redis() -> CheckResult:
        return await redis_result(subjects.redis)

    async def certificate() -> CheckResult:
        life = subjects.certificate()
        return CheckResult() if life is None else certificate_result(life, now=datetime.now(UTC))

    yield Check(name="redis", probe=redis)
    if subjects.certificate() is not None:
        yield Check(name="certificate", probe=certificate)


def clock_result(theirs: datetime, *, before: datetime, after: datetime) -> CheckResult:
    """Judges our clock by PostgreSQL's, which was read between two looks at ours.

    Nothing is decided by ours, but certificates are judged and logs are read by it.
    """
    skew = (before + (after - before) / 2 - theirs).total_seconds()
    is_far = abs(skew) > CLOCK_SKEW.total_seconds() + (after - before).total_seconds() / 2
    return CheckResult(
        error="CLOCK_SKEWED" if is_far else "", details={"skew_seconds": round(skew, 3)}
    )


def certificate_result(life: CertificateLife, *, now: datetime) -> CheckResult:
    """Judges how long the server's certificate still lives.

    An expired one takes no readiness: connections that callers have go on, and tokens with them.
    """
    left, whole = life.ends_at - now, life.ends_at - life.begins_at
    error = ""
    if left <= timedelta(0):
        error = "CERTIFICATE_EXPIRED"
    elif left < whole / EXPIRES_SOON_SHARE:
        error = "CERTIFICATE_EXPIRES_SOON"
    details = {"expires": f"{life.ends_at:%Y-%m-%dT%H:%M:%SZ}"}
    return CheckResult(error=error, details=details)


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
