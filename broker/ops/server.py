"""The ops address over HTTP: `/livez`, `/readyz`, `/metrics`, `/statusz`. Asks nobody who they are.

So it shows no tenant, caller or grant. Answers come from memory: a probe costs no I/O, and a slow
PostgreSQL does not make the kubelet kill a replica that has tokens to hand out.

Served from a thread of its own, so that it still says something while the event loop that serves
callers is blocked: then `/livez` fails, and nothing else makes it fail.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn import Config, Server

from broker.config import Address
from broker.ops.beside import in_own_thread
from broker.ops.health import CheckState, Health, HealthSnapshot
from broker.ops.pulse import BLOCKED_AFTER, Pulse, pulse
from broker.ops.status_page import status_page
from broker.ops.status_view import StatusView

T = TypeVar("T")

# Seconds that an answer under way is given when the broker stops. All of them are quick.
_GRACE: Final = 1

_PATIENCE_SECONDS: Final = 0.8
"""For the main loop: a probe gives up after a second, unless it is told otherwise."""

_OK: Final = 200
_UNAVAILABLE: Final = 503

_BLOCKED: Final = "not ready: the event loop does not answer"

_PAGE_HEADERS: Final = {
    # The page has no script and loads nothing: whatever else is in it, somebody has put there.
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the ops address shows."""

    health: Health
    registry: CollectorRegistry
    status: Callable[[], StatusView]
    """Asked on the main loop, at each look at the page."""


@asynccontextmanager
async def ops_server(
    address: Address, shown: Shown, *, blocked_after: timedelta = BLOCKED_AFTER
) -> AsyncIterator[str]:
    """Serves as long as the context lasts; gives its URL, with the port that was free.

    Raises:
        OSError: the address cannot be listened on; says which, and why.
    """
    with _listener(address) as listener, pulse() as beating:
        port = listener.getsockname()[1]
        app = ops_app(shown, Main(pulse=beating, blocked_after=blocked_after))
        async with in_own_thread(_serving(app, listener), name="ops"):
            yield f"http://{Address(host=address.host, port=port)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Main:
    """The main event loop, as a handler beside it sees it."""

    pulse: Pulse
    blocked_after: timedelta

    def is_blocked(self) -> bool:
        """Whether it has taken no step for too long."""
        return self.pulse.silence() > self.blocked_after

    async def ask(self, question: Callable[[], T]) -> T | None:
        """Has it answer a question; None: it does not in time."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await asyncio.wrap_future(self.pulse.ask(question))
        except TimeoutError:
            return None


def ops_app(shown: Shown, main: Main) -> Starlette:
    """Builds the application."""

    async def livez(_request: Request) -> Response:
        # Never a dependency: a restart mends none.
        if main.is_blocked():
            seconds = main.pulse.silence().total_seconds()
            return _text(f"the event loop is blocked for {seconds:.0f} s", _UNAVAILABLE)
        return _text("alive", _OK)

    async def readyz(request: Request) -> Response:
        snapshot = await main.ask(shown.health.snapshot)
        if snapshot is None:
            return _text(_BLOCKED, _UNAVAILABLE)
        status = _OK if snapshot.is_ready else _UNAVAILABLE
        if "verbose" in request.query_params:
            return JSONResponse(_verbose(snapshot), status)
        return _text(_in_words(snapshot), status)

    async def metrics(request: Request) -> Response:
        encode, content_type = _encoder(request.headers.get("accept", ""))
        return Response(encode(shown.registry), headers={"content-type": content_type})

    async def statusz(_request: Request) -> Response:
        view = await main.ask(shown.status)
        if view is None:
            return _text(_BLOCKED, _UNAVAILABLE)
        return HTMLResponse(status_page(view), headers=_PAGE_HEADERS)

    handlers = (livez, readyz, metrics, statusz)
    return Starlette(routes=[Route(f"/{each.__name__}", each) for each in handlers])


def _text(line: str, status: int) -> Response:
    return PlainTextResponse(f"{line}\n", status)


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
        "name": state.name,
        "healthy": state.is_good,
        "needed_for": sorted(state.needed_for),
        "age_seconds": _seconds(state.age),
        "last_error": state.last_error or None,
        "last_error_age_seconds": _seconds(state.last_error_age),
        "details": dict(state.details),
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
