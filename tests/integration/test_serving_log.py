"""`serve` and its standard streams: nobody reads the log, or there is nowhere to write it.

No store is reached here: a broker listens before, and has enough to say about that.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import grpc.aio
import httpx
import pytest

from broker.store.sealing import generate_keyset
from broker.v1.token_service_pb2 import GetAccessTokenRequest
from broker.v1.token_service_pb2_grpc import TokenServiceStub
from support.fleet import until_true
from support.source import ROOT
from support.waiting import until

CALLS = 600
"""Two lines each, at least, and a pipe holds some three hundred."""


def a_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def settings_in(folder: Path, **changes: str) -> dict[str, str]:
    keyset = folder / "keyset.json"
    keyset.write_text(generate_keyset())
    return {
        "PATH": os.defpath,
        "BROKER_DATABASE_URL": "postgresql://broker@127.0.0.1:1/broker",
        "BROKER_REDIS_URL": "redis://127.0.0.1:1/0",
        "BROKER_KEYSET_FILE": str(keyset),
        "BROKER_GRPC_ADDRESS": "127.0.0.1:0",
        "BROKER_OPS_ADDRESS": "127.0.0.1:0",
        "BROKER_LOG_LEVEL": "debug",
        "BROKER_PLEO_CLIENT_ID": "client-1",
        "BROKER_PLEO_CLIENT_SECRET": "one",
        **changes,
    }


@contextmanager
def serving(environ: dict[str, str], closing: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Runs `serve`; `closing` as a shell has it, `2>&-`."""
    with subprocess.Popen(
        ["sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, "-m", "broker", "serve"],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def started_of(process: subprocess.Popen[bytes]) -> dict[str, str]:
    """Reads the log until the broker has started, and no further."""
    assert process.stderr is not None
    for line in process.stderr:
        event: dict[str, str] = json.loads(line)
        if event["event"] == "broker_started":
            return event
    raise AssertionError("it ended before it had started")


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Asks it to end, and returns the exit status."""
    process.send_signal(signal.SIGTERM)
    await until(lambda: process.poll() is not None)
    return process.returncode


async def test_a_log_that_nobody_reads_stops_no_call_and_no_end(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path)) as process:
        started = started_of(process)
        async with (
            grpc.aio.insecure_channel(started["grpc"]) as channel,
            httpx.AsyncClient() as http,
        ):
            tokens = TokenServiceStub(channel)
            request = GetAccessTokenRequest(tenant="acme")
            for _ in range(CALLS):
                with pytest.raises(grpc.aio.AioRpcError, match="STORE_UNAVAILABLE"):
                    await tokens.GetAccessToken(request, timeout=20)

            shown = (await http.get(f"{started['ops']}/metrics")).text

        assert "token_broker_log_lines_dropped_total" in shown
        assert await ended(process) == 0


async def test_the_last_that_a_log_tells_is_that_the_broker_stopped(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path)) as process:
        started_of(process)

        assert await ended(process) == 0

        assert process.stderr is not None
        events = [json.loads(line)["event"] for line in process.stderr]
        assert [events.count("broker_draining"), events[-1]] == [1, "broker_stopped"]


@pytest.mark.parametrize("closing", ["2>&-", ">&-", "<&- >&- 2>&-"])
async def test_streams_that_are_closed_keep_a_broker_from_nothing(
    tmp_path: Path, closing: str
) -> None:
    port = a_free_port()
    environ = settings_in(tmp_path, BROKER_OPS_ADDRESS=f"127.0.0.1:{port}")
    with serving(environ, closing) as process:
        async with httpx.AsyncClient() as http:
            await until_alive(http, f"http://127.0.0.1:{port}/livez", process)

        assert await ended(process) == 0


async def until_alive(http: httpx.AsyncClient, url: str, process: subprocess.Popen[bytes]) -> None:
    """Asks until it is answered."""

    async def is_answered() -> bool:
        assert process.poll() is None, f"it ended with status {process.returncode}"
        try:
            return (await http.get(url)).status_code == HTTPStatus.OK
        except httpx.ConnectError:
            return False

    await until_true(is_answered, seconds=20)
