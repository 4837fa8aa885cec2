"""What a rotation costs this process, against the least that any would: a POST and two commits.

A whole broker on real servers rotates grants one after the other, as planned work does; PostgreSQL,
Valkey and Pleo's sandbox are other processes. The baseline is httpx's client, which posts the same
form, and asyncpg, which changes a row twice. Processor time of all of this process's threads: what
the broker does every few seconds is in it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import asyncpg
import httpx

from bench.customers import Held, put
from bench.figures import Figure, Step
from bench.pleo_beside import pleo_beside
from bench.taking import take_pairs
from broker.app import Running
from broker.config import LogFormat, LogLevel, ServeSettings
from broker.dev.rundir import RunDirectory, run_directory
from broker.dev.servers import postgres_server, valkey_server
from broker.ops.logs import open_log
from broker.sandbox.sandbox import Sandbox
from broker.sandbox.settings import DEMO_CLIENT
from broker.serving import broker
from broker.store.migrate import migrate
from broker.store.sealing import generate_keyset
from support.onboarding import new_tenant
from support.sandbox_client import ACME, BASIC, SandboxClient, client_of
from support.waiting import until

_GRANTS: Final = 10
"""Rotated in turn."""

# Nobody has asked for them: planned work leaves them to this measurement.
_MAKE_DUE: Final = """
    UPDATE grants SET renew_at = clock_timestamp() - interval '1 second', version = version + 1
"""

_TABLE: Final = "CREATE TABLE bare (number integer PRIMARY KEY, value text)"

_CHANGE: Final = "UPDATE bare SET value = $1 WHERE number = 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Broker:
    running: Running
    owner: asyncpg.Connection
    tenants: Sequence[str]
    rounds: int

    async def seconds(self) -> float:
        """Returns what a rotation costs, on average."""
        spent = 0.0
        for _ in range(self.rounds):
            await self.owner.execute(_MAKE_DUE)
            began = time.process_time()
            for tenant in self.tenants:
                await self.running.service.broker.obtain.renew(tenant)
            spent += time.process_time() - began
        return spent / self.rounds / len(self.tenants)


@dataclass(slots=True, kw_only=True)
class _Bare:
    http: httpx.AsyncClient
    connection: asyncpg.Connection
    token_url: str
    refresh_token: str
    rotations: int

    async def seconds(self) -> float:
        """Returns what a POST and two commits cost, on average."""
        began = time.process_time()
        for _ in range(self.rotations):
            await self.connection.execute(_CHANGE, "before")
            form = {"grant_type": "refresh_token", "refresh_token": self.refresh_token}
            answer = await self.http.post(self.token_url, data=form, auth=BASIC)
            self.refresh_token = answer.raise_for_status().json()["refresh_token"]
            await self.connection.execute(_CHANGE, "after")
        return (time.process_time() - began) / self.rotations


async def rotations_against_bare_calls(pairs: int, step: Step, *, rounds: int) -> Figure:
    """Measures `rounds` of some rotations in each half of a pair."""
    async with AsyncExitStack() as entered:
        run = entered.enter_context(run_directory())
        postgres = await entered.enter_async_context(postgres_server(run))
        await migrate(postgres.url)
        pleo = await entered.enter_async_context(pleo_beside(run))
        client = await entered.enter_async_context(client_of(pleo))
        owner = await asyncpg.connect(postgres.url)
        entered.push_async_callback(owner.close)
        bare = await _bare(client, postgres.url, entered, rotations=rounds * _GRANTS)
        keyset = run.path / "keyset.json"
        keyset.write_text(generate_keyset())
        held = [await _held(client) for _ in range(_GRANTS)]
        await put(postgres.url, keyset, held)
        running = await entered.enter_async_context(_serving(run, postgres.url, pleo))
        ours = _Broker(
            running=running, owner=owner, tenants=[each.tenant for each in held], rounds=rounds
        )
        found = await take_pairs(pairs, step, value=ours.seconds, baseline=bare.seconds)
    return Figure(
        name="a rotation, processor time",
        baseline="a bare httpx POST and two bare asyncpg commits",
        unit="processor seconds",
        aim=1.5,
        is_floor=False,
        pairs=found,
    )


async def _held(client: SandboxClient) -> Held:
    tokens = await client.connected(ACME)
    return Held(
        tenant=new_tenant(),
        access_token=tokens["access_token"],
        refresh_token=tokens["refresh_token"],
    )


async def _bare(
    client: SandboxClient, url: str, entered: AsyncExitStack, *, rotations: int
) -> _Bare:
    connection = await asyncpg.connect(url)
    entered.push_async_callback(connection.close)
    await connection.execute(_TABLE)
    await connection.execute("INSERT INTO bare VALUES (1, '')")
    return _Bare(
        http=await entered.enter_async_context(httpx.AsyncClient()),
        connection=connection,
        token_url=client.sandbox.token_url,
        refresh_token=(await _held(client)).refresh_token,
        rotations=rotations,
    )


@asynccontextmanager
async def _serving(run: RunDirectory, database_url: str, pleo: Sandbox) -> AsyncIterator[Running]:
    async with valkey_server(run) as valkey:
        settings = ServeSettings.from_environ(
            {
                "BROKER_DATABASE_URL": database_url,
                "BROKER_REDIS_URL": valkey.url,
                "BROKER_KEYSET_FILE": str(run.path / "keyset.json"),
                "BROKER_GRPC_ADDRESS": "127.0.0.1:0",
                "BROKER_OPS_ADDRESS": "127.0.0.1:0",
                "BROKER_PLEO_ENVIRONMENT": "custom",
                "BROKER_PLEO_AUTHORIZE_URL": pleo.authorize_url,
                "BROKER_PLEO_TOKEN_URL": pleo.token_url,
                "BROKER_PLEO_API_URL": pleo.url,
                "BROKER_PLEO_CLIENT_ID": DEMO_CLIENT.client_id,
                "BROKER_PLEO_CLIENT_SECRET": DEMO_CLIENT.client_secret,
                "BROKER_PLEO_REDIRECT_URIS": DEMO_CLIENT.redirect_uris[0],
            }
        )
        # No stream: as loud as in production, and nobody reads it.
        with open_log(None, log_format=LogFormat.JSON, level=LogLevel.INFO) as log:
            async with broker(settings, log) as running:
                await until(lambda: running.health.is_ready)
                yield running
