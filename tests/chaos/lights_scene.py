"""Where faults are watched: three brokers, one with TLS, behind proxies, and their callers."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import grpc

from broker.dev.embedded import EmbeddedServer
from broker.dev.rundir import RunDirectory
from broker.dev.servers import postgres_server, valkey_server
from broker.ops.lag import watch_lag
from broker.store.migrate import migrate
from chaos.lights_watch import Alerts, alerts
from support.certificates import A_DAY, Authority, dns
from support.fleet import Fleet, fleet
from support.onboarding import EXPIRE, Customer, execute, get, new_customer, take_over_living
from support.proxy import Proxy, postgres_proxy, proxy, redis_proxy
from support.replica import Replica

_CUSTOMERS: Final = 16
"""One of them gone is less than the tenth that is an alert."""

_PAUSE_SECONDS: Final = 0.15
"""Between two calls: six calls a second, each of them a refresh."""

_POLICY: Final = """
callers:
  - identity: dns:nobody
    rpcs: [TokenService/*]
    tenants: ["*"]
"""
"""Of the broker with TLS, whom nobody calls: its certificate is looked at."""

KEYSET: Final = "keyset.json"
"""The own copy of the second broker, in the folder."""

_FAKETIME: Final = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


@dataclass(slots=True, kw_only=True)
class Scene:
    """Where faults take place."""

    brokers: Fleet
    postgres: EmbeddedServer
    valkey: EmbeddedServer
    ways: dict[str, Proxy]
    folder: Path
    alerts: Alerts
    authority: Authority
    customers: list[Customer] = field(default_factory=list)
    gone: Customer | None = None
    disk: Path | None = None
    calling: asyncio.Event = field(default_factory=asyncio.Event)
    """Unset: callers keep still."""

    shift: int = 0
    """Every other customer is asked for at the same broker, the rest at the other; 1: crosswise."""

    lags: list[float] = field(default_factory=list)
    """How late this process's timers came: its proxies stand between the brokers and the rest."""

    settings: dict[str, str] = field(default_factory=dict)
    """Of a broker behind the proxies."""

    @property
    def callable(self) -> list[Replica]:
        """Those without TLS."""
        return self.brokers.replicas[:2]

    def certify(self, *, starts: timedelta, ends: timedelta) -> None:
        """Puts a certificate in place."""
        self.authority.issue(dns("localhost"), starts=starts, ends=ends).write(self.folder, "tls")

    @property
    def keyset(self) -> Path:
        """The keyset of all brokers but the second, which has its own copy."""
        return Path(self.brokers.settings()["BROKER_KEYSET_FILE"])

    def roll_out(self) -> None:
        """Gives the second broker the others' keyset, as a mounted secret is replaced."""
        newer = self.folder / "keyset.new"
        newer.write_text(self.keyset.read_text())
        newer.rename(self.folder / KEYSET)

    def date_keysets(self, *, ago: timedelta) -> None:
        """Has all keysets written so long ago."""
        at = time.time() - ago.total_seconds()
        for path in (self.keyset, self.folder / KEYSET):
            os.utime(path, (at, at))


async def ask_for_ever(scene: Scene) -> None:
    """Calls for one tenant after the other, each with a token that has just ended."""
    for number in itertools.count():
        await asyncio.sleep(_PAUSE_SECONDS)
        await scene.calling.wait()
        customer = scene.customers[number % len(scene.customers)]
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await execute(scene.brokers.database_url, EXPIRE, [customer.tenant])
        with suppress(grpc.aio.AioRpcError):
            replica = scene.callable[(number + scene.shift) % 2]
            await get(replica.tokens, customer.tenant, seconds=3)


@asynccontextmanager
async def scene_of(run: RunDirectory) -> AsyncIterator[Scene]:
    """Sets the scene: three brokers, all well, with callers."""
    async with AsyncExitStack() as exits:
        enter = exits.enter_async_context
        postgres = await enter(postgres_server(run, name="pg-lights", fsync=False))
        valkey = await enter(valkey_server(run, name="valkey-lights", tcp=True))
        await migrate(postgres.url)
        disk = await _small_disk(run, exits, postgres)
        brokers = await enter(fleet(postgres.url, valkey.url, run))
        server = brokers.sandbox.server
        server.settings = replace(server.settings, mode="grace")
        folder = run.path / f"lights-{secrets.token_hex(4)}"
        folder.mkdir()
        to_postgres, database_url = await enter(postgres_proxy(brokers.serving_url))
        to_valkey, redis_url = await enter(redis_proxy(brokers.redis_url))
        pleo = urlsplit(brokers.sandbox.url)
        to_pleo = await enter(proxy((str(pleo.hostname), int(pleo.port or 80))))
        through = f"http://127.0.0.1:{to_pleo.port}"
        settings = {
            "BROKER_DATABASE_URL": database_url,
            "BROKER_REDIS_URL": redis_url,
            "BROKER_PLEO_TIMEOUT_SECONDS": "2",
            "BROKER_PLEO_TOKEN_URL": brokers.sandbox.token_url.replace(
                brokers.sandbox.url, through
            ),
        }
        made = Scene(
            brokers=brokers,
            postgres=postgres,
            valkey=valkey,
            ways={"postgres": to_postgres, "valkey": to_valkey, "pleo": to_pleo},
            folder=folder,
            alerts=None,  # type: ignore[arg-type]
            authority=Authority(ends=365 * A_DAY),
            disk=disk,
        )
        (folder / "policy.yaml").write_text(_POLICY)
        (folder / "ca.crt").write_bytes(made.authority.cert)
        made.certify(starts=-A_DAY, ends=89 * A_DAY)
        made.settings |= settings
        made.roll_out()
        await brokers.start(1, **settings)
        await brokers.start(1, **settings, BROKER_KEYSET_FILE=str(folder / KEYSET))
        tls = {"BROKER_TLS_CERT_FILE": str(folder / "tls.crt"),
               "BROKER_TLS_KEY_FILE": str(folder / "tls.key"),
               "BROKER_TLS_CLIENT_CA_FILE": str(folder / "ca.crt"),
               "BROKER_POLICY_FILE": str(folder / "policy.yaml")}  # fmt: skip
        await brokers.start(1, **settings, **tls)
        made.customers += [new_customer(brokers.sandbox) for _ in range(_CUSTOMERS)]
        await take_over_living(brokers, brokers.replicas[0], made.customers)
        made.alerts = await enter(alerts(folder, brokers.replicas, run=run))
        made.calling.set()
        async with asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(ask_for_ever(made), name="callers"),
                tasks.create_task(watch_lag(made.lags.append), name="lag"),
            ]
            try:
                await made.alerts.has_seen(len(brokers.replicas))
                yield made
            finally:
                for each in beside:
                    each.cancel()


async def start_skewed(scene: Scene) -> None:
    """Starts one more broker, whose clock is half a minute ahead.

    One that runs cannot be moved: libfaketime then stops gRPC's timers, which no real clock does.
    """
    environ = {
        "LD_PRELOAD": str(faketime()),
        "FAKETIME": "+30s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    await scene.brokers.start(1, **scene.settings, **environ)
    scene.alerts.watch(scene.brokers.replicas)


async def end_skewed(scene: Scene) -> None:
    """Ends it."""
    replica = scene.brokers.replicas.pop()
    scene.alerts.watch(scene.brokers.replicas)
    await replica.hang_up()
    replica.kill()
    scene.brokers.run.ended(replica.pid)


def faketime() -> Path:
    """Returns where libfaketime is, or would be."""
    return Path(os.environ.get("LIBFAKETIME", _FAKETIME))


async def _small_disk(
    run: RunDirectory, exits: AsyncExitStack, postgres: EmbeddedServer
) -> Path | None:
    """Lets the tables lie on a disk of 16 MB, where somebody may mount one."""
    if os.getuid() != 0 or sys.platform != "linux":
        return None
    disk = run.path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if await asyncio.to_thread(_fails, mount):
        return None
    exits.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=False)
    space = disk / "space"
    space.mkdir(mode=0o700)
    owner = (run.path / "pg-lights").stat()
    disk.chmod(0o755)
    os.chown(space, owner.st_uid, owner.st_gid)
    await execute(postgres.url, f"CREATE TABLESPACE small LOCATION '{space}'")
    await execute(postgres.url, _MOVE)
    return disk


_MOVE: Final = """DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT oid::regclass FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    LOOP EXECUTE 'ALTER TABLE ' || name || ' SET TABLESPACE small'; END LOOP;
END $$"""


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode != 0
