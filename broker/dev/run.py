"""`make run`: the stack, a broker on it, and the demo; then it stays until Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import grpc.aio
import httpx
from rich.console import Console

from broker.app import Running
from broker.dev.demo import Demo, DemoFailedError, what_next
from broker.dev.stack import Stack, dev_stack
from broker.ops.logs import open_log
from broker.serving import broker, until_signalled

OnStep: TypeAlias = Callable[[str], None]

_READY_SECONDS: Final = 30.0
"""A broker on local stores is ready in a fraction of a second; then something is wrong."""


async def run_demo(environ: Mapping[str, str], *, is_once: bool) -> None:
    """Runs everything until SIGINT or SIGTERM; with `is_once`, until the demo is over.

    Raises:
        DemoFailedError: the demo did not work. Others as `dev_stack` and `running`.
    """
    console = Console(highlight=False, emoji=False, markup=False, soft_wrap=True)

    def on_step(text: str) -> None:
        console.print("  ✓", style="green", end=" ")
        console.print(text)

    async def work() -> None:
        console.print("Starting a broker and all that it needs, on this machine alone.\n")
        async with dev_stack(environ, on_step=on_step) as stack:
            await _on_stack(stack, console, is_once=is_once, on_step=on_step)

    await until_signalled(work)


async def _on_stack(stack: Stack, console: Console, *, is_once: bool, on_step: OnStep) -> None:
    settings = stack.settings
    with open_log(sys.stderr, log_format=settings.log_format, level=settings.log_level) as log:
        async with broker(settings, log) as started:
            await _until_ready(started)
            target = f"{settings.grpc_address.host}:{started.grpc_port}"
            on_step(f"the broker is ready: gRPC on {target}, health on {started.ops_url}")
            await _demonstrate(Demo(target=target, sandbox=stack.sandbox, on_step=on_step))
            if is_once:
                return
            console.print(what_next(target=target, ops_url=started.ops_url, sandbox=stack.sandbox))
            raise await started.refused


async def _until_ready(started: Running) -> None:
    ready = asyncio.Event()
    started.health.on_change(lambda snapshot: ready.set() if snapshot.is_ready else None)
    try:
        async with asyncio.timeout(_READY_SECONDS):
            await ready.wait()
    except TimeoutError:
        raise DemoFailedError(f"the broker is not ready: {started.health!r}") from None


async def _demonstrate(demo: Demo) -> None:
    try:
        await demo.run()
    except grpc.aio.AioRpcError as error:
        raise DemoFailedError(f"{error.code().name}: {error.details()}") from None
    except httpx.HTTPError as error:
        raise DemoFailedError(f"the sandbox cannot be reached: {type(error).__name__}") from None
