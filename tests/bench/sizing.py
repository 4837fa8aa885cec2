"""What one replica takes, for requests and limits: `python -m bench.sizing`.

A real `serve` on real stores: its memory when it has started and with many tokens in memory, its
processor's time for a token from memory, and its connections. Absolute figures of this machine, and
no ratios: what a replica is given is absolute too. Linux only, for it reads /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import asyncpg
from redis.asyncio import Redis
from rich.console import Console

from bench.filling import fill, tenant_number
from broker.dev.rundir import RunDirectory, run_directory
from broker.dev.servers import postgres_server, valkey_server
from broker.store.migrate import migrate
from broker.store.sealing import Keyring
from broker.v1.token_service_pb2 import BatchGetAccessTokensRequest
from support.fleet import Fleet, fleet
from support.onboarding import get
from support.replica import Replica

_BATCH: Final = 100
"""As many as a call may ask for."""

_CALLERS: Final = 8
"""At once: more than there are connections in the pool would only wait."""

_CALL_SECONDS: Final = 60.0

_KIBIBYTE: Final = 1024

_SESSIONS: Final = """
    SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND datname = $1
"""


def _resident(replica: Replica) -> float:
    """Returns the memory of a process, in MB."""
    status = Path(f"/proc/{replica.pid}/status").read_text()
    (line,) = [each for each in status.splitlines() if each.startswith("VmRSS:")]
    return int(line.split()[1]) * _KIBIBYTE / 1e6


def _processor(replica: Replica) -> float:
    """Returns the seconds of a processor that a process has taken."""
    fields = Path(f"/proc/{replica.pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


async def _each(numbers: range, ask: Callable[[int], Awaitable[object]]) -> None:
    """Asks for each number, as several callers do."""
    left = iter(numbers)

    async def one() -> None:
        for number in left:
            await ask(number)

    async with asyncio.TaskGroup() as callers:
        for _ in range(_CALLERS):
            callers.create_task(one(), name="caller")


async def _connections(brokers: Fleet) -> tuple[int, int]:
    """Returns how many there are to PostgreSQL and to Valkey, our own aside."""
    connection = await asyncpg.connect(brokers.database_url)
    redis = Redis.from_url(brokers.redis_url)
    try:
        sessions = await connection.fetchval(_SESSIONS, "postgres")
        return int(sessions), len(await redis.client_list()) - 1
    finally:
        await connection.close()
        await redis.aclose()


async def _measure(brokers: Fleet, replica: Replica, *, tokens: int, calls: int) -> None:
    console = Console(highlight=False)
    idle = _resident(replica)
    console.print(f"memory, started: {idle:.0f} MB; connections {await _connections(brokers)}")

    async def batch(number: int) -> None:
        tenants = [tenant_number(number * _BATCH + each) for each in range(_BATCH)]
        request = BatchGetAccessTokensRequest(tenants=tenants)
        await replica.tokens.BatchGetAccessTokens(request, timeout=_CALL_SECONDS)

    before = _processor(replica)
    await _each(range(tokens // _BATCH), batch)
    full, read = _resident(replica), (_processor(replica) - before) / tokens
    console.print(f"memory, {tokens} tokens in memory: {full:.0f} MB; connections "
                  f"{await _connections(brokers)}; to read one: {read * 1e3:.2f} ms")  # fmt: skip
    before = _processor(replica)
    await _each(range(calls), lambda number: get(replica.tokens, tenant_number(number % tokens)))
    taken = (_processor(replica) - before) / calls
    console.print(f"processor, a token from memory: {taken * 1e3:.2f} ms; "
                  f"memory {_resident(replica):.0f} MB")  # fmt: skip


async def _run(run: RunDirectory, *, tokens: int, calls: int) -> None:
    async with (
        postgres_server(run, fsync=False) as postgres,
        valkey_server(run, tcp=True) as valkey,
    ):
        await migrate(postgres.url)
        async with fleet(postgres.url, valkey.url, run) as brokers:
            brokers.is_inspected = True  # a cluster of this size is not looked through (law 7)
            keyring = Keyring.from_file(brokers.directory / "keyset.json")
            await fill(postgres.url, keyring, count=tokens, told=lambda _: None)
            settings = {"BROKER_LOG_LEVEL": "info", "BROKER_CALLER_MAX_RATE": "100000"}
            brokers.launch(**settings)
            replica = await brokers.started(**settings)  # the second: without traces
            brokers.replicas[0].kill()
            await _measure(brokers, replica, tokens=tokens, calls=calls)


def main() -> int:
    """Measures, and says what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=50_000, help="in memory at the end")
    parser.add_argument("--calls", type=int, default=20_000, help="for tokens from memory")
    given = parser.parse_args()
    with run_directory() as run:
        asyncio.run(_run(run, tokens=given.tokens, calls=given.calls))
    return 0


if __name__ == "__main__":
    sys.exit(main())
