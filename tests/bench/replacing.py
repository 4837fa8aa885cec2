"""Replaces a certificate and a policy under load: `python -m bench.replacing`.

Callers over mutual TLS ask at a fixed rate, on connections that they keep and on new ones. The
server's certificate and the policy are replaced again and again meanwhile, as a mounted secret is.
The exit status is 1 where a call failed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
from rich.console import Console
from rich.progress import Progress

from broker.v1.token_service_pb2 import GetAccessTokenRequest
from broker.v1.token_service_pb2_grpc import TokenServiceStub
from support.callers import Guarded, guarded
from support.certificates import Issued, dns

_POLICY: Final = """
callers:
  - identity: dns:exporter.example.org
    rpcs: [TokenService/*]
    tenants: ["acme", "tenant-{number}"]
"""

_KEPT: Final = 4
"""Connections that stay open: those that must not notice."""

_REPLACED_EACH: Final = 2.0
"""Seconds between replacements: longer than a look at the files takes."""

_REQUEST: Final = GetAccessTokenRequest(tenant="acme")


class Load:
    """Callers at a fixed rate, and how their calls ended."""

    def __init__(self, server: Guarded, caller: Issued) -> None:
        self.ended: Counter[str] = Counter()
        self.connections = 0
        self._server = server
        self._caller = caller

    async def run(self, *, rate: int, seconds: float) -> None:
        """Calls, every tenth time on a new connection."""
        began, made = time.monotonic(), 0
        async with AsyncExitStack() as opened, asyncio.TaskGroup() as calls:
            kept = [
                await opened.enter_async_context(self._server.channel(self._caller))
                for _ in range(_KEPT)
            ]
            while (elapsed := time.monotonic() - began) < seconds:
                while made < elapsed * rate:
                    made += 1
                    is_new = made % 10 == 0
                    call = self._on_new() if is_new else self._on(kept[made % _KEPT])
                    calls.create_task(call, name=f"call {made}")
                await asyncio.sleep(1 / rate)

    async def _on_new(self) -> None:
        self.connections += 1
        async with self._server.channel(self._caller) as channel:
            await self._on(channel)

    async def _on(self, channel: grpc.aio.Channel) -> None:
        try:
            await TokenServiceStub(channel).GetAccessToken(_REQUEST, timeout=5)
        except grpc.aio.AioRpcError as error:
            self.ended[error.code().name] += 1
        else:
            self.ended["OK"] += 1


async def replace(server: Guarded, number: int) -> None:
    """Replaces both, and has them looked at."""
    server.authority.issue(dns("localhost")).write(server.folder, "tls")
    server.policy.write_text(_POLICY.format(number=number))
    await server.look()


async def measure(folder: Path, *, rate: int, seconds: float) -> tuple[Load, int]:
    """Returns the load as it ended, and how often both were replaced."""
    replaced = 0
    settings = {"BROKER_CALLER_MAX_RATE": "100000"}
    async with guarded(folder, _POLICY.format(number=0), settings=settings) as server:
        load = Load(server, server.authority.issue(dns("exporter.example.org")))
        async with asyncio.TaskGroup() as tasks:
            loading = tasks.create_task(load.run(rate=rate, seconds=seconds), name="load")
            while not loading.done():
                replaced += 1
                await replace(server, replaced)
                await asyncio.wait({loading}, timeout=_REPLACED_EACH)
    return load, replaced


def main() -> int:
    """Measures, and says what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=int, default=200, help="calls a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="for how long")
    given = parser.parse_args()
    with Progress(transient=True) as progress, tempfile.TemporaryDirectory() as folder:
        progress.add_task("replacing under load", total=None)
        load, replaced = asyncio.run(measure(Path(folder), rate=given.rate, seconds=given.seconds))
    calls = load.ended.total()
    Console().print(
        f"{calls} calls, {load.connections} of them on new connections; certificate and policy"
        f" replaced {replaced} times; failed: {calls - load.ended['OK']} {dict(load.ended)}"
    )
    return 0 if load.ended["OK"] == calls else 1


if __name__ == "__main__":
    sys.exit(main())
