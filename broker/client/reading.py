"""The one place where a status becomes an exception, and an answer a token.

Whoever answered with a status that is not the broker's (a proxy, gRPC itself) is taken by its code
alone: its text is not repeated, since it may quote what was sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from typing import Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from broker.client.errors import BrokerUnreachable, TokenBrokerError, Told, error_of
from broker.client.values import AccessToken, Kept
from broker.v1.token_service_pb2 import GetAccessTokenResponse

DOMAIN: Final = "pleo-token-broker"
"""Of the ErrorInfo; reasons of other domains are not ours to read."""

_DETAILS: Final = "grpc-status-details-bin"

_CODES: Final = {each.value[0]: each for each in grpc.StatusCode}

REUSE_MARGIN: Final = 5.0
"""Seconds from the end of a promise to the planned rotation: the broker's, as a test sees to."""

_ON_THE_WAY: Final = 0.5
"""Seconds of them that are left to a request with the token to reach Pleo in."""

_BEGUN: Final = 0.05
"""Seconds after which a rotation that was due has begun: what timers and clocks differ by."""

_LONGEST_WAY: Final = 0.5
"""Seconds that an answer is taken to have been under way: who waits for a rotation does not wait
for longer than this, and what lies around it."""

DetailT = TypeVar("DetailT", bound=Message)


def token_of(answer: GetAccessTokenResponse) -> AccessToken:
    """Returns the token of an answer."""
    return AccessToken(
        value=answer.access_token,
        token_type=answer.token_type,
        generation=answer.generation,
        expire_time=answer.expire_time.ToDatetime(tzinfo=UTC),
        scopes=tuple(answer.scopes),
        is_degraded=answer.degraded,
    )


def kept_of(
    answer: GetAccessTokenResponse, *, asked_at: float, answered_at: float, is_used: bool
) -> Kept:
    """Returns what is kept of an answer. The promise began after `asked_at`: none is overstayed.

    Who asks between the end of the promise and the rotation is given the same token, with no
    promise. So one that had one is used to shortly before its rotation: that is no riskier, and
    spares the broker all calls of those seconds.
    """
    lease = answer.reuse_for.ToTimedelta().total_seconds()
    beyond = answer.expires_in.ToTimedelta().total_seconds() - lease
    has_margin = lease > 0 and beyond > REUSE_MARGIN
    given_at = min(answered_at, asked_at + _LONGEST_WAY)
    return Kept(
        token=token_of(answer),
        reuse_until=asked_at + lease + (REUSE_MARGIN - _ON_THE_WAY if has_margin else 0.0),
        renewed_at=given_at + lease + REUSE_MARGIN + _BEGUN if has_margin else asked_at,
        is_used=is_used,
    )


def failure_of(error: grpc.aio.AioRpcError) -> TokenBrokerError:
    """Translates a failed call."""
    status = _status_of(error.trailing_metadata() or ())
    if status is None or _detail(status, ErrorInfo()) is None:
        return unreachable(error.code())
    return error_of_status(status)


def unreachable(code: grpc.StatusCode) -> BrokerUnreachable:
    """Returns the failure for a status that is not the broker's."""
    return BrokerUnreachable(Told(code=code, message=f"no answer from the broker: {code.name}"))


def error_of_status(status: Status) -> TokenBrokerError:
    """Translates a status of the broker's, as it comes in a stream too."""
    told = _detail(status, ErrorInfo()) or ErrorInfo()
    retry = _detail(status, RetryInfo())
    return error_of(
        Told(
            code=_CODES.get(status.code, grpc.StatusCode.UNKNOWN),
            message=status.message,
            reason=told.reason if told.domain == DOMAIN else "",
            retry_after=None if retry is None else retry.retry_delay.ToTimedelta(),
            metadata=dict(told.metadata),
        )
    )


def _status_of(trailers: Iterable[tuple[str, str | bytes]]) -> Status | None:
    packed = next((value for name, value in trailers if name == _DETAILS), None)
    if not isinstance(packed, bytes):
        return None
    try:
        return Status.FromString(packed)
    except DecodeError:
        return None  # whoever answered is no broker


def _detail(status: Status, empty: DetailT) -> DetailT | None:
    """Fills `empty` with the status's detail of its kind."""
    return next((empty for each in status.details if each.Unpack(empty)), None)
