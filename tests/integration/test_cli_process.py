"""The command line as processes: exit statuses, Ctrl-C, closed pipes, terminals, a quick start."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import started
from support.grants import some_grant
from support.rpc import Served

HEAVY = {"asyncpg", "grpc", "httpx", "redis", "rich", "starlette", "tink", "uvicorn"}


def environ_of(served: Served) -> dict[str, str]:
    return {"BROKER_ADDRESS": f"127.0.0.1:{served.port}"}


def loaded_after(statement: str) -> set[str]:
    """Returns which packages a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps([*sys.modules]), file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return {name.partition(".")[0] for name in json.loads(ended.stderr)}


async def closed(
    closing: str, *arguments: str, environ: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs a command for which a shell has closed something: `<&-`, `>&-`."""
    return await asyncio.to_thread(
        subprocess.run,
        ["sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, "-m", "broker", *arguments],
        capture_output=True,
        env={**os.environ, **environ},
        text=True,
        check=False,
    )


def seen_on(ours: int, theirs: int) -> bytes:
    """Returns what an ended process has left on a terminal, and closes it."""
    shown = os.read(ours, 100_000)
    os.close(theirs)
    os.close(ours)
    return shown


async def test_serve_names_the_variable_of_a_missing_file(tmp_path: Path) -> None:
    environ = {
        "BROKER_DATABASE_URL": "postgresql://broker@127.0.0.1:1/broker",
        "BROKER_REDIS_URL": "redis://127.0.0.1:1/0",
        "BROKER_KEYSET_FILE": str(tmp_path / "nowhere"),
        "BROKER_PLEO_CLIENT_ID": "client-1",
        "BROKER_PLEO_CLIENT_SECRET": "correct-horse-battery",
    }

    async with started("serve", environ=environ) as running:
        ended = await running.end()

    assert ended.status == 1
    assert f"error: BROKER_KEYSET_FILE: keyset {tmp_path}/nowhere: No such file" in ended.stderr


async def test_a_command_ends_with_its_status(served: Served) -> None:
    async with started("get", "acme", "--json", environ=environ_of(served)) as running:
        assert (await running.end()).document["generation"] == "7"
    async with started("nope") as running:
        assert (await running.end()).status == 2


async def test_ctrl_c_ends_a_call_quietly(served: Served) -> None:
    async with (
        served.broker.hold(),
        started("get", "acme", environ=environ_of(served)) as running,
    ):
        await served.broker.waiting.wait()
        running.interrupt()
        ended = await running.end()

    assert (ended.status, ended.said) == (130, "")


async def test_ctrl_c_ends_an_import_quietly(served: Served) -> None:
    line = json.dumps({"tenant": "globex", "refresh_token": "fake-refresh"})

    async with (
        served.broker.hold(),
        started("import", "--file", "-", environ=environ_of(served)) as running,
    ):
        running.give(line)
        await served.broker.waiting.wait()
        running.interrupt()
        ended = await running.end()

    assert (ended.status, ended.said) == (130, "")


async def test_a_reader_who_has_seen_enough_is_no_error(served: Served) -> None:
    served.broker.grants = {f"t{n:04}": some_grant(tenant=f"t{n:04}") for n in range(3000)}
    reading, writing = os.pipe()
    os.close(reading)

    async with started("grants", environ=environ_of(served), stdout=writing) as running:
        os.close(writing)
        ended = await running.end()

    assert (ended.status, ended.stderr) == (1, "")


async def test_a_pipe_closed_after_little_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)

    async with started("--version", stdout=writing) as running:
        os.close(writing)
        ended = await running.end()

    assert (ended.status, ended.stderr) == (1, "")


async def test_a_full_disk_below_stdout_is_told() -> None:
    reading, writing = os.pipe()
    os.close(writing)

    # Nothing can be written to the reading end: as a disk that is full, an error of stdout's.
    async with started("--version", stdout=reading) as running:
        ended = await running.end()
    os.close(reading)

    assert (ended.status, ended.stderr) == (1, "error: Bad file descriptor\n")


async def test_a_full_disk_is_told_once_and_fails() -> None:
    # Buffered, as it is with most people, so that the interpreter's end finds it full again.
    full = os.open("/dev/full", os.O_WRONLY)
    async with started("--version", environ={"PYTHONUNBUFFERED": ""}, stdout=full) as running:
        os.close(full)
        ended = await running.end()

    assert (ended.status, ended.stderr) == (1, "error: No space left on device\n")


def test_what_is_left_in_the_buffer_may_fail_too() -> None:
    """Of a library that prints and does not flush."""
    code = (
        "import sys; from broker.cli import ending;"
        "print('unflushed'); sys.exit(ending.settled(int(sys.argv[1])))"
    )
    with Path("/dev/full").open("wb") as full:
        statuses = [
            subprocess.run(
                [sys.executable, "-c", code, status],
                env={**os.environ, "PYTHONUNBUFFERED": ""},
                stdout=full,
                stderr=subprocess.DEVNULL,
                check=False,
            ).returncode
            for status in ("0", "1", "3")
        ]

    assert statuses == [1, 1, 3]


@pytest.mark.parametrize("command", ["import acme", "import --file -", "connect acme --paste"])
async def test_standard_input_that_is_closed_is_wrong_use(served: Served, command: str) -> None:
    ended = await closed("<&-", *command.split(), environ=environ_of(served))

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: standard input is closed, and is what the command reads\n"
    assert served.broker.asked == []


async def test_a_closed_standard_output_is_no_defect(served: Served) -> None:
    served.broker.grants = {"acme": some_grant(tenant="acme")}

    ended = await closed(">&-", "grants", environ=environ_of(served))

    assert (ended.returncode, ended.stderr) == (0, "")


async def test_closed_errors_are_no_defect_of_an_import(served: Served) -> None:
    ended = await closed("2>&-", "import", "--file", "/dev/null", environ=environ_of(served))

    assert (ended.returncode, ended.stderr) == (0, "")


async def test_a_token_that_is_no_text_is_wrong_use() -> None:
    async with started("import", "acme") as running:
        assert running.process.stdin is not None
        running.process.stdin.write(b"fake-secret\xff")
        ended = await running.end()

    assert (ended.status, ended.stdout) == (2, "")
    assert ended.stderr == "error: standard input: must be text in UTF-8\n"


def test_ctrl_c_during_the_first_imports_ends_quietly() -> None:
    code = """
import runpy, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
runpy.run_module("broker", run_name="__main__")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)

    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")


