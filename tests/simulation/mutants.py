"""All ways in which the broker is broken on purpose, and where each is found."""

from __future__ import annotations

from typing import Final

from simulation import mutants_of_service as service
from simulation import mutants_of_writes as writes
from simulation.mutating import Mutant
from simulation.schedule import Outcome, first_broken

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
    service.a_callers_end_is_the_refreshs_end,
    service.transport_retries_by_itself,
)

UNSEEN: Final[dict[Mutant, str]] = {}
"""Those that no schedule can show, and why."""


def look_for(number: int, *, seeds: range) -> Outcome | None:
    """Breaks the rule of that number in `ALL`; returns the first schedule that shows it."""
    with ALL[number]():
        return first_broken(seeds)
