"""Does `adopt`: makes the database of another installation this one's home.

Everything that can be seen of the other one must be off: its replicas give no signs of life, and
have left no pair in Redis, where nobody would look for it under the new name. What cannot be seen
is affirmed by the command's option.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Final

import typer

from broker.cli.configured import read_settings
from broker.cli.failing import CommandFailed, ExitStatus
from broker.cli.showing import say, show_json, show_table
from broker.cli.store_trouble import TROUBLE, in_words
from broker.config import LogLevel, SecretUnreadableError, ServeSettings
from broker.domain.errors import KeyUnavailable, RecordUnreadable
from broker.lease.address import RedisUrlRefused, prefix_of
from broker.lease.escrows import RedisEscrows
from broker.ops.logs import Log
from broker.store.adopting import ReplicaSeen, adopt_home, close_sessions, replicas_alive
from broker.store.escrow_sealing import EscrowSealer
from broker.store.fleet import ALIVE_FOR
from broker.store.home import Home, read_fingerprint_key, read_home
from broker.store.pool import Pool, open_pool
from broker.store.schema import SchemaFitness, read_schema
from broker.store.sealing import Keyring, KeysetUnreadableError
from broker.wiring import home, pool_settings, redis_client

_APPLICATION: Final = "token-broker adopt"


class _Stderr:
    """Upholds `broker.ops.logs.Sink`: a command has one line to log, and waits for its reader."""

    lost = 0

    def take_untold(self) -> int:
        return 0

    def write(self, line: str, *, telling: int = 0) -> None:  # noqa: ARG002 - as the port has it
        say(line)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Adopting:
    settings: ServeSettings
    keyring: Keyring
    pool: Pool


def adopt(environ: Mapping[str, str], *, is_old_off: bool, as_json: bool) -> None:
    """Shows from which home to which, and changes it.

    Raises:
        CommandFailed: nothing was changed.
    """
    if not is_old_off:
        raise CommandFailed(
            "adopt wants --the-old-one-is-off: it affirms that no broker of the other home runs,"
            " nor will run again; two on the same grants end them at Pleo",
            hint="token-broker doctor says whose home the database is",
            status=ExitStatus.WRONG_USE,
        )
    settings = read_settings(ServeSettings, environ)
    try:
        asyncio.run(_adopt(settings, as_json=as_json))
    except (KeyUnavailable, RecordUnreadable) as error:
        hint = "BROKER_KEYSET_FILE must hold the keyset of the other home"
        raise CommandFailed(f"the home's key does not open: {error.message}", hint=hint) from None
    except (RedisUrlRefused, KeysetUnreadableError, SecretUnreadableError) as error:
        raise CommandFailed(str(error), hint="token-broker doctor") from None
    except TROUBLE as error:
        raise CommandFailed(in_words(error), hint="try again, or see token-broker doctor") from None


async def _adopt(settings: ServeSettings, *, as_json: bool) -> None:
    keyring = Keyring.from_file(settings.keyset_file)
    address = replace(pool_settings(settings), application_name=_APPLICATION, size=1)
    async with open_pool(address) as pool:
        await _check_schema(pool)
        shown, ours = await read_home(pool), home(settings)
        if shown is not None and shown != ours:
            if not as_json:
                _show(shown, ours)
            await _change(_Adopting(settings=settings, keyring=keyring, pool=pool), shown, ours)
        elif shown is not None:
            # One that was cut short, or whose acknowledgement was lost, has left them open.
            await close_sessions(pool)
    _tell(shown, ours, as_json=as_json)


async def _check_schema(pool: Pool) -> None:
    version, fitness = await read_schema(pool)
    if fitness is not SchemaFitness.FIT:
        raise CommandFailed(
            f"the schema is version {version}: {fitness.value}",
            hint="token-broker migrate of this release, or a newer release",
        )


async def _change(adopting: _Adopting, shown: Home, ours: Home) -> None:
    settings, pool = adopting.settings, adopting.pool
    await read_fingerprint_key(pool, adopting.keyring)
    _refuse_alive(await replicas_alive(pool))
    if shown.name != ours.name:
        await _refuse_escrows(adopting, shown)
    if not await adopt_home(pool, shown=shown, ours=ours):
        raise CommandFailed("somebody else came first, or a replica came to life", hint="try again")
    closed = await close_sessions(pool)
    log = Log(_Stderr(), log_format=settings.log_format, level=settings.log_level)
    told = {"before": asdict(shown), "after": asdict(ours), "connections_closed": closed}
    log.event("home_adopted", level=LogLevel.WARNING, **told)


def _refuse_alive(alive: Sequence[ReplicaSeen]) -> None:
    if alive:
        each = (f"{one.name} (seen {one.since.total_seconds():.0f} s ago)" for one in alive)
        raise CommandFailed(
            f"replicas of the other home are alive: {', '.join(each)}",
            hint="end them in order, so that they store what they hold;"
            f" {ALIVE_FOR.total_seconds():.0f} s after its last sign a replica counts as gone",
        )


async def _refuse_escrows(adopting: _Adopting, shown: Home) -> None:
    """A pair that waits in Redis bears the name of its home: under another, nobody would store it.

    "Unreachable" is not "none".
    """
    url = adopting.settings.redis_url.read().reveal()
    prefix, sealer = prefix_of(url, shown.name), EscrowSealer(adopting.keyring)
    async with redis_client(adopting.settings) as client:
        count = await RedisEscrows(client, sealer, prefix=prefix).count()
    if count is None:
        raise CommandFailed(
            "Redis does not say whether pairs of tokens are left there under the other name",
            hint="BROKER_REDIS_URL; where the other home's Redis is lost, an empty one",
        )
    if count:
        raise CommandFailed(
            f"{count} pairs of tokens wait in Redis under the other name to be stored",
            hint="let a broker of the other home run until it has stored them, and end it",
        )


def _show(shown: Home, ours: Home) -> None:
    rows = [
        (each.name, getattr(shown, each.name), getattr(ours, each.name)) for each in fields(Home)
    ]
    show_table(("home", "from", "to"), rows)
    if (shown.token_url, shown.client_id) != (ours.token_url, ours.client_id):
        say(
            "warning: refresh tokens are good for the client and the server that they were issued"
            " to and by; Pleo refuses them to others"
        )


def _tell(shown: Home | None, ours: Home, *, as_json: bool) -> None:
    if as_json:
        is_changed = shown not in {None, ours}
        before = None if shown is None else asdict(shown)
        show_json({"adopted": is_changed, "from": before, "to": asdict(ours)})
    elif shown is None:
        typer.echo("Nothing to do: it is nobody's yet, and the first `serve` makes it ours.")
    elif shown == ours:
        typer.echo("Nothing to do: it is ours already.")
    else:
        typer.echo("Adopted. Brokers of the other home are refused from now on.")
