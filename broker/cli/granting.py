"""Does `grants`, `refresh` and `revoke`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
import typer

from broker.cli.answers import document, show_grant, state_of, time_of
from broker.cli.calling import DEADLINE_SECONDS, broker_channel
from broker.cli.showing import show_json, show_table
from broker.v1.grant_service_pb2 import Grant, ListGrantsRequest, RevokeGrantRequest
from broker.v1.grant_service_pb2_grpc import GrantServiceStub
from broker.v1.operations_service_pb2 import RefreshGrantRequest
from broker.v1.operations_service_pb2_grpc import OperationsServiceStub

_PAGE: Final = 1000
"""Grants; the most that the broker gives at once. With half a kilobyte each it is quickly sent."""

_COLUMNS: Final = ("tenant", "state", "generation", "subject", "expires", "last used", "changed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """What to end, and why."""

    tenant: str
    reason: str
    at_provider: bool


def list_grants(states: Sequence[str], environ: Mapping[str, str], *, as_json: bool) -> None:
    """Lists the grants in these states, or all of them.

    Raises:
        CommandFailed: not all pages came; nothing is printed then.
    """
    wanted = [Grant.State.Value(f"STATE_{state}") for state in states]
    with broker_channel(environ, for_admins=True) as channel:
        grants = list(_all_pages(channel, wanted))
    if as_json:
        show_json({"grants": [document(grant) for grant in grants]})
    elif grants:
        show_table(_COLUMNS, map(_row, grants))
    else:
        typer.echo("No grants.")


def refresh(tenant: str, reason: str, environ: Mapping[str, str], *, as_json: bool) -> None:
    """Rotates a grant's tokens and shows the grant after it.

    Raises:
        CommandFailed: exit status 3 where the customer must consent again.
    """
    request = RefreshGrantRequest(tenant=tenant, reason=reason)
    with broker_channel(environ, for_admins=True) as channel:
        answer = OperationsServiceStub(channel).RefreshGrant(request, timeout=DEADLINE_SECONDS)
    show_grant(answer.grant, as_json=as_json)


def revoke(revocation: Revocation, environ: Mapping[str, str], *, as_json: bool) -> None:
    """Ends a grant and shows what is left of it.

    Raises:
        CommandFailed: repeating the command goes on from there.
    """
    request = RevokeGrantRequest(
        tenant=revocation.tenant,
        reason=revocation.reason,
        revoke_at_provider=revocation.at_provider,
    )
    with broker_channel(environ) as channel:
        answer = GrantServiceStub(channel).RevokeGrant(request, timeout=DEADLINE_SECONDS)
    show_grant(answer.grant, as_json=as_json)


def _all_pages(channel: grpc.Channel, states: Sequence[Grant.State.ValueType]) -> Iterator[Grant]:
    stub, page_token = GrantServiceStub(channel), ""
    while True:
        request = ListGrantsRequest(page_size=_PAGE, page_token=page_token, states=states)
        page = stub.ListGrants(request, timeout=DEADLINE_SECONDS)
        yield from page.grants
        page_token = page.next_page_token
        if not page_token:
            return


def _row(grant: Grant) -> tuple[str, ...]:
    return (
        grant.tenant,
        state_of(grant),
        str(grant.generation),
        grant.subject,
        time_of(grant, "expire_time"),
        time_of(grant, "last_used_time"),
        time_of(grant, "update_time"),
    )
