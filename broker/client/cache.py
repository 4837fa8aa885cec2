"""The tokens at hand, each for as long as the broker promised that nobody rotates it.

Decides by the clock that it is given. Upholds:

1. A token is used until shortly before its planned rotation (`reading.kept_of`), and not a moment
   longer, though it may live on: from then on it may be dead any time. So a broker that is away
   for longer is an error, rather than a token that may be dead.
2. The newest generation wins: a late answer brings no older token back.
3. Failures are not kept, but for RetryInfo: until then the answer would be the same.
"""

from __future__ import annotations

import os
import weakref
from datetime import timedelta
from typing import Final

from broker.client.errors import TokenBrokerError
from broker.client.reading import kept_of
from broker.client.values import AccessToken, Kept
from broker.v1.token_service_pb2 import GetAccessTokenResponse

LONGEST_HOLD: Final = timedelta(seconds=30)
"""What RetryInfo may keep us from asking: on-call may end its cause earlier."""

_SMALL: Final = 1000
"""Tenants that are not worth looking through for dead tokens."""

_OWN_DEADLINE: Final = "REFRESH_IN_PROGRESS"
"""Says that one caller had too little time; another may have more."""

_ALL: Final[weakref.WeakSet[Cache]] = weakref.WeakSet()


class Cache:
    """The tokens of one client."""

    def __init__(self) -> None:
        """Empty."""
        self.kept: dict[str, Kept] = {}
        """By tenant. Read directly where every nanosecond counts."""

        self._held: dict[str, tuple[float, TokenBrokerError]] = {}
        self._swept_above = _SMALL
        _ALL.add(self)

    def fresh(self, tenant: str, *, now: float) -> Kept | None:
        """Returns what may be used without asking."""
        kept = self.kept.get(tenant)
        return kept if kept is not None and now < kept.reuse_until else None

    def held(self, tenant: str, *, now: float) -> TokenBrokerError | None:
        """Returns what would be answered again."""
        until, error = self._held.get(tenant, (now, None))
        return error if now < until else None

    def take(
        self,
        tenant: str,
        answer: GetAccessTokenResponse,
        *,
        asked_at: float,
        answered_at: float,
        is_used: bool,
    ) -> AccessToken:
        """Keeps a token for as long as was promised, and returns it."""
        kept = kept_of(answer, asked_at=asked_at, answered_at=answered_at, is_used=is_used)
        token = kept.token
        self._held.pop(tenant, None)
        known = self.kept.get(tenant)
        if known is not None and known.token.generation > token.generation:
            return token
        if known is not None and known.token.generation == token.generation:
            kept.is_used = is_used or known.is_used
        self.kept[tenant] = kept
        if len(self.kept) > self._swept_above:
            self._sweep(asked_at)
        return token

    def heed(self, tenant: str, error: TokenBrokerError, *, now: float) -> None:
        """Takes note of a failure: where waiting does not help, the token is dropped at once."""
        if error.retry_after is not None:
            if error.reason != _OWN_DEADLINE:
                hold = min(error.retry_after, LONGEST_HOLD).total_seconds()
                self._held[tenant] = (now + hold, error)
        elif error.reason:
            self.drop(tenant)

    def drop(self, tenant: str) -> None:
        """Forgets a tenant."""
        self.kept.pop(tenant, None)
        self._held.pop(tenant, None)

    def clear(self) -> None:
        """Forgets all."""
        self.kept.clear()
        self._held.clear()

    def _sweep(self, now: float) -> None:
        """Lets go of what is of no use, so that tenants who came once do not stay for ever."""
        for tenant in [each for each, kept in self.kept.items() if kept.reuse_until <= now]:
            del self.kept[tenant]
        for tenant in [each for each, (until, _) in self._held.items() if until <= now]:
            del self._held[tenant]
        self._swept_above = max(_SMALL, 2 * len(self.kept))


def _forget_all() -> None:
    """In a child process: nobody would tell it that a token has ended."""
    for cache in _ALL:
        cache.clear()


os.register_at_fork(after_in_child=_forget_all)
