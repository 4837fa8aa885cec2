"""Brokers as they run in production: processes of `serve`, on real stores, with a Pleo sandbox.

    async with fleet(database_url, redis_url, run) as brokers:
        first, second = await brokers.start(2)
        await first.tokens.GetAccessToken(…)

The sandbox lives in the test's process, so that its record is at hand. Brokers are known by their
own process ids, end with the block, and keep all that they said, for `tell` to show where a test
fails. Before they end, all that they left anywhere is looked through for secrets (law 7). Knows no
OAuth and no story: that is `support.onboarding`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final

import httpx

from broker.dev.databases import fresh_database
from broker.dev.rundir import RunDirectory
from broker.sandbox.sandbox import Sandbox
from broker.sandbox.server import sandbox_server
from broker.sandbox.settings import DEMO_CLIENT
from broker.store.sealing import generate_keyset
from support.collector import Collector, collector
from support.law_seven import LEDGER, Part
from support.logical import clean_logical_database, on_logical_database
from support.media import LOGS, PAGES, TRACES, of_cluster, of_database, of_processes, of_valkey
from support.replica import BrokerFailedError, Replica
from support.service_role import as_service_where_prepared
from support.source import ROOT

PATIENCE_SECONDS: Final = 20.0
"""For whatever another process does: far longer than it takes on a busy machine."""

_POLL_SECONDS: Final = 0.02

_PAGES: Final = ("/metrics", "/readyz?verbose", "/statusz")

# Given in files: whoever may list the processes sees the environment of each.
_SECRETS: Final = ("BROKER_PLEO_CLIENT_SECRET",)

_BROKER: Final = (sys.executable, "-m", "broker")

NO_TLS: Final = ssl.create_default_context()
"""Made once: httpx would read all certificates of the world for every client, though none is
used."""


@dataclass(slots=True, kw_only=True)
class Fleet:
    """Brokers on the same stores."""

    run: RunDirectory
    directory: Path
    sandbox: Sandbox
    database_url: str
    """Of the owner, who may look at everything and change it."""

    serving_url: str
    """Of the role that brokers serve as."""

    redis_url: str
    http: httpx.AsyncClient
    traces: Collector
    """What every other broker sends its traces to, the first one to begin with."""

    code: Path = ROOT
    """Where the code is that the next broker runs."""

    home: str = field(default_factory=lambda: f"test-{secrets.token_hex(4)}")
    replicas: list[Replica] = field(default_factory=list)
    began_at: float = field(default_factory=time.time)
    is_inspected: bool = False

    async def start(self, count: int = 1, **changes: str) -> list[Replica]:
        """Starts brokers, and waits until each is ready; `changes` are settings."""
        started = [self.launch(**changes) for _ in range(count)]
        for replica in started:
            await replica.saw("broker_started")
            await self.until_ready(replica)
        return started

    async def started(self, **changes: str) -> Replica:
        """Starts one."""
        (replica,) = await self.start(1, **changes)
        return replica

    def launch(self, **changes: str) -> Replica:
        """Starts a broker, and waits for nothing."""
        name = f"broker-{len(self.replicas) + 1}"
        log = self.directory / f"{name}-{secrets.token_hex(4)}.log"
        with log.open("wb") as stderr:
            popen = subprocess.Popen(
                [*_BROKER, "serve"],
                cwd=self.code,
                env=self._with_secrets_in_files({**self.settings(), **self._tracing(), **changes}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                # Ctrl-C is for pytest, which ends them in order.
                start_new_session=True,
            )
        self.run.started(popen.pid)
        replica = Replica(name, popen, log)
        self.replicas.append(replica)
        return replica

    def _tracing(self) -> dict[str, str]:
        # The others are as most installations are: without.
        is_traced = len(self.replicas) % 2 == 0
        return {"BROKER_OTLP_ENDPOINT": self.traces.url} if is_traced else {}

    def _with_secrets_in_files(self, settings: dict[str, str]) -> dict[str, str]:
        given = dict(settings)
        for name in _SECRETS:
            path = self.directory / f"given-{secrets.token_hex(4)}"
            path.write_text(given.pop(name))
            given[f"{name}_FILE"] = str(path)
        return given

    def settings(self) -> dict[str, str]:
        """Returns the settings of a broker of this fleet, as variables, and nothing of our own."""
        return {
            "PATH": os.defpath,
            "BROKER_HOME": self.home,
            "BROKER_DATABASE_URL": self.serving_url,
            "BROKER_REDIS_URL": self.redis_url,
            "BROKER_KEYSET_FILE": str(self.directory / "keyset.json"),
            "BROKER_GRPC_ADDRESS": "127.0.0.1:0",
            "BROKER_OPS_ADDRESS": "127.0.0.1:0",
            "BROKER_LOG_LEVEL": "debug",
            "BROKER_PLEO_ENVIRONMENT": "custom",
            "BROKER_PLEO_AUTHORIZE_URL": self.sandbox.authorize_url,
            "BROKER_PLEO_TOKEN_URL": self.sandbox.token_url,
            "BROKER_PLEO_API_URL": self.sandbox.url,
            "BROKER_PLEO_CLIENT_ID": DEMO_CLIENT.client_id,
            "BROKER_PLEO_CLIENT_SECRET": DEMO_CLIENT.client_secret,
            "BROKER_PLEO_REDIRECT_URIS": " ".join(DEMO_CLIENT.redirect_uris),
            "BROKER_PLEO_SCOPES": "export-items:read",
        }

    async def asked(self, replica: Replica, path: str) -> httpx.Response:
        """Asks a broker's operations address."""
        return await self.http.get(f"{replica.ops_url}{path}")

    async def until_ready(self, replica: Replica, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Waits until a broker says that it is ready.

        Raises:
            BrokerFailedError: it ended, or did not become ready.
        """

        async def is_ready() -> bool:
            if replica.status is not None:
                raise BrokerFailedError(f"{replica!r} is never ready; it said:\n{replica.said}")
            return (await self.asked(replica, "/readyz")).status_code == httpx.codes.OK

        try:
            await until_true(is_ready, seconds=seconds)
        except TimeoutError:
            checks = (await self.asked(replica, "/readyz?verbose")).text
            what = f"{replica!r} is not ready yet: {checks}; it said:\n{replica.said}"
            raise BrokerFailedError(what) from None

    async def end(self) -> None:
        """Ends them in order; who does not end in time is killed, and that is a failure.

        Raises:
            BrokerFailedError: one was still there, or ended otherwise than it should.
        """
        sent = len(self.traces.requests)
        if not self.is_inspected:
            LEDGER.scan(await self.media())
            self.is_inspected = True
        for replica in self.replicas:
            await replica.hang_up()
        running = [replica for replica in self.replicas if replica.status is None]
        for replica in running:
            replica.terminate()
        statuses = [await self._ended(replica) for replica in running]
        # The last traces are sent at the end.
        LEDGER.scan((TRACES, each) for each in self.traces.requests[sent:])
        if any(statuses):
            raise BrokerFailedError(f"not ended in order: {running}")

    async def _ended(self, replica: Replica) -> int:
        try:
            return await replica.ended()
        except TimeoutError:
            what = f"{replica!r} does not end; it said last:\n{replica.said[-4000:]}"
            raise BrokerFailedError(what) from None

    async def media(self) -> Iterable[Part]:
        """Returns all that was left anywhere, as `support.media` has it."""
        running = [each for each in self.replicas if each.status is None]
        pages = [
            (PAGES, (await self.asked(replica, path)).content)
            for replica in running
            if replica.seen("broker_started")
            for path in _PAGES
        ]
        return chain(
            await of_database(self.database_url),
            await of_cluster(self.database_url, since=self.began_at),
            await of_valkey(self.redis_url, self.run.path),
            ((LOGS, replica.log.read_bytes()) for replica in self.replicas),
            ((TRACES, each) for each in self.traces.requests),
            of_processes(replica.pid for replica in running),
            pages,
        )

    def bury(self) -> None:
        """Sees to it that none is left."""
        for replica in self.replicas:
            replica.kill()
            self.run.ended(replica.pid)

    def tell(self) -> None:
        """Shows what was said since the last time, where a test fails."""
        for replica in self.replicas:
            replica.tell()


async def until_true(
    holds: Callable[[], Awaitable[bool]], *, seconds: float = PATIENCE_SECONDS
) -> None:
    """Waits until a condition holds that takes a question to find out.

    Raises:
        TimeoutError: it does not.
    """
    deadline = time.monotonic() + seconds
    while not await holds():
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def fleet(database_url: str, redis_url: str, run: RunDirectory) -> AsyncIterator[Fleet]:
    """Gives a fleet without brokers yet, and ends those that the block starts."""
    directory = run.path / f"fleet-{secrets.token_hex(4)}"
    directory.mkdir()
    (directory / "keyset.json").write_text(generate_keyset())
    with collector() as traces:
        async with (
            sandbox_server() as sandbox,
            httpx.AsyncClient(verify=NO_TLS, timeout=PATIENCE_SECONDS) as http,
        ):
            brokers = Fleet(
                run=run,
                directory=directory,
                sandbox=sandbox,
                database_url=database_url,
                serving_url=await as_service_where_prepared(database_url),
                redis_url=redis_url,
                http=http,
                traces=traces,
            )
            try:
                yield brokers
                sandbox.release()
                await brokers.end()
            finally:
                brokers.bury()


@asynccontextmanager
async def fleet_of_a_module(
    database_server: str, template: str, redis_server: str, *, run: RunDirectory
) -> AsyncIterator[Fleet]:
    """Gives a fleet with a database and a logical database of its own, for several tests.

    Module fixtures have no use of those of `tests/conftest.py`, which are made for each test. The
    number is the one that `redis_url` has there: what a module holds is gone before the next test
    that is made such a fixture.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    url = on_logical_database(redis_server, 1 + int(worker) % 15)
    async with (
        fresh_database(database_server, template=template) as database_url,
        clean_logical_database(url),
        fleet(database_url, url, run) as brokers,
    ):
        yield brokers
