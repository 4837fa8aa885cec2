"""What `doctor` asks of PostgreSQL: reachable, schema, writable, clock, role, home, keys in use."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from broker.cli.checks import Check, bad, ok, skipped, warning
from broker.cli.store_trouble import TROUBLE, in_words
from broker.config import ServeSettings
from broker.store.clock import ClockReading
from broker.store.health import StoreStatus, key_ids_in_use, probe
from broker.store.home import MEND, Home, HomeDiffersError, read_home
from broker.store.pool import Pool, open_pool
from broker.store.privileges import Privileges, judge_privileges
from broker.store.schema import SchemaFitness
from broker.store.sealing import Keyring
from broker.wiring import home, pool_settings

DATABASE_CHECKS: Final = ("database", "schema", "writable", "clock", "role", "home", "keys in use")


async def check_database(settings: ServeSettings, keyring: Keyring | None) -> list[Check]:
    """Looks at all of it. `keyring` None: it cannot be read, which is another check's matter."""
    try:
        async with open_pool(pool_settings(settings)) as pool:
            status = await probe(pool)
            checks = [ok("database", "reachable"), *_judge(status)]
            if status.fitness is SchemaFitness.TOO_OLD:
                return [*checks, *skipped(*DATABASE_CHECKS[4:], because="the schema is too old")]
            return [*checks, *await _look_inside(pool, settings, keyring)]
    except TROUBLE as error:
        mend = "BROKER_DATABASE_URL, role, password, certificate, network"
        rest = skipped(*DATABASE_CHECKS[1:], because="the database is bad")
        return [bad("database", in_words(error), mend=mend), *rest]


def _judge(status: StoreStatus) -> Iterator[Check]:
    version = f"version {status.schema_version}"
    match status.fitness:
        case SchemaFitness.FIT:
            yield ok("schema", version)
        case SchemaFitness.TOO_OLD:
            yield bad("schema", f"{version} is too old", mend="token-broker migrate")
        case SchemaFitness.TOO_NEW:
            yield bad("schema", f"{version} is too new", mend="run a newer release")
    if status.is_writable:
        yield ok("writable")
    else:
        mend = "BROKER_DATABASE_URL must lead to the primary"
        yield bad("writable", "read only, or a standby", mend=mend)
    yield judge_clock(status.clock)


def judge_clock(reading: ClockReading) -> Check:
    """Nothing is decided by our own clock, but logs are read by it."""
    if not reading.is_skewed:
        return ok("clock")
    found = f"{abs(reading.skew).total_seconds():.0f} s from PostgreSQL's"
    return warning("clock", found, mend="synchronise the clocks (NTP)")


async def _look_inside(pool: Pool, settings: ServeSettings, keyring: Keyring | None) -> list[Check]:
    role = _judge_role(await judge_privileges(pool))
    checks = [role, _judge_home(await read_home(pool), ours=home(settings))]
    if keyring is None:
        return [*checks, *skipped("keys in use", because="the keyset is bad")]
    return [*checks, _judge_keys(await key_ids_in_use(pool), keyring)]


def _judge_role(privileges: Privileges) -> Check:
    mend = "token-broker migrate --service-role NAME, and that role in BROKER_DATABASE_URL"
    if privileges.missing:
        return bad("role", f"{privileges.role} lacks {'; '.join(privileges.missing)}", mend=mend)
    if privileges.excess:
        found = f"{privileges.role} has more than it needs: {'; '.join(privileges.excess)}"
        return warning("role", found, mend=mend)
    return ok("role", privileges.role)


def _judge_home(stored: Home | None, *, ours: Home) -> Check:
    if stored is None:
        return ok("home", f"nobody's yet; the first `serve` makes it {ours.name}'s")
    if stored != ours:
        return bad("home", str(HomeDiffersError(stored=stored, ours=ours)), mend=MEND)
    return ok("home", ours.name)


def _judge_keys(in_use: Collection[int], keyring: Keyring) -> Check:
    missing = sorted(key_id for key_id in in_use if not keyring.can_open(key_id))
    if missing:
        found = f"the keyset lacks {', '.join(map(str, missing))}"
        return bad("keys in use", found, mend="roll the newest keyset out (BROKER_KEYSET_FILE)")
    return ok("keys in use", f"{len(in_use)}, all in the keyset")
