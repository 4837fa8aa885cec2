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
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from broker.domain.facts import Source
from broker.domain.freshness import REUSE_MARGIN
from broker.domain.grant import Grant, GrantState, TokenPair
from broker.domain.next_step import Serve, can_serve_degraded, decide_next
from broker.domain.recall_writes import is_newer
from broker.ports import GrantMoved
from broker.service.messages import ServedToken
from broker.service.rows import Reading

MOST_COPIES: Final = 50_000
"""Where no setting says so: of about two kilobytes each, a hundred megabytes at worst, for more
customers than Pleo has."""

_NONE: Final = timedelta(0)
_SERVING: Final = frozenset({GrantState.ACTIVE, GrantState.HELD})


@dataclass(slots=True, kw_only=True)
class _Copy:
    reading: Reading
    """Without refresh token."""

    is_unstored: bool = False
    """Issued by Pleo, and not yet taken by PostgreSQL."""

    fresh_until: float
    """On the event loop's clock; in the past where stale."""


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
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._heard: OrderedDict[str, _Heard] = OrderedDict()
        self._distrusted_until = -math.inf
        self._most_copies = most_copies

    def __len__(self) -> int:
        """How many copies there are."""
        return len(self._copies)

    def fresh(self, tenant: str) -> ServedToken | None:
        """Returns a token that may be handed out without asking anybody."""
        copy = self._copies.get(tenant)
        if copy is None or asyncio.get_running_loop().time() >= copy.fresh_until:
            return None
        return served(copy.reading, Source.MEMORY)

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
            copy.reading.grant,
            above_generation=above_generation,
            now=copy.reading.latest_now(),
        ):
            return None
        return served(copy.reading, Source.FALLBACK)

    def keep(self, reading: Reading) -> None:
        """Keeps what was read or written, unless a later version is here already."""
        grant, pair = reading.grant, reading.grant.pair
        known = self._copies.get(grant.tenant)
        if known is not None and self._is_newer(known.reading, reading):
            return
        self._copies.pop(grant.tenant, None)
        if grant.state not in _SERVING or not isinstance(pair, TokenPair) or not pair.access_token:
            self._hear(grant.tenant, reading.snapshot.version)
            return
        kept = _without_refresh_token(reading, pair)
        fresh_until = 0.0 if self._is_outrun(reading) else _fresh_until(kept)
        self._copies[grant.tenant] = _Copy(reading=kept, fresh_until=fresh_until)
        if len(self._copies) > self._most_copies:
            self._copies.popitem(last=False)

    def keep_unstored(self, reading: Reading) -> None:
        """Keeps what Pleo issued and PostgreSQL has not taken: it stands in, and is never fresh.

        `reading`: the row as it was read, with the grant as it shall be.
        """
        self.keep(reading)
        copy = self._copies.get(reading.grant.tenant)
        if copy is not None and copy.reading.grant.generation == reading.grant.generation:
            copy.fresh_until, copy.is_unstored = 0.0, True

    def moved(self, news: GrantMoved) -> bool:
        """Marks a copy stale that is older than the news, and says whether one was."""
        self._hear(news.tenant, news.version)
        copy = self._copies.get(news.tenant)
        if copy is None or 0 < news.version <= copy.reading.snapshot.version:
            return False
        copy.fresh_until, copy.is_unstored = 0.0, False
        return True

    def mark_all_stale(self) -> None:
        """Asks again for everything: news may have been missed."""
        self._distrusted_until = asyncio.get_running_loop().time()
        for copy in self._copies.values():
            copy.fresh_until = 0.0

    def _is_newer(self, known: Reading, reading: Reading) -> bool:
        """Whether the row that was read says less than what is here.

        At the same version it does where a pair is here that PostgreSQL has not taken yet. After a
        restore versions start lower again, and only the pairs tell: a token that PostgreSQL has
        lost stands in for the one that it replaced.
        """
        if known.asked_at <= self._distrusted_until < reading.asked_at:
            return is_newer(known.grant, reading.grant)
        return (known.snapshot.version, known.grant.generation) > (
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
    grant = reading.grant
    pair, expires_at = grant.pair, grant.expires_at
    if not isinstance(pair, TokenPair) or pair.access_token is None or expires_at is None:
        raise ValueError(grant.state)
    now, is_degraded = reading.latest_now(), source is Source.FALLBACK
    reuse_until = _reuse_until(grant, now, is_degraded=is_degraded)
    return ServedToken(
        access_token=pair.access_token,
        token_type=pair.token_type,
        expires_at=expires_at,
        expires_in=max(expires_at - now, _NONE),
        reuse_until=reuse_until,
        reuse_for=max(reuse_until - now, _NONE),
        scopes=grant.scopes,
        generation=grant.generation,
        source=source,
        is_degraded=is_degraded,
    )


def _reuse_until(grant: Grant, now: datetime, *, is_degraded: bool) -> datetime:
    if is_degraded or grant.renew_at is None:
        return now
    return grant.renew_at - REUSE_MARGIN


def _fresh_until(reading: Reading) -> float:
    step = decide_next(reading.grant, above_generation=0, now=reading.now)
    if not isinstance(step, Serve) or reading.grant.renew_at is None:
        return 0.0
    return reading.asked_at + (reading.grant.renew_at - reading.now).total_seconds()


def _without_refresh_token(reading: Reading, pair: TokenPair) -> Reading:
    grant = replace(reading.grant, pair=replace(pair, refresh_token=None))
    return replace(reading, snapshot=replace(reading.snapshot, grant=grant))
