"""What the token endpoint answered, in the five classes that decide what happens to a grant.

Only `Refused` speaks about the grant (law 5). `Unknown` covers everything that was sent and not
understood: a pair that was rotated and not read is the accident this broker exists to prevent, so
whatever is not certain is unknown. `token_response.py` reads; this file only says what there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

from broker.domain.secret import AccessToken, RefreshToken

TOO_LATE: Final = "too_late"
"""The code of an attempt that was not sent because its own time was over."""

CLIENT_SECRET: Final = "client_secret"  # noqa: S105 - names a fault
"""The code of an attempt that was not sent because the client secret could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """Tokens were issued. Store first, complain afterwards."""

    access_token: AccessToken | None
    """None: a refresh token came alone. It is kept all the same, and refreshed at once."""

    refresh_token: RefreshToken | None
    """None: the presented one stays (RFC 6749 §6); after an exchange: there is none."""

    token_type: str
    expires_in: timedelta | None
    scopes: tuple[str, ...] | None
    """None: the answer was silent, which means as before, or as requested (RFC 6749 §5.1)."""

    flags: tuple[str, ...] = ()
    """What was odd: names such as `no_refresh_token`, `no_expires_in`, `odd_status`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Pleo says that the grant, or the code, is dead."""

    error: str
    """The OAuth `error` code, bounded and printable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotProcessed:
    """Nothing happened at Pleo: never sent, or told to wait."""

    code: str
    """`http_429`, one of the codes above, or the transport's fault: `connect_refused`, `tls`, …"""

    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Sent, and no readable answer: Pleo may have rotated."""

    code: str
    """`http_502`, `read_timeout`, `connection_lost`, `unreadable`, …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misconfigured:
    """Our client id, secret or request is refused: about the fleet, not about the grant."""

    error: str


Answer: TypeAlias = Rotated | Refused | NotProcessed | Unknown | Misconfigured
