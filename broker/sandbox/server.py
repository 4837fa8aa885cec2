"""Runs a sandbox over HTTP: inside a test, or as a command of its own.

    async with sandbox_server(settings=Settings(mode="grace")) as sandbox:
        sandbox.faults.add(Drop(when="after"))
        …  # POST to sandbox.token_url
        assert sandbox.record.counts().rotations == 1

One origin serves everything: `{url}/oauth/authorize`, `{url}/oauth/token`, the API at `{url}`, the
control at `{url}/sandbox/…`. Upholds: no signal handlers in-process, prompt shutdown whatever is
held, no access log, never a token in a log.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.routing import Route
from uvicorn import Config, Server

from broker.sandbox.control import control_error, control_routes
from broker.sandbox.endpoints import Api, TokenEndpoints
from broker.sandbox.front_door import FrontDoor
from broker.sandbox.reading import ControlError
from broker.sandbox.sandbox import Sandbox
from broker.sandbox.settings import Settings
from broker.sandbox.wire import WireProtocol

# A thousand callers at once is a test that there is; Linux cuts this to its own limit.
_BACKLOG: Final = 2048
# Seconds. Longer than any client's own keep-alive, so that it is not us who race with its next
# request: httpx drops idle connections after 5.
_KEEP_ALIVE: Final = 75


@asynccontextmanager
async def sandbox_server(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    settings: Settings | None = None,
    sandbox: Sandbox | None = None,
) -> AsyncIterator[Sandbox]:
    """Serve a new sandbox, or the one given, as long as the context lasts; port 0: any free one.

    Raises:
        OSError: the address cannot be listened on.
    """
    sandbox = sandbox or Sandbox(settings)
    with socket.create_server((host, port), backlog=_BACKLOG) as listener:
        sandbox.url = f"http://{host}:{listener.getsockname()[1]}"
        async with _serving(sandbox_app(sandbox), listener):
            try:
                yield sandbox
            finally:
                sandbox.room.close()


def sandbox_app(sandbox: Sandbox) -> Starlette:
    """Build the application; it wants to be served by `WireProtocol`."""
    return Starlette(
        routes=[*provider_routes(sandbox), *control_routes(sandbox)],
        exception_handlers={ControlError: control_error},
    )


def provider_routes(sandbox: Sandbox) -> list[Route]:
    """List the routes of the stand-in."""
    front, oauth, api = FrontDoor(sandbox), TokenEndpoints(sandbox), Api(sandbox)
    return [
        Route("/", front.home),
        Route("/oauth/authorize", front.show, methods=["GET"]),
        Route("/oauth/authorize", front.decide, methods=["POST"]),
        Route("/oauth/token", oauth.answer, methods=["POST"]),
        Route("/oauth/token/introspect", oauth.introspect, methods=["POST"]),
        Route("/v1/introspect", api.introspect, methods=["GET"]),
        Route("/v1/installations/me", api.delete, methods=["DELETE"]),
        Route("/v1/export-items", api.export_items, methods=["GET"]),
    ]


@asynccontextmanager
async def _serving(app: Starlette, listener: socket.socket) -> AsyncIterator[None]:
    """Let uvicorn listen.

    Its own `serve` takes over the process's signals and looks ten times a second whether it should
    stop; starting and stopping are all that is wanted of it.
    """
    config = Config(
        app,
        http=WireProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=1,
    )
    config.load()
    server = Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    try:
        yield
    finally:
        # Whoever is connected still has had an answer, or was never to get one.
        for connection in [*server.server_state.connections]:
            connection.transport.abort()
        await server.shutdown(sockets=[listener])


async def serve(
    settings: Settings | None = None, *, host: str = "127.0.0.1", port: int = 8420
) -> None:
    """Run the command `token-broker sandbox`: until SIGINT or SIGTERM.

    Raises:
        OSError: the address cannot be listened on.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    try:
        async with sandbox_server(host, port, settings=settings) as sandbox:
            sys.stderr.write(_introduction(sandbox))
            await stopping.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _introduction(sandbox: Sandbox) -> str:
    clients = ", ".join(sandbox.server.realm.clients)
    return f"""This is the Pleo sandbox: a test instrument, never Pleo. Give it no real credentials.
  what it is  {sandbox.url}/
  authorize   {sandbox.authorize_url}
  token       {sandbox.token_url}
  API         {sandbox.url}
  clients     {clients} (secrets: {sandbox.url}/sandbox/secrets)
"""
