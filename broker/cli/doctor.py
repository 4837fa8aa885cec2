"""Does `doctor`: looks at an installation as `serve` would, and says what to mend.

Changes nothing anywhere. Says how things are called and where they lie, never a secret (law 7).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

import typer

from broker.cli.caller_checks import CALLER_CHECKS, check_callers
from broker.cli.checks import Check, Outcome, bad, ok, skipped, warning
from broker.cli.database_checks import DATABASE_CHECKS, check_database
from broker.cli.failing import ExitStatus
from broker.cli.pleo_checks import PLEO_CHECKS, check_pleo
from broker.cli.showing import show_json, show_table
from broker.config import SecretUnreadableError, ServeSettings, SettingsError, unknown_names
from broker.domain.errors import BrokerError
from broker.lease.address import RedisUrlRefused
from broker.lease.status import RedisStatus, probe
from broker.store.sealing import Keyring, KeysetUnreadableError
from broker.wiring import redis_client


def examine(environ: Mapping[str, str], *, as_json: bool) -> None:
    """Prints all checks; exit status 1 if one is bad.

    Raises:
        Exit: something is bad.
    """
    checks = asyncio.run(_all_checks(environ))
    is_well = all(check.outcome is not Outcome.BAD for check in checks)
    if as_json:
        show_json({"ok": is_well, "checks": [_document(check) for check in checks]})
    else:
        rows = [(each.name, each.outcome.value, each.found, each.mend) for each in checks]
        show_table(("check", "outcome", "found", "what to mend"), rows)
    if not is_well:
        raise typer.Exit(ExitStatus.FAILED)


async def _all_checks(environ: Mapping[str, str]) -> list[Check]:
    unknown = [
        bad("settings", str(each), mend="correct the name, or unset it")
        for each in unknown_names(environ)
    ]
    try:
        settings = ServeSettings.from_environ(environ)
    except SettingsError as error:
        wrong = [bad("settings", str(each), mend="see SETTINGS.md") for each in error.problems]
        others = (
            "keyset",
            "client secret",
            *CALLER_CHECKS,
            *DATABASE_CHECKS,
            "redis",
            *PLEO_CHECKS,
        )
        return [*unknown, *wrong, *skipped(*others, because="the settings do not do")]
    keyset, keyring = _check_keyset(settings)
    return [
        *unknown,
        *_check_settings(settings),
        keyset,
        _check_client_secret(settings),
        *await check_callers(settings),
        *await check_database(settings, keyring),
        await _check_redis(settings),
        *await check_pleo(settings),
    ]


def _check_settings(settings: ServeSettings) -> Iterator[Check]:
    warnings = settings.warnings()
    for each in warnings:
        yield warning("settings", each)
    if not warnings:
        yield ok("settings", f"home {settings.home}, Pleo {settings.pleo_environment.value}")


def _check_keyset(settings: ServeSettings) -> tuple[Check, Keyring | None]:
    try:
        keyring = Keyring.from_file(settings.keyset_file)
        keyring.try_out()
    except KeysetUnreadableError as error:
        mend = "BROKER_KEYSET_FILE: token-broker keys generate --out FILE, for a new installation"
        return bad("keyset", str(error), mend=mend), None
    except BrokerError as error:
        return bad("keyset", error.message, mend="its primary key must be enabled"), None
    return ok("keyset", f"{len(keyring.describe())} keys"), keyring


def _check_client_secret(settings: ServeSettings) -> Check:
    try:
        settings.pleo_client_secret.read()
    except SecretUnreadableError as error:
        return bad("client secret", str(error), mend="mount the file, or correct its path")
    return ok("client secret", "is readable; whether Pleo takes it, the first request tells")


async def _check_redis(settings: ServeSettings) -> Check:
    try:
        async with redis_client(settings) as client:
            status = await probe(client)
    except (RedisUrlRefused, SecretUnreadableError) as error:
        return bad("redis", str(error), mend="BROKER_REDIS_URL")
    return _judge_redis(status)


def _judge_redis(status: RedisStatus) -> Check:
    if not status.is_reachable:
        mend = (
            "BROKER_REDIS_URL, BROKER_REDIS_CA_FILE, user, password, network;"
            " the broker works without, more slowly"
        )
        return bad("redis", f"cannot be reached ({status.why})", mend=mend)
    if status.is_refusing:
        mend = "BROKER_REDIS_URL, the number of its database; a Redis Cluster has 0 alone"
        return bad("redis", f"refuses the connection ({status.why})", mend=mend)
    if status.is_cluster:
        mend = "BROKER_REDIS_URL: write redis+cluster:// (redis+clusters:// with TLS)"
        return bad("redis", "is a node of a Redis Cluster, which the address hides", mend=mend)
    match status.maxmemory_policy:
        case "noeviction":
            return ok("redis", "maxmemory-policy noeviction")
        case None:
            return warning(
                "redis", "does not tell its maxmemory-policy", mend="make sure it is noeviction"
            )
        case policy:
            return bad(
                "redis",
                f"maxmemory-policy {policy}: may drop a pair of tokens that is kept there while"
                " PostgreSQL is away",
                mend="set it to noeviction",
            )


def _document(check: Check) -> dict[str, str]:
    return {
        "check": check.name,
        "outcome": check.outcome.value,
        "found": check.found,
        "mend": check.mend,
    }
