"""Does `status`: how the fleet is, as one broker sees it. What is unknown is said to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import typer

from broker.cli.answers import document, time_of
from broker.cli.calling import DEADLINE_SECONDS, broker_channel
from broker.cli.showing import show_fields, show_json, show_table
from broker.v1.operations_service_pb2 import GetFleetStatusRequest, GetFleetStatusResponse
from broker.v1.operations_service_pb2_grpc import OperationsServiceStub

_UNKNOWN: Final = "unknown: PostgreSQL does not answer"


def show_status(environ: Mapping[str, str], *, as_json: bool) -> None:
    """Shows it. Exit status 0 also where the fleet is in trouble: the question was answered.

    Raises:
        CommandFailed: the broker does not answer.
    """
    with broker_channel(environ, for_admins=True) as channel:
        answer = OperationsServiceStub(channel).GetFleetStatus(
            GetFleetStatusRequest(), timeout=DEADLINE_SECONDS
        )
    if as_json:
        show_json(document(answer))
        return
    show_fields(_fields(answer))
    for title, columns, rows in _tables(answer):
        if rows:
            typer.echo(f"\n{title}")
            show_table(columns, rows)


def _fields(answer: GetFleetStatusResponse) -> Mapping[str, str]:
    return {
        "home": answer.home,
        "environment": answer.environment,
        "answered by": answer.replica,
        "grants": _grants(answer),
        "breaker": _breaker(answer.breaker),
        "guard": _guard(answer),
        "overdue renewals": _overdue(answer),
        "escrows": _escrows(answer),
    }


def _grants(answer: GetFleetStatusResponse) -> str:
    if not answer.HasField("grant_counts"):
        return _UNKNOWN
    counts = answer.grant_counts
    return (
        f"{counts.active} active ({counts.in_doubt} in doubt), {counts.held} held,"
        f" {counts.reauth_required} must consent again, {counts.revoked} revoked"
    )


def _breaker(breaker: GetFleetStatusResponse.Breaker) -> str:
    if breaker.state != GetFleetStatusResponse.Breaker.STATE_OPEN:
        return "closed"
    since, probe = time_of(breaker, "since_time"), time_of(breaker, "next_probe_time")
    return f"OPEN since {since}: {breaker.cause}; next probe {probe}"


def _guard(answer: GetFleetStatusResponse) -> str:
    if not answer.HasField("guard"):
        return _UNKNOWN
    guard = answer.guard
    refused = f"{guard.recent_refusals} grants refused within five minutes"
    if guard.state != GetFleetStatusResponse.Guard.STATE_HOLDING:
        return f"watching, {refused}"
    since, end = time_of(guard, "since_time"), time_of(guard, "end_time")
    return (
        f"HOLDING since {since}, {refused}; believed from {end} on unless somebody decides:"
        " token-broker guard discard, or confirm"
    )


def _overdue(answer: GetFleetStatusResponse) -> str:
    if not answer.HasField("overdue_renewals"):
        return _UNKNOWN
    overdue = answer.overdue_renewals
    if not overdue.count:
        return "0"
    return f"{overdue.count}, the latest by {overdue.longest_delay.ToSeconds()} s"


def _escrows(answer: GetFleetStatusResponse) -> str:
    if not answer.HasField("escrow_count"):
        return "unknown: Redis does not answer"
    return str(answer.escrow_count)


def _tables(
    answer: GetFleetStatusResponse,
) -> Iterator[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    yield (
        "Dependencies",
        ("name", "now", "checked", "last error"),
        [
            (
                each.name,
                "well" if each.healthy else "NOT WELL",
                time_of(each, "check_time"),
                each.last_error,
            )
            for each in answer.dependencies
        ],
    )
    yield (
        "Replicas",
        ("name", "version", "started", "last sign of life"),
        [
            (
                each.name,
                each.version,
                time_of(each, "start_time"),
                time_of(each, "heartbeat_time"),
            )
            for each in answer.replicas
        ],
    )
    yield (
        "Keys",
        ("id", "rows", "here", "seals"),
        [
            (
                str(each.key_id),
                str(each.row_count),
                "yes" if each.available else "MISSING",
                "yes" if each.primary else "",
            )
            for each in answer.keys
        ],
    )
