"""The ops address over HTTP: `/livez`, `/readyz`, `/metrics`. Asks nobody who they are.

So it shows no tenant, caller or grant. Answers come from memory: a probe costs no I/O, and a slow
PostgreSQL does not make the kubelet kill a replica that has tokens to hand out.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn import Config, Server

from broker.config import Address
from broker.ops.health import CheckState, Health, HealthSnapshot

# Seconds that an answer under way is given when the broker stops. All of them are quick.
_GRACE: Final = 1


@asynccontextmanager
async def ops_server(
    address: Address, health: Health, registry: CollectorRegistry
) -> AsyncIterator[str]:
    """Serves as long as the context lasts; gives its URL, with the port that was free.

    Raises:
        OSError: the address cannot be listened on; says which, and why.
    """
    with _listener(address) as listener:
        port = listener.getsockname()[1]
        async with _serving(ops_app(health, registry), listener):
            yield f"http://{Address(host=address.host, port=port)}"


def ops_app(health: Health, registry: CollectorRegistry) -> Starlette:
    """Builds the application."""

    async def livez(_request: Request) -> Response:
        # An event loop that answers is all that being alive means; never a dependency, because
        # a restart mends none.
        return PlainTextResponse("alive\n")

    async def readyz(request: Request) -> Response:
        snapshot = health.snapshot()
        status = 200 if snapshot.is_ready else 503
        if "verbose" in request.query_params:
            return JSONResponse(_verbose(snapshot), status)
        return PlainTextResponse(f"{_in_words(snapshot)}\n", status)

    async def metrics(request: Request) -> Response:
        encode, content_type = _encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    return Starlette(
        routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]
    )


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        # prometheus_client compares versions that are none (`version=x`): nothing was wished for.
        return choose_encoder("")


def _in_words(snapshot: HealthSnapshot) -> str:
    if snapshot.is_ready:
        return "ready"
    if snapshot.is_draining:
        return "not ready: stopping"
    bad = [f"{each.name} {each.last_error}".strip() for each in snapshot.checks if not each.is_good]
    return f"not ready: {', '.join(bad)}"


def _verbose(snapshot: HealthSnapshot) -> dict[str, object]:
    return {
        "ready": snapshot.is_ready,
        "draining": snapshot.is_draining,
        "can_serve": snapshot.can_serve,
        "can_refresh": snapshot.can_refresh,
        "can_persist": snapshot.can_persist,
        "checks": {each.name: _check(each) for each in snapshot.checks},
    }


def _check(state: CheckState) -> dict[str, object]:
    return {
        "ok": state.is_good,
        "needed_for": sorted(state.needed_for),
        "age_seconds": _seconds(state.age),
        "last_error": state.last_error or None,
        "last_error_age_seconds": _seconds(state.last_error_age),
    }


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else round(span.total_seconds(), 3)


def _listener(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    both = address.host == "::" and socket.has_dualstack_ipv6()
    place = (address.host, address.port)
    try:
        return socket.create_server(place, family=family, dualstack_ipv6=both)
    except OSError as error:
        said = f"cannot listen on {address} (BROKER_OPS_ADDRESS): {error.strerror}"
        raise OSError(said) from error


@asynccontextmanager
async def _serving(app: Starlette, listener: socket.socket) -> AsyncIterator[None]:
    """Lets uvicorn listen.

    Its own `serve` takes over the process's signals, which are the drain's; starting and stopping
    are all that is wanted of it.
    """
    config = Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    config.load()
    server = Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    try:
        yield
    finally:
        await server.shutdown(sockets=[listener])
