"""The laws of the broker, judged at every presentation by what Pleo knows; `commits.py` has others.

What no client can close is named, and not judged: a request that is sent in time and reaches Pleo
after its attempt's deadline, a network that delivers a request twice, and a clock of PostgreSQL
that jumps over the deadline of what is on the wire. A tenant to which that happened is haunted: it
must still be answered in time, go on, and obey the fences, but which of its pairs lives is luck.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from broker.domain.answers import Answer, Refused, Rotated
from broker.domain.freshness import REUSE_MARGIN
from broker.domain.grant import Grant, GrantState
from broker.domain.requests import RefreshRequest, TokenRequest
from broker.domain.times import SETTLING_MARGIN
from broker.ports import WireWindow
from simulation.keeping import Keeping, refresh_token_of
from simulation.process import RECENTLY, Process
from simulation.story import Story

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
    request: TokenRequest
    refresh_token: str | None
    """None: it is a code."""

    deadline: float
    """The attempt's, on the loop's clock."""

    tenant: str = ""
    number: int = 0
    has_reached: bool = False
    """Pleo has acted upon it."""

    is_over: bool = False
    """Its process has its answer, or knows that there will be none."""

    is_refused: bool = False
    """The answer was that the grant is dead."""

    answered_at: float = 0.0
    """On the loop's clock."""

    brought: str = ""
    """The refresh token of the answer, if there was one."""

    is_settled: bool = False
    """A definite answer to it was committed."""

    is_untold: bool = False
    """Pleo did not tell whose the tokens of a consent are."""


