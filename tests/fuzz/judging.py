"""Says what is wrong with an answer of the broker, whatever it was asked. Knows the contract."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from broker.rpc.status import CODES
from fuzz.making import MARK, Request
from support.rpc import PUSHBACK, details

_DETAILS: Final = "grpc-status-details-bin"
_DOMAIN: Final = "pleo-token-broker"

_GRPCS_OWN: Final = {
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "UNIMPLEMENTED",
}
"""What gRPC itself says: deadlines, sizes of messages and metadata, calls that are not answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a call. `code`: OK, or as gRPC names it."""

    code: str
    message: str = ""
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    responses: tuple[bytes, ...] = ()
    is_given_up: bool = False
    """The caller allowed next to no time."""


def answer_of(error: grpc.aio.AioRpcError, *, is_given_up: bool) -> Answer:
    """Returns what a failed call was answered."""
    return Answer(
        code=error.code().name,
        message=error.details() or "",
        trailers=tuple(error.trailing_metadata() or ()),
        is_given_up=is_given_up,
    )


def faults(request: Request, answer: Answer) -> list[str]:
    """Returns what the contract forbids about an answer; nothing: it is a good one."""
    found = [*_unreadable(request, answer), *_repeated(request, answer)]
    if answer.code in {"INTERNAL", "UNKNOWN"}:
        found.append(f"status {answer.code}: {answer.message}")
    if answer.code == "DEADLINE_EXCEEDED" and not answer.is_given_up:
        found.append("it hangs")
    if answer.code != "OK":
        found += _status_faults(answer)
    return found


def _unreadable(request: Request, answer: Answer) -> Iterator[str]:
    for response in answer.responses:
        try:
            GetMessageClass(request.method.output_type).FromString(response)
        except DecodeError:
            yield "the response is no message"


def _repeated(request: Request, answer: Answer) -> Iterator[str]:
    told = repr((answer.message, answer.trailers))
    if MARK in told or any(secret in told for secret in request.secrets):
        yield "a secret is repeated"


def _status_faults(answer: Answer) -> Iterator[str]:
    packed = dict(answer.trailers).get(_DETAILS)
    if packed is None:
        if answer.code not in _GRPCS_OWN:
            yield f"{answer.code} without details: {answer.message}"
        return
    assert isinstance(packed, bytes)
    status = Status.FromString(packed)
    infos = details(status, ErrorInfo)
    if [info.domain for info in infos] != [_DOMAIN]:
        yield f"not exactly one ErrorInfo of ours: {infos}"
        return
    (info,) = infos
    if CODES.get(info.reason) != getattr(grpc.StatusCode, answer.code):
        yield f"{info.reason} with the code {answer.code}"
    if not answer.message.startswith(f"{info.reason}: ") or status.message != answer.message:
        yield "the message does not begin with the reason"
    yield from _violation_faults(status, info)
    yield from _retry_faults(status, dict(answer.trailers).get(PUSHBACK))


def _violation_faults(status: Status, info: ErrorInfo) -> Iterator[str]:
    found = [each for bad in details(status, BadRequest) for each in bad.field_violations]
    if bool(found) != (info.reason == "INVALID_REQUEST"):
        yield f"{info.reason} with {len(found)} violations"
    if not all(each.description for each in found):
        yield "a violation says nothing"


def _retry_faults(status: Status, pushback: str | bytes | None) -> Iterator[str]:
    delays = [each.retry_delay.ToTimedelta() for each in details(status, RetryInfo)]
    if len(delays) != (0 if pushback is None else 1):
        yield f"{len(delays)} RetryInfo with the trailer {pushback!r}"
    elif delays and pushback != "-1" and int(pushback or 0) != delays[0].total_seconds() * 1000:
        yield f"{delays[0]} with the trailer {pushback!r}"
