"""The laws of the broker, judged at every commit by what Pleo knows."""

from __future__ import annotations

import asyncio
import math
from typing import Final

from broker.domain.grant import AttemptPhase, Grant, GrantState, ReauthCause
from simulation.guarding import GuardLaws
from simulation.keeping import refresh_token_of
from simulation.laws import NEWEST_WINS, ONE_PRESENTER, PLEOS_WORD, Laws
from simulation.process import Process

SPAN: Final = 30.0
"""Seconds of an attempt: so long nobody claims after commits were lost."""


_DEAD: Final = frozenset({GrantState.HELD, GrantState.REAUTH_REQUIRED})


def cause_of(row: Grant) -> ReauthCause | None:
    """Returns why its customer must act."""
    return row.reauth.cause if row.reauth else None


class Commits:
    """Judges the commits of one schedule."""

    def __init__(self, laws: Laws) -> None:
        """`laws`: what presentations have shown."""
        self._laws = laws
        self._keeping = laws.keeping
        self.guard = GuardLaws(laws)
        self._floors: dict[str, int] = {}
        """The last attempt's number when a tenant was last revoked."""

    def judge(self, process: Process, before: Grant, after: Grant) -> None:
        """Judges a commit at the moment at which it is durable."""
        now = asyncio.get_running_loop().time()
        self._laws.states.setdefault(after.tenant, [(now, before)]).append((now, after))
        # What is written back counts generations that others have seen, and were lost; and since
        # nobody knows what was, a consent passes them all.
        has_lost = self._laws.lost_at > -math.inf
        is_consent = after.consent_attempt != before.consent_attempt
        may_leap = after.tenant in self._laws.rewound or (has_lost and is_consent)
        is_next = after.generation in {before.generation, before.generation + 1}
        if not is_next and not (may_leap and after.generation > before.generation):
            what = f"generation {after.generation} after {before.generation}"
            self._laws.story.break_law(NEWEST_WINS, what)
        if after.last_attempt < before.last_attempt:
            self._laws.story.break_law(NEWEST_WINS, "an attempt's number was given twice")
        self._judge_attempt(before, after, now)
        if after.pair != before.pair and after.pair is not None:
            self._judge_stored(process, before, after)
        if after.state is not before.state:
            cause = f" ({after.reauth.cause})" if after.reauth else ""
            self._laws.story.tell(process.name, f"commits {after.tenant} as {after.state}{cause}")
        self.guard.judge(process, before, after)
        if after.state in _DEAD and before.state is GrantState.ACTIVE:
            self._judge_answered(process, before)
            self._judge_cause(before, after)
        if after.state is GrantState.REAUTH_REQUIRED is not before.state:
            self._judge_alive(before)
        if after.state is GrantState.REVOKED is not before.state:
            self._floors[after.tenant] = before.last_attempt
            if after.generation == before.generation:
                self._laws.story.break_law(NEWEST_WINS, "a revocation leaves the generation")

    def forget_revocations(self) -> None:
        """Takes note that PostgreSQL may have lost revocations."""
        for tenant, row in self._keeping.world.rows.items():
            if row.grant.consent_attempt <= self._floors.get(tenant, -1):
                del self._floors[tenant]

    def _judge_attempt(self, before: Grant, after: Grant, now: float) -> None:
        attempt = after.attempt
        if attempt is None:
            return
        numbered = (after.tenant, attempt.number)
        if self._laws.attempts.setdefault(numbered, attempt.attempt_id) != attempt.attempt_id:
            self._laws.story.break_law(NEWEST_WINS, "an attempt's number was given twice")
        if attempt.phase is AttemptPhase.ARMED:
            self._laws.armed_at.setdefault(numbered, now)
        is_new = before.attempt is None or before.attempt.attempt_id != attempt.attempt_id
        if is_new and now < self._laws.lost_at + SPAN:
            what = f"attempt {attempt.number} is claimed where one that was lost may be on the wire"
            self._laws.story.break_law(ONE_PRESENTER, what)

    def _judge_stored(self, process: Process, before: Grant, after: Grant) -> None:
        mine, theirs = refresh_token_of(after), refresh_token_of(before)
        if mine is None:
            return
        if mine in self._keeping.stored:
            self._laws.story.break_law(NEWEST_WINS, "a pair is stored a second time")
        self._keeping.note_stored(mine)
        self._keeping.committers.setdefault(mine, []).append(process)
        self._laws.bereft.discard(after.tenant)
        what = f"{self._keeping.name(mine)} as generation {after.generation} of {after.tenant}"
        self._laws.story.tell(process.name, f"commits {what} (attempt {after.pair_attempt})")
        is_consent = after.consent_attempt != before.consent_attempt
        if is_consent and after.consent_attempt < before.consent_attempt:
            self._laws.story.break_law(NEWEST_WINS, "an older consent overwrites a newer one")
        if after.pair_attempt <= self._floors.get(after.tenant, 0):
            self._laws.story.break_law(NEWEST_WINS, "what began before a revocation undoes it")
        if before.state is GrantState.REVOKED and not is_consent:
            self._laws.story.break_law(NEWEST_WINS, "a refresh resurrects a revoked grant")
        self._judge_order(mine, theirs, tenant=after.tenant, is_consent=is_consent)

    def _judge_order(self, mine: str, theirs: str | None, *, tenant: str, is_consent: bool) -> None:
        new, old = self._keeping.find(mine), self._keeping.find(theirs or "")
        if new is None or old is None or tenant in self._laws.haunted:
            return
        brought_by = self._laws.brought_by.get(mine)
        is_import = is_consent and (brought_by is None or brought_by.refresh_token is not None)
        if new.grant is old.grant and new.generation < old.generation and not is_import:
            self._laws.story.break_law(NEWEST_WINS, "an older pair overwrites a newer one")
        if new.grant is not old.grant and not is_consent:
            self._laws.story.break_law(NEWEST_WINS, "a refresh overwrites another consent's pair")

    def _judge_answered(self, process: Process, before: Grant) -> None:
        """Judges who says so: an attempt that still owns the row, and was told."""
        attempt = before.attempt
        is_of_it = attempt is not None and attempt.base_generation == before.generation
        if attempt is None or not is_of_it or attempt.phase is not AttemptPhase.ARMED:
            self._laws.story.break_law(PLEOS_WORD, "no attempt of this generation owns the row")
        elif not self._laws.was_refused(process, before.tenant, attempt.number):
            what = f"attempt {attempt.number} owns the row, and was told no such thing"
            self._laws.story.break_law(PLEOS_WORD, what)

    def _judge_alive(self, before: Grant) -> None:
        presented = refresh_token_of(before)
        if presented is None or before.tenant in self._laws.haunted:
            return
        alive = [
            pair
            for pair in self._pairs_of(before.tenant, presented)
            if self._keeping.is_alive(pair) and not self._laws.is_declined(pair)
            if pair != presented or pair not in self._laws.wronged
        ]
        if alive:
            what = f"{self._keeping.name(alive[0])} is alive"
            self._laws.story.break_law(PLEOS_WORD, what)

    def _judge_cause(self, before: Grant, after: Grant) -> None:
        presented = refresh_token_of(before)
        located = self._keeping.find(presented or "")
        if presented is None or located is None or after.tenant in self._laws.haunted:
            return
        if after.tenant in self._laws.bereft and cause_of(after) is not ReauthCause.ROTATION_LOST:
            what = f"{cause_of(after)} although commits were lost"
            self._laws.story.break_law(PLEOS_WORD, what)
        is_superseded = located.generation != located.grant.generation
        cause = cause_of(after)
        is_unforeseen = any(
            self._laws.is_declined(each) or self._laws.is_brought(presented, each)
            for each in self._keeping.newer(located)
        )
        if is_superseded and not is_unforeseen and cause is not ReauthCause.ROTATION_LOST:
            self._laws.story.break_law(
                PLEOS_WORD, f"{cause} although the presented pair was rotated"
            )

    def _pairs_of(self, tenant: str, presented: str) -> list[str]:
        """Returns the pair in the row, and those that others keep for it."""
        escrows = self._keeping.redis.escrows.items()
        kept = [each.issued.refresh_token.reveal() for (of, _), each in escrows if of == tenant]
        for process in self._keeping.processes:
            if not process.is_dead:
                kept += [pair for (of, _), pair in process.hands.items() if of == tenant]
                # What was stored again is the row's, or a consent has replaced it.
                owed = process.remembered - self._keeping.stored
                kept += [pair for pair in sorted(owed) if self._laws.is_of(pair, tenant)]
        return [presented, *(pair for pair in dict.fromkeys(kept) if self._keeping.keepers(pair))]
