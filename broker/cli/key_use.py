"""Asks a running broker which keys rows are under, and has it seal them anew."""

from __future__ import annotations

from collections.abc import Mapping

from broker.cli.answers import document
from broker.cli.calling import DEADLINE_SECONDS, broker_channel
from broker.cli.failing import CommandFailed
from broker.cli.progress import filling_bar
from broker.cli.showing import show_fields, show_json
from broker.v1.operations_service_pb2 import (
    GetFleetStatusRequest,
    RewrapKeysRequest,
    RewrapKeysResponse,
)
from broker.v1.operations_service_pb2_grpc import OperationsServiceStub


def read_key_use(environ: Mapping[str, str]) -> Mapping[int, int]:
    """Returns the rows under each key.

    Raises:
        CommandFailed: the broker cannot be asked, or does not tell.
    """
    with broker_channel(environ, for_admins=True) as channel:
        request = GetFleetStatusRequest()
        answer = OperationsServiceStub(channel).GetFleetStatus(request, timeout=DEADLINE_SECONDS)
    return {each.key_id: each.row_count for each in answer.keys}


def check_unused(key_id: int, environ: Mapping[str, str]) -> None:
    """Asks whether anything is sealed under another key than the broker's primary one.

    A rewrapping that is only counted: rows, and escrows in Redis.

    Raises:
        CommandFailed: a row may use the key, or the broker cannot be asked.
    """
    request = RewrapKeysRequest(validate_only=True)
    with broker_channel(environ, for_admins=True) as channel:
        (counted,) = OperationsServiceStub(channel).RewrapKeys(request, timeout=DEADLINE_SECONDS)
    if counted.key_id == key_id:
        raise CommandFailed(
            f"the broker still seals under key {key_id}",
            hint="roll the keyset out in which another key is primary, to every replica",
        )
    if counted.total_count:
        raise CommandFailed(
            f"{counted.total_count} rows or escrows are under other keys than {counted.key_id}, and"
            f" may need key {key_id}",
            hint="token-broker keys rewrap; escrows are adopted within seconds",
        )


def rewrap(reason: str, environ: Mapping[str, str], *, as_json: bool) -> None:
    """Has all rows sealed anew, and shows how far it is.

    Raises:
        CommandFailed: also where something is left under an older key.
    """
    last = RewrapKeysResponse()
    with (
        broker_channel(environ, for_admins=True) as channel,
        filling_bar("rewrapping") as fill,
    ):
        # Without a deadline: it takes as long as there are rows, and Ctrl-C ends it.
        for last in OperationsServiceStub(channel).RewrapKeys(RewrapKeysRequest(reason=reason)):
            fill(last.rewrapped_count + last.unreadable_count, last.total_count)
    if as_json:
        show_json(document(last))
    else:
        show_fields(_fields(last))
    _refuse_what_is_left(last)


def _fields(last: RewrapKeysResponse) -> Mapping[str, str]:
    return {
        "key id": str(last.key_id),
        "rows under others": str(last.total_count),
        "rewrapped": str(last.rewrapped_count),
        "unreadable": str(last.unreadable_count) if last.unreadable_count else "",
    }


def _refuse_what_is_left(last: RewrapKeysResponse) -> None:
    if last.unreadable_count:
        raise CommandFailed(
            f"{last.unreadable_count} values do not open, and stay under their key",
            hint="the broker's log names the tenants (sealed_value_unreadable); connecting a tenant"
            " again replaces its values",
        )
    left = last.total_count - last.rewrapped_count - last.unreadable_count
    if left:
        raise CommandFailed(
            f"{left} are left under an older key: rows that an older replica writes, or escrows",
            hint="roll the newest keyset out to every replica, then rewrap again",
        )
