"""Runs the gRPC server: in production, and inside a test.

    async with grpc_server(ServerSettings(address="127.0.0.1:0"), servicers, edge=edge) as port:
        …

Upholds: one broker a port, readiness is taken back before calls are refused (`leaving.py`), and
calls that are under way are answered. Which addresses may be listened on without TLS, the settings
decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import grpc
import grpc.aio
from grpc_health.v1 import health
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha.reflection import SERVICE_NAME, aio
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server

from broker.rpc.edge import Edge
from broker.rpc.grant_service import GrantService
from broker.rpc.health import SERVICES, HealthService
from broker.rpc.leaving import LONGEST_SECONDS, until_silent
from broker.rpc.operations_service import OperationsService
from broker.rpc.table import MethodTable
from broker.rpc.token_service import TokenService

# Imported for reflection, which shows what is: no message refers to the reasons of failures.
from broker.v1 import errors_pb2 as errors_pb2  # noqa: PLC0414 - kept, though nothing uses it
from broker.v1.grant_service_pb2_grpc import add_GrantServiceServicer_to_server
from broker.v1.operations_service_pb2_grpc import add_OperationsServiceServicer_to_server
from broker.v1.token_service_pb2_grpc import add_TokenServiceServicer_to_server

_AGE_GRACE: Final = timedelta(seconds=60)
"""How long calls may go on after their connection has become too old: twice what a call without a
deadline may take. Streams end then, and are opened anew."""

_KEEPALIVE: Final = timedelta(seconds=60)
"""After which a silent connection is asked whether it lives; below the 350 seconds after which the
strictest common load balancers forget one."""

_KEEPALIVE_ANSWER: Final = timedelta(seconds=20)
"""How long it may take to say so; gRPC's own default."""

_SHORTEST_PING: Final = timedelta(seconds=10)
"""How often callers may ask the same of us, also when idle. gRPC's default of five minutes ends the
connections of everybody who sets the keepalive that gRPC's documentation recommends."""


_LARGEST_MESSAGE: Final = 128 * 1024
"""Bytes of a request. An import with the longest tokens that there may be has about 40,000, a batch
of a hundred tenants half as much; gRPC's own 4 MiB are what a thousand callers could fill a
container's memory with."""

_MOST_STREAMS: Final = 10_000
"""Calls at once on one connection: as many as the rate limit lets a rested caller make at once. It
is a bound on what one connection can hold, and must be far from what callers do: a channel keeps
back calls above it, but those that it sends as others end may be refused with UNAVAILABLE, since
the server counts a call a little longer than the channel does."""

_MOST_PENDING: Final = 100_000
"""Calls that nobody has picked up yet. gRPC's own 1000 are what a herd of callers has after a
moment's pause, and it cancels those above them at random, with a status that says nothing. Who
waits too long has a deadline; this is far above what one process answers within one, and a bound
all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where to listen, and how to part."""

    address: str = "127.0.0.1:50051"
    """Port 0: any free one."""

    reflection: bool = True
    max_connection_age: timedelta = timedelta(minutes=30)
    """gRPC itself spreads it by a tenth, so that callers do not all come back at once."""

    grace: timedelta = timedelta(seconds=10)
    """How long calls may go on in a drain: as long as a token request usually may take. A longer
    timeout of Pleo does not lengthen it, or Kubernetes' usual 30 s would not do: who is cut off
    asks another replica, and the refresh that was sent goes on."""

    credentials: grpc.ServerCredentials | None = None
    """None: clear text."""

    max_streams: int = _MOST_STREAMS
    """Calls at once on one connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servicers:
    """What is served."""

    tokens: TokenService
    health: HealthService
    grants: GrantService | None = None
    """None: its calls are UNIMPLEMENTED, as in a stand-in for the tests of a caller."""

    operations: OperationsService | None = None
    """None: likewise."""


class AddressUnavailableError(OSError):
    """The address cannot be listened on: taken, not of this machine, or malformed."""


@asynccontextmanager
async def grpc_server(
    settings: ServerSettings, servicers: Servicers, *, edge: Edge
) -> AsyncIterator[int]:
    """Serves as long as the context lasts, and yields the port.

    Leaving takes up to the grace; calls that are not over by then are cancelled.

    Raises:
        AddressUnavailableError: the address cannot be listened on.
    """
    server = grpc.aio.server(options=server_options(settings))
    add_servicers(server, servicers, edge=edge, reflection=settings.reflection)
    port = _listen(server, settings)
    await server.start()
    try:
        yield port
    finally:
        await _leave(server, servicers.health, edge, grace=settings.grace.total_seconds())


async def _leave(
    server: grpc.aio.Server, health: HealthService, edge: Edge, *, grace: float
) -> None:
    """Says so, waits until callers have left, and stops; all of it within the grace."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + grace
    health.leave()
    longest = min(grace, LONGEST_SECONDS)
    try:
        await until_silent(edge.silence, is_watched=health.is_watched, longest=longest)
    finally:
        health.drain()
        await server.stop(max(ends_at - loop.time(), 0.0))


def add_servicers(
    server: grpc.aio.Server, servicers: Servicers, *, edge: Edge, reflection: bool = False
) -> None:
    """Has a server answer all calls of the API, each past the edge; health and reflection not."""
    table = MethodTable(edge.guard)
    methods = table.as_server()
    add_TokenServiceServicer_to_server(servicers.tokens, methods)
    if servicers.grants is not None:
        add_GrantServiceServicer_to_server(servicers.grants, methods)
    if servicers.operations is not None:
        add_OperationsServiceServicer_to_server(servicers.operations, methods)
    add_HealthServicer_to_server(servicers.health, methods)
    if reflection:
        # Its stubs leave out the types of what is generated.
        add_ServerReflectionServicer_to_server(_reflected(), methods)  # type: ignore[no-untyped-call]
    server.add_generic_rpc_handlers((table,))


def _reflected() -> aio.ReflectionServicer:
    # Without the server as a whole, which has no name.
    return aio.ReflectionServicer(
        (*filter(None, SERVICES), health.SERVICE_NAME, SERVICE_NAME),
    )


def _listen(server: grpc.aio.Server, settings: ServerSettings) -> int:
    try:
        if settings.credentials is None:
            return server.add_insecure_port(settings.address)
        return server.add_secure_port(settings.address, settings.credentials)
    except RuntimeError as error:
        # All that gRPC says is that it failed; why is known to its own log alone.
        raise AddressUnavailableError(
            f"cannot listen on {settings.address} (BROKER_GRPC_ADDRESS)"
        ) from error


def server_options(settings: ServerSettings) -> list[tuple[str, int]]:
    """Returns what gRPC is told of connections, messages and calls."""
    return [
        # On by default: a second broker on the same port would silently take half the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
        ("grpc.max_concurrent_streams", settings.max_streams),
        ("grpc.server.max_pending_requests", _MOST_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", _MOST_PENDING),
        ("grpc.max_connection_age_ms", _milliseconds(settings.max_connection_age)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(_AGE_GRACE)),
        ("grpc.keepalive_time_ms", _milliseconds(_KEEPALIVE)),
        ("grpc.keepalive_timeout_ms", _milliseconds(_KEEPALIVE_ANSWER)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(_SHORTEST_PING)),
    ]


def _milliseconds(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)
