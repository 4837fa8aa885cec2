"""Copies of access tokens in this process: what nearly every call is answered from, without I/O.

A copy is good until its grant's renewal time, unless news says that the grant has moved. A stale
copy is no longer handed out as fresh, but still stands in while PostgreSQL or Pleo cannot be asked.
Refresh tokens are never kept here. Newest wins: a copy is only replaced by one of a later version.

A row that was read before news of it, and arrives after, is stale already: without that, a token
that died meanwhile would be handed out for minutes, for news is told once.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from broker.domain.facts import Source
from broker.domain.freshness import REUSE_MARGIN
from broker.domain.grant import (
    Grant,
    GrantState,
    RejectionRecord,
    TokenPair,
)
from broker.domain.next_step import Serve, can_serve_degraded, decide_next
from broker.domain.recall_writes import is_newer
from broker.domain.secret import AccessToken
from broker.ports import GrantMoved
from broker.service.messages import ServedToken
from broker.service.rows import Reading

MOST_COPIES: Final = 50_000
"""Where no setting says so: of about two kilobytes each, a hundred megabytes at worst, for more
customers than Pleo has."""

_NONE: Final = timedelta(0)
_SERVING: Final = frozenset({GrantState.ACTIVE, GrantState.HELD})


@dataclass(slots=True, kw_only=True)
class Copy:
    """A token, and until when it may be handed out.

    Of the row only what is asked of a copy, and in one object: there are as many as customers.
    """

    state: GrantState
    version: int
    """Of the row."""

    generation: int
    rejected_generation: int
    pair_attempt: int
    consent_attempt: int
    access_token: AccessToken
    token_type: str
    scopes: tuple[str, ...]
    expires_at: datetime | None
    renew_at: datetime | None
    read_at: datetime
    asked_at: float
    """As `Reading` has them."""

    fresh_until: float
    """On the event loop's clock; in the past where stale."""

    is_unstored: bool = False
    """Issued by Pleo, and not yet taken by PostgreSQL."""

    written: bytes = b""
    """For whoever writes answers: what of them stays the same, the token left out."""

    def grant(self, tenant: str) -> Grant:
        """Returns the row as far as it is known here."""
        return Grant(
            tenant=tenant,
            state=self.state,
            generation=self.generation,
            pair=TokenPair(
                access_token=self.access_token,
                refresh_token=None,
                generation=self.generation,
                token_type=self.token_type,
            ),
            pair_attempt=self.pair_attempt,
            consent_attempt=self.consent_attempt,
            expires_at=self.expires_at,
            renew_at=self.renew_at,
            scopes=self.scopes,
            rejection=RejectionRecord(generation=self.rejected_generation),
        )

    def latest_now(self) -> datetime:
        """Returns PostgreSQL's time at this moment, or a little more."""
        elapsed = asyncio.get_running_loop().time() - self.asked_at
        return self.read_at + timedelta(seconds=elapsed)

    def served(self, source: Source = Source.MEMORY) -> ServedToken:
        """Returns what a caller gets of it.

        Raises:
            ValueError: it is not alive; a defect of the caller of this function.
        """
        if self.expires_at is None:
            raise ValueError(self.state)
        now, is_degraded = self.latest_now(), source is Source.FALLBACK
        reuse_until = now
        if not is_degraded and self.renew_at is not None:
            reuse_until = self.renew_at - REUSE_MARGIN
        return ServedToken(
            access_token=self.access_token,
            token_type=self.token_type,
            expires_at=self.expires_at,
            expires_in=max(self.expires_at - now, _NONE),
            reuse_until=reuse_until,
            reuse_for=max(reuse_until - now, _NONE),
            scopes=self.scopes,
            generation=self.generation,
            source=source,
            is_degraded=is_degraded,
        )

    def left(self, *, ahead: timedelta) -> tuple[timedelta, timedelta]:
        """Returns `expires_in` and `reuse_for` for a caller who is answered so much later."""
        now = self.latest_now() + ahead
        if self.expires_at is None or self.renew_at is None:
            raise ValueError(self.state)  # no such copy is fresh
        reuse_for = self.renew_at - REUSE_MARGIN - now
        return max(self.expires_at - now, _NONE), max(reuse_for, _NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """The newest that is known of a grant, and when that was heard, on the loop's clock."""

    version: int
    at: float

    def outruns(self, reading: Reading) -> bool:
        """Whether the row may have been read before that change."""
        return reading.asked_at <= self.at and not 0 < self.version <= reading.snapshot.version


class Memory:
    """The copies, least lately written first."""

    def __init__(self, *, most_copies: int = MOST_COPIES) -> None:
        """`most_copies`: beyond that the oldest is dropped."""
        self._copies: OrderedDict[str, Copy] = OrderedDict()
        self._heard: OrderedDict[str, _Heard] = OrderedDict()
        self._distrusted_until = -math.inf
        self._most_copies = most_copies

    def __len__(self) -> int:
        """How many copies there are."""
        return len(self._copies)

    def at_hand(self, tenant: str) -> Copy | None:
        """Returns a copy that may be handed out without asking anybody."""
        copy = self._copies.get(tenant)
        if copy is None or asyncio.get_running_loop().time() >= copy.fresh_until:
            return None
        return copy

    def fresh(self, tenant: str) -> ServedToken | None:
        """Returns what a caller gets of such a copy."""
        copy = self.at_hand(tenant)
        return None if copy is None else copy.served()

    def unstored(self, tenant: str, *, above_generation: int) -> ServedToken | None:
        """Returns a token that Pleo issued and PostgreSQL has not taken: the only one that lives.

        There is nothing to wait for before it is handed out, marked degraded.
        """
        copy = self._copies.get(tenant)
        if copy is None or not copy.is_unstored:
            return None
        return self.living(tenant, above_generation=above_generation)

    def living(self, tenant: str, *, above_generation: int) -> ServedToken | None:
        """Returns a token within its life to stand in, marked degraded."""
        copy = self._copies.get(tenant)
        if copy is None or not can_serve_degraded(
            copy.grant(tenant), above_generation=above_generation, now=copy.latest_now()
        ):
            return None
        return copy.served(Source.FALLBACK)

    def keep(self, reading: Reading) -> None:
        """Keeps what was read or written, unless a later version is here already."""
        grant, pair = reading.grant, reading.grant.pair
        known = self._copies.get(grant.tenant)
        if known is not None and self._is_newer(known, reading):
            return
        self._copies.pop(grant.tenant, None)
        if grant.state not in _SERVING or not isinstance(pair, TokenPair) or not pair.access_token:
            self._hear(grant.tenant, reading.snapshot.version)
            return
        fresh_until = 0.0 if self._is_outrun(reading) else _fresh_until(reading)
        copy = _copy(reading, pair, pair.access_token, fresh_until=fresh_until)
        self._copies[grant.tenant] = copy
        if len(self._copies) > self._most_copies:
            self._copies.popitem(last=False)

    def keep_unstored(self, reading: Reading) -> None:
        """Keeps what Pleo issued and PostgreSQL has not taken: it stands in, and is never fresh.

        `reading`: the row as it was read, with the grant as it shall be.
        """
        self.keep(reading)
        copy = self._copies.get(reading.grant.tenant)
        if copy is not None and copy.generation == reading.grant.generation:
            copy.fresh_until, copy.is_unstored = 0.0, True

    def moved(self, news: GrantMoved) -> bool:
        """Marks a copy stale that is older than the news, and says whether one was."""
        self._hear(news.tenant, news.version)
        copy = self._copies.get(news.tenant)
        if copy is None or 0 < news.version <= copy.version:
            return False
        copy.fresh_until, copy.is_unstored = 0.0, False
        return True

    def mark_all_stale(self) -> None:
        """Asks again for everything: news may have been missed."""
        self._distrusted_until = asyncio.get_running_loop().time()
        for copy in self._copies.values():
            copy.fresh_until = 0.0

    def _is_newer(self, known: Copy, reading: Reading) -> bool:
        """Whether the row that was read says less than what is here.

        At the same version it does where a pair is here that PostgreSQL has not taken yet. After a
        restore versions start lower again, and only the pairs tell: a token that PostgreSQL has
        lost stands in for the one that it replaced.
        """
        if known.asked_at <= self._distrusted_until < reading.asked_at:
            return is_newer(known.grant(reading.grant.tenant), reading.grant)
        return (known.version, known.generation) > (
            reading.snapshot.version,
            reading.grant.generation,
        )

    def _hear(self, tenant: str, version: int) -> None:
        known = self._heard.pop(tenant, None)
        if known is not None and 0 < version < known.version:
            version = known.version  # late news says nothing new
        self._heard[tenant] = _Heard(version=version, at=asyncio.get_running_loop().time())
        if len(self._heard) > self._most_copies:
            self._heard.popitem(last=False)

    def _is_outrun(self, reading: Reading) -> bool:
        heard = self._heard.get(reading.grant.tenant)
        return reading.asked_at <= self._distrusted_until or (
            heard is not None and heard.outruns(reading)
        )


def served(reading: Reading, source: Source) -> ServedToken:
    """Returns what a caller gets of a grant whose token is alive.

    Raises:
        ValueError: there is no living token; a defect of the caller of this function.
    """
    grant, pair = reading.grant, reading.grant.pair
    if not isinstance(pair, TokenPair) or pair.access_token is None:
        raise ValueError(grant.state)
    copy = _copy(reading, pair, pair.access_token, fresh_until=0.0)
    return copy.served(source)


def _fresh_until(reading: Reading) -> float:
    step = decide_next(reading.grant, above_generation=0, now=reading.now)
    if not isinstance(step, Serve) or reading.grant.renew_at is None:
        return 0.0
    return reading.asked_at + (reading.grant.renew_at - reading.now).total_seconds()


def _copy(
    reading: Reading, pair: TokenPair, access_token: AccessToken, *, fresh_until: float
) -> Copy:
    grant = reading.grant
    return Copy(
        state=grant.state,
        version=reading.snapshot.version,
        generation=grant.generation,
        rejected_generation=grant.rejection.generation,
        pair_attempt=grant.pair_attempt,
        consent_attempt=grant.consent_attempt,
        access_token=access_token,
        token_type=pair.token_type,
        scopes=grant.scopes,
        expires_at=grant.expires_at,
        renew_at=grant.renew_at,
        read_at=reading.now,
        asked_at=reading.asked_at,
        fresh_until=fresh_until,
    )
