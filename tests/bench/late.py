"""An empty method that answers a whole herd at once, some time after its first call.

`python -m bench.late PORT SECONDS BYTES`: the least that a server of grpc.aio does for callers who
all wait for one thing. Nothing is looked up, checked, counted or told.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import uvloop

from broker.dev.rundir import RunDirectory
from broker.dev.servers import free_port
from broker.rpc.server import ServerSettings, server_options
from support.fleet import until_true
from support.source import ROOT


class _Late(grpc.GenericRpcHandler):
    """Answers every method with the same bytes, and all who wait at the same time."""

    def __init__(self, answer: bytes, *, seconds: float) -> None:
        self._answer = answer
        self._seconds = seconds
        self._landing: asyncio.Future[None] | None = None
        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            self._late
        )

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """See grpc."""
        return self._handler

    async def _late(self, request: bytes, context: object) -> bytes:
        if self._landing is None:
            loop = asyncio.get_running_loop()
            self._landing = loop.create_future()
            loop.call_later(self._seconds, self._land)
        await asyncio.shield(self._landing)
        return self._answer

    def _land(self) -> None:
        landing, self._landing = self._landing, None
        if landing is not None:
            landing.set_result(None)


@asynccontextmanager
async def late_servers(
    run: RunDirectory, *, count: int, seconds: float, answer: int
) -> AsyncIterator[list[str]]:
    """Runs so many, and gives their addresses; `answer`: the bytes of each."""
    ports = [free_port() for _ in range(count)]
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.late", str(port), str(seconds), str(answer)),
            cwd=ROOT / "tests",
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "GRPC_ENABLE_FORK_SUPPORT": "0"},
        )
        for port in ports
    ]
    for each in processes:
        run.started(each.pid)
    try:
        for port in ports:
            await until_true(lambda port=port: _listens(port))  # type: ignore[misc]
        yield [f"127.0.0.1:{port}" for port in ports]
    finally:
        for each in processes:
            each.terminate()
            await each.wait()
            run.ended(each.pid)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _serve(port: int, seconds: float, answer: int) -> None:
    server = grpc.aio.server(options=server_options(ServerSettings()))
    server.add_generic_rpc_handlers((_Late(bytes(answer), seconds=seconds),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
