"""The way to Pleo and back: three pages over the broker's GrantService.

What protects the customer is in here: a cookie that only this browser has, hashed into the
authorization at the start and again at the end, so that a consent link which somebody else started
connects nobody (RFC 9700 section 2.1). Keeps nothing itself, so any replica may answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from broker.v1 import grant_service_pb2_grpc
from broker.v1.grant_service_pb2 import CompleteAuthorizationRequest, StartAuthorizationRequest

from . import pages
from .reconnects import Reconnects

_DEADLINE_SECONDS: Final = 30.0
"""The exchange waits for Pleo; a customer who sees nothing for longer goes away."""

_COOKIE_SECONDS: Final = 600
"""As long as the broker keeps an authorization (BROKER_AUTHORIZATION_TTL_SECONDS)."""

_WAITING_HELPS: Final = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}

_NOT_FROM_HERE: Final = pages.Outcome(
    title="Not from here", text="Please start on our own page.", status=403
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The pages. `url` is what browsers see; `url`/callback is registered with Pleo."""

    url: str
    grants: grant_service_pb2_grpc.GrantServiceAsyncStub
    reconnects: Reconnects

    async def front(self, request: Request) -> Response:
        """Shows who must connect again, and lets somebody connect."""
        if request.url.netloc != urlsplit(self.url).netloc:
            # As localhost for 127.0.0.1: cookies would not be there when the callback comes.
            return RedirectResponse(self.url)
        return pages.front(self.reconnects.waiting.values(), is_current=self.reconnects.is_current)

    async def connect(self, request: Request) -> Response:
        """Sends the browser to Pleo, with what it must bring back."""
        if request.headers.get("origin") != self.url:
            # The form of another site would connect this customer to a tenant of its own choice.
            return pages.ended(_NOT_FROM_HERE)
        form = dict(parse_qsl((await request.body()).decode(errors="replace")))
        tenant = form.get("tenant", "")
        browser = request.cookies.get(self._browser_cookie) or secrets.token_urlsafe(32)
        starting = StartAuthorizationRequest(
            tenant=tenant,
            session_binding=binding_of(browser),
            redirect_uri=f"{self.url}/callback",
            allow_subject_change="other_company" in form,
        )
        try:
            started = await self.grants.StartAuthorization(starting, timeout=_DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            return _failed(error, tenant=tenant)
        answer = RedirectResponse(started.authorization_uri, status_code=303)
        self._set_cookie(answer, self._browser_cookie, browser)
        self._set_cookie(answer, _cookie_of(started.state), tenant, seconds=_COOKIE_SECONDS)
        return answer

    async def callback(self, request: Request) -> Response:
        """Completes what `connect` began. A reload asks again, and is told the same."""
        query, cookies = request.query_params, request.cookies
        browser = cookies.get(self._browser_cookie)
        tenant = cookies.get(_cookie_of(query.get("state", "")))
        if browser is None or tenant is None:
            return pages.ended(pages.STARTED_ELSEWHERE)
        completing = CompleteAuthorizationRequest(
            tenant=tenant, state=query["state"], session_binding=binding_of(browser)
        )
        if "code" in query:
            completing.code = query["code"]
        else:
            completing.error.error = query.get("error", "no_code")
            completing.error.error_description = query.get("error_description", "")
        try:
            done = await self.grants.CompleteAuthorization(completing, timeout=_DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            return _failed(error, tenant=tenant)
        self.reconnects.take_in(done.grant)
        return pages.connected(done.grant)

    @property
    def _is_secure(self) -> bool:
        return self.url.startswith("https:")

    @property
    def _browser_cookie(self) -> str:
        # With `__Host-` no other host of the domain can set it; browsers want Secure for that.
        return "__Host-browser" if self._is_secure else "browser"

    def _set_cookie(
        self, answer: Response, name: str, value: str, *, seconds: int | None = None
    ) -> None:
        # Lax, not strict: the way back from Pleo is a navigation that begins on another site.
        answer.set_cookie(
            name, value, max_age=seconds, httponly=True, secure=self._is_secure, samesite="lax"
        )


def application(site: Site) -> Starlette:
    """Returns the site as an ASGI application that polls while it runs."""

    @asynccontextmanager
    async def polling(_app: Starlette) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(site.reconnects.keep_polling(), name="poll-grants")
            yield
            task.cancel()

    return Starlette(
        routes=[
            Route("/", site.front),
            Route("/connect", site.connect, methods=["POST"]),
            Route("/callback", site.callback),
        ],
        lifespan=polling,
    )


def binding_of(browser: str) -> bytes:
    """Returns what ties an authorization to a browser: 32 bytes, from which no cookie is read."""
    return hashlib.sha256(b"connect to pleo\0" + browser.encode()).digest()


def _cookie_of(state: str) -> str:
    """Returns the name of the cookie with an authorization's tenant: each window has its own."""
    return f"connecting-{hashlib.sha256(state.encode()).hexdigest()[:16]}"


def _failed(error: grpc.aio.AioRpcError, *, tenant: str) -> Response:
    found = _error_info(error)
    return pages.refused(
        found.reason,
        tenant=tenant,
        facts=found.metadata,
        may_wait=error.code() in _WAITING_HELPS,
    )


def _error_info(error: grpc.aio.AioRpcError) -> ErrorInfo:
    """Returns what the broker says about a failure; empty where gRPC itself failed."""
    found = ErrorInfo()
    packed = dict(error.trailing_metadata()).get("grpc-status-details-bin")
    if isinstance(packed, bytes):
        for detail in Status.FromString(packed).details:
            if detail.Unpack(found):
                break
    return found
