"""Does `connect`: takes a customer through the consent at Pleo, from a terminal.

The terminal stands where the web tier stands otherwise: it makes up a session binding, so that
nobody but this process can complete what it started, and checks the state before it passes a code
on. Addresses with a state in them go to stderr and to a browser; a code goes to the broker alone.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from broker.cli.answers import show_grant
from broker.cli.calling import DEADLINE_SECONDS, broker_channel
from broker.cli.failing import CommandFailed, ExitStatus
from broker.cli.listening import listen_for_redirect
from broker.cli.reading import standard_input
from broker.cli.redirect import (
    Loopback,
    NotOursError,
    Redirected,
    read_redirect,
    redirect_uri_of,
)
from broker.cli.showing import is_terminal, say
from broker.v1.grant_service_pb2 import (
    AuthorizationError,
    CompleteAuthorizationRequest,
    StartAuthorizationRequest,
    StartAuthorizationResponse,
)
from broker.v1.grant_service_pb2_grpc import GrantServiceStub

_BINDING_BYTES: Final = 32
"""As much as nobody guesses, and as long as the digest that the broker keeps of it."""

_SHORTEST_WAIT: Final = timedelta(minutes=1)
"""The authorization ends by PostgreSQL's clock, of which ours may be ahead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the browser goes out and comes back."""

    redirect_uri: str | None
    """None: the broker's default."""

    is_pasted: bool
    may_browse: bool


def connect(tenant: str, environ: Mapping[str, str], *, way: Way, as_json: bool) -> None:
    """Starts an authorization, waits for the consent, completes it, and shows the grant.

    Raises:
        CommandFailed: the tenant is as it was, as far as the broker can tell.
    """
    if way.is_pasted:
        standard_input()  # before anything is started: is it there?
    elif way.redirect_uri is not None:
        _loopback(way.redirect_uri)
    session_binding = secrets.token_bytes(_BINDING_BYTES)
    request = StartAuthorizationRequest(
        tenant=tenant, session_binding=session_binding, redirect_uri=way.redirect_uri or ""
    )
    with broker_channel(environ) as channel:
        stub = GrantServiceStub(channel)
        started = stub.StartAuthorization(request, timeout=DEADLINE_SECONDS)
        redirected = _pasted(started, way) if way.is_pasted else _listened(started, way)
        completion = _completion(tenant, session_binding, redirected)
        grant = stub.CompleteAuthorization(completion, timeout=DEADLINE_SECONDS).grant
    show_grant(grant, as_json=as_json)


def _completion(
    tenant: str, session_binding: bytes, redirected: Redirected
) -> CompleteAuthorizationRequest:
    request = CompleteAuthorizationRequest(
        tenant=tenant, session_binding=session_binding, state=redirected.state
    )
    if redirected.code:
        request.code = redirected.code
    else:
        error = AuthorizationError(
            error=redirected.error, error_description=redirected.error_description
        )
        request.error.CopyFrom(error)
    return request


def _pasted(started: StartAuthorizationResponse, way: Way) -> Redirected:
    _send_browser(started, way)
    say("Then paste the whole address that the browser was sent to, and press Enter:")
    # What is no text becomes no address of ours.
    pasted = standard_input().readline().decode(errors="replace")
    try:
        return read_redirect(pasted, state=started.state)
    except NotOursError as error:
        raise CommandFailed(f"what was pasted {error}", hint=_AGAIN) from None


_AGAIN: Final = "start again: token-broker connect TENANT"


def _listened(started: StartAuthorizationResponse, way: Way) -> Redirected:
    address = _loopback(redirect_uri_of(started.authorization_uri))
    remaining = started.expire_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)

    async def wait() -> Redirected:
        async with listen_for_redirect(address, state=started.state) as answer:
            # Only now: nobody is sent to an address where nobody listens.
            _send_browser(started, way)
            async with asyncio.timeout(max(remaining, _SHORTEST_WAIT).total_seconds()):
                return await answer

    try:
        return asyncio.run(wait())
    except TimeoutError:
        raise CommandFailed("no answer came while the authorization lasted", hint=_AGAIN) from None


def _loopback(redirect_uri: str) -> Loopback:
    try:
        return Loopback.read(redirect_uri)
    except ValueError:
        raise CommandFailed(
            "the redirect URI is not HTTP on loopback, so its answer cannot be received here",
            hint="give another registered one (--redirect-uri), or use --paste",
            status=ExitStatus.WRONG_USE,
        ) from None


def _send_browser(started: StartAuthorizationResponse, way: Way) -> None:
    say(f"Open this address, and consent:\n  {started.authorization_uri}")
    if way.may_browse and _has_screen():
        webbrowser.open(started.authorization_uri)


def _has_screen() -> bool:
    """Whether a browser would be a window, and not take over the terminal."""
    return is_terminal(sys.stderr) and (
        sys.platform == "darwin" or bool(os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"})
    )
