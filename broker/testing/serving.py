"""Gives a fake broker an address: on the test's event loop, or on a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Final

from broker.domain.facts import Fact
from broker.rpc.edge import Edge
from broker.rpc.health import SERVICES, HealthService
from broker.rpc.server import ServerSettings, Servicers, grpc_server
from broker.rpc.token_service import TokenService
from broker.testing.fake_broker import FakeTokenBroker

_GRACE: Final = timedelta(seconds=1)
"""For calls under way at the end: a test has none that it still waits for."""

_ANY_PORT: Final = "127.0.0.1:0"


class _Deaf:
    """Keeps nothing of what it is told: a defect fails its call, which the test sees."""

    def observe(self, fact: Fact) -> None:
        """See `ports.Observer`."""

    def call_ended(
        self, *, method: str, code: str, reason: str, duration: timedelta, tenant: str | None
    ) -> None:
        """See `rpc.observing.CallObserver`."""


@asynccontextmanager
async def fake_broker(address: str = _ANY_PORT) -> AsyncIterator[FakeTokenBroker]:
    """Serves a fake broker as long as the block runs. `address`: of loopback, or `unix:/path`.

    Leaving drains as the broker does: health first, then watches, then the server.
    """
    broker, health, deaf = FakeTokenBroker(), HealthService(), _Deaf()
    for service in SERVICES:
        health.set(service, serving=True)
    settings = ServerSettings(address=address, reflection=False, grace=_GRACE)
    servicers = Servicers(tokens=TokenService(broker, broker.watching), health=health)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(broker.run(), name="fake token broker")
        try:
            edge = Edge(observer=deaf, calls=deaf)
            async with grpc_server(settings, servicers, edge=edge) as port:
                is_socket = address.startswith("unix:")
                broker.address = address if is_socket else f"127.0.0.1:{port}"
                yield broker
                health.leave()
                broker.watching.drain()
        finally:
            running.cancel()


@contextmanager
def fake_broker_thread(address: str = _ANY_PORT) -> Iterator[FakeTokenBroker]:
    """The same on a thread, for tests that block, or that have an event loop of their own."""
    opened: concurrent.futures.Future[FakeTokenBroker] = concurrent.futures.Future()
    leaving = threading.Event()

    async def serve() -> None:
        async with fake_broker(address) as broker:
            opened.set_result(broker)
            await asyncio.to_thread(leaving.wait)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)  # whoever opens it is told

    thread = threading.Thread(target=run, name="fake token broker", daemon=True)
    thread.start()
    try:
        yield opened.result()
    finally:
        leaving.set()
        thread.join()
