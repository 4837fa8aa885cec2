"""Grants and the tokens made from them: which are current, which are superseded, which are dead.

Upholds pleo.md, "Lifetimes and rotation": a rotation kills both old tokens at once. Says where a
token stands, never what follows from it: that is `authorization_server`. No clock, no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Standing = Literal["current", "superseded", "dead", "unknown"]
"""Of a refresh token or code: the one to use · rotated away or spent · expired, or its grant has
ended · never issued. A superseded one stays superseded after its grant has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The two tokens of one generation."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    access_expires_at: datetime
    refresh_expires_at: datetime
    parent: int | None
    """The generation whose refresh token was presented for this pair; of a consent: none."""


@dataclass(slots=True, kw_only=True)
class Grant:
    """What one company consented to for one client, until it ends."""

    number: int
    client_id: str
    company: str
    scopes: tuple[str, ...]
    pairs: list[Pair] = field(default_factory=list, repr=False)
    ended: str | None = None
    """Why it ended, in words; a living grant: none."""

    @property
    def generation(self) -> int:
        """The number of the current pair, from 1."""
        return len(self.pairs)

    @property
    def current(self) -> Pair:
        """The pair to use."""
        return self.pairs[-1]

    def end(self, reason: str) -> bool:
        """End it; whether it was alive until now."""
        if self.ended is not None:
            return False
        self.ended = reason
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where a token belongs."""

    grant: Grant
    generation: int

    @property
    def pair(self) -> Pair:
        """The pair it is one of."""
        return self.grant.pairs[self.generation - 1]

    def standing(self, now: datetime) -> Standing:
        """Tell where its refresh token stands."""
        if self.generation != self.grant.generation:
            return "superseded"
        if self.grant.ended is not None or now >= self.pair.refresh_expires_at:
            return "dead"
        return "current"

    def is_accepted(self, now: datetime) -> bool:
        """Tell whether its access token opens the API."""
        is_newest = self.generation == self.grant.generation
        return is_newest and self.grant.ended is None and now < self.pair.access_expires_at

    def is_previous(self, now: datetime) -> bool:
        """Tell whether a living grant's current pair was made from it, and it is not expired."""
        is_parent = self.grant.current.parent == self.generation
        is_in_time = now < self.pair.refresh_expires_at
        return is_parent and is_in_time and self.grant.ended is None


class Ledger:
    """All grants there ever were."""

    def __init__(self) -> None:
        """Start without any."""
        self.grants: list[Grant] = []
        self._by_refresh_token: dict[str, Located] = {}
        self._by_access_token: dict[str, Located] = {}

    def open(self, *, client_id: str, company: str, scopes: tuple[str, ...]) -> Grant:
        """Begin a grant that has no tokens yet."""
        grant = Grant(
            number=len(self.grants) + 1, client_id=client_id, company=company, scopes=scopes
        )
        self.grants.append(grant)
        return grant

    def add(self, grant: Grant, pair: Pair) -> None:
        """Make `pair` the current one. From here on the pair before it is dead, both tokens."""
        grant.pairs.append(pair)
        located = Located(grant=grant, generation=grant.generation)
        self._by_refresh_token[pair.refresh_token] = located
        self._by_access_token[pair.access_token] = located

    def find_refresh_token(self, refresh_token: str) -> Located | None:
        """Find one that was issued, dead or alive."""
        return self._by_refresh_token.get(refresh_token)

    def find_access_token(self, access_token: str) -> Located | None:
        """Find one that was issued, dead or alive."""
        return self._by_access_token.get(access_token)

    def living(self, *, client_id: str | None, company: str | None) -> list[Grant]:
        """List the grants that have not ended, of a client, of a company, or of all."""
        return [
            grant
            for grant in self.grants
            if grant.ended is None
            and client_id in (None, grant.client_id)
            and company in (None, grant.company)
        ]
