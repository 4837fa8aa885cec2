"""What is known of a grant as messages of ExplainGrant. Translates, and decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from broker.domain.disclosure import Disclosure
from broker.domain.explanation import Hold, Known, Planned
from broker.domain.facts import LeaseStanding
from broker.domain.grant import Attempt, AttemptKind, AttemptPhase
from broker.domain.history import AttemptOutcome, AttemptRecord, RecordedEvent
from broker.ports import LeaseSeen
from broker.rpc.messages import duration, grant_message, timestamp
from broker.service.explaining import Explanation
from broker.v1 import operations_service_pb2 as pb

_Lease = pb.ExplainGrantResponse.Lease
_Outcome = pb.RefreshAttempt.Outcome

_STANDINGS: Final = {
    LeaseStanding.FREE: _Lease.STANDING_FREE,
    LeaseStanding.HELD: _Lease.STANDING_HELD,
    LeaseStanding.UNREACHABLE: _Lease.STANDING_UNREACHABLE,
}

_KINDS: Final = {
    AttemptKind.REFRESH: pb.RefreshAttempt.KIND_REFRESH,
    AttemptKind.EXCHANGE: pb.RefreshAttempt.KIND_EXCHANGE,
    AttemptKind.IMPORT: pb.RefreshAttempt.KIND_IMPORT,
}

_OUTCOMES: Final = {
    AttemptOutcome.ROTATED: _Outcome.OUTCOME_ROTATED,
    AttemptOutcome.REFUSED: _Outcome.OUTCOME_REFUSED,
    AttemptOutcome.NOT_PROCESSED: _Outcome.OUTCOME_NOT_PROCESSED,
    AttemptOutcome.UNKNOWN: _Outcome.OUTCOME_UNKNOWN,
    AttemptOutcome.MISCONFIGURED: _Outcome.OUTCOME_MISCONFIGURED,
    AttemptOutcome.ABANDONED: _Outcome.OUTCOME_ABANDONED,
    # To who is on call it is the same: Pleo never saw it.
    AttemptOutcome.LET_GO: _Outcome.OUTCOME_NOT_PROCESSED,
    AttemptOutcome.STALE: _Outcome.OUTCOME_SUPERSEDED,
}


def explanation_message(explained: Explanation, *, limit: int) -> pb.ExplainGrantResponse:
    """Returns the answer to ExplainGrant, with `limit` attempts at most."""
    known = explained.known
    return pb.ExplainGrantResponse(
        grant=grant_message(known.grant),
        attempts=list(_attempts(known))[:limit],
        events=[_event(each) for each in known.events],
        lease=_lease(explained.lease, known.now),
        disclosures=[_disclosure(each) for each in known.disclosures],
        next_step=_next_step(explained.planned) if explained.planned else None,
        story=explained.story,
        hold=_hold(explained.hold) if explained.hold else None,
        key_id=known.key_id,
    )


def _attempts(known: Known) -> Iterator[pb.RefreshAttempt]:
    attempt = known.grant.attempt
    # One whose outcome is unknown has its line already, and stays on the row until its deadline.
    if attempt is not None and attempt.number not in {
        each.attempt.number for each in known.attempts
    }:
        yield _on_the_row(attempt, known.now)
    yield from map(_ended, known.attempts)


def _on_the_row(attempt: Attempt, now: datetime) -> pb.RefreshAttempt:
    message = _attempt(attempt)
    message.deadline_time.CopyFrom(timestamp(attempt.deadline))
    if attempt.phase is AttemptPhase.UNKNOWN:
        message.outcome = _Outcome.OUTCOME_UNKNOWN
    elif attempt.is_live(now):
        message.outcome = _Outcome.OUTCOME_IN_PROGRESS
    else:
        message.outcome = _Outcome.OUTCOME_ABANDONED
    return message


def _ended(line: AttemptRecord) -> pb.RefreshAttempt:
    message = _attempt(line.attempt)
    message.outcome = _OUTCOMES[line.outcome]
    message.provider_error = line.error
    # Two clocks may have dated them.
    message.duration.CopyFrom(
        duration(max(line.ended_at, line.attempt.started_at) - line.attempt.started_at)
    )
    if line.http_status is not None:
        message.provider_status = line.http_status
    return message


def _attempt(attempt: Attempt) -> pb.RefreshAttempt:
    return pb.RefreshAttempt(
        number=attempt.number,
        kind=_KINDS[attempt.kind],
        replica=attempt.replica,
        generation=attempt.base_generation,
        start_time=timestamp(attempt.started_at),
    )


def _event(line: RecordedEvent) -> pb.GrantEvent:
    event = line.event
    is_call = "/" in event.call
    is_change = event.before is not event.after
    return pb.GrantEvent(
        event_time=timestamp(line.at),
        actor=event.actor,
        call=event.call if is_call else "",
        # What the broker does by itself has a name as well, and often no further reason.
        reason=event.reason if is_call else ": ".join(filter(None, (event.call, event.reason))),
        before=event.before.value if is_change else "",
        after=event.after.value if is_change else "",
    )


def _lease(seen: LeaseSeen, now: datetime) -> pb.ExplainGrantResponse.Lease:
    return _Lease(
        standing=_STANDINGS[seen.standing],
        holder=seen.holder,
        expire_time=None if seen.remaining is None else timestamp(now + seen.remaining),
    )


def _disclosure(disclosure: Disclosure) -> pb.Disclosure:
    return pb.Disclosure(
        caller=disclosure.caller,
        first_generation=disclosure.first_generation,
        last_generation=disclosure.last_generation,
        first_time=timestamp(disclosure.first_at),
        last_time=timestamp(disclosure.last_at),
    )


def _next_step(planned: Planned) -> pb.ExplainGrantResponse.NextStep:
    due_at = planned.due_at
    return pb.ExplainGrantResponse.NextStep(
        description=planned.description, due_time=None if due_at is None else timestamp(due_at)
    )


def _hold(hold: Hold) -> pb.ExplainGrantResponse.Hold:
    return pb.ExplainGrantResponse.Hold(
        since_time=timestamp(hold.since), end_time=timestamp(hold.until)
    )
