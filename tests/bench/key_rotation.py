"""Measures a rotation of the encryption key under load: `python -m bench.key_rotation`.

Two brokers on real servers hold many grants and are asked for tokens all the while; some grants are
rotated at Pleo's sandbox again and again. The keyset goes through add, promote, rewrap and remove,
rolled out to one broker after the other. The exit status is 1 where a call failed, a dead refresh
token was shown, or a row still needs the older key.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import shutil
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import quantiles
from typing import TYPE_CHECKING, Final

import asyncpg
import grpc
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.filling import fill, tenant_number
from broker.dev.rundir import RunDirectory, run_directory
from broker.dev.servers import postgres_server, valkey_server
from broker.store.keysets import read_keyset_file
from broker.store.migrate import migrate
from broker.store.sealing import Keyring
from broker.v1.operations_service_pb2 import GetFleetStatusRequest, RewrapKeysRequest
from broker.v1.operations_service_pb2_grpc import OperationsServiceStub
from support.fleet import Fleet, fleet, until_true
from support.keysets import add_key, promote_key, remove_key
from support.onboarding import Customer, all_of, connect, execute, get, new_customer

if TYPE_CHECKING:
    from broker.v1.operations_service_pb2_grpc import OperationsServiceAsyncStub

ROTATING: Final = 20
"""Grants that are rotated meanwhile, a quarter of them each second."""

CALL_SECONDS: Final = 30.0
"""A caller's deadline: what the broker gives one who names none."""

BEFORE_SECONDS: Final = 10.0
"""Of the same load without a rotation, to tell what is the machine's doing from what is ours."""

_EXPIRE: Final = """
    UPDATE grants SET expires_at = clock_timestamp() - interval '1 second',
    renew_at = clock_timestamp() - interval '1 second',
    version = version + 1, changed_xid = pg_current_xact_id()
    WHERE tenant = ANY($1::text[]) AND attempt_number IS NULL
"""

_STATUS: Final = GetFleetStatusRequest()

_LEFT: Final = "SELECT count(*) FROM grants WHERE key_id = $1"

Told = Callable[[str, int, int], None]
"""What is done, how much of it, and of how much."""