async def test_a_web_proxy_is_not_asked(served: Served) -> None:
    environ = {**environ_of(served), "http_proxy": "http://127.0.0.1:1", "no_proxy": ""}

    async with started("get", "acme", environ=environ) as running:
        assert (await running.end()).status == 0


async def test_nothing_but_our_lines_is_on_stderr(served: Served, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("no certificate, of which gRPC logs at length")
    environ = {**environ_of(served), "BROKER_CA_FILE": str(tmp_path / "ca.crt")}

    async with started("get", "acme", environ=environ) as running:
        ended = await running.end()

    error, hint = ended.stderr.splitlines()
    assert (error[:19], hint[:6]) == ("error: UNAVAILABLE:", "hint: ")


async def test_a_bar_is_shown_where_somebody_looks(served: Served) -> None:
    line = json.dumps({"tenant": "globex", "refresh_token": "fake-refresh"})
    ours, theirs = pty.openpty()
    environ = {**environ_of(served), "TERM": "xterm"}

    async with started("import", "--file", "-", environ=environ, stderr=theirs) as running:
        ended = await running.end(line)
    shown = seen_on(ours, theirs)

    assert b"importing" in shown
    assert ended.stdout == "line 1  globex  imported  generation 1\n"


async def test_tables_are_folded_into_a_terminal(served: Served) -> None:
    served.broker.grants = {"t" * 200: some_grant(tenant="t" * 200)}
    ours, theirs = pty.openpty()
    environ = {**environ_of(served), "TERM": "dumb"}  # without colours, whose codes are no width

    async with started("grants", environ=environ, stdout=theirs) as running:
        await running.end()
    shown = seen_on(ours, theirs).decode()

    assert "ACTIVE" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_help_loads_no_drivers() -> None:
    assert loaded_after("import broker.__main__, broker.cli.app") & HEAVY == set()


@pytest.mark.parametrize("module", ["getting", "granting", "importing", "connecting"])
def test_client_commands_load_nothing_of_a_server(module: str) -> None:
    loaded = loaded_after(f"import broker.cli.app, broker.cli.{module}")

    assert loaded & HEAVY <= {"grpc"}
