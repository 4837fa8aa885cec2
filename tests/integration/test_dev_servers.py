"""The embedded servers start, stop, crash and come back, and nothing of a run outlives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio
import redis.exceptions

from broker.dev.child import Program, ServerStartError, run_to_end
from broker.dev.databases import ConnectionsLeakedError, fresh_database
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
from support import two_servers
from support.logical import ClientsLeakedError, clean_logical_database
from support.waiting import until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what root may not do")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Another process with both servers."""

    started: subprocess.Popen[str]
    directory: Path
    pids: list[int]
    imported: list[str]

    def left(self) -> list[str]:
        """Returns what of it is still there."""
        alive = [f"pid {pid}" for pid in self.pids if is_running(pid)]
        return alive + [str(self.directory)] * self.directory.exists()

    def is_gone(self) -> bool:
        return not self.left()


def is_running(pid: int) -> bool:
    """Whether a process runs. One that nobody has reaped, which is up to init, runs no more."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return bool(state.strip()) and not state.startswith("Z")


@contextmanager
def another_run(**environment: str) -> Iterator[Run]:
    with subprocess.Popen(
        [sys.executable, two_servers.__file__],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as started:
        assert started.stdout is not None
        try:
            facts = json.loads(started.stdout.readline())
            yield Run(
                started=started,
                directory=Path(facts["directory"]),
                pids=facts["pids"],
                imported=facts["imported"],
            )
        finally:
            with suppress(ProcessLookupError):
                started.send_signal(signal.SIGINT)


async def execute(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_a_killed_postgres_comes_back_under_its_address_with_its_rows(
    own_postgres: EmbeddedServer,
) -> None:
    await execute(own_postgres.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    address, pid = own_postgres.url, own_postgres.pid

    await own_postgres.kill()
    with pytest.raises(OSError, match="refused"):
        await execute(address, "SELECT 1")
    await own_postgres.start()

    assert await execute(address, "SELECT answer FROM kept") == 42
    assert own_postgres.url == address
    assert own_postgres.pid != pid


async def test_a_killed_postgres_with_a_busy_session_comes_back(
    own_postgres: EmbeddedServer,
) -> None:
    busy = await asyncpg.connect(own_postgres.url)

    for _ in range(3):
        await own_postgres.kill()
        await own_postgres.start()

    assert await execute(own_postgres.url, "SELECT 1") == 1
    busy.terminate()


async def test_a_stopped_postgres_starts_again(own_postgres: EmbeddedServer) -> None:
    await own_postgres.stop()
    await own_postgres.stop()
    await own_postgres.start()

    assert await execute(own_postgres.url, "SELECT 1") == 1


async def test_a_killed_valkey_comes_back_empty_under_its_address(
    own_valkey: EmbeddedServer,
) -> None:
    address = own_valkey.url
    async with redis.asyncio.from_url(address, retry=None) as client:
        await client.set("name", "lost")

        await own_valkey.kill()
        with pytest.raises(redis.exceptions.ConnectionError):
            await client.ping()
        await own_valkey.start()

        assert await client.get("name") is None
    assert own_valkey.url == address


async def test_a_server_that_runs_does_not_start_twice(own_valkey: EmbeddedServer) -> None:
    with pytest.raises(RuntimeError):
        await own_valkey.start()

    await own_valkey.stop()
    with pytest.raises(RuntimeError):
        _ = own_valkey.pid


async def test_postgres_is_as_durable_as_the_broker_demands(empty_database_url: str) -> None:
    assert await execute(empty_database_url, "SHOW synchronous_commit") == "on"
    assert await execute(empty_database_url, "SHOW server_encoding") == "UTF8"


async def test_fsync_is_on_unless_a_test_turns_it_off(run: RunDirectory) -> None:
    async with postgres_server(run, name="durable", tcp=True) as server:
        assert await execute(server.url, "SHOW fsync") == "on"
        assert "@127.0.0.1:" in server.url


async def test_valkey_on_its_socket_evicts_nothing_and_keeps_nothing(run: RunDirectory) -> None:
    async with (
        valkey_server(run, name="on-socket") as server,
        redis.asyncio.from_url(server.url) as client,
    ):
        settings = await client.config_get("maxmemory-policy", "save", "appendonly", "port")

    assert server.url.startswith("unix://")
    assert settings == {
        "maxmemory-policy": "noeviction",
        "save": "",
        "appendonly": "no",
        "port": "0",
    }


async def test_an_address_in_the_environment_starts_no_server(run: RunDirectory) -> None:
    environment = {DATABASE_VARIABLE: "postgresql://elsewhere/", REDIS_VARIABLE: "redis://there/1"}
    before = set(run.path.iterdir())

    async with AsyncExitStack() as opened:
        database = await opened.enter_async_context(database_address(run, environment))
        valkey = await opened.enter_async_context(redis_address(run, environment))

    assert [database, valkey] == list(environment.values())
    assert set(run.path.iterdir()) == before


@pytest.fixture(scope="module")
def homeless() -> Iterator[Run]:
    """A run beside this one, of somebody who has no home directory."""
    with another_run(HOME="/nonexistent") as other:
        yield other


async def test_two_runs_at_once_do_not_meet(homeless: Run, run: RunDirectory) -> None:
    async with valkey_server(run, name="beside", tcp=True) as server:
        assert homeless.directory != run.path
        assert server.pid not in homeless.pids
        assert len(homeless.left()) == 3


async def test_the_wheels_python_is_never_imported(homeless: Run) -> None:
    assert homeless.imported == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
async def test_nothing_is_left_of_a_run_that_is_ended(number: signal.Signals) -> None:
    with another_run() as ended:
        assert len(ended.left()) == 3

        os.killpg(ended.started.pid, number)
        await until(ended.is_gone)


async def test_nothing_is_left_of_a_run_killed_with_stopped_servers() -> None:
    with another_run() as ended:
        for pid in ended.pids:
            os.kill(pid, signal.SIGSTOP)

        ended.started.kill()
        await until(ended.is_gone)


async def test_nothing_is_left_of_an_impatient_double_interrupt() -> None:
    with another_run() as ended:
        os.killpg(ended.started.pid, signal.SIGINT)
        os.killpg(ended.started.pid, signal.SIGINT)
        await until(ended.is_gone)


async def test_a_temporary_directory_with_a_long_path_is_not_used(tmp_path: Path) -> None:
    place = tmp_path / ("long" * 20)
    place.mkdir()

    with another_run(TMPDIR=str(place)) as other:
        assert place not in other.directory.parents


async def test_a_temporary_directory_with_a_space_is_used() -> None:
    with tempfile.TemporaryDirectory(prefix="a b") as place:
        Path(place).chmod(0o755)
        with another_run(TMPDIR=place) as other:
            assert other.directory.parent == Path(place)
        await until(other.is_gone)


@needs_root
async def test_root_does_not_use_a_temporary_directory_closed_to_others() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="closed") as place,
        another_run(TMPDIR=place) as other,
    ):
        assert Path(place) not in other.directory.parents


@needs_root
async def test_postgres_of_root_belongs_to_somebody_else_and_its_programs_do_not(
    run: RunDirectory,
) -> None:
    async with postgres_server(run, name="as-nobody"):
        cluster, programs = run.path / "as-nobody" / "cluster", run.path / "programs"

        assert cluster.stat().st_uid != 0
        assert all(path.stat().st_uid == 0 for path in [run.path, *programs.rglob("*")])
        assert run.path.stat().st_mode & 0o007 == 0


async def test_a_program_that_fails_is_quoted(run: RunDirectory) -> None:
    program = failing_program(run, "echo out of luck; exit 3")

    with pytest.raises(ServerStartError, match=r"(?s)ended with status 3.*out of luck"):
        await run_to_end(run, program, within=10)


async def test_a_program_that_takes_too_long_is_ended(run: RunDirectory) -> None:
    program = failing_program(run, "echo $$; exec sleep 100")

    with pytest.raises(ServerStartError, match="was not done after") as caught:
        await run_to_end(run, program, within=0.2)

    assert not is_running(int(caught.value.last_words))


def failing_program(run: RunDirectory, script: str) -> Program:
    directory = Path(tempfile.mkdtemp(dir=run.path))
    return Program(
        name="script",
        command=["/bin/sh", "-c", script],
        directory=directory,
        log=directory / "script.log",
    )


async def test_a_connection_left_open_is_named(database_server: str) -> None:
    async with AsyncExitStack() as opened:
        url = await opened.enter_async_context(fresh_database(database_server))
        forgotten = await asyncpg.connect(url)
        await forgotten.execute("SELECT 'forgotten'")

        with pytest.raises(ConnectionsLeakedError, match="SELECT 'forgotten'"):
            await opened.aclose()

    forgotten.terminate()


async def test_a_client_left_open_is_named_and_ended(own_valkey: EmbeddedServer) -> None:
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(clean_logical_database(own_valkey.url))
        forgotten = redis.asyncio.from_url(own_valkey.url, client_name="forgotten", retry=None)
        await forgotten.ping()

        with pytest.raises(ClientsLeakedError, match="forgotten"):
            await opened.aclose()

    with pytest.raises(redis.exceptions.ConnectionError):
        await forgotten.ping()
    await forgotten.aclose()


async def test_a_database_is_gone_after_its_block(database_server: str) -> None:
    async with fresh_database(database_server) as url:
        assert await execute(url, "SELECT 1") == 1

    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await execute(url, "SELECT 1")


def test_a_run_directory_is_private_and_goes() -> None:
    with run_directory() as directory:
        (directory.path / "file").touch()

        assert directory.path.stat().st_mode & 0o777 == 0o700
    assert not directory.path.exists()
