"""The laws of the broker, judged at every presentation and every commit by what Pleo knows.

The letters are those of the model that the conditions of the writes were found with.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from broker.domain.freshness import REUSE_MARGIN
from broker.domain.grant import Grant, GrantState, ReauthCause
from broker.domain.requests import RefreshRequest, TokenRequest
from broker.domain.times import SETTLING_MARGIN
from broker.ports import WireWindow
from simulation.keeping import Keeping, refresh_token_of
from simulation.process import Process
from simulation.story import Story
from support.service import virtual_now

ONE_PRESENTER: Final = "one presenter"
INTENT: Final = "intent before wire"
NOTHING_LOST: Final = "nothing received is lost"
NEWEST_WINS: Final = "newest wins"
PLEOS_WORD: Final = "REAUTH_REQUIRED is Pleo's word"
FOLLOWED: Final = "what was sent is followed to its answer"
PROMISE: Final = "a lease on a token is a promise"

QUARANTINE_AT_LEAST: Final = 15.0
"""Seconds after the deadline: a quarantine of 20 s, counted from before a claim that was slow."""


@dataclass(slots=True, kw_only=True)
class Shown:
    """A credential on its way to Pleo."""

    process: Process
    refresh_token: str | None
    """None: it is a code."""

    deadline: float
    """The attempt's, on the loop's clock."""

    tenant: str = ""
    number: int = 0
    is_over: bool = False
    """Its process has its answer, or knows that there will be none."""

    is_settled: bool = False
    """A definite answer to it was committed."""


class Laws:
    """Judges one schedule."""

    def __init__(self, story: Story, keeping: Keeping) -> None:
        """`story`: where broken laws are told."""
        self.keeping = keeping
        self.states: dict[str, list[tuple[float, Grant]]] = {}
        """Every row there was of a tenant, and since when."""

        self._floors: dict[str, int] = {}
        """The last attempt's number when a tenant was last revoked."""

        self.doubtful: set[str] = set()
        """Tenants of which a pair was lost on its way, and not by the code."""

        self.brought_by: dict[str, Shown] = {}
        """By refresh token: whose answer it came with."""

        self._given: set[str] = set()
        """Refresh tokens that were in PostgreSQL from the start."""

        self._story = story
        self._shown: list[Shown] = []

    def begin(self, row: Grant) -> None:
        """Takes note of a row that was there before."""
        self.states[row.tenant] = [(asyncio.get_running_loop().time(), row)]
        if (refresh_token := refresh_token_of(row)) is not None:
            self.keeping.stored.add(refresh_token)
            self._given.add(refresh_token)

    def presenting(self, process: Process, request: TokenRequest, window: WireWindow) -> Shown:
        """Takes note of who is about to present what."""
        shown = request.refresh_token.reveal() if isinstance(request, RefreshRequest) else None
        return Shown(
            process=process,
            refresh_token=shown,
            deadline=window.answer_by + SETTLING_MARGIN.total_seconds(),
        )

    def presented(self, shown: Shown, tenant: str, number: int) -> None:
        """Judges a presentation at the moment at which it leaves."""
        shown.tenant, shown.number = tenant, number
        what = self.keeping.name(shown.refresh_token) if shown.refresh_token else "a code"
        self._story.tell(shown.process.name, f"presents {what} (attempt {number} of {tenant})")
        self._judge_alone(shown)
        self._judge_intent(shown)
        if shown.refresh_token is not None:
            self._judge_superseded(shown, shown.refresh_token)
            self._judge_promise(shown, shown.refresh_token)
        self._shown.append(shown)

    def _judge_alone(self, shown: Shown) -> None:
        now = asyncio.get_running_loop().time()
        for other in self._shown:
            if other.tenant == shown.tenant and not other.is_over and now < other.deadline:
                what = f"attempt {other.number} of {other.process.name} is still on the wire"
                self._story.break_law(ONE_PRESENTER, what)

    def _judge_intent(self, shown: Shown) -> None:
        row = self.keeping.world.rows.get(shown.tenant)
        if row is None or row.grant.last_attempt < shown.number:
            self._story.break_law(INTENT, f"attempt {shown.number} is not in PostgreSQL")

    def _judge_superseded(self, shown: Shown, refresh_token: str) -> None:
        if any(each.is_settled and each.refresh_token == refresh_token for each in self._shown):
            self._story.break_law(NOTHING_LOST, "presented again after a settled answer")
        located = self.keeping.find(refresh_token)
        for newer in self.keeping.newer(located) if located else ():
            if self._is_brought(refresh_token, newer) or self._is_declined(newer):
                self.doubtful.add(shown.tenant)
                continue
            is_protected = self._is_protected(newer)
            keepers = self.keeping.keepers(newer, is_protected=is_protected)
            if keepers:
                what = f"a superseded token is shown; {keepers[0]} has {self.keeping.name(newer)}"
                self._story.break_law(NOTHING_LOST, what)
            elif not self.keeping.may_be_lost(newer):
                what = f"{self.keeping.name(newer)} reached us, and nobody has it"
                self._story.break_law(NOTHING_LOST, what)
            self.doubtful.add(shown.tenant)

    def _is_brought(self, refresh_token: str, newer: str) -> bool:
        """Whether a token was handed over for an import although a consent has replaced it."""
        brought_by = self.brought_by.get(newer)
        is_of_consent = brought_by is None or brought_by.refresh_token is None
        is_handed_over = refresh_token not in self.brought_by and refresh_token not in self._given
        return is_of_consent and is_handed_over

    def _is_declined(self, refresh_token: str) -> bool:
        """Whether a consent came with it that may not be stored: nobody could tell of whom."""
        brought_by = self.brought_by.get(refresh_token)
        return (
            brought_by is not None
            and brought_by.refresh_token is None
            and brought_by.is_settled
            and refresh_token not in self.keeping.stored
        )

    def _is_protected(self, refresh_token: str) -> bool:
        """Whether the quarantine of the attempt that brought a pair cannot be over."""
        brought_by = self.brought_by.get(refresh_token)
        now = asyncio.get_running_loop().time()
        return brought_by is not None and now < brought_by.deadline + QUARANTINE_AT_LEAST

    def _judge_promise(self, shown: Shown, refresh_token: str) -> None:
        row = self.keeping.world.rows.get(shown.tenant)
        if row is None or row.grant.renew_at is None or shown.process.was_paused_lately():
            return
        is_known_dead = row.grant.rejection.generation >= row.grant.generation
        if refresh_token_of(row.grant) != refresh_token or is_known_dead:
            return
        # A slow read tells a time that may be some seconds ahead (`Reading.latest_now`).
        if virtual_now() < row.grant.renew_at - 2 * REUSE_MARGIN:
            self._story.break_law(PROMISE, f"generation {row.grant.generation} is still fresh")

    def given_up(self, shown: Shown) -> None:
        """Judges that nobody waits for an answer any more."""
        if shown.number and not shown.process.is_dead:
            self._story.break_law(FOLLOWED, f"attempt {shown.number} is given up")

    def answered(self, shown: Shown, refresh_token: str | None) -> None:
        """Takes note of the answer that a process was given."""
        shown.is_over = True
        if refresh_token is not None and shown.number:
            shown.process.hands[(shown.tenant, shown.number)] = refresh_token
            self.brought_by[refresh_token] = shown
            self.keeping.received.setdefault(refresh_token, []).append(shown.process)

    def settled(self, process: Process, tenant: str, number: int) -> None:
        """Takes note that a definite answer is committed."""
        for shown in self._shown:
            if (shown.process, shown.tenant, shown.number) == (process, tenant, number):
                shown.is_settled = True

    def dropped(self, process: Process, tenant: str, number: int) -> None:
        """Judges that a pair is not to be stored: something newer must be."""
        refresh_token = process.hands.get((tenant, number))
        row = self.keeping.world.rows.get(tenant)
        if refresh_token is None or row is None or not self.keeping.is_alive(refresh_token):
            return
        mine = self.keeping.find(refresh_token)
        theirs = self.keeping.find(refresh_token_of(row.grant) or "")
        is_older = mine and theirs and mine.grant is theirs.grant
        if is_older and row.grant.state is not GrantState.REVOKED:
            what = f"{process.name} drops {self.keeping.name(refresh_token)}, which is alive"
            self._story.break_law(NOTHING_LOST, what)

    def committed(self, process: Process, before: Grant, after: Grant) -> None:
        """Judges a commit at the moment at which it is durable."""
        now = asyncio.get_running_loop().time()
        self.states.setdefault(after.tenant, [(now, before)]).append((now, after))
        if after.generation not in {before.generation, before.generation + 1}:
            what = f"generation {after.generation} after {before.generation}"
            self._story.break_law(NEWEST_WINS, what)
        if after.last_attempt < before.last_attempt:
            self._story.break_law(NEWEST_WINS, "an attempt's number was given twice")
        if after.pair != before.pair and after.pair is not None:
            self._judge_stored(process, before, after)
        if after.state is not before.state:
            cause = f" ({after.reauth.cause})" if after.reauth else ""
            self._story.tell(process.name, f"commits {after.tenant} as {after.state}{cause}")
        if after.state is GrantState.REAUTH_REQUIRED is not before.state:
            self._judge_reauth(before, after)
        if after.state is GrantState.REVOKED is not before.state:
            self._floors[after.tenant] = before.last_attempt

    def _judge_stored(self, process: Process, before: Grant, after: Grant) -> None:
        mine, theirs = refresh_token_of(after), refresh_token_of(before)
        if mine is None:
            return
        if mine in self.keeping.stored:
            self._story.break_law(NEWEST_WINS, "a pair is stored a second time")
        self.keeping.stored.add(mine)
        what = f"{self.keeping.name(mine)} as generation {after.generation} of {after.tenant}"
        self._story.tell(process.name, f"commits {what} (attempt {after.pair_attempt})")
        is_consent = after.consent_attempt != before.consent_attempt
        if is_consent and after.consent_attempt < before.consent_attempt:
            self._story.break_law(NEWEST_WINS, "an older consent overwrites a newer one")
        if after.pair_attempt <= self._floors.get(after.tenant, 0):
            self._story.break_law(NEWEST_WINS, "what began before a revocation undoes it")
        if before.state is GrantState.REVOKED and not is_consent:
            self._story.break_law(NEWEST_WINS, "a refresh resurrects a revoked grant")
        self._judge_order(mine, theirs, is_consent=is_consent)

    def _judge_order(self, mine: str, theirs: str | None, *, is_consent: bool) -> None:
        new, old = self.keeping.find(mine), self.keeping.find(theirs or "")
        if new is None or old is None:
            return
        brought_by = self.brought_by.get(mine)
        is_import = is_consent and (brought_by is None or brought_by.refresh_token is not None)
        if new.grant is old.grant and new.generation < old.generation and not is_import:
            self._story.break_law(NEWEST_WINS, "an older pair overwrites a newer one")
        if new.grant is not old.grant and not is_consent:
            self._story.break_law(NEWEST_WINS, "a refresh overwrites another consent's pair")

    def _judge_reauth(self, before: Grant, after: Grant) -> None:
        presented = refresh_token_of(before)
        located = self.keeping.find(presented or "")
        if presented is None or located is None:
            return
        alive = [
            pair for pair in self._pairs_of(after.tenant, presented) if self.keeping.is_alive(pair)
        ]
        if alive:
            what = f"{self.keeping.name(alive[0])} is alive"
            self._story.break_law(PLEOS_WORD, what)
        is_superseded = located.generation != located.grant.generation
        cause = after.reauth.cause if after.reauth else None
        is_unforeseen = any(
            self._is_declined(each) or self._is_brought(presented, each)
            for each in self.keeping.newer(located)
        )
        if is_superseded and not is_unforeseen and cause is not ReauthCause.ROTATION_LOST:
            self._story.break_law(PLEOS_WORD, f"{cause} although the presented pair was rotated")

    def _pairs_of(self, tenant: str, presented: str) -> list[str]:
        """Returns the pair in the row, and those that others keep for it."""
        escrows = self.keeping.redis.escrows.items()
        kept = [each.issued.refresh_token.reveal() for (of, _), each in escrows if of == tenant]
        for process in self.keeping.processes:
            if not process.is_dead:
                kept += [pair for (of, _), pair in process.hands.items() if of == tenant]
        return [presented, *(pair for pair in dict.fromkeys(kept) if self.keeping.keepers(pair))]
