"""What exchanges and imports share: a claim in its turn, the wire, whose tokens they are."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain, repeat
from typing import Final, TypeVar

from broker.domain.answers import Answer, Rotated, Unknown
from broker.domain.decision import Changed, Decision
from broker.domain.errors import RefreshInProgress
from broker.domain.grant import Attempt, AttemptKind, AttemptPhase, Doubt, Grant, ScopesSource
from broker.domain.refresh_writes import Issue, call_unknown, let_go
from broker.domain.requests import TokenRequest
from broker.domain.secret import AccessToken, RefreshToken
from broker.domain.times import AttemptTimes
from broker.ports import Introspection, Presentation, Provider
from broker.service.claim import Claim, Claims
from broker.service.fetch import POLL
from broker.service.flights import Flight
from broker.service.holdings import Holdings
from broker.service.memory import Memory
from broker.service.news import News, moved_to
from broker.service.rows import Reading, Rows, Written
from broker.service.settle import Claimed, Ending, Settler
from broker.service.turnstile import Turnstile
from broker.service.wire import Wire

Over = TypeVar("Over")

IDENTIFY_TRIES: Final = 2
"""How often Pleo is asked whose the tokens are, at least: one packet may be lost. After an answer
that came within its timeout, both fit into what the attempt has left (`times.DRAIN`)."""

IDENTIFY_SECONDS: Final = 5.0
"""The longest that one of them takes (`Provider.introspect`)."""

IDENTIFY_PAUSES: Final = (0.0, 0.5, 1.0, 2.0)
"""Seconds between them, the last for all that follow. More than two are made only where a company
that cannot be told is refused: the look-up is a harmless GET, and an API that restarts is back
within seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownScopes:
    """The scopes where Pleo does not tell, and who told us."""

    scopes: tuple[str, ...]
    source: ScopesSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Consenting:
    """The common parts, all of them the process's own."""

    rows: Rows
    claims: Claims
    times: AttemptTimes
    wire: Wire
    turnstile: Turnstile
    settler: Settler
    memory: Memory
    news: News
    provider: Provider
    holdings: Holdings

    async def claim(
        self, tenant: str, prepare: Callable[[Reading], Awaitable[Claim | Over]]
    ) -> Claimed | Over:
        """Claims, after waiting for a live attempt to end: two on the wire may kill a grant.

        `prepare` says, for each row that is read, what to claim; anything else that it returns
        means that there is nothing to claim any more, and is returned.

        Raises:
            StoreUnavailable, BesideNotAppliedError: nothing was claimed.
            RefreshInProgress: attempts of others filled two attempts' spans.
        """
        give_up_at = asyncio.get_running_loop().time() + longest_wait(self.times)
        while True:
            reading = await self.rows.read(tenant)
            claim = await prepare(reading)
            if not isinstance(claim, Claim):
                return claim
            claimed = await self._claim(reading, claim)
            if isinstance(claimed, Claimed):
                return claimed
            await self._wait(tenant, give_up_at)

    async def _claim(self, reading: Reading, claim: Claim) -> Claimed | Reading:
        """Claims an import when it is its turn; a code lives for seconds, and waits for nobody."""
        if claim.kind is AttemptKind.EXCHANGE or not claim.presents:
            return await self.claims.claim(reading, claim)
        async with self.turnstile.turn():
            return await self.claims.claim(reading, claim)

    async def _wait(self, tenant: str, give_up_at: float) -> None:
        if asyncio.get_running_loop().time() >= give_up_at:
            raise RefreshInProgress("another attempt is under way: ask again", tenant=tenant)
        await self.news.wait(tenant, POLL)

    async def present(self, claimed: Claimed, request: TokenRequest) -> Presentation:
        """Presents once; see `Wire.present`."""
        return await self.wire.present(claimed, request)

    async def whose(
        self, access_token: AccessToken | None, *, until: float = -math.inf
    ) -> Introspection:
        """Asks Pleo whose an access token is; without one, nothing is known. Never raises.

        `until`: on the loop's clock, for how long it may be asked again and again.
        """
        told = Introspection(is_live=None)
        if access_token is None:
            return told
        for tries, pause in enumerate(chain(IDENTIFY_PAUSES, repeat(IDENTIFY_PAUSES[-1])), start=1):
            told = await self.provider.introspect(access_token)
            ends_at = asyncio.get_running_loop().time() + pause + IDENTIFY_SECONDS
            if told.is_live is not None or (tries >= IDENTIFY_TRIES and ends_at > until):
                break
            await asyncio.sleep(pause)
        return told

    async def identified(
        self,
        claimed: Claimed,
        presentation: Presentation,
        *,
        rotated: Rotated,
        presented: RefreshToken,
        otherwise: KnownScopes,
        is_required: bool,
    ) -> Issue:
        """Returns what was issued, with the company and the scopes as Pleo's API tells them.

        `rotated` is the answer. `presented` stays where no refresh token was issued; `otherwise`
        are the scopes where Pleo tells none (RFC 6749 §5.1). `is_required`: a company that cannot
        be told is refused, and so Pleo is asked for as long as the attempt allows.
        """
        sent_at = presentation.sent_at or claimed.started_at
        issued = self.settler.issue(claimed, rotated, sent_at=sent_at, presented=presented)
        ends_at = claimed.started_at + self.times.answer_within.total_seconds()
        # Between the answer and its settlement the pair is in hand (law 3).
        with self.holdings.hold():
            told = await self.whose(
                rotated.access_token, until=ends_at if is_required else -math.inf
            )
        return described(issued, told, otherwise)

    async def settle(self, claimed: Claimed, ending: Ending) -> Written:
        """Settles, and tells everybody what is new; see `Settler.settle`."""
        written = await self.settler.settle(claimed, ending)
        self.memory.keep(written.reading)
        if written.not_allowed is None:
            await self.news.announce(moved_to(written.reading))
        return written


