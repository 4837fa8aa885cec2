"""All ways in which the broker is broken on purpose, and where each is found."""

from __future__ import annotations

from typing import Final

from simulation import mutants_of_guard as guard
from simulation import mutants_of_service as service
from simulation import mutants_of_writes as writes
from simulation.mutating import Mutant
from simulation.schedule import Outcome, first_broken
from simulation.serving import DEFECT

ALL: Final[tuple[Mutant, ...]] = (
    writes.claim_ignores_a_live_attempt,
    writes.claim_is_not_fenced_by_generation,
    service.own_time_is_not_checked,
    service.exchange_takes_no_claim,
    writes.exchange_waits_for_nobody,
    writes.reconnect_is_fenced_by_generation,
    service.there_is_no_quarantine,
    service.escrows_are_never_looked_for,
    service.escrows_are_looked_for_before_arming_only,
    service.escrow_that_cannot_be_adopted_is_ignored,
    service.redis_unreachable_is_no_escrow,
    writes.doubt_is_forgotten,
    writes.not_processed_clears_doubt,
    writes.any_success_clears_doubt,
    writes.pair_is_stored_without_a_fence,
    writes.success_needs_its_own_live_attempt,
    writes.late_success_is_refused_in_reauth_required,
    writes.first_success_wins,
    writes.late_success_clears_anothers_attempt,
    writes.refusal_is_fenced_by_generation_alone,
    writes.refusal_is_fenced_by_attempt_alone,
    writes.refusal_is_not_fenced,
    writes.unknown_clears_the_attempt,
    writes.unknown_sets_reauth_required,
    service.pair_is_dropped_when_postgresql_refuses,
    service.lost_acknowledgement_is_a_commit,
    writes.lost_acknowledgement_is_a_failure,
    service.there_is_one_escrow_for_each_tenant,
    writes.escrow_is_adopted_without_a_fence,
    service.escrow_is_taken_out_before_the_commit,
    service.reader_forgets_an_escrow_that_postgresql_refuses,
    writes.janitor_adopts_under_a_live_armed_attempt,
    writes.adoption_waits_for_a_merely_claimed_attempt,
    writes.revocation_takes_no_number,
    writes.revocation_leaves_the_generation,
    service.nothing_is_written_back,
    service.claims_follow_lost_commits_at_once,
    service.lost_commits_leave_no_doubt,
    writes.write_back_is_not_fenced,
    service.a_callers_end_is_the_refreshs_end,
    service.transport_retries_by_itself,
    guard.guard_confirms_unfenced,
    guard.guard_confirms_after_lost_commits_at_once,
    guard.guard_never_holds,
    guard.guard_holds_for_one_refusal,
    guard.guard_holds_nothing_back,
    guard.guard_undoes_decisions,
    guard.guard_decides_early,
    guard.guard_discards_before_the_canary_has_rotated,
    guard.discard_leaves_what_was_given_up,
    guard.renewal_takes_no_claim,
    guard.renewal_rotates_what_is_fresh,
)

SOON: Final[dict[Mutant, str]] = {
    writes.claim_is_not_fenced_by_generation: "race",
    service.own_time_is_not_checked: "silent",
    service.exchange_takes_no_claim: "leaving",
    writes.exchange_waits_for_nobody: "leaving",
    writes.reconnect_is_fenced_by_generation: "crowded",
    service.there_is_no_quarantine: "handover",
    service.escrows_are_never_looked_for: "forgotten",
    service.escrow_that_cannot_be_adopted_is_ignored: "handover",
    service.redis_unreachable_is_no_escrow: "forgotten",
    writes.doubt_is_forgotten: "handover",
    writes.not_processed_clears_doubt: "unlucky",
    writes.pair_is_stored_without_a_fence: "crowded",
    writes.success_needs_its_own_live_attempt: "handover",
    writes.first_success_wins: "silent",
    writes.late_success_clears_anothers_attempt: "silent",
    writes.refusal_is_fenced_by_generation_alone: "refused",
    writes.refusal_is_fenced_by_attempt_alone: "silent",
    writes.refusal_is_not_fenced: "refused",
    writes.unknown_clears_the_attempt: "unlucky",
    writes.unknown_sets_reauth_required: "unlucky",
    service.pair_is_dropped_when_postgresql_refuses: "forgotten",
    service.lost_acknowledgement_is_a_commit: "forgotten",
    writes.lost_acknowledgement_is_a_failure: "escrows",
    service.there_is_one_escrow_for_each_tenant: "crowded",
    writes.escrow_is_adopted_without_a_fence: "crowded",
    service.escrow_is_taken_out_before_the_commit: "forgotten",
    service.reader_forgets_an_escrow_that_postgresql_refuses: "forgotten",
    writes.revocation_takes_no_number: "leaving",
    writes.revocation_leaves_the_generation: "leaving",
    service.nothing_is_written_back: "failover",
    service.claims_follow_lost_commits_at_once: "failover",
    service.lost_commits_leave_no_doubt: "failover",
    writes.write_back_is_not_fenced: "failover",
    service.a_callers_end_is_the_refreshs_end: "unlucky",
    service.transport_retries_by_itself: "unlucky",
    writes.any_success_clears_doubt: "outlived",
    writes.janitor_adopts_under_a_live_armed_attempt: "handover",
    guard.guard_confirms_unfenced: "incident",
    guard.guard_confirms_after_lost_commits_at_once: "incident",
    guard.guard_never_holds: "incident",
    guard.guard_holds_for_one_refusal: "incident",
    guard.guard_holds_nothing_back: "incident",
    guard.guard_decides_early: "incident",
    guard.guard_discards_before_the_canary_has_rotated: "incident",
    guard.renewal_takes_no_claim: "incident",
}
"""Each with the weather in which a tenth of the schedules or more show it."""


def look_for(number: int, *, seeds: range) -> Outcome | None:
    """Breaks the rule of that number in `ALL`; returns the first schedule that shows it.

    Raises:
        ValueError: what broke is no law: the mutant does not fit the code any more.
    """
    with ALL[number]():
        outcome = first_broken(seeds)
    if outcome is not None and outcome.broken is not None and outcome.broken.law == DEFECT:
        raise ValueError(ALL[number].__name__)
    return outcome
