"""The front door: authorization requests, the customer's decision, and the codes made from it.

Upholds RFC 6749 §4.1.2.1 (an unknown client or redirect URI gets a page and never a redirect),
RFC 7636 with S256 alone, exact redirect URIs, and codes that live for seconds. What a code is worth
is decided where it is presented, in `authorization_server`. No clock, no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from broker.sandbox.grants import Grant, Standing
from broker.sandbox.settings import Client, Company

# The S256 challenge is the Base64url of 32 bytes without padding (RFC 7636 §4.2).
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """A request that waits for the customer."""

    request_id: str = field(repr=False)
    client: Client
    redirect_uri: str
    scopes: tuple[str, ...]
    state: str = field(repr=False)
    code_challenge: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """The browser goes back to the client."""

    location: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPage:
    """The browser stays here and is told why."""

    reason: str


@dataclass(slots=True, kw_only=True)
class Code:
    """An authorization code, and what became of it."""

    number: int
    request: AuthorizationRequest
    company: str
    expires_at: datetime
    is_spent: bool = False
    grant: Grant | None = None

    def standing(self, now: datetime) -> Standing:
        """Tell where it stands; a code that was presented is superseded."""
        if self.is_spent:
            return "superseded"
        return "dead" if now >= self.expires_at else "current"


class Consents:
    """Pending requests and codes."""

    def __init__(self, *, new_code: Callable[[], str], new_request_id: Callable[[], str]) -> None:
        """Draw codes and request ids from the given sources."""
        self._new_code = new_code
        self._new_request_id = new_request_id
        self._pending: dict[str, AuthorizationRequest] = {}
        self._codes: dict[str, Code] = {}

    def begin(
        self, parameters: Mapping[str, str], client: Client | None
    ) -> AuthorizationRequest | Redirect | ErrorPage:
        """Check an authorization request of `client`, the registered one of that id if any."""
        if client is None:
            return ErrorPage(reason="No client is registered under this client_id.")
        redirect_uri = parameters.get("redirect_uri")
        if redirect_uri not in client.redirect_uris:
            return ErrorPage(reason="This redirect_uri is not registered, letter for letter.")
        state = parameters.get("state")
        if problem := _problem_of(parameters):
            return back_to_client(redirect_uri, {**problem, "state": state})
        request = AuthorizationRequest(
            request_id=self._new_request_id(),
            client=client,
            redirect_uri=redirect_uri,
            scopes=tuple(parameters.get("scope", "").split()),
            state=parameters["state"],
            code_challenge=parameters["code_challenge"],
        )
        self._pending[request.request_id] = request
        return request

    def take(self, request_id: str) -> AuthorizationRequest | None:
        """Take out a pending request. A page that is sent twice finds nothing the second time."""
        return self._pending.pop(request_id, None)

    def approve(
        self, request: AuthorizationRequest, *, company: Company, expires_at: datetime
    ) -> Redirect:
        """Issue a code for a request that was taken."""
        code = self._new_code()
        self._codes[code] = Code(
            number=len(self._codes) + 1,
            request=request,
            company=company.urn,
            expires_at=expires_at,
        )
        return back_to_client(request.redirect_uri, {"code": code, "state": request.state})

    def find_code(self, code: str) -> Code | None:
        """Find one that was issued, spent or not."""
        return self._codes.get(code)


def deny(request: AuthorizationRequest) -> Redirect:
    """Send the customer back without consent (RFC 6749 §4.1.2.1)."""
    fields = {**_problem("access_denied", "The customer declined"), "state": request.state}
    return back_to_client(request.redirect_uri, fields)


def back_to_client(redirect_uri: str, fields: Mapping[str, str | None]) -> Redirect:
    """Add `fields` to the redirect URI's query, keeping what is there (RFC 6749 §3.1.2)."""
    parts = urlsplit(redirect_uri)
    added = urlencode({name: value for name, value in fields.items() if value is not None})
    query = f"{parts.query}&{added}" if parts.query else added
    return Redirect(location=urlunsplit(parts._replace(query=query)))


def _problem_of(parameters: Mapping[str, str]) -> dict[str, str] | None:
    """Find what is wrong with a request whose redirect URI is right."""
    if parameters.get("response_type") != "code":
        return _problem("unsupported_response_type", "response_type must be code")
    if "state" not in parameters:
        return _problem("invalid_request", "state is required here")
    # RFC 7636 §4.3: a request without a method means `plain`, which is refused.
    if parameters.get("code_challenge_method") != "S256":
        return _problem("invalid_request", "code_challenge_method must be S256")
    if not _CHALLENGE.fullmatch(parameters.get("code_challenge", "")):
        return _problem("invalid_request", "code_challenge must be 43 Base64url characters")
    return None


def _problem(error: str, description: str) -> dict[str, str]:
    return {"error": error, "error_description": description}
