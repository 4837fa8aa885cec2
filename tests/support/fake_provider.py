"""A Pleo in memory for unit tests and simulations: the sandbox's server without its HTTP.

Passes `tests/conformance/test_provider.py`. The rules, the record and the faults are the sandbox's
(`fake.sandbox`), and answers go through `read_answer` as bytes. Time is the running event loop's,
so a loop whose clock is turned by hand turns this one as well.

As behind a wire, a request goes on at the server when its client has gone: it runs in a task of the
fake, which has to be entered.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Final, Self
from urllib.parse import parse_qs, urlsplit

from broker.domain.answers import TOO_LATE, Answer, NotProcessed, Unknown
from broker.domain.errors import ProviderUnavailable
from broker.domain.oauth import authorization_uri, basic_credentials, token_form
from broker.domain.requests import AuthorizationRequest, TokenRequest
from broker.domain.secret import (
    AccessToken,
    AuthorizationCode,
    ClientSecret,
    RefreshToken,
    Secret,
)
from broker.domain.token_response import read_answer
from broker.pleo.api_call import PATIENCE_SECONDS, ApiAnswer, deletion_error, read_introspection
from broker.ports import Introspection, Presentation, WireWindow
from broker.sandbox import oauth
from broker.sandbox.conduct import Deliver, Ending
from broker.sandbox.consents import ErrorPage, Redirect
from broker.sandbox.faults import Asked, name_of
from broker.sandbox.grants import Grant
from broker.sandbox.record import Presentation as Entry
from broker.sandbox.sandbox import Sandbox
from broker.sandbox.settings import DEMO_CLIENT, DEMO_COMPANIES, Settings
from support.fake_wire import FakeRequest, FakeWire

EPOCH: Final = datetime(2030, 1, 1, tzinfo=UTC)
"""The fake's time of day when the loop's clock is at nothing."""

AUTHORIZE_URL: Final = "https://pleo.invalid/oauth/authorize"

_ACME: Final = DEMO_COMPANIES[0].urn
_BASIC: Final = basic_credentials(
    DEMO_CLIENT.client_id, ClientSecret(Secret(DEMO_CLIENT.client_secret))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """Tokens of a company that consented, as the demo client holds them."""

    access_token: AccessToken
    refresh_token: RefreshToken


class FakeProvider:
    """`ports.Provider` for the demo client. Enter it: leaving ends what is under way."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        randomness: Callable[[int], str] = secrets.token_urlsafe,
        has_api: bool = True,
    ) -> None:
        """`has_api` False: as where no API URL is set."""
        self.sandbox = Sandbox(settings, clock=_now, randomness=randomness)
        """Its server, faults, record; `until` and `release`, as in tests with the real sandbox."""

        self.unreachable: str | None = None
        """A code such as `connect_refused`: nothing gets as far as Pleo. None: all is well."""

        self.doubled = 0
        """How many further token requests reach the server twice; the first answer comes back."""

        self.on_acting: Callable[[TokenRequest], None] = lambda _: None
        """Runs when the server acts upon a token request, which may be long after it was sent."""

        self._has_api = has_api
        self._wire = FakeWire(self.sandbox)

    async def __aenter__(self) -> Self:
        await self._wire.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._wire.close()

    def authorization_uri(self, request: AuthorizationRequest) -> str:
        """See the port."""
        return authorization_uri(AUTHORIZE_URL, DEMO_CLIENT.client_id, request)

    def consent(self, uri: str, *, company: str = _ACME) -> AuthorizationCode:
        """Lets a company consent to what the address asks: the code that it comes back with.

        Raises:
            ValueError: the address asks for nothing that this server allows.
        """
        server = self.sandbox.server
        match server.begin_authorization(urlsplit(uri).query):
            case Redirect() | ErrorPage() as page:
                raise ValueError(f"nobody is asked: {page}")
            case begun:
                decided = server.decide_authorization(
                    begun.request_id, company=company, is_approved=True, now=self.sandbox.now()
                )
        match decided:
            case ErrorPage(reason=reason):
                raise ValueError(reason)
            case Redirect(location=location):
                (code,) = parse_qs(urlsplit(location).query)["code"]
                return AuthorizationCode(Secret(code))

    def connect(
        self, company: str = _ACME, *, scopes: Iterable[str] = ("export-items:read",)
    ) -> Connected:
        """Makes a grant without the ceremony, and without a presentation on record."""
        realm = self.sandbox.server.realm
        grant = realm.ledger.open(
            client_id=DEMO_CLIENT.client_id, company=company, scopes=tuple(scopes)
        )
        realm.issue(grant, now=self.sandbox.now(), parent=None)
        return Connected(
            access_token=AccessToken(Secret(grant.current.access_token)),
            refresh_token=RefreshToken(Secret(grant.current.refresh_token)),
        )

    async def present(self, request: TokenRequest, window: WireWindow) -> Presentation:
        """See the port."""
        loop = asyncio.get_running_loop()
        if self.unreachable is not None or loop.time() > window.send_by:
            code = self.unreachable or TOO_LATE
            return Presentation(answer=NotProcessed(code=code), sent_at=None)
        window.on_sending()
        sent_at = loop.time()
        posted = self._token_request(request)
        ending = await self._wire.answer(posted, until=window.answer_by)
        status = ending.answer.status if isinstance(ending, Deliver) else None
        return Presentation(answer=_read(ending), sent_at=sent_at, http_status=status)

    async def introspect(self, access_token: AccessToken) -> Introspection:
        """See the port."""
        return read_introspection(await self._call(access_token, self._introspected))

    async def delete_installation(self, access_token: AccessToken) -> None:
        """See the port."""
        answer = await self._call(access_token, self._deleted)
        if answer.fault == "no_api_url":
            raise ProviderUnavailable("not deleted", metadata={"code": answer.code})
        if error := deletion_error(answer):
            raise error

    # The server's side

    def _token_request(self, request: TokenRequest) -> FakeRequest:
        sandbox = self.sandbox
        form = dict(token_form(request))
        posted = oauth.FormRequest(form=form, authorization=_BASIC, problem=None)
        presented = sandbox.server.identify(posted, now=sandbox.now())
        entry = sandbox.record.arrived(presented, via="token", now=sandbox.now())
        steps = sandbox.faults.take(
            Asked(endpoint="token", grant_type=form["grant_type"], company=presented.company)
        )
        entry.faults = tuple(name_of(step) for step in steps)
        sandbox.room.arrived()

        def act() -> oauth.Answer:
            self.on_acting(request)
            verdict = sandbox.server.judge(posted, now=sandbox.now())
            if self.doubled:
                self.doubled -= 1
                sandbox.server.judge(posted, now=sandbox.now())
            entry.outcome, entry.judged = verdict.outcome, verdict.presented
            entry.has_killed = verdict.has_killed
            return verdict.answer

        made = FakeRequest(steps=steps, company=presented.company, act=act)
        made.connection.watch(lambda: self._hung_up(entry))
        made.answered.add_done_callback(lambda answered: self._finished(entry, answered))
        return made

    def _hung_up(self, entry: Entry) -> None:
        entry.has_hung_up = True
        self.sandbox.room.hung_up()

    def _finished(self, entry: Entry, answered: asyncio.Future[Ending]) -> None:
        """Puts on record how it ended."""
        if not answered.cancelled():
            ending = answered.result()
            is_whole = isinstance(ending, Deliver) and ending.cut is None
            entry.status = ending.answer.status if isinstance(ending, Deliver) else None
            entry.is_delivered = is_whole and not entry.has_hung_up
        entry.finished_at = self.sandbox.now()
        self.sandbox.room.finished()

    async def _call(
        self, access_token: AccessToken, act: Callable[[Grant], oauth.Answer]
    ) -> ApiAnswer:
        if not self._has_api or self.unreachable is not None:
            return ApiAnswer(status=None, fault=self.unreachable or "no_api_url")
        sandbox, token = self.sandbox, access_token.reveal()
        grant = sandbox.server.accepted(token, now=sandbox.now())
        company = grant.company if grant else None

        def answer() -> oauth.Answer:
            living = sandbox.server.accepted(token, now=sandbox.now())
            return act(living) if living else oauth.Answer(status=HTTPStatus.UNAUTHORIZED)

        steps = sandbox.faults.take(Asked(endpoint="api", company=company))
        patience = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        made = FakeRequest(steps=steps, company=company, act=answer)
        ending = await self._wire.answer(made, until=patience)
        if not isinstance(ending, Deliver) or ending.cut is not None:
            return ApiAnswer(status=None, fault="connection_lost" if ending else "read_timeout")
        return ApiAnswer(status=ending.answer.status, body=ending.answer.body)

    def _introspected(self, grant: Grant) -> oauth.Answer:
        data = {"scope": " ".join(grant.scopes)}
        if self.sandbox.server.settings.names_company:
            data["subjectURN"] = grant.company
        return oauth.json_answer(HTTPStatus.OK, {"data": data})

    def _deleted(self, grant: Grant) -> oauth.Answer:
        self.sandbox.server.delete_installation(grant)
        return oauth.Answer(status=HTTPStatus.NO_CONTENT)


def _now() -> datetime:
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


def _read(ending: Ending | None) -> Answer:
    """Reads an answer as `broker.pleo` would; half of one has no readable body."""
    if not isinstance(ending, Deliver):
        return Unknown(code="connection_lost" if ending else "read_timeout")
    answer = read_answer(ending.answer.status, dict(ending.answer.headers), ending.answer.body)
    if ending.cut is None:
        return answer
    return answer if isinstance(answer, NotProcessed) else Unknown(code="cut_short")
