"""Pleo's sandbox in a process of its own, so that what it costs is not counted as the broker's."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from broker.dev.rundir import RunDirectory
from broker.dev.servers import free_port
from broker.sandbox.sandbox import Sandbox
from support.fleet import until_true
from support.source import ROOT


@asynccontextmanager
async def pleo_beside(run: RunDirectory) -> AsyncIterator[Sandbox]:
    """Runs it; what is given knows where it is, and nothing of what goes on there."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker", "sandbox", "--port", str(port)),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    run.started(process.pid)
    there = Sandbox()
    there.url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient() as http:
            await until_true(lambda: _answers(http, there.url))
        yield there
    finally:
        process.terminate()
        await process.wait()
        run.ended(process.pid)


async def _answers(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
