"""Does `guard confirm` and `guard discard`. What may be released, the broker decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from broker.cli.answers import document
from broker.cli.calling import DEADLINE_SECONDS, broker_channel
from broker.cli.showing import show_fields, show_json
from broker.v1.operations_service_pb2 import ReleaseGuardRequest, ReleaseGuardResponse
from broker.v1.operations_service_pb2_grpc import OperationsServiceStub

_CONFIRMED: Final = (
    "REAUTH_REQUIRED. Their refresh tokens stay sealed for BROKER_QUARANTINE_DAYS; until then"
    " token-broker guard discard brings them back"
)
_DISCARDED: Final = "ACTIVE. Each is presented once more when somebody asks for its token"
_REMAINING: Final = (
    "held still: refused a moment ago, or an attempt of theirs is under way or in doubt. They"
    " follow by themselves"
)


def confirm(reason: str, environ: Mapping[str, str], *, as_json: bool) -> None:
    """Gives the held grants up, and says how many.

    Raises:
        CommandFailed: the decision may stand all the same; giving it again does no harm.
    """
    request = ReleaseGuardRequest(action=ReleaseGuardRequest.ACTION_CONFIRM, reason=reason)
    _release(request, environ, now_are=_CONFIRMED, as_json=as_json)


def discard(reason: str, environ: Mapping[str, str], *, as_json: bool) -> None:
    """Takes the held grants back, and those that were given up and are still sealed.

    Raises:
        CommandFailed: as `confirm`.
    """
    request = ReleaseGuardRequest(action=ReleaseGuardRequest.ACTION_DISCARD, reason=reason)
    _release(request, environ, now_are=_DISCARDED, as_json=as_json)


def _release(
    request: ReleaseGuardRequest, environ: Mapping[str, str], *, now_are: str, as_json: bool
) -> None:
    with broker_channel(environ, for_admins=True) as channel:
        answer = OperationsServiceStub(channel).ReleaseGuard(request, timeout=DEADLINE_SECONDS)
    if as_json:
        show_json(document(answer))
    else:
        show_fields(_fields(answer, now_are))


def _fields(answer: ReleaseGuardResponse, now_are: str) -> Mapping[str, str]:
    released, remaining = answer.released_count, answer.remaining_count
    return {
        "released": f"{released}, now {now_are}" if released else "0",
        "remaining": f"{remaining}, {_REMAINING}" if remaining else "0",
    }
