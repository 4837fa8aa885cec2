"""The endpoints for programs that Pleo has, over HTTP, each open to faults.

    POST   /oauth/token              codes and refresh tokens
    POST   /oauth/token/introspect   with Basic
    GET    /v1/introspect            with a bearer token: which company consented
    DELETE /v1/installations/me      with a bearer token: disconnects
    GET    /v1/export-items          with a bearer token that has `export-items:read`: something to
                                     try a token on; 401 for a dead one, 403 without the scope

Translates, and lets `following` record and `conduct` apply the faults. What is answered is decided
in `authorization_server`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from broker.sandbox.conduct import ConductedResponse, Visit, conduct
from broker.sandbox.faults import Asked, Endpoint, Step
from broker.sandbox.following import Follower
from broker.sandbox.grants import Grant
from broker.sandbox.oauth import Answer, FormRequest, json_answer, read_form_request
from broker.sandbox.record import Presentation
from broker.sandbox.sandbox import Sandbox
from broker.sandbox.wire import Wire, wire_of

_EXPORT_SCOPE: Final = "export-items:read"


class TokenEndpoints:
    """What clients talk to with their own credentials."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Answer for `sandbox`."""
        self._sandbox = sandbox

    async def answer(self, request: Request) -> Response | ConductedResponse:
        """Answer a token request."""
        posted = await _posted(request)
        if posted is None:
            return Response()
        now = self._sandbox.now()
        presented = self._sandbox.server.identify(posted, now=now)
        entry = self._sandbox.record.arrived(presented, via="token", now=now)
        return await self._conducted(request, "token", posted=posted, entry=entry)

    async def introspect(self, request: Request) -> Response | ConductedResponse:
        """Answer a question about a token. A refresh token shown here goes on record too."""
        posted = await _posted(request)
        if posted is None:
            return Response()
        now, shown = self._sandbox.now(), posted.form.get("token")
        presented = self._sandbox.server.identify_refresh_token(shown, now=now)
        entry = self._sandbox.record.arrived(presented, via="introspect", now=now)
        return await self._conducted(request, "introspect", posted=posted, entry=entry)

    async def _conducted(
        self, request: Request, endpoint: Endpoint, *, posted: FormRequest, entry: Presentation
    ) -> ConductedResponse:
        wire, company = wire_of(request), entry.presented.company
        grant_type = posted.form.get("grant_type")
        steps = self._sandbox.faults.take(
            Asked(endpoint=endpoint, grant_type=grant_type, company=company)
        )
        follower = Follower(self._sandbox, entry, wire=wire, steps=steps)

        def act() -> Answer:
            server, now = self._sandbox.server, self._sandbox.now()
            judge = server.judge if endpoint == "token" else server.judge_introspection
            return follower.judged(judge(posted, now=now))

        visit = _visit(self._sandbox, wire, company, steps=steps, act=act)
        return follower.ending(await conduct(visit, room=self._sandbox.room))


class Api:
    """What callers talk to with an access token."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Answer for `sandbox`."""
        self._sandbox = sandbox

    async def introspect(self, request: Request) -> ConductedResponse:
        """Tell which company consented, and to what (pleo.md, "Who the tenant is")."""
        return await self._conducted(request, self._introspected)

    async def delete(self, request: Request) -> ConductedResponse:
        """Disconnect (pleo.md, "Disconnecting")."""
        return await self._conducted(request, self._deleted)

    async def export_items(self, request: Request) -> ConductedResponse:
        """Show that a token works."""
        return await self._conducted(request, _exported)

    async def _conducted(
        self, request: Request, act: Callable[[Grant], Answer]
    ) -> ConductedResponse:
        wire, sandbox = wire_of(request), self._sandbox
        access_token = _bearer(request)
        grant = sandbox.server.accepted(access_token, now=sandbox.now())
        company = grant.company if grant else None
        steps = sandbox.faults.take(Asked(endpoint="api", company=company))

        def answer() -> Answer:
            # Asked again: what was alive at its arrival may have died while it was held.
            living = sandbox.server.accepted(access_token, now=sandbox.now())
            return act(living) if living else _unauthorized()

        visit = _visit(sandbox, wire, company, steps=steps, act=answer)
        ending = await conduct(visit, room=sandbox.room)
        return ConductedResponse(ending, wire=wire, on_sent=lambda _is_delivered: None)

    def _introspected(self, grant: Grant) -> Answer:
        server = self._sandbox.server
        fields = {
            "authMethod": "OAUTH2",
            "clientId": grant.client_id,
            "scope": " ".join(grant.scopes),
            "applicationName": server.application_of(grant).application_name,
        }
        if server.settings.names_company:
            fields["subjectURN"] = grant.company
        return json_answer(HTTPStatus.OK, {"data": fields})

    def _deleted(self, grant: Grant) -> Answer:
        self._sandbox.server.delete_installation(grant)
        return Answer(status=HTTPStatus.NO_CONTENT)


def _exported(grant: Grant) -> Answer:
    if _EXPORT_SCOPE not in grant.scopes:
        return json_answer(HTTPStatus.FORBIDDEN, {"error": "insufficient_scope"})
    item = {"id": "sandbox-item-1", "companyURN": grant.company, "amount": "42.00 DKK"}
    return json_answer(HTTPStatus.OK, {"data": [item]})


def _unauthorized() -> Answer:
    challenge = ("WWW-Authenticate", 'Bearer realm="sandbox", error="invalid_token"')
    fields = {"error": "invalid_token"}
    return json_answer(HTTPStatus.UNAUTHORIZED, fields, headers=(challenge,))


def _visit(
    sandbox: Sandbox,
    wire: Wire,
    company: str | None,
    *,
    steps: tuple[Step, ...],
    act: Callable[[], Answer],
) -> Visit:
    revoke = partial(_disconnect, sandbox, company)
    return Visit(wire=wire, company=company, steps=steps, act=act, revoke=revoke)


def _disconnect(sandbox: Sandbox, company: str | None) -> None:
    """Let a request's company withdraw; an unknown one has nothing to withdraw."""
    if company is not None:
        sandbox.server.disconnect(company=company)


def _bearer(request: Request) -> str:
    """Return the access token; RFC 6750 §2.1 alone, never a parameter."""
    scheme, _, access_token = request.headers.get("Authorization", "").partition(" ")
    return access_token if scheme.lower() == "bearer" else ""


async def _posted(request: Request) -> FormRequest | None:
    """Read the request; None if the client went before it had sent everything."""
    try:
        body = await request.body()
    except ClientDisconnect:
        return None
    return read_form_request(
        body,
        content_type=request.headers.get("Content-Type", ""),
        authorization=request.headers.get("Authorization"),
        query=request.url.query,
    )
