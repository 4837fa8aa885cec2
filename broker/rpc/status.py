"""The one place where a failure becomes a gRPC status.

Each is a `google.rpc.Status` with exactly one ErrorInfo, whose metadata repeats every fact of the
message; BadRequest for bad fields; RetryInfo when waiting helps. The message starts with the
reason. RetryInfo is matched by the trailer `grpc-retry-pushback-ms`, which gRPC channels obey as
they do not RetryInfo (gRFC A6): the same number, at least 1, or -1 where they must not retry.
Other failures carry no trailer: channels do not retry their codes anyway, and count a -1 against
the budget for retries of whoever still deserves one.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status.rpc_status import to_status

from broker.domain.errors import BrokerError, InvalidRequest, TransientError
from broker.rpc.caller import Context

DOMAIN: Final = "pleo-token-broker"
"""Says in every ErrorInfo whose reasons these are (AIP-193)."""

PUSHBACK: Final = "grpc-retry-pushback-ms"

SHORTEST_PUSHBACK: Final = 1
"""Milliseconds. After 0 gRPC's core (1.85) sends nothing more: the call hangs to its deadline."""

LONGEST_MESSAGE: Final = 1000
"""Characters. A status travels in trailers, the message in two of them, and clients refuse more
than 8 KiB of those (gRPC's `max_metadata_size`), which would hide the status itself."""

MOST_VIOLATIONS: Final = 20
"""Named in a BadRequest; with about a hundred characters each, 2 of the same 8 KiB."""

# UNAVAILABLE is the code that callers' service configs let channels retry: it is for what time
# mends. FAILED_PRECONDITION wants somebody to act first.
CODES: Final[dict[str, grpc.StatusCode]] = {
    "REAUTH_REQUIRED": grpc.StatusCode.FAILED_PRECONDITION,
    "TENANT_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "AUTHORIZATION_STATE_INVALID": grpc.StatusCode.FAILED_PRECONDITION,
    "CONSENT_DENIED": grpc.StatusCode.FAILED_PRECONDITION,
    "CODE_REJECTED": grpc.StatusCode.FAILED_PRECONDITION,
    "EXCHANGE_OUTCOME_UNKNOWN": grpc.StatusCode.FAILED_PRECONDITION,
    "SUBJECT_MISMATCH": grpc.StatusCode.FAILED_PRECONDITION,
    "SUBJECT_ALREADY_CONNECTED": grpc.StatusCode.FAILED_PRECONDITION,
    "REFRESH_TOKEN_REJECTED": grpc.StatusCode.FAILED_PRECONDITION,
    "SCOPE_MISSING": grpc.StatusCode.FAILED_PRECONDITION,
    "CALLER_UNAUTHENTICATED": grpc.StatusCode.UNAUTHENTICATED,
    "CALLER_NOT_ALLOWED": grpc.StatusCode.PERMISSION_DENIED,
    "CALLER_RATE_LIMITED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "PROVIDER_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "PROVIDER_REJECTED_CLIENT": grpc.StatusCode.INTERNAL,
    "REFRESH_OUTCOME_UNKNOWN": grpc.StatusCode.UNAVAILABLE,
    "REFRESH_IN_PROGRESS": grpc.StatusCode.UNAVAILABLE,
    "GRANT_HELD": grpc.StatusCode.UNAVAILABLE,
    "STORE_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "KEY_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "RECORD_UNREADABLE": grpc.StatusCode.DATA_LOSS,
    "INVALID_REQUEST": grpc.StatusCode.INVALID_ARGUMENT,
    "INTERNAL_ERROR": grpc.StatusCode.INTERNAL,
}


def status_of(error: BrokerError, *, tenant: str | None = None) -> Status:
    """Returns the status; `tenant`: whom the call is about, where the error does not know."""
    code: int
    code, _ = CODES[error.reason].value
    status = Status(code=code, message=f"{error.reason}: {error.message}"[:LONGEST_MESSAGE])
    status.details.extend(_packed(detail) for detail in _details(error, tenant))
    return status


def pushback_of(error: BrokerError) -> str | None:
    """Returns what the trailer says to gRPC channels; None: no trailer."""
    if not isinstance(error, TransientError):
        return None
    if not error.may_channel_retry:
        return "-1"
    return str(max(_milliseconds(error.retry_after), SHORTEST_PUSHBACK))


async def abort(context: Context, error: BrokerError, *, tenant: str | None = None) -> None:
    """Ends a call with the status of `error`.

    Raises:
        AbortError: always; it is gRPC's own and wants to be let through.
    """
    status = to_status(status_of(error, tenant=tenant))
    pushback = pushback_of(error)
    trailers = (*status.trailing_metadata, *([] if pushback is None else [(PUSHBACK, pushback)]))
    await context.abort(status.code, status.details, trailers)


def _details(error: BrokerError, tenant: str | None) -> list[Message]:
    details: list[Message] = [_error_info(error, error.tenant or tenant)]
    if isinstance(error, InvalidRequest):
        details.append(_bad_request(error))
    if isinstance(error, TransientError):
        details.append(_retry_info(error))
    return details


def _error_info(error: BrokerError, tenant: str | None) -> ErrorInfo:
    metadata = error.metadata if tenant is None else {"tenant": tenant, **error.metadata}
    return ErrorInfo(domain=DOMAIN, reason=error.reason, metadata=metadata)


def _bad_request(error: InvalidRequest) -> BadRequest:
    return BadRequest(
        field_violations=[
            BadRequest.FieldViolation(field=violation.field, description=violation.description)
            for violation in error.violations[:MOST_VIOLATIONS]
        ]
    )


def _retry_info(error: TransientError) -> RetryInfo:
    milliseconds = _milliseconds(error.retry_after)
    delay = Duration(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)
    return RetryInfo(retry_delay=delay)


def _milliseconds(span: timedelta) -> int:
    """Rounds up: a caller that comes a moment too early gets the same answer again."""
    return max(0, -(-span // timedelta(milliseconds=1)))


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed
