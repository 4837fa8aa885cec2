"""Does `explain`: the story of a grant, and the records that it is told from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import typer

from broker.cli.answers import document, time_of
from broker.cli.calling import DEADLINE_SECONDS, broker_channel
from broker.cli.failing import ExitStatus
from broker.cli.showing import printable, show_fields, show_json, show_table
from broker.v1.grant_service_pb2 import Grant
from broker.v1.operations_service_pb2 import (
    Disclosure,
    ExplainGrantRequest,
    ExplainGrantResponse,
    GrantEvent,
    RefreshAttempt,
)
from broker.v1.operations_service_pb2_grpc import OperationsServiceStub

_ATTEMPTS: Final = ("attempt", "kind", "started", "took", "replica", "outcome", "Pleo said")
_EVENTS: Final = ("event", "by", "call", "change", "reason")
_DISCLOSURES: Final = ("given to", "generations", "first", "last")


def explain(tenant: str, environ: Mapping[str, str], *, as_json: bool) -> None:
    """Shows all that is known about a grant.

    Raises:
        CommandFailed: it could not be asked. Exit: status 3, the customer must consent again.
    """
    with broker_channel(environ, for_admins=True) as channel:
        stub = OperationsServiceStub(channel)
        answer = stub.ExplainGrant(ExplainGrantRequest(tenant=tenant), timeout=DEADLINE_SECONDS)
    if as_json:
        show_json(document(answer))
    else:
        _show(answer)
    if answer.grant.state == Grant.STATE_REAUTH_REQUIRED:
        raise typer.Exit(ExitStatus.REAUTH_REQUIRED)


def _show(answer: ExplainGrantResponse) -> None:
    for line in answer.story.splitlines():
        typer.echo(printable(line))
    typer.echo()
    show_fields(_fields(answer))
    for columns, rows in (
        (_ATTEMPTS, list(map(_attempt, answer.attempts))),
        (_EVENTS, list(map(_event, answer.events))),
        (_DISCLOSURES, list(map(_disclosure, answer.disclosures))),
    ):
        if rows:
            typer.echo()
            show_table(columns, rows)


def _fields(answer: ExplainGrantResponse) -> Mapping[str, str]:
    step, hold, lease = answer.next_step, answer.hold, answer.lease
    due, until = time_of(step, "due_time"), time_of(hold, "end_time")
    standing = lease.Standing.Name(lease.standing).removeprefix("STANDING_").lower()
    return {
        "next": ", ".join(filter(None, (step.description, due and f"at {due}"))),
        "held until": until,
        "lease": " ".join(filter(None, (standing, lease.holder and f"by {lease.holder}"))),
        "key": str(answer.key_id) if answer.HasField("key_id") else "",
    }


def _attempt(attempt: RefreshAttempt) -> tuple[str, ...]:
    status = str(attempt.provider_status) if attempt.HasField("provider_status") else ""
    took = f"{attempt.duration.ToMilliseconds()} ms" if attempt.HasField("duration") else ""
    read = document(attempt)
    return (
        str(attempt.number),
        str(read["kind"]).removeprefix("KIND_").lower(),
        time_of(attempt, "start_time"),
        took,
        attempt.replica,
        str(read["outcome"]).removeprefix("OUTCOME_").lower(),
        " ".join(filter(None, (status, attempt.provider_error))),
    )


def _event(event: GrantEvent) -> tuple[str, ...]:
    change = f"{event.before} -> {event.after}" if event.after else ""
    return time_of(event, "event_time"), event.actor, event.call, change, event.reason


def _disclosure(disclosure: Disclosure) -> tuple[str, ...]:
    first, last = disclosure.first_generation, disclosure.last_generation
    return (
        disclosure.caller,
        str(first) if first == last else f"{first} to {last}",
        time_of(disclosure, "first_time"),
        time_of(disclosure, "last_time"),
    )