def described(issued: Issue, told: Introspection, otherwise: KnownScopes) -> Issue:
    """Returns what was issued with what Pleo's API says of it; the API knows best."""
    if told.scopes is not None:
        issued = replace(issued, scopes=told.scopes, scopes_source=ScopesSource.INTROSPECTION)
    elif issued.scopes is None:
        issued = replace(issued, scopes=otherwise.scopes, scopes_source=otherwise.source)
    return replace(issued, subject=told.subject)


def closing(
    mine: Attempt,
    answer: Answer,
    *,
    even_late: bool = False,
    dropping: Callable[[Grant], Decision] | None = None,
) -> Callable[[Reading], Decision]:
    """Returns the write of an attempt that stores no pair: an earlier grant is as it was.

    `even_late`: what is written beside it is written also where somebody else has the row by now.
    `dropping`: ends it where tokens came and are not kept; None: they are kept elsewhere.
    """

    def decide(reading: Reading) -> Decision:
        grant = reading.grant
        if isinstance(answer, Unknown):
            decision = call_unknown(grant, mine, failures=grant.failures)
        elif isinstance(answer, Rotated) and dropping is not None:
            decision = dropping(grant)
        else:
            decision = let_go(grant, mine)
        # Not own, and nobody has claimed since: this write was committed, and its acknowledgement
        # lost.
        is_overtaken = not isinstance(decision, Changed) and grant.last_attempt != mine.number
        return Changed(after=grant) if is_overtaken and even_late else decision

    return decide


def is_abandoned(grant: Grant, now: datetime) -> bool:
    """Whether an attempt was armed and never settled: its owner may still hold a pair.

    While somebody's attempt is live, that is not the question yet.
    """
    attempt = grant.attempt
    if attempt is not None and attempt.is_live(now):
        return False
    is_silent = attempt is not None and attempt.phase is AttemptPhase.ARMED
    return is_silent or grant.doubt is Doubt.ABANDONED


def longest_wait(times: AttemptTimes) -> float:
    """Returns how long another's attempt is waited for, in seconds."""
    return times.longest_wait.total_seconds()


async def landed(flight: Flight[Grant]) -> Grant:
    """Waits for a flight, which goes on when the caller goes (law 8).

    Raises:
        BrokerError: the flight's.
    """
    await asyncio.wait({flight.landing})
    error = flight.landing.exception()
    if error is not None:
        # Raised as it is by many callers at once: each would add its own frames to it.
        raise error.with_traceback(None)
    return flight.landing.result()
