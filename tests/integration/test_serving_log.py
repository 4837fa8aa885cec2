"""`serve` and its log, which nobody reads.

No store is reached here: a broker listens before, and has enough to say about that.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc.aio
import httpx
import pytest

from broker.store.sealing import generate_keyset
from broker.v1.token_service_pb2 import GetAccessTokenRequest
from broker.v1.token_service_pb2_grpc import TokenServiceStub
from support.source import ROOT
from support.waiting import until

CALLS = 600
"""Two lines each, at least, and a pipe holds some three hundred."""


def settings_in(folder: Path) -> dict[str, str]:
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
    }


@contextmanager
def serving(environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `serve`."""
    with subprocess.Popen(
        [sys.executable, "-m", "broker", "serve"],
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
