"""Calls to a running broker: a deadline for each, and failures as people read them.

Retries nothing: the broker says whether that helps, and the person decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar, cast

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from broker.cli.channel import open_channel
from broker.cli.configured import read_settings
from broker.cli.failing import CommandFailed, ExitStatus
from broker.cli.hints import hint_for
from broker.cli.showing import printable
from broker.config import ClientSettings

DetailT = TypeVar("DetailT", bound=Message)

DEADLINE_SECONDS: Final = 30.0
"""What the broker gives a caller who names none; three times what one request to Pleo may take."""

_STATUSES: Final = {
    "REAUTH_REQUIRED": ExitStatus.REAUTH_REQUIRED,
    "INVALID_REQUEST": ExitStatus.WRONG_USE,
}

# A driver's words can fill a screen, and begin with what matters.
_LONGEST_DETAILS: Final = 300


class CallFailed(CommandFailed):
    """A call ended with another status than OK."""

    def __init__(self, message: str, *, reason: str, hint: str) -> None:
        """`reason`: of `ErrorReason` without its prefix, or the name of gRPC's own status."""
        super().__init__(message, hint=hint, status=_STATUSES.get(reason, ExitStatus.FAILED))
        self.reason = reason


@contextmanager
def broker_channel(
    environ: Mapping[str, str], *, for_admins: bool = False
) -> Iterator[grpc.Channel]:
    """Gives a channel to the broker of the settings; what fails in the block ends as `CallFailed`.

    `for_admins`: nothing is called but what the admin socket answers (`rpc/admin.py`).

    Raises:
        CommandFailed: also where the settings do not do.
    """
    settings = read_settings(ClientSettings, environ)
    # Leaving closes the channel, which also ends the calls that are still under way.
    with open_channel(settings, for_admins=for_admins) as channel:
        try:
            yield channel
        except grpc.RpcError as error:
            raise failure_of(error) from None


def failure_of(error: grpc.RpcError) -> CallFailed:
    """Translates a failed call: reason, message, and what to do next."""
    call = cast("grpc.Call", error)  # which those of a failed call are as well
    status = _status_of(call)
    told = _detail(status, ErrorInfo())
    if status is not None and told is not None:
        return CallFailed(
            printable(status.message), reason=told.reason, hint=_hint(told.reason, status)
        )
    name = call.code().name
    details = printable(call.details() or "")[:_LONGEST_DETAILS]
    return CallFailed(f"{name}: {details}", reason=name, hint=hint_for(name))


def _status_of(call: grpc.Call) -> Status | None:
    try:
        status: Status | None = rpc_status.from_call(call)
    except ValueError:  # whoever answered is no broker: its code and its details differ
        return None
    return status


def _hint(reason: str, status: Status) -> str:
    hint, retry = hint_for(reason), _detail(status, RetryInfo())
    if retry is None:
        return hint
    seconds = max(1, -(-retry.retry_delay.ToMilliseconds() // 1000))
    return f"{hint} (not sooner than in {seconds} s)"


def _detail(status: Status | None, empty: DetailT) -> DetailT | None:
    """Fills `empty` with the status's detail of its kind."""
    packed = () if status is None else status.details
    return next((empty for each in packed if each.Unpack(empty)), None)
