"""When an access token is used, renewed, and dead.

Decides from times on PostgreSQL's clock; knows no clock itself. The renewal time, jitter included,
is fixed once per generation, because `reuse_until` is promised from it (law 9).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from broker.domain.grant import Grant, TokenPair
from broker.domain.secret import AccessToken

DEFAULT_LIFETIME: Final = timedelta(seconds=300)
"""Where Pleo names none and none was named before: a third of what it once documented, so that a
wrong guess costs refreshes rather than dead tokens."""

SHORTEST_LIFETIME: Final = timedelta(seconds=60)
"""A shorter `expires_in` is taken for this: rotating more often than that would kill tokens that
callers have just been given."""

LONGEST_LIFETIME: Final = timedelta(hours=24)
"""A longer one is taken for this: nobody documents such tokens, and a slip of units is likelier."""

JITTER: Final = 0.2
"""The share of the renewal lead that is spread, so that grants made together part company."""

SPREAD: Final = 0.5
"""The share of a late grant's life before its lead over which its renewal is spread. Late ones come
as fast as the fleet's rate lets them, after an outage all that are in use, and would come together
again in each lifetime. Half keeps a token for most of its life: one renewal more in four, once."""

REUSE_MARGIN: Final = timedelta(seconds=5)
"""Between the end of the promise and the renewal: a request that left at the last moment is still
answered before the token dies. Longer than an API call should take."""


class Freshness(StrEnum):
    """How far through its life an access token is."""

    FRESH = "FRESH"
    DUE = "DUE"
    """Alive, and to be renewed."""

    EXPIRED = "EXPIRED"
    """Dead, or not there."""


def settled_lifetime(expires_in: timedelta | None, last: timedelta | None) -> timedelta:
    """Returns the lifetime to believe (pleo.md, "Token requests")."""
    told = expires_in if expires_in is not None and expires_in > timedelta(0) else last
    return min(max(told or DEFAULT_LIFETIME, SHORTEST_LIFETIME), LONGEST_LIFETIME)


def renewal_time(
    expires_at: datetime,
    *,
    lifetime: timedelta,
    ahead: timedelta,
    jitter: float,
    was_late: bool = False,
) -> datetime:
    """Returns when to rotate. `jitter` is in [0, 1): it makes the renewal later, by little.

    The lead is never more than a third of the lifetime, so that short tokens are used too.
    `was_late`: this pair comes long after its predecessor was due (`renewal.is_late`), as others
    do now; jitter makes its renewal earlier, by much.
    """
    lead = min(ahead, lifetime / 3)
    if was_late:
        return expires_at - lead - (lifetime - lead) * SPREAD * jitter
    return expires_at - lead * (1 - JITTER * jitter)


def reuse_until(grant: Grant) -> datetime | None:
    """Returns until when callers may keep the token without asking again (law 9)."""
    return None if grant.renew_at is None else grant.renew_at - REUSE_MARGIN


def freshness(grant: Grant, now: datetime) -> Freshness:
    """Returns where the access token stands; at a boundary itself the later state holds."""
    if access_token_of(grant) is None or grant.expires_at is None or now >= grant.expires_at:
        return Freshness.EXPIRED
    if grant.renew_at is None or now >= grant.renew_at:
        return Freshness.DUE
    return Freshness.FRESH


def access_token_of(grant: Grant) -> AccessToken | None:
    """Returns the access token, if there is a readable one."""
    return grant.pair.access_token if isinstance(grant.pair, TokenPair) else None
