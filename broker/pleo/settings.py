"""What the provider has to be told. Where that comes from is config's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import httpx

from broker.domain.secret import ClientSecret

ClientAuth = Literal["basic", "body"]
"""Pleo's pages contradict each other (pleo.md, "Token requests"). One of them, never both, and not
one after the other: a second request would present the same token again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """One OAuth client at one Pleo."""

    authorize_url: str
    token_url: str
    api_url: str | None
    """None: no introspection and no deletion."""

    client_id: str
    client_secret: Callable[[], ClientSecret]
    """Asked at each token request, so that a rotated secret is used at once. Where it raises
    OSError or ValueError nothing is sent."""

    client_auth: ClientAuth = "basic"
    authorize_params: tuple[tuple[str, str], ...] = ()
    """Further parameters of the authorization request."""

    connect_timeout: timedelta = timedelta(seconds=3)
    """Once for DNS and TCP, once for TLS. The kernel repeats a lost SYN after one second."""

    max_concurrency: int = 50
    """Connections to the token endpoint. Further requests wait until they may not be sent."""


def http_address(url: str) -> httpx.URL:
    """Reads an address.

    Raises:
        ValueError: it is not absolute, or neither HTTPS nor HTTP. It does not repeat the address,
            whose query may hold a secret.
    """
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL("")
    if address.scheme not in {"https", "http"} or not address.host:
        raise ValueError("expected an absolute HTTPS or HTTP address")
    return address
