"""The laws of the fleet guard: when it holds, and who may end a hold, and on whose word.

While many are refused at once a living grant may be called dead: by Pleo's word, where nobody could
know better yet, and by a decision of an engineer, or of time. By nothing else.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from broker.domain.evidence import GUARD_WINDOW
from broker.domain.freshness import REUSE_MARGIN
from broker.domain.grant import AttemptKind, Grant, GrantState, ReauthCause
from broker.domain.guard import BROKER, FEWEST_GRANTS, SHARE, Guard, GuardState, Release
from broker.domain.history import AttemptOutcome, AttemptRecord
from simulation.keeping import refresh_token_of
from simulation.laws import NOTHING_LOST, PLEOS_WORD, Laws
from simulation.process import Process
from simulation.serving import WITHIN

GUARD: Final = "the guard doubts what many are told at once"

_NOTICED_WITHIN: Final = 10.0
"""Seconds of holding in which what was believed shortly before is held back: a poll, and a turn."""


class GuardLaws:
    """Judges the guard of one schedule."""

    def __init__(self, laws: Laws) -> None:
        """`laws`: what presentations have shown."""
        self.counts: Counter[str] = Counter()
        """How often it came to each of its states, and what became of what it held."""

        self._laws = laws
        self._past: list[tuple[float, Guard]] = [(0.0, laws.keeping.world.fleet.guard)]
        """How it stood, and since when on the loop's clock."""

        self._decisions: set[GuardState] = set()
        """What engineers have decided, ever."""

    def decided(self, release: Release) -> None:
        """Takes note that an engineer is about to decide."""
        is_confirming = release is Release.CONFIRM
        self._decisions.add(GuardState.CONFIRMING if is_confirming else GuardState.DISCARDING)

    def moved(self, process: Process, before: Guard, after: Guard) -> None:
        """Judges a change of the guard at the moment at which it is durable."""
        if before == after:
            return
        self._past.append((asyncio.get_running_loop().time(), after))
        if before.state is after.state:
            return
        by = f" by {after.decided_by}" if after.decided_by else ""
        told = f"{after.state.value}{by}"
        self.counts[told] += 1
        self._laws.story.tell(process.name, f"moves the guard to {told}")
        match after.state:
            case GuardState.HOLDING:
                self._judge_held(process, before)
            case GuardState.CONFIRMING:
                self._judge_confirmed(process, before, after)
            case GuardState.DISCARDING:
                self._judge_discarded(after)
            case GuardState.WATCHING:
                self._judge_taken_back(before)

    def rewound(self) -> None:
        """Takes note that PostgreSQL has lost commits, and how the guard stands now."""
        now = asyncio.get_running_loop().time()
        self._past.append((now, self._laws.keeping.world.fleet.guard))

    def judge(self, process: Process, before: Grant, after: Grant) -> None:
        """Judges a change of a grant that the guard is about."""
        if after.state is before.state:
            return
        self.counts[f"{before.state.value} to {after.state.value}"] += 1
        if after.state is GrantState.HELD:
            self._judge_holding()
        elif before.state is GrantState.HELD and after.state is GrantState.REAUTH_REQUIRED:
            self._judge_given_up(before)
        elif after.state is GrantState.ACTIVE and after.generation == before.generation:
            self._judge_let_out(process, before)
            self._laws.let_out(after.tenant)

    def _judge_held(self, process: Process, before: Guard) -> None:
        world = self._laws.keeping.world
        # As many seconds late as whoever weighs them was.
        earliest = world.now() - GUARD_WINDOW - timedelta(seconds=10 + process.stood_still_for())
        if before.counted_from is not None:
            earliest = max(earliest, before.counted_from)
        refused = {
            line.tenant
            for line in world.attempts
            if line.outcome is AttemptOutcome.REFUSED and line.ended_at > earliest
        }
        # The last may not be in the history yet.
        if len(refused) + 1 < FEWEST_GRANTS:
            self._break(f"it holds after {before.state.value} because of {len(refused)} refused")

    def _judge_confirmed(self, process: Process, before: Guard, after: Guard) -> None:
        # Who stood still while it read believes that it is later by as much.
        ahead = 2 * REUSE_MARGIN + timedelta(seconds=process.stood_still_for())
        if after.decided_by != BROKER:
            self._judge_decision(GuardState.CONFIRMING)
        elif before.until is None or self._laws.keeping.world.now() < before.until - ahead:
            self._break("the hold runs out before its time")

    def _judge_discarded(self, after: Guard) -> None:
        canary = after.canary
        if after.decided_by != BROKER:
            self._judge_decision(GuardState.DISCARDING)
        elif canary is None or not self._laws.was_rotated(canary.tenant):
            self._break("it takes back what no canary has shown to be alive")

    def _judge_decision(self, state: GuardState) -> None:
        if state not in self._decisions:
            self._break(f"it is {state.value}, and nobody has decided so")

    def _judge_holding(self) -> None:
        if not any(guard.state is GuardState.HOLDING for _, guard in self._past):
            self._break("a grant is held by a guard that never held")

    def _judge_given_up(self, before: Grant) -> None:
        presented = refresh_token_of(before)
        if presented is not None and not self._laws.is_refused(presented):
            self._laws.story.break_law(PLEOS_WORD, "a held pair is given up that nobody refused")
        guards = self._since(self._held_since(before))
        if not any(guard.state in _GIVES_UP for guard in guards):
            self._laws.story.break_law(PLEOS_WORD, "given up, and nobody has decided so")

    def _judge_let_out(self, process: Process, before: Grant) -> None:
        # Who is about to let it out may not have heard yet that it was let out, and held again.
        guards = self._since(self._held_since(before) - WITHIN - process.stood_still_for())
        if not any(_lets_out(guard, before) for guard in guards):
            self._break(f"{before.tenant} is let out, and nobody has decided so")

    def _held_since(self, row: Grant) -> float:
        """Returns since when a grant was not ACTIVE, on the loop's clock."""
        since = asyncio.get_running_loop().time()
        for at, earlier in reversed(self._laws.states[row.tenant][:-1]):
            if earlier.state is GrantState.ACTIVE:
                break
            since = at
        return since

    def _since(self, at: float) -> Iterator[Guard]:
        """Gives how the guard stood since a moment, what was in force at it included."""
        later = [guard for moment, guard in self._past if moment > at]
        return iter([*[guard for moment, guard in self._past if moment <= at][-1:], *later])

    def _judge_taken_back(self, before: Guard) -> None:
        """Judges what a discard leaves: an engineer's takes back what was given up before, too."""
        if before.state is not GuardState.DISCARDING or before.decided_by == BROKER:
            return
        for tenant, row in self._laws.keeping.world.rows.items():
            until, since = row.grant.quarantined_until, before.counted_from
            is_given_up = until is not None and until > self._laws.keeping.world.now()
            is_left = is_given_up and row.grant.state is GrantState.REAUTH_REQUIRED
            given_up_at = row.grant.updated_at
            if is_left and since is not None and given_up_at is not None and given_up_at < since:
                self._break(f"{tenant} was given up, and a discard does not take it back")

    def judge_unheld(self) -> None:
        """Judges who is called dead in the end of an incident that nobody doubted.

        What a process that was killed knew of a refusal it had not weighed is lost.
        """
        keeping = self._laws.keeping
        if self._laws.rewound or any(each.is_dead for each in keeping.processes):
            return
        counted_from = keeping.world.fleet.guard.counted_from
        for last in keeping.world.attempts:
            if last.outcome is not AttemptOutcome.REFUSED:
                continue
            earliest = max(
                last.ended_at - GUARD_WINDOW, counted_from or last.ended_at - GUARD_WINDOW
            )
            lines = [each for each in keeping.world.attempts if earliest < each.ended_at]
            self._judge_evidence([each for each in lines if each.ended_at <= last.ended_at])

    def _judge_evidence(self, lines: Sequence[AttemptRecord]) -> None:
        rows = self._laws.keeping.world.rows
        refused = {each.tenant for each in lines if each.outcome is AttemptOutcome.REFUSED}
        believed = [tenant for tenant in refused if _is_believed(rows[tenant].grant)]
        answered = sum(each.attempt.kind is AttemptKind.REFRESH for each in lines)
        if _is_incident(len(believed), answered) and not self._laws.haunted:
            self._break(f"{len(believed)} are refused at once, and nobody doubts it")

    def judge_left(self, tenant: str) -> None:
        """Judges who is called dead in the end: whom a hold was about was held back first."""
        row = self._laws.keeping.world.rows[tenant].grant
        presented = self._laws.last_refresh_token(tenant)
        if row.reauth is None or row.quarantined_until is not None or self._laws.rewound:
            return
        if presented not in self._laws.wronged or not self._was_held_over(row.reauth.since):
            return
        self._laws.story.break_law(NOTHING_LOST, f"{tenant} was refused in an incident, and stays")

    def _was_held_over(self, refused_at: datetime) -> bool:
        """Whether a hold that came of such refusals, or after them, lasted until it was noticed."""
        ends = [at for at, _ in self._past[1:]]
        lasted = zip(self._past, [*ends, asyncio.get_running_loop().time()], strict=True)
        return any(
            guard.state is GuardState.HOLDING
            and guard.since is not None
            and guard.since - GUARD_WINDOW <= refused_at <= guard.since
            and (guard.counted_from is None or guard.counted_from < refused_at)
            and end - began > _NOTICED_WITHIN
            for (began, guard), end in lasted
        )

    def _break(self, what: str) -> None:
        self._laws.story.break_law(GUARD, what)


def _is_incident(refused: int, answered: int) -> bool:
    """Whether so many of so many are an incident, whatever else may be."""
    return refused >= FEWEST_GRANTS and refused * SHARE >= answered


def _is_believed(row: Grant) -> bool:
    """Whether it is called dead by Pleo's word alone, and was without doubt."""
    is_of_pleo = row.reauth is not None and row.reauth.cause is ReauthCause.EXPIRED_OR_REVOKED
    return row.state is GrantState.REAUTH_REQUIRED and is_of_pleo and not row.quarantined_until


_GIVES_UP: Final = frozenset({GuardState.CONFIRMING, GuardState.WATCHING})
"""Watching too: who had not heard yet that a hold was over may have held one more."""


def _lets_out(guard: Guard, row: Grant) -> bool:
    if guard.state is GuardState.DISCARDING:
        return True
    canary = guard.canary if guard.state is GuardState.HOLDING else None
    return canary is not None and (canary.tenant, canary.generation) == (row.tenant, row.generation)
