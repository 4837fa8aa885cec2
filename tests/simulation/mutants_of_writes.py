"""Writes with one condition broken, one at a time: what the simulation has to find.

The names follow the model that the conditions of the writes were found with. A mutant replaces what
the running code looks up; nothing in `broker/` knows of it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime

from broker.domain import consent_writes, escrow, recall_writes, refresh_writes
from broker.domain.claims import Claimer
from broker.domain.decision import Changed, Decision, Unchanged, Why, Write, next_state
from broker.domain.escrow import Escrow
from broker.domain.grant import Attempt, Doubt, FailureRecord, Grant, GrantState
from broker.domain.refresh_writes import Issue
from broker.service import adoption, claim, endings, exchange, grants, recall, takeover
from simulation.mutating import replaced


def _never_blocked(_grant: Grant, _claimer: Claimer, _now: datetime) -> bool:
    return False


def claim_ignores_a_live_attempt() -> AbstractContextManager[None]:
    return replaced((refresh_writes, "is_blocked", _never_blocked))


def exchange_waits_for_nobody() -> AbstractContextManager[None]:
    return replaced((consent_writes, "is_blocked", _never_blocked))


def claim_is_not_fenced_by_generation() -> AbstractContextManager[None]:
    def any_generation(
        grant: Grant, claimer: Claimer, *, generation: int, now: datetime
    ) -> Decision:
        newest = max(generation, grant.generation)
        return refresh_writes.claim_refresh(grant, claimer, generation=newest, now=now)

    return replaced((claim, "claim_refresh", any_generation))


def doubt_is_forgotten() -> AbstractContextManager[None]:
    def none(_grant: Grant, _claimer: Claimer) -> Doubt:
        return Doubt.NONE

    return replaced(*((each, "doubt_of_claim", none) for each in (refresh_writes, consent_writes)))


def _blind(grant: Grant, mine: Attempt, issued: Issue, *, now: datetime) -> Decision:
    if grant.pair_attempt == mine.number:
        return Unchanged(why=Why.ALREADY)
    generation = grant.generation + 1
    stored = refresh_writes.with_issue(grant, issued, generation=generation, now=now)
    own = grant.owns(mine.number)
    return Changed(
        after=replace(
            stored,
            pair_attempt=mine.number,
            pair_base=mine.base_generation,
            attempt=None if own else grant.attempt,
            doubt=Doubt.NONE if own else grant.doubt,
        )
    )


def _stores_by(store: Callable[..., Decision]) -> AbstractContextManager[None]:
    return replaced((endings, "store_rotated", store), (escrow, "store_rotated", store))


def pair_is_stored_without_a_fence() -> AbstractContextManager[None]:
    return _stores_by(_blind)


def success_needs_its_own_live_attempt() -> AbstractContextManager[None]:
    def strict(grant: Grant, mine: Attempt, issued: Issue, *, now: datetime) -> Decision:
        if grant.attempt is None or not grant.owns(mine.number) or not grant.attempt.is_live(now):
            return Unchanged(why=Why.NOT_OWN)
        return refresh_writes.store_rotated(grant, mine, issued, now=now)

    return _stores_by(strict)


def lost_acknowledgement_is_a_failure() -> AbstractContextManager[None]:
    def again(grant: Grant, mine: Attempt, issued: Issue, *, now: datetime) -> Decision:
        if grant.pair_attempt == mine.number:
            return _blind(replace(grant, pair_attempt=0), mine, issued, now=now)
        return refresh_writes.store_rotated(grant, mine, issued, now=now)

    return _stores_by(again)


def _refuses_if(may: Callable[[Grant, Attempt], bool]) -> AbstractContextManager[None]:
    def may_refuse(grant: Grant, mine: Attempt) -> bool:
        return next_state(Write.REFUSE, grant) is not None and may(grant, mine)

    return replaced((refresh_writes, "_may_refuse", may_refuse))


def refusal_is_fenced_by_generation_alone() -> AbstractContextManager[None]:
    return _refuses_if(lambda grant, mine: grant.generation == mine.base_generation)


def refusal_is_fenced_by_attempt_alone() -> AbstractContextManager[None]:
    return _refuses_if(lambda grant, mine: grant.owns(mine.number))


def refusal_is_not_fenced() -> AbstractContextManager[None]:
    return _refuses_if(lambda _grant, _mine: True)


def unknown_clears_the_attempt() -> AbstractContextManager[None]:
    def clear(grant: Grant, mine: Attempt, *, failures: FailureRecord) -> Decision:
        return refresh_writes.let_go(grant, mine, failures=replace(failures, next_try_at=None))

    return replaced((endings, "call_unknown", clear))


def unknown_sets_reauth_required() -> AbstractContextManager[None]:
    def reauth(grant: Grant, mine: Attempt, *, failures: FailureRecord) -> Decision:
        return refresh_writes.refuse(grant, mine, provider_error=failures.code, now=mine.started_at)

    return replaced((endings, "call_unknown", reauth))


def escrow_is_adopted_without_a_fence() -> AbstractContextManager[None]:
    def blindly(
        kept: Escrow, grant: Grant, *, adopter: Attempt | None = None, now: datetime
    ) -> Decision:
        return _blind(grant, kept.attempt, kept.issued, now=now)

    return replaced((adoption, "adopt", blindly))


def revocation_takes_no_number() -> AbstractContextManager[None]:
    def revoke(grant: Grant, *, keeps_pair: bool = False, now: datetime) -> Decision:
        decision = consent_writes.revoke(grant, keeps_pair=keeps_pair, now=now)
        if not isinstance(decision, Changed):
            return decision
        return Changed(
            after=replace(
                decision.after,
                generation=grant.generation,
                last_attempt=grant.last_attempt,
                consent_attempt=grant.consent_attempt,
            )
        )

    return replaced((grants, "revoke", revoke))


def revocation_leaves_the_generation() -> AbstractContextManager[None]:
    def revoke(grant: Grant, *, keeps_pair: bool = False, now: datetime) -> Decision:
        decision = consent_writes.revoke(grant, keeps_pair=keeps_pair, now=now)
        if not isinstance(decision, Changed):
            return decision
        return Changed(after=replace(decision.after, generation=grant.generation))

    return replaced((grants, "revoke", revoke))


def reconnect_is_fenced_by_generation() -> AbstractContextManager[None]:
    def store(
        grant: Grant,
        mine: Attempt,
        issued: Issue,
        *,
        import_fingerprint: bytes | None = None,
        now: datetime,
    ) -> Decision:
        decision = consent_writes.store_consented(
            grant, mine, issued, import_fingerprint=import_fingerprint, now=now
        )
        if isinstance(decision, Changed) and grant.generation != mine.base_generation:
            return Unchanged(why=Why.MOVED_ON)
        return decision

    places = (exchange, takeover, escrow)
    return replaced(*((each, "store_consented", store) for each in places))


def not_processed_clears_doubt() -> AbstractContextManager[None]:
    def forget(grant: Grant, mine: Attempt, *, failures: FailureRecord | None = None) -> Decision:
        decision = refresh_writes.let_go(grant, mine, failures=failures)
        if not isinstance(decision, Changed):
            return decision
        return Changed(after=replace(decision.after, doubt=Doubt.NONE))

    return replaced((endings, "let_go", forget))


def _after_storing(change: Callable[[Grant], Grant]) -> AbstractContextManager[None]:
    def store(grant: Grant, mine: Attempt, issued: Issue, *, now: datetime) -> Decision:
        decision = refresh_writes.store_rotated(grant, mine, issued, now=now)
        if not isinstance(decision, Changed):
            return decision
        return Changed(after=change(decision.after))

    return _stores_by(store)


def any_success_clears_doubt() -> AbstractContextManager[None]:
    return _after_storing(lambda after: replace(after, doubt=Doubt.NONE))


def late_success_clears_anothers_attempt() -> AbstractContextManager[None]:
    return _after_storing(lambda after: replace(after, attempt=None, doubt=Doubt.NONE))


def late_success_is_refused_in_reauth_required() -> AbstractContextManager[None]:
    def store(grant: Grant, mine: Attempt, issued: Issue, *, now: datetime) -> Decision:
        if grant.state is GrantState.REAUTH_REQUIRED:
            return Unchanged(why=Why.STATE)
        return refresh_writes.store_rotated(grant, mine, issued, now=now)

    return _stores_by(store)


def first_success_wins() -> AbstractContextManager[None]:
    def never(_grant: Grant, _mine: Attempt) -> bool:
        return False

    return replaced((refresh_writes, "_is_second_success", never))


def write_back_is_not_fenced() -> AbstractContextManager[None]:
    def other(one: Grant, another: Grant) -> bool:
        return one.pair != another.pair

    return replaced((recall, "is_newer", other), (recall_writes, "is_newer", other))


def janitor_adopts_under_a_live_armed_attempt() -> AbstractContextManager[None]:
    def never(_escrow: Escrow, _adopter: Attempt | None, _grant: Grant, _now: datetime) -> bool:
        return False

    return replaced((escrow, "_is_presented_by_another", never))


def adoption_waits_for_a_merely_claimed_attempt() -> AbstractContextManager[None]:
    def is_live(mine: Escrow, adopter: Attempt | None, grant: Grant, now: datetime) -> bool:
        attempt, numbers = grant.attempt, {mine.attempt.number, adopter and adopter.number}
        return attempt is not None and attempt.number not in numbers and attempt.is_live(now)

    return replaced((escrow, "_is_presented_by_another", is_live))
