"""A strict authorization server, in memory: the questions one can put to it, and its answers.

Upholds pleo.md through `consents` (the front door) and `token_rules` (the back door). Every answer
comes with what it did, for the record. Refuses to know HTTP, faults, the time of day and where
randomness comes from: `now` is a parameter, the source of randomness is injected.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from broker.sandbox.consents import AuthorizationRequest, ErrorPage, Redirect, deny
from broker.sandbox.grants import Grant, Standing
from broker.sandbox.mint import Randomness
from broker.sandbox.oauth import (
    Answer,
    FormRequest,
    RefusedError,
    json_answer,
    read_parameters,
    refusal,
    required,
)
from broker.sandbox.realm import Realm
from broker.sandbox.settings import Client, Settings
from broker.sandbox.token_rules import ReusedError, exchange, introspect, refresh

CredentialKind = Literal["refresh_token", "code", "nothing"]
Outcome = Literal["rotated", "exchanged", "refused", "introspected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """Which refresh token or code a request shows, without showing it."""

    kind: CredentialKind
    name: str | None = None
    """What to call it, as `grant 2 generation 3` or `code 4`; never issued: none."""
    standing: Standing = "unknown"
    company: str | None = None
    grant: int | None = None
    generation: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the server answers, and what that did."""

    answer: Answer
    outcome: Outcome
    presented: Presented
    """As it stood when it was judged; of a code that was honoured, with the grant made from it."""
    has_killed: bool = False
    """Whether a living grant ended because a credential was shown again."""


class AuthorizationServer:
    """The authorization server of one realm."""

    def __init__(self, settings: Settings, *, randomness: Randomness) -> None:
        """Start with the clients and companies of `settings`, and no grants."""
        self.realm = Realm(settings, randomness=randomness)

    @property
    def settings(self) -> Settings:
        """The rules in force. Those about lifetimes apply to what is issued from now on."""
        return self.realm.settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self.realm.settings = settings

    def begin_authorization(self, query: str) -> AuthorizationRequest | Redirect | ErrorPage:
        """Check the authorization request in `query`, the part of the address after `?`."""
        parameters, problem = read_parameters(query)
        if problem is not None:
            return ErrorPage(reason=f"This is no OAuth request: {problem}.")
        client = self.realm.clients.get(parameters.get("client_id", ""))
        return self.realm.consents.begin(parameters, client)

    def decide_authorization(
        self, request_id: str, *, company: str, is_approved: bool, now: datetime
    ) -> Redirect | ErrorPage:
        """Take the customer's decision. Each request takes one."""
        known = self.realm.companies.get(company)
        if is_approved and known is None:
            return ErrorPage(reason="Choose a company first.")
        request = self.realm.consents.take(request_id)
        if request is None:
            return ErrorPage(reason="This request was answered already. Start again.")
        if known is None or not is_approved:
            return deny(request)
        expires_at = now + self.settings.code_lifetime
        return self.realm.consents.approve(request, company=known, expires_at=expires_at)

    def identify(self, request: FormRequest, *, now: datetime) -> Presented:
        """Say which credential a token request shows, whatever else is wrong with it."""
        match request.form.get("grant_type"):
            case "refresh_token":
                return self.identify_refresh_token(request.form.get("refresh_token"), now=now)
            case "authorization_code":
                return self._identify_code(request.form.get("code"), now)
            case _:
                return Presented(kind="nothing")

    def identify_refresh_token(self, refresh_token: str | None, *, now: datetime) -> Presented:
        """Say which refresh token this is."""
        if refresh_token is None:
            return Presented(kind="nothing")
        located = self.realm.ledger.find_refresh_token(refresh_token)
        if located is None:
            return Presented(kind="refresh_token")
        return Presented(
            kind="refresh_token",
            name=f"grant {located.grant.number} generation {located.generation}",
            standing=located.standing(now),
            company=located.grant.company,
            grant=located.grant.number,
            generation=located.generation,
        )

    def _identify_code(self, text: str | None, now: datetime) -> Presented:
        if text is None:
            return Presented(kind="nothing")
        code = self.realm.consents.find_code(text)
        if code is None:
            return Presented(kind="code")
        return Presented(
            kind="code",
            name=f"code {code.number}",
            standing=code.standing(now),
            company=code.company,
            grant=code.grant.number if code.grant else None,
        )

    def judge(self, request: FormRequest, *, now: datetime) -> Verdict:
        """Answer a token request (RFC 6749 §4.1.3 and §6)."""
        presented = self.identify(request, now=now)
        try:
            return self._honoured(request, presented, now)
        except RefusedError as refused:
            return _refused(refused, presented)

    def _honoured(self, request: FormRequest, presented: Presented, now: datetime) -> Verdict:
        client = self.realm.authenticated(request, accepts=self.settings.client_authentication)
        match required(request.form, "grant_type"):
            case "refresh_token":
                grant = refresh(self.realm, request, client=client, now=now)
                return self._tokens(grant, "rotated", presented)
            case "authorization_code":
                grant = exchange(self.realm, request, client=client, now=now)
                made = replace(presented, grant=grant.number, generation=grant.generation)
                return self._tokens(grant, "exchanged", made)
            case _:
                raise RefusedError("unsupported_grant_type", "neither of the two there are")

    def judge_introspection(self, request: FormRequest, *, now: datetime) -> Verdict:
        """Answer the introspection beside the token endpoint, which takes Basic alone."""
        presented = self.identify_refresh_token(request.form.get("token"), now=now)
        try:
            client = self.realm.authenticated(request, accepts="basic")
            fields = introspect(self.realm, request, client=client, now=now)
        except RefusedError as refused:
            return _refused(refused, presented)
        answer = json_answer(200, fields)
        return Verdict(answer=answer, outcome="introspected", presented=presented)

    def accepted(self, access_token: str, *, now: datetime) -> Grant | None:
        """Return the grant whose current access token this is, if it is alive."""
        located = self.realm.ledger.find_access_token(access_token)
        return located.grant if located is not None and located.is_accepted(now) else None

    def application_of(self, grant: Grant) -> Client:
        """Return the client that a grant was made for."""
        return self.realm.clients[grant.client_id]

    def disconnect(self, *, company: str | None = None, client_id: str | None = None) -> int:
        """Let a company (or all of them) withdraw its consent; how many grants ended."""
        return self.realm.disconnect(
            company=company, client_id=client_id, reason="the company disconnected"
        )

    def delete_installation(self, grant: Grant) -> int:
        """End what `DELETE /v1/installations/me` ends; how many grants that were."""
        has_whole_client = self.settings.deletion_ends == "client"
        return self.realm.disconnect(
            company=None if has_whole_client else grant.company,
            client_id=grant.client_id,
            reason="the installation was deleted",
        )

    def _tokens(self, grant: Grant, outcome: Outcome, presented: Presented) -> Verdict:
        fields = {
            "access_token": grant.current.access_token,
            "refresh_token": grant.current.refresh_token,
            "token_type": "Bearer",
            "expires_in": int(self.settings.access_token_lifetime.total_seconds()),
            "scope": " ".join(grant.scopes),
        }
        return Verdict(answer=json_answer(200, fields), outcome=outcome, presented=presented)


def _refused(refused: RefusedError, presented: Presented) -> Verdict:
    return Verdict(
        answer=refusal(refused),
        outcome="refused",
        presented=presented,
        has_killed=isinstance(refused, ReusedError),
    )
