"""`ports.Provider` over HTTP/1.1.

Token requests and API calls have pools of their own, so that questions never keep a token request
waiting. Client credentials go in one way, Basic or body, never in both (RFC 6749 §2.3).
"""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack
from typing import Final, Self
from urllib.parse import urlencode

import httpx

from broker.domain.answers import CLIENT_SECRET, NotProcessed
from broker.domain.errors import ProviderUnavailable
from broker.domain.oauth import authorization_uri, basic_credentials, token_form
from broker.domain.requests import AuthorizationRequest, TokenRequest
from broker.domain.secret import AccessToken, ClientSecret
from broker.pleo.api_call import UNKNOWN, call_api, deletion_error, read_introspection
from broker.pleo.settings import ProviderSettings, http_address
from broker.pleo.token_call import TokenCall
from broker.pleo.transport import HEADERS, open_transport
from broker.ports import Introspection, Presentation, WireWindow

API_CONNECTIONS: Final = 10
"""Calls are rare: after a consent, after a lost answer, after a rejected token."""


class PleoProvider:
    """Pleo, as `ports.Provider` has it. Enter it to use it; leaving closes its connections."""

    def __init__(self, settings: ProviderSettings, *, tls: ssl.SSLContext | None = None) -> None:
        """Connects to nothing yet. `tls`: other authorities than the usual ones.

        Raises:
            ValueError: an address is none.
        """
        self._settings = settings
        # Only looked at: it goes to browsers as it was set.
        http_address(settings.authorize_url)
        self._token_address = http_address(settings.token_url)
        self._api_address = http_address(settings.api_url) if settings.api_url else None
        self._token_pool = open_transport(connections=settings.max_concurrency, tls=tls)
        self._api_pool = open_transport(connections=API_CONNECTIONS, tls=tls)
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(self._token_pool)
        await self._open.enter_async_context(self._api_pool)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    def authorization_uri(self, request: AuthorizationRequest) -> str:
        """See the port."""
        return authorization_uri(
            self._settings.authorize_url,
            self._settings.client_id,
            request,
            self._settings.authorize_params,
        )

    async def present(self, request: TokenRequest, window: WireWindow) -> Presentation:
        """See the port. Where the client secret cannot be read nothing is sent."""
        try:
            secret = self._settings.client_secret()
        except (OSError, ValueError):  # a file that is gone, or holds no text
            return Presentation(answer=NotProcessed(code=CLIENT_SECRET), sent_at=None)
        form = self._form(request, secret)
        head = self._head(len(form), secret)
        return await TokenCall(window).make(self._token_pool, head, form)

    async def introspect(self, access_token: AccessToken) -> Introspection:
        """See the port."""
        if self._api_address is None:
            return UNKNOWN
        address = _below(self._api_address, "/v1/introspect")
        return read_introspection(await call_api(self._api_pool, "GET", address, access_token))

    async def delete_installation(self, access_token: AccessToken) -> None:
        """See the port."""
        if self._api_address is None:
            raise ProviderUnavailable(
                "Pleo's API has no address here, so that no installation is deleted",
                metadata={"code": "no_api_url"},
            )
        address = _below(self._api_address, "/v1/installations/me")
        answer = await call_api(self._api_pool, "DELETE", address, access_token)
        if error := deletion_error(answer):
            raise error

    def _form(self, request: TokenRequest, secret: ClientSecret) -> bytes:
        parameters = [*token_form(request)]
        # RFC 6749 §2.3.1 has it for clients that cannot use Basic. Pleo's pages want now one, now
        # the other.
        if self._settings.client_auth == "body":
            parameters.append(("client_id", self._settings.client_id))
            parameters.append(("client_secret", secret.reveal()))
        return urlencode(parameters).encode("ascii")

    def _head(self, length: int, secret: ClientSecret) -> httpx.Request:
        headers = {
            **HEADERS,
            "Content-Type": "application/x-www-form-urlencoded",
            # httpx counts only what it is given as content; this body comes later (`token_call`).
            "Content-Length": str(length),
        }
        if self._settings.client_auth == "basic":
            headers["Authorization"] = basic_credentials(self._settings.client_id, secret)
        connect = self._settings.connect_timeout.total_seconds()
        # For connecting alone: everything after it has the attempt's own times (`WireWindow`).
        timeouts = httpx.Timeout(None, connect=connect).as_dict()
        return httpx.Request(
            "POST", self._token_address, headers=headers, extensions={"timeout": timeouts}
        )


def _below(api: httpx.URL, path: str) -> httpx.URL:
    return api.copy_with(path=api.path.rstrip("/") + path)
