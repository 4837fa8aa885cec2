"""BlockingTokenClient: the same for threads.

It is the asyncio client on a thread of its own, rather than a second implementation over gRPC's
blocking channel: cache, flights and watch exist once. What is in the cache is read in the caller's
thread and costs no switch. Any number of threads may share one.

After a fork the thread is gone: the child has an empty cache, and RuntimeError says to make a
client there. Servers that fork their workers make it in the worker (gunicorn's `post_fork`).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from broker.client.client import DEFAULT_TIMEOUT, TokenClient
from broker.client.credentials import Credentials
from broker.client.values import AccessToken


class _Thread:
    """An event loop on a thread, with a client open on it."""

    def __init__(self, client: TokenClient) -> None:
        self._client = client
        self._pid = os.getpid()
        self._open: concurrent.futures.Future[asyncio.AbstractEventLoop] = (
            concurrent.futures.Future()
        )
        self._closing = asyncio.Event()
        # A daemon: a program that forgets to close must still be able to end.
        self._thread = threading.Thread(target=self._run, name="token client", daemon=True)
        self._thread.start()
        self._loop = self._open.result()

    def call(self, asked: Coroutine[Any, Any, AccessToken]) -> AccessToken:
        if os.getpid() != self._pid:
            asked.close()
            raise RuntimeError("this client was made before a fork: make one in the child process")
        future = asyncio.run_coroutine_threadsafe(asked, self._loop)
        try:
            return future.result()
        finally:
            # Of no effect where it is over; where the caller was interrupted it waits no more.
            future.cancel()

    def close(self) -> None:
        if os.getpid() != self._pid:
            return  # the child has no such thread
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        try:
            async with self._client:
                self._open.set_result(asyncio.get_running_loop())
                await self._closing.wait()
        except BaseException as error:
            if self._open.done():
                raise
            self._open.set_exception(error)  # whoever opens it is told


class BlockingTokenClient:
    """`TokenClient` without asyncio: `with BlockingTokenClient(address) as client: …`."""

    def __init__(
        self,
        address: str,
        *,
        credentials: Credentials | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        watch: bool = False,
    ) -> None:
        """As `TokenClient`.

        Raises:
            ValueError: tokens would be shown to the network.
        """
        self._client = TokenClient(address, credentials=credentials, timeout=timeout, watch=watch)
        self._thread: _Thread | None = None

    def __repr__(self) -> str:
        """As of the client within."""
        return f"<Blocking{repr(self._client).removeprefix('<')}"

    def __enter__(self) -> Self:
        """Starts the thread."""
        self._thread = _Thread(self._client)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends what is under way, and the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()

    def get(self, tenant: str, *, timeout: float | None = None) -> AccessToken:
        """Returns an access token of a tenant, from memory within its lease.

        Raises:
            TokenBrokerError: as `TokenClient.get`.
        """
        cached = self._client.cached(tenant)
        return cached or self._opened().call(self._client.get(tenant, timeout=timeout))

    def report_rejected(
        self, tenant: str, generation: int, *, timeout: float | None = None
    ) -> AccessToken:
        """Says that Pleo answered 401, as `TokenClient.report_rejected`.

        Raises:
            TokenBrokerError: as `TokenClient.get`.
        """
        asked = self._client.report_rejected(tenant, generation, timeout=timeout)
        return self._opened().call(asked)

    def _opened(self) -> _Thread:
        if self._thread is None:
            raise RuntimeError(
                "this client is not open: use `with BlockingTokenClient(…) as client`"
            )
        return self._thread
