"""Fixtures for every test: real servers, started once per pytest process, when a test asks.

How the tests are laid out: no folder is a package (`--import-mode=importlib`), so two files may
have the same name in different folders. What tests share lives in `tests/support`, imported as
`support.…` (pytest's `pythonpath`, mypy's `mypy_path`).

Servers are started by synchronous fixtures on an event loop of their own and are bound to no loop,
so that each asynchronous test has the fresh loop that it is used to. `TEST_DATABASE_URL` and
`TEST_REDIS_URL` replace the wheels; tests that stop or kill a server need the wheels and are
skipped without.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from broker.dev.databases import connections_left, database_name, fresh_database
from broker.dev.embedded import EmbeddedServer
from broker.dev.rundir import RunDirectory, run_directory
from broker.dev.servers import (
    DATABASE_VARIABLE,
    REDIS_VARIABLE,
    database_address,
    postgres_server,
    redis_address,
    valkey_server,
)
from broker.dev.wheels import WheelMissingError
from support.clusters import cluster
from support.law_seven import LEDGER, Sums
from support.logical import clean_logical_database, on_logical_database
from support.media import of_cluster, of_core
from support.pooler import NoPoolerError, Pooler
from support.pooler import pooler as open_pooler
from support.redis_worlds import RedisServers
from support.sentinels import sentinel_server
from support.service_role import SERVICE_ROLE, make_service_role
from support.standby import StandbyPair, standby_pair

Made = TypeVar("Made")

SUMS: Final = Sums()
"""Of all processes of a run, in the one that prints them."""

# A server that a test starts while calls are under way would crash in gRPC's handlers for forks.
# Read when gRPC is loaded, which nothing above does.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# A shell that starts the suite in the background has it ignore Ctrl-C, and so would each program
# that is started here to be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def run() -> Iterator[RunDirectory]:
    """The directory of this pytest process; gone when it ends, however it ends."""
    with run_directory() as directory:
        yield directory


@pytest.fixture
def tmp_path(run: RunDirectory) -> Path:
    """A short one that goes with the run: pytest's own would stay behind below `$TMPDIR`."""
    return Path(tempfile.mkdtemp(prefix="test-", dir=run.path))


@contextmanager
def _held_open(context: AbstractAsyncContextManager[Made]) -> Iterator[Made]:
    """Holds an asynchronous context open from synchronous code."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        yield runner.run(stack.enter_async_context(context))
        runner.run(stack.aclose())


@pytest.fixture(scope="session")
def database_server(run: RunDirectory) -> Iterator[str]:
    """The address of a PostgreSQL to make databases on. It does not survive the machine."""
    with _held_open(database_address(run, os.environ, fsync=False)) as url:
        yield url
        LEDGER.scan(asyncio.run(of_cluster(url)))


@pytest.fixture(scope="session")
def pooler(run: RunDirectory, database_server: str) -> Iterator[Pooler]:
    """A PgBouncer in transaction mode before all databases."""
    try:
        with _held_open(open_pooler(run, database_server)) as made:
            yield made
    except NoPoolerError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def redis_server(run: RunDirectory) -> Iterator[str]:
    """The address of a Valkey."""
    with _held_open(redis_address(run, os.environ)) as url:
        yield url


@pytest.fixture(scope="session")
def sentinel(run: RunDirectory) -> Iterator[str]:
    """The address of a Sentinel that watches nothing yet."""
    with _held_open(sentinel_server(run)) as url:
        yield url


@pytest.fixture(scope="session")
def cluster_nodes(run: RunDirectory) -> Iterator[tuple[str, str]]:
    """The addresses of the nodes of a Redis Cluster: first the one that has the broker's slot."""
    with _held_open(cluster(run)) as nodes:
        yield nodes


@pytest.fixture
def redis_servers(redis_url: str, sentinel: str, cluster_nodes: tuple[str, str]) -> RedisServers:
    """A Redis, a Sentinel and a node of a cluster."""
    return RedisServers(redis_url=redis_url, sentinel=sentinel, cluster_node=cluster_nodes[0])


@pytest.fixture(scope="session")
def migrated_template(database_server: str) -> Iterator[str]:
    """The name of a database with the newest schema and no rows."""
    from broker.store.migrate import migrate  # noqa: PLC0415 - most tests need no store

    async def prepare(url: str) -> None:
        await make_service_role(url)
        await migrate(url, service_role=SERVICE_ROLE)
        assert await connections_left(url) == []

    with _held_open(fresh_database(database_server)) as url:
        asyncio.run(prepare(url))
        yield database_name(url)


@pytest.fixture
async def database_url(database_server: str, migrated_template: str) -> AsyncIterator[str]:
    """The address of the test's own, migrated database. A connection left open fails the test."""
    async with fresh_database(database_server, template=migrated_template) as url:
        yield url


@pytest.fixture
async def empty_database_url(database_server: str) -> AsyncIterator[str]:
    """The address of a database with nothing in it. A connection left open fails the test."""
    async with fresh_database(database_server) as url:
        yield url


@pytest.fixture
async def redis_url(redis_server: str) -> AsyncIterator[str]:
    """The address of an empty logical database. A connection left open fails the test.

    One number for each pytest process, 1 to 15: a server has 16 unless it is told otherwise.
    Pub/sub knows no numbers.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    url = on_logical_database(redis_server, 1 + int(worker) % 15)
    async with clean_logical_database(url):
        yield url


@contextmanager
def _skipped_without_wheel(variable: str) -> Iterator[None]:
    try:
        yield
    except WheelMissingError as error:
        if variable in os.environ:
            pytest.skip(f"this test ends its server, so it needs the wheel: {error}")
        raise


@pytest.fixture
async def own_postgres(run: RunDirectory) -> AsyncIterator[EmbeddedServer]:
    """A PostgreSQL that the test may stop, kill and start again."""
    with _skipped_without_wheel(DATABASE_VARIABLE):
        async with postgres_server(run, name="own-postgres", fsync=False) as server:
            yield server


@pytest.fixture
async def pair(run: RunDirectory) -> AsyncIterator[StandbyPair]:
    """A PostgreSQL and its standby, for one failover."""
    with _skipped_without_wheel(DATABASE_VARIABLE):
        async with standby_pair(run) as made:
            yield made


@pytest.fixture
async def own_valkey(run: RunDirectory) -> AsyncIterator[EmbeddedServer]:
    """A Valkey that the test may stop, kill and start again, on TCP."""
    with _skipped_without_wheel(REDIS_VARIABLE):
        async with valkey_server(run, name="own-valkey", tcp=True) as server:
            yield server


@pytest.fixture(scope="session", autouse=True)
def no_secret_anywhere() -> Iterator[None]:
    """Law 7: what this pytest process has left anywhere holds no secret of any of its sandboxes.

    The last of all to end: servers have been looked through by then.
    """
    yield
    LEDGER.scan(of_core())
    assert LEDGER.told() == []


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Sends what a process of several has looked through to the one that prints it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["law seven"] = LEDGER.sums().plain()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401 - pytest-xdist has no name for it
    """Adds what a process of several has looked through; one that crashed tells nothing."""
    SUMS.add(getattr(node, "workeroutput", {}).get("law seven", Sums().plain()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints bytes by medium, secrets searched for, and hits (law 7)."""
    SUMS.add(LEDGER.sums().plain())
    if SUMS.scanned:
        terminalreporter.write_line("\n".join([SUMS.line(), *SUMS.table()]))
