"""A provider at some address, and windows to send in."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import timedelta

from broker.domain.requests import RefreshRequest
from broker.domain.secret import ClientSecret, RefreshToken, Secret
from broker.pleo.provider import PleoProvider
from broker.pleo.settings import ClientAuth, ProviderSettings
from broker.ports import WireWindow
from broker.sandbox.settings import DEMO_CLIENT

# Made once: the default would read all certificates of the world for every provider.
TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

CONNECT_TIMEOUT = timedelta(seconds=20)
"""Unless a test is about it: loaded machines are slow, and no test waits for it."""


def demo_secret() -> ClientSecret:
    return ClientSecret(Secret(DEMO_CLIENT.client_secret))


def provider_at(
    url: str,
    *,
    client_auth: ClientAuth = "basic",
    client_secret: Callable[[], ClientSecret] = demo_secret,
    connect_timeout: timedelta = CONNECT_TIMEOUT,
    max_concurrency: int = 5,
    tls: ssl.SSLContext = TRUSTS_NOBODY,
) -> PleoProvider:
    """Makes the demo client's provider for a Pleo at this address."""
    settings = ProviderSettings(
        authorize_url=f"{url}/oauth/authorize",
        token_url=f"{url}/oauth/token",
        api_url=url,
        client_id=DEMO_CLIENT.client_id,
        client_secret=client_secret,
        client_auth=client_auth,
        connect_timeout=connect_timeout,
        max_concurrency=max_concurrency,
    )
    return PleoProvider(settings, tls=tls)


def refresh_of(token: str = "a-fake-refresh-token") -> RefreshRequest:
    return RefreshRequest(refresh_token=RefreshToken(Secret(token)))


def window(
    *,
    send: float = 30,
    answer: float = 30,
    on_sending: Callable[[], None] = lambda: None,
) -> WireWindow:
    """A window from now on, in seconds."""
    now = asyncio.get_running_loop().time()
    return WireWindow(send_by=now + send, answer_by=now + answer, on_sending=on_sending)
