"""Does `get`. The access token is shown where that was asked for, and nowhere else (law 7)."""

from __future__ import annotations

from collections.abc import Mapping

from broker.cli.answers import document, time_of
from broker.cli.calling import DEADLINE_SECONDS, broker_channel
from broker.cli.showing import show_fields, show_json
from broker.v1.token_service_pb2 import GetAccessTokenRequest, GetAccessTokenResponse
from broker.v1.token_service_pb2_grpc import TokenServiceStub


def get(tenant: str, environ: Mapping[str, str], *, show_token: bool, as_json: bool) -> None:
    """Gets an access token and says how long it may be used.

    Raises:
        CommandFailed: there is none; exit status 3 where the customer must consent again.
    """
    request = GetAccessTokenRequest(tenant=tenant)
    with broker_channel(environ) as channel:
        answer = TokenServiceStub(channel).GetAccessToken(request, timeout=DEADLINE_SECONDS)
    if as_json:
        shown = document(answer)
        if not show_token:
            del shown["access_token"]
        show_json(shown)
    else:
        access_token = answer.access_token if show_token else ""
        show_fields({"tenant": tenant} | _fields(answer) | {"access token": access_token})


def _fields(answer: GetAccessTokenResponse) -> dict[str, str]:
    expires, reuse = time_of(answer, "expire_time"), time_of(answer, "reuse_until_time")
    return {
        "generation": str(answer.generation),
        "token type": answer.token_type,
        "scopes": " ".join(answer.scopes),
        "expires": f"{expires}, in {answer.expires_in.ToSeconds()} s",
        "may be kept until": f"{reuse}, for {answer.reuse_for.ToSeconds()} s",
        "degraded": "yes: could not be renewed as planned" if answer.degraded else "",
    }