class Laws:
    """Judges one schedule."""

    def __init__(self, story: Story, keeping: Keeping) -> None:
        """`story`: where broken laws are told."""
        self.keeping = keeping
        self.states: dict[str, list[tuple[float, Grant]]] = {}
        """Every row there was of a tenant, and since when."""

        self.doubtful: set[str] = set()
        """Tenants of which a pair was lost on its way, and not by the code."""

        self.armed_at: dict[tuple[str, int], float] = {}
        """By tenant and number of the attempt: since when it might present."""

        self.brought_by: dict[str, Shown] = {}
        """By refresh token: whose answer it came with."""

        self.attempts: dict[tuple[str, int], str] = {}
        """By tenant and number: the ids of all attempts that were ever committed."""

        self.rewound: set[str] = set()
        """Tenants of which commits were lost, once or more often."""

        self.bereft: set[str] = set()
        """Tenants of which commits were lost, and nothing was stored since."""

        self.lost_at = -math.inf
        """When PostgreSQL last lost commits, on the loop's clock."""

        self.renounced: set[str] = set()
        """Refresh tokens of pairs that came for a revoked grant."""

        self.wronged: set[str] = set()
        """Refresh tokens that Pleo refused although they live."""

        self.haunted: set[str] = set()
        """Tenants to which something happened that no client can help; see above."""

        self._jumped_at = -RECENTLY
        self._jumped: set[str] = set()
        """Tenants that had a live attempt when PostgreSQL's clock jumped."""

        self._given: set[str] = set()
        """Refresh tokens that were in PostgreSQL from the start."""

        self.story = story
        self._shown: list[Shown] = []

    def begin(self, row: Grant) -> None:
        """Takes note of a row that was there before."""
        self.states[row.tenant] = [(asyncio.get_running_loop().time(), row)]
        if (refresh_token := refresh_token_of(row)) is not None:
            self.keeping.note_stored(refresh_token)
            self._given.add(refresh_token)

    def presenting(self, process: Process, request: TokenRequest, window: WireWindow) -> Shown:
        """Takes note of who is about to present what."""
        shown = request.refresh_token.reveal() if isinstance(request, RefreshRequest) else None
        return Shown(
            process=process,
            request=request,
            refresh_token=shown,
            deadline=window.answer_by + SETTLING_MARGIN.total_seconds(),
        )

    def presented(self, shown: Shown, tenant: str, number: int) -> None:
        """Judges a presentation at the moment at which it leaves."""
        shown.tenant, shown.number = tenant, number
        what = self.keeping.name(shown.refresh_token) if shown.refresh_token else "a code"
        self.story.tell(shown.process.name, f"presents {what} (attempt {number} of {tenant})")
        self._judge_alone(shown)
        self._judge_intent(shown)
        if shown.refresh_token is not None:
            self._judge_superseded(shown, shown.refresh_token)
            self._judge_promise(shown, shown.refresh_token)
        self._shown.append(shown)

    def _judge_alone(self, shown: Shown) -> None:
        now = asyncio.get_running_loop().time()
        if now >= shown.deadline:
            self.story.break_law(
                ONE_PRESENTER, f"attempt {shown.number} is sent after its deadline"
            )
        if shown.tenant in self._jumped:
            return  # its deadline has passed by the clock that says so
        for other in self._shown:
            if other.tenant == shown.tenant and not other.is_over and now < other.deadline:
                what = f"attempt {other.number} of {other.process.name} is still on the wire"
                self.story.break_law(ONE_PRESENTER, what)

    def _judge_intent(self, shown: Shown) -> None:
        row = self.keeping.world.rows.get(shown.tenant)
        is_lost = (shown.tenant, shown.number) in self.attempts
        if (row is None or row.grant.last_attempt < shown.number) and not is_lost:
            self.story.break_law(INTENT, f"attempt {shown.number} is not in PostgreSQL")

    def _judge_superseded(self, shown: Shown, refresh_token: str) -> None:
        settled = (each for each in self._shown if each.is_settled)
        if any(
            each.refresh_token == refresh_token and not self._is_overtaken(shown, each.brought)
            for each in settled
        ):
            self.story.break_law(NOTHING_LOST, "presented again after a settled answer")
        located = self.keeping.find(refresh_token)
        for newer in self.keeping.newer(located) if located else ():
            is_luck = shown.tenant in self.haunted
            # A revocation that is lost later brings nothing back that nobody kept for it.
            is_luck |= newer in self.renounced and shown.tenant in self.rewound
            if is_luck or self.is_brought(refresh_token, newer) or self.is_declined(newer):
                self.doubtful.add(shown.tenant)
                continue
            is_protected = self._is_protected(newer)
            keepers = self.keeping.keepers(newer, is_protected=is_protected)
            if newer in shown.process.known:
                what = f"a superseded token is shown by who has had {self.keeping.name(newer)}"
                self.story.break_law(NOTHING_LOST, what)
            elif keepers:
                what = f"a superseded token is shown; {keepers[0]} has {self.keeping.name(newer)}"
                self.story.break_law(NOTHING_LOST, what)
            elif not (self.keeping.may_be_lost(newer) or self._is_overtaken(shown, newer)):
                what = f"{self.keeping.name(newer)} reached us, and nobody has it"
                self.story.break_law(NOTHING_LOST, what)
            self.doubtful.add(shown.tenant)

    def _is_overtaken(self, shown: Shown, newer: str) -> bool:
        armed_at = self.armed_at.get((shown.tenant, shown.number), 0.0)
        return self.keeping.is_overtaken(newer, armed_at=armed_at)

    def _was_revoked_lately(self, tenant: str) -> bool:
        """Whether whoever reads a moment before PostgreSQL loses commits finds it revoked."""
        if asyncio.get_running_loop().time() > self.lost_at + RECENTLY:
            return False
        before = [row for at, row in self.states.get(tenant, ()) if at < self.lost_at]
        return bool(before) and before[-1].state is GrantState.REVOKED

    def is_brought(self, refresh_token: str, newer: str) -> bool:
        """Whether a token was handed over for an import although a consent has replaced it."""
        located = self.keeping.find(refresh_token)
        next_one = self.keeping.newer(located)[0] if located else newer
        brought_by = self.brought_by.get(next_one)
        is_of_consent = brought_by is None or brought_by.refresh_token is None
        is_handed_over = refresh_token not in self.brought_by and refresh_token not in self._given
        return is_of_consent and is_handed_over

    def told_whose(self, process: Process, *, is_known: bool) -> None:
        """Takes note of what a process was told of the tokens that consents have just brought."""
        for shown in self._shown:
            is_consent = shown.refresh_token is None and shown.brought
            if is_consent and shown.process is process and not shown.is_settled:
                shown.is_untold = not is_known

    def is_declined(self, refresh_token: str) -> bool:
        """Whether a consent came with it that may not be stored: nobody could tell of whom."""
        brought_by = self.brought_by.get(refresh_token)
        return (
            brought_by is not None
            and brought_by.refresh_token is None
            and (brought_by.is_settled or brought_by.is_untold)
            and refresh_token not in self.keeping.stored
        )

    def is_of(self, refresh_token: str, tenant: str) -> bool:
        """Whether an answer to a tenant's attempt brought it."""
        brought_by = self.brought_by.get(refresh_token)
        return brought_by is not None and brought_by.tenant == tenant

    def _is_protected(self, refresh_token: str) -> bool:
        """Whether the quarantine of the attempt that brought a pair cannot be over."""
        brought_by = self.brought_by.get(refresh_token)
        now = asyncio.get_running_loop().time()
        return brought_by is not None and now < brought_by.deadline + QUARANTINE_AT_LEAST

    def _judge_promise(self, shown: Shown, refresh_token: str) -> None:
        row = self.keeping.world.rows.get(shown.tenant)
        if row is None or row.grant.renew_at is None:
            return
        is_known_dead = row.grant.rejection.generation >= row.grant.generation
        if refresh_token_of(row.grant) != refresh_token or is_known_dead:
            return
        # A slow read tells a time that may be some seconds ahead (`Reading.latest_now`), and who
        # stood still while it read believes that it is later by as much.
        ahead = 2 * REUSE_MARGIN + timedelta(seconds=shown.process.stood_still_for())
        if asyncio.get_running_loop().time() < self._jumped_at + RECENTLY:
            return  # it may have been due by the clock that it read
        if self.keeping.world.now() < row.grant.renew_at - ahead:
            self.story.break_law(PROMISE, f"generation {row.grant.generation} is still fresh")

    def given_up(self, shown: Shown) -> None:
        """Judges that nobody waits for an answer any more."""
        if shown.number and not shown.process.is_dead:
            self.story.break_law(FOLLOWED, f"attempt {shown.number} is given up")

    def reached(self, request: TokenRequest) -> None:
        """Takes note that Pleo acts upon a request: late, it may undo what happened since."""
        now = asyncio.get_running_loop().time()
        for shown in self._shown:
            if shown.request is not request:
                continue
            if shown.has_reached:
                what = f"attempt {shown.number} reaches Pleo a second time"
                self.story.break_law(ONE_PRESENTER, what)
            shown.has_reached = True
            if now >= shown.deadline:
                self.haunt(shown.tenant, "a request reaches Pleo after its deadline")

    def haunt(self, tenant: str, why: str) -> None:
        """Stops judging what is luck from now on."""
        self.story.tell("-", f"{tenant} is haunted: {why}")
        self.haunted.add(tenant)
        self.doubtful.add(tenant)

    def commits_are_lost(self, rows: Mapping[str, Grant], lost: Collection[str]) -> None:
        """Takes note of the rows there were, and of the refresh tokens that are lost with them."""
        self.lost_at = asyncio.get_running_loop().time()
        for tenant, before in rows.items():
            row = self.keeping.world.rows.get(tenant)
            after = row.grant if row else Grant(tenant=tenant)
            if after == before:
                continue
            self.states.setdefault(tenant, []).append((self.lost_at, after))
            self.rewound.add(tenant)
            self.bereft.add(tenant)
            what = f"loses commits of {tenant}: generation {after.generation}, {after.state} again"
            self.story.tell("-", what)
        for shown in self._shown:
            if shown.refresh_token and (shown.is_refused or shown.brought in lost):
                shown.is_settled = False

    def clock_jumps(self) -> None:
        """Takes note that PostgreSQL's clock is about to jump."""
        self._jumped_at = asyncio.get_running_loop().time()
        now = self.keeping.world.now()
        for tenant, row in self.keeping.world.rows.items():
            if row.grant.attempt is not None and row.grant.attempt.is_live(now):
                self._jumped.add(tenant)
                self.haunt(tenant, "its attempt's deadline is not what it was")

    def answered(self, shown: Shown, answer: Answer) -> None:
        """Takes note of the answer that a process was given."""
        shown.is_over, shown.is_refused = True, isinstance(answer, Refused)
        shown.answered_at = asyncio.get_running_loop().time()
        if shown.is_refused and shown.refresh_token and self.keeping.is_alive(shown.refresh_token):
            self.wronged.add(shown.refresh_token)
        issued = answer.refresh_token if isinstance(answer, Rotated) else None
        if issued is not None and shown.number:
            refresh_token = issued.reveal()
            shown.process.hands[(shown.tenant, shown.number)] = refresh_token
            shown.process.known.add(refresh_token)
            shown.brought = refresh_token
            self.brought_by[refresh_token] = shown
            self.keeping.received.setdefault(refresh_token, []).append(shown.process)

    def was_refused(self, process: Process, tenant: str, number: int) -> bool:
        """Whether Pleo said to this attempt of this process that the grant is dead."""
        mine = (process, tenant, number)
        return any(
            each.is_refused and (each.process, each.tenant, each.number) == mine
            for each in self._shown
        )

    def is_refused(self, refresh_token: str) -> bool:
        """Whether Pleo ever said to one of us that it is dead."""
        return any(each.is_refused and each.refresh_token == refresh_token for each in self._shown)

    def was_rotated(self, tenant: str) -> bool:
        """Whether one of us was ever given a new pair for an old one."""
        return any(
            each.tenant == tenant and each.refresh_token and each.brought for each in self._shown
        )

    def last_refresh_token(self, tenant: str) -> str:
        """Returns the last that was in a tenant's row: what was refused is destroyed later."""
        rows = (row for _, row in reversed(self.states[tenant]))
        return next(filter(None, map(refresh_token_of, rows)), "")

    def let_out(self, tenant: str) -> None:
        """Takes note that what was refused may be presented once more."""
        for shown in self._shown:
            if shown.tenant == tenant and shown.is_refused:
                shown.is_settled = False

    def settled(self, process: Process, tenant: str, number: int) -> None:
        """Takes note that a definite answer is committed."""
        for shown in self._shown:
            if (shown.process, shown.tenant, shown.number) == (process, tenant, number):
                shown.is_settled = True

    def dropped(self, process: Process, tenant: str, number: int) -> None:
        """Judges that a pair is not to be stored: something newer must be."""
        refresh_token = process.hands.get((tenant, number))
        row = self.keeping.world.rows.get(tenant)
        if refresh_token is None or row is None or tenant in self.haunted:
            return
        is_revoked = row.grant.state is GrantState.REVOKED or self._was_revoked_lately(tenant)
        if is_revoked:
            self.renounced.add(refresh_token)
        if not self.keeping.is_alive(refresh_token):
            return
        mine = self.keeping.find(refresh_token)
        theirs = self.keeping.find(refresh_token_of(row.grant) or "")
        is_older = mine and theirs and mine.grant is theirs.grant
        if is_older and not is_revoked:
            what = f"{process.name} drops {self.keeping.name(refresh_token)}, which is alive"
            self.story.break_law(NOTHING_LOST, what)
