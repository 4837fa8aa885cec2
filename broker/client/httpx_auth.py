"""PleoAuth: the header on httpx requests to Pleo's API, and what follows a 401.

The header goes to the origin (scheme, host and port) of `api_url` and nowhere else: a request to
another one, or a redirect there, passes without. That origin is HTTPS, or this machine. Without
`api_url` it is the origin of the first request that is either, for as long as the object lives.

A 401 is reported once, with the generation. Where the tenant has a newer token by then, the request
is sent once more. That is safe for requests that are not idempotent: a 401 says that nothing was
carried out (RFC 9110 §15.5.2). It needs the body again, so only a request whose body is in memory
(bytes, text, JSON, a form, or none) is repeated. A streamed body (a generator, a file, multipart)
is not held in memory for that: such a 401 is reported and shown, and the next request has the new
token. Who wants it repeated calls `request.read()` first, or passes bytes. 403 is about
permissions, and is left alone.

What the broker fails with is raised instead of the 401 that led there: it says why.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from http import HTTPStatus
from typing import TypeAlias

import httpx

from broker.client.blocking import BlockingTokenClient
from broker.client.client import TokenClient
from broker.client.credentials import is_loopback
from broker.client.values import AccessToken

_Origin: TypeAlias = tuple[str, str, int | None]

_PORTS = {"https": 443, "http": 80}


class PleoAuth(httpx.Auth):
    """`httpx.AsyncClient(auth=PleoAuth(client, tenant))`, or `httpx.Client`."""

    def __init__(
        self,
        client: TokenClient | BlockingTokenClient,
        tenant: str,
        *,
        api_url: str | None = None,
    ) -> None:
        """`client`: a `TokenClient` for httpx.AsyncClient, a blocking one for httpx.Client.

        `api_url`: where the token may go, whatever the first request is.

        Raises:
            ValueError: `api_url` is neither HTTPS nor on this machine.
        """
        self._client = client
        self._tenant = tenant
        self._origin: _Origin | None = None
        if api_url is not None:
            url = httpx.URL(api_url)
            if not _may_see_tokens(url):
                raise ValueError("api_url must be https://, or http:// on this machine")
            self._origin = _origin(url)

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """For httpx.Client."""
        if not self._is_for(request):
            yield request
            return
        client = self._client
        if not isinstance(client, BlockingTokenClient):
            raise TypeError("httpx.Client needs PleoAuth of a BlockingTokenClient")
        sent = client.get(self._tenant)
        response = yield _with_token(request, sent)
        if self._is_rejected(response):
            newer = client.report_rejected(self._tenant, sent.generation)
            if _may_repeat(request, sent, newer):
                yield _with_token(request, newer)

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """For httpx.AsyncClient."""
        if not self._is_for(request):
            yield request
            return
        client = self._client
        if not isinstance(client, TokenClient):
            raise TypeError("httpx.AsyncClient needs PleoAuth of a TokenClient")
        sent = await client.get(self._tenant)
        response = yield _with_token(request, sent)
        if self._is_rejected(response):
            newer = await client.report_rejected(self._tenant, sent.generation)
            if _may_repeat(request, sent, newer):
                yield _with_token(request, newer)

    def _is_for(self, request: httpx.Request) -> bool:
        if self._origin is None and _may_see_tokens(request.url):
            self._origin = _origin(request.url)
        return _origin(request.url) == self._origin

    def _is_rejected(self, response: httpx.Response) -> bool:
        """Whether Pleo says 401: after a redirect somebody else may, who was shown no token."""
        return response.status_code == HTTPStatus.UNAUTHORIZED and self._is_for(response.request)


def _may_see_tokens(url: httpx.URL) -> bool:
    return url.scheme == "https" or (url.scheme == "http" and is_loopback(url.host))


def _origin(url: httpx.URL) -> _Origin:
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)


def _with_token(request: httpx.Request, token: AccessToken) -> httpx.Request:
    request.headers["Authorization"] = token.authorization
    return request


def _may_repeat(request: httpx.Request, sent: AccessToken, newer: AccessToken) -> bool:
    return newer.generation > sent.generation and isinstance(request.stream, httpx.ByteStream)
