"""Keys from the issuer's URL: fetched by one loop, kept, and fetched anew for a key not seen yet.

No caller fetches: one who leaves would take the others' answer along (law 8). Callers say that they
want newer keys, and wait for the end of the fetch. However many tokens name keys that there are
not, the issuer is asked once in `_PAUSE` at most. Keys that were fetched stay in force while it
cannot be reached.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

import httpx
import jwt

from broker.domain.facts import FilesLoaded, FilesRefused
from broker.ports import Observer
from broker.rpc.jwks import WHAT, Keys, read_keys
from broker.rpc.reloading import FilesUnusableError

_PAUSE: Final = 10.0
"""Seconds between two fetches at least. A new key signs no tokens before it has been published for
longer than that; and made-up keys cost the issuer six requests a minute."""

_OLDEST: Final = 300.0
"""Seconds after which keys are fetched anew unasked, so that a withdrawn one ends; what the
Kubernetes API server itself allows caches to keep them is an hour."""

_TIMEOUT: Final = 5.0
"""Seconds for a fetch; a caller without a deadline waits thirty for its whole answer."""

_MOST_BYTES: Final = 1024 * 1024
"""Of an answer. A set has a few kilobytes."""


class UrlIssuer:
    """Keys from an address. `run` it beside the server."""

    def __init__(
        self, url: str, *, observer: Observer, clock: Callable[[], float] | None = None
    ) -> None:
        """`clock`: seconds that never go back; the event loop's unless told otherwise."""
        self._url = url
        self._observer = observer
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._keys: Keys = {}
        self._problem = "they were not fetched yet"
        self._next_at = float("-inf")
        self._wanted = asyncio.Event()
        self._fetched = asyncio.Event()

    def keys(self) -> Keys:
        """See `Issuer`."""
        return self._keys

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """See `Issuer`."""
        if kid not in self._keys and self._clock() >= self._next_at:
            self._wanted.set()
            await self._fetched.wait()
        return self._keys.get(kid)

    async def run(self) -> None:
        """Fetches at once, when keys are old, and when somebody wants newer ones; never ends."""
        while True:
            await self._fetch()
            self._wanted.clear()
            self._next_at = self._clock() + _PAUSE
            self._fetched.set()
            self._fetched = asyncio.Event()
            try:
                async with asyncio.timeout(_PAUSE if self._problem else _OLDEST):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    async def _fetch(self) -> None:
        try:
            keys = await fetch_keys(self._url)
        except FilesUnusableError as error:
            problem = str(error)
        else:
            self._take(keys)
            return
        if problem != self._problem:
            self._problem = problem
            self._observer.observe(FilesRefused(what=WHAT, error=problem))

    def _take(self, keys: Keys) -> None:
        is_news = self._problem or keys.keys() != self._keys.keys()
        self._problem = ""
        self._keys = keys
        if is_news:
            self._observer.observe(FilesLoaded(what=WHAT))


async def fetch_keys(url: str) -> Keys:
    """Fetches a set of keys, once.

    Raises:
        FilesUnusableError: it cannot be fetched, or is of no use.
    """
    try:
        return read_keys(await _get(url))
    except FilesUnusableError as error:
        why = str(error)
    # TimeoutError is an OSError; httpx has its own besides.
    except (httpx.HTTPError, OSError) as error:
        why = f"cannot be fetched ({type(error).__name__})"
    raise FilesUnusableError(f"{url}: {why}")


async def _get(url: str) -> bytes:
    # Reading all authorities of the world takes a while, and for plain HTTP they are not used.
    tls = await asyncio.to_thread(ssl.create_default_context) if url.startswith("https:") else False
    body = bytearray()
    async with (
        asyncio.timeout(_TIMEOUT),
        httpx.AsyncClient(verify=tls, trust_env=False) as client,
        client.stream("GET", url) as response,
    ):
        if response.status_code != httpx.codes.OK:
            raise FilesUnusableError(f"answers with status {response.status_code}")
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > _MOST_BYTES:
                raise FilesUnusableError(f"answers with more than {_MOST_BYTES} bytes")
    return bytes(body)