@dataclass(slots=True, kw_only=True)
class Load:
    """Callers who ask at a fixed rate, and what became of it."""

    seconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def restart(self) -> str:
        """Forgets what was until now; returns it in words."""
        cuts = quantiles(self.seconds, n=100)
        words = f"{len(self.seconds)} calls, {self.failures.total()} failed, p50 "
        words += f"{1000 * cuts[49]:.1f} ms, p99 {1000 * cuts[98]:.1f} ms"
        self.seconds.clear()
        self.failures.clear()
        return words


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured."""

    grants: int
    steps: dict[str, float]
    """Seconds of each step, rolling out included."""

    rewrapped: int
    calls: int
    failures: dict[str, int]
    before: str
    """The same of the time before the rotation, in words."""

    p50_milliseconds: float
    p99_milliseconds: float
    rotations: int
    superseded: int
    """Presentations of a refresh token that was rotated already."""

    left: int
    """Rows under the older key."""

    keys: int
    """In the last keyset."""

    @property
    def is_good(self) -> bool:
        """Whether the rotation cost nobody anything, and was one."""
        bad = (self.failures, self.superseded, self.left)
        return not any(bad) and self.keys == 1 and self.rotations > 0


async def measure(brokers: Fleet, *, grants: int, rate: float, told: Told) -> Figures:
    """Fills the database, and rotates the key of two brokers of this fleet."""
    source = brokers.directory / "keyset.json"
    files = [brokers.directory / f"{name}.json" for name in ("first", "second")]
    for file in files:
        shutil.copy(source, file)
        await brokers.start(BROKER_KEYSET_FILE=str(file), BROKER_LOG_LEVEL="info")
    customers = [new_customer(brokers.sandbox) for _ in range(ROTATING)]
    await all_of(connect(brokers, brokers.replicas[0], each) for each in customers)
    keyring = Keyring.from_file(source)
    await fill(
        brokers.database_url, keyring, count=grants, told=lambda done: told("fill", done, grants)
    )
    tenants = [tenant_number(number) for number in range(grants)]
    async with _load(brokers, tenants, customers, rate=rate) as load:
        older = read_keyset_file(source).primary_key_id
        await asyncio.sleep(BEFORE_SECONDS)
        before = load.restart()
        steps, rewrapped = await _rotate(brokers, source, files, told=told)
    counts = [brokers.sandbox.record.counts(each.company) for each in customers]
    cuts = quantiles(load.seconds, n=100)
    return Figures(
        grants=grants,
        steps=steps,
        rewrapped=rewrapped,
        calls=len(load.seconds),
        failures=dict(load.failures),
        before=before,
        p50_milliseconds=1000 * cuts[49],
        p99_milliseconds=1000 * cuts[98],
        rotations=sum(each.presentations for each in counts),
        superseded=sum(each.presentations_of_superseded for each in counts),
        left=await _left(brokers.database_url, older),
        keys=len(read_keyset_file(files[0]).key_ids),
    )


async def _rotate(
    brokers: Fleet, source: Path, files: list[Path], *, told: Told
) -> tuple[dict[str, float], int]:
    steps: dict[str, float] = {}
    older = read_keyset_file(source).primary_key_id

    @asynccontextmanager
    async def step(name: str) -> AsyncIterator[None]:
        begin = time.monotonic()
        told(name, 0, 1)
        yield
        steps[name] = time.monotonic() - begin
        told(name, 1, 1)

    async with step("add"):
        newer = add_key(source)
        await _roll_out(brokers, source, files)
    async with step("promote"):
        promote_key(source, newer)
        await _roll_out(brokers, source, files)
    begin = time.monotonic()
    rewrapped = await _rewrap(brokers, told)
    steps["rewrap"] = time.monotonic() - begin
    async with step("remove"):
        remove_key(source, older)
        await _roll_out(brokers, source, files)
    return steps, rewrapped


async def _roll_out(brokers: Fleet, source: Path, files: list[Path]) -> None:
    """Gives the newest keyset to one broker after the other, and waits until each has read it."""
    keyset = read_keyset_file(source)
    for file, replica in zip(files, brokers.replicas, strict=True):
        newer = file.with_suffix(".new")
        shutil.copy(source, newer)
        newer.rename(file)

        stub = OperationsServiceStub(replica.channel())

        async def has_read(stub: OperationsServiceAsyncStub = stub) -> bool:
            told = await stub.GetFleetStatus(_STATUS)
            here = {each.key_id: each.primary for each in told.keys if each.available}
            return here == {each: each == keyset.primary_key_id for each in keyset.key_ids}

        await until_true(has_read)


async def _rewrap(brokers: Fleet, told: Told) -> int:
    stub = OperationsServiceStub(brokers.replicas[0].channel())
    rewrapped = 0
    async for each in stub.RewrapKeys(RewrapKeysRequest(reason="a measurement")):
        rewrapped = each.rewrapped_count
        told("rewrap", each.rewrapped_count, each.total_count)
    return rewrapped


@asynccontextmanager
async def _load(
    brokers: Fleet, tenants: list[str], customers: list[Customer], *, rate: float
) -> AsyncIterator[Load]:
    """Asks for tokens while the block runs, and has some grants rotated."""
    load, over = Load(), asyncio.Event()
    asked = tenants + [each.tenant for each in customers] * max(1, len(tenants) // (4 * ROTATING))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_ask(brokers, asked, load, rate=rate, over=over), name="load")
        tasks.create_task(_expire(brokers, customers, over), name="expire")
        try:
            yield load
        finally:
            over.set()


async def _ask(
    brokers: Fleet, tenants: list[str], load: Load, *, rate: float, over: asyncio.Event
) -> None:
    chance, begin = Random(1), time.monotonic()  # noqa: S311 - which tenant is asked for
    stubs = itertools.cycle([each.tokens for each in brokers.replicas])

    async def one(tenant: str) -> None:
        asked_at = time.monotonic()
        try:
            await get(next(stubs), tenant, seconds=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            load.failures[(error.details() or error.code().name).partition(":")[0]] += 1
        load.seconds.append(time.monotonic() - asked_at)

    async with asyncio.TaskGroup() as calls:
        for number in itertools.count():
            await asyncio.sleep(begin + number / rate - time.monotonic())
            if over.is_set():
                break
            calls.create_task(one(chance.choice(tenants)), name="call")


async def _expire(brokers: Fleet, customers: list[Customer], over: asyncio.Event) -> None:
    for number in itertools.count():
        if over.is_set():
            break
        some = [each.tenant for each in customers[number % 4 :: 4]]
        await execute(brokers.database_url, _EXPIRE, some)
        await asyncio.sleep(1)


async def _left(url: str, key_id: int) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(_LEFT, key_id))
    finally:
        await connection.close()


async def _measure_alone(run: RunDirectory, *, grants: int, rate: float, told: Told) -> Figures:
    async with (
        postgres_server(run) as postgres,
        valkey_server(run) as valkey,
    ):
        await migrate(postgres.url)
        async with fleet(postgres.url, valkey.url, run) as brokers:
            return await measure(brokers, grants=grants, rate=rate, told=told)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.key_rotation", description=__doc__)
    parser.add_argument("--grants", type=int, default=10_000, help="how many there are")
    parser.add_argument("--rate", type=float, default=200, help="calls a second")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with run_directory() as run, Progress(*parts, TimeElapsedColumn(), console=console) as bar:
        bars = {
            name: bar.add_task(name, total=None, start=False)
            for name in ("fill", "add", "promote", "rewrap", "remove")
        }

        def told(name: str, done: int, total: int) -> None:
            bar.start_task(bars[name])
            bar.update(bars[name], completed=done, total=total)

        figures = asyncio.run(
            _measure_alone(run, grants=arguments.grants, rate=arguments.rate, told=told)
        )
    for name in Figures.__dataclass_fields__:
        console.print(f"{name:<18} {getattr(figures, name)}")
    console.print("good" if figures.is_good else "BAD")
    return 0 if figures.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
