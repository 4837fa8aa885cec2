"""What `doctor` finds about the way to Pleo: whether somebody answers there, over TLS.

One GET without body, credentials, cookie or redirect to each address. It names no grant and no
client, so that nothing is used up or counted against us. What is answered is of no interest: Pleo's
token endpoint takes POST only and may well say 404 or 405. A gateway's 5xx is worth a warning.
"""

from __future__ import annotations

from typing import Final

import httpx

from broker.cli.checks import Check, bad, ok, warning
from broker.config import ServeSettings
from broker.wiring import pleo

PLEO_CHECKS: Final = ("pleo token endpoint", "pleo API")

_PATIENCE_SECONDS: Final = 5.0
"""As long as a connection to Pleo ever takes; somebody is waiting at a terminal."""


async def check_pleo(settings: ServeSettings) -> list[Check]:
    """Looks at both addresses; one that is turned off is not looked at."""
    addresses = pleo(settings)
    token_endpoint, api = PLEO_CHECKS
    # As the broker itself: no proxy, no .netrc, no redirects.
    async with httpx.AsyncClient(trust_env=False, timeout=_PATIENCE_SECONDS) as client:
        found = [await _check(client, token_endpoint, addresses.token_url)]
        if addresses.api_url is None:
            return [*found, ok(api, "turned off (BROKER_PLEO_API_URL is empty)")]
        return [*found, await _check(client, api, addresses.api_url)]


async def _check(client: httpx.AsyncClient, name: str, url: str) -> Check:
    host = httpx.URL(url).netloc.decode()
    try:
        async with client.stream("GET", url) as response:
            status = response.status_code
    # The error's text may hold what a proxy or resolver said: its kind is enough.
    except httpx.HTTPError as error:
        mend = "DNS, TLS or the way out of the cluster; BROKER_PLEO_ENVIRONMENT or its addresses"
        return bad(name, f"{host} cannot be reached ({type(error).__name__})", mend=mend)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return warning(name, f"{host} answers, with {status}", mend="Pleo's status page; wait")
    return ok(name, f"{host} answers; whether it knows us, the first request tells")
