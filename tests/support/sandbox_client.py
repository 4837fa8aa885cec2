"""A plain OAuth client for the sandbox's own tests: no part of the broker is in it."""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TypedDict, cast
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from broker.sandbox.sandbox import Sandbox
from broker.sandbox.settings import DEMO_CLIENT, DEMO_COMPANIES
from broker.sandbox.visitor import walk_consent

ACME, BJERG = DEMO_COMPANIES[0].urn, DEMO_COMPANIES[1].urn
REDIRECT_URI = DEMO_CLIENT.redirect_uris[0]
VERIFIER = "a-fake-verifier-" + "v" * 40
BASIC = (DEMO_CLIENT.client_id, DEMO_CLIENT.client_secret)
BODY = {"client_id": DEMO_CLIENT.client_id, "client_secret": DEMO_CLIENT.client_secret}


# Made once: httpx would read all certificates of the world for every client, though none is used.
_TLS = ssl.create_default_context()


class Tokens(TypedDict):
    """A token response."""

    access_token: str
    refresh_token: str
    token_type: str
    expires_in: int
    scope: str


def challenge_of(verifier: str) -> str:
    """Make the S256 challenge (RFC 7636 §4.2)."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def authorization_query(changes: Mapping[str, str | None] | None = None) -> str:
    """Build a good authorization request's query, with changes; None leaves a parameter out."""
    parameters: dict[str, str | None] = {
        "response_type": "code",
        "client_id": DEMO_CLIENT.client_id,
        "redirect_uri": REDIRECT_URI,
        "scope": "export-items:read",
        "state": "a-fake-state",
        "code_challenge": challenge_of(VERIFIER),
        "code_challenge_method": "S256",
        **(changes or {}),
    }
    return urlencode({name: value for name, value in parameters.items() if value is not None})


def parameters_of(location: str) -> dict[str, str]:
    """Read the query of an address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


class SandboxClient:
    """What an integration does, one step a call."""

    def __init__(self, sandbox: Sandbox, http: httpx.AsyncClient) -> None:
        """Talk to `sandbox` over `http`."""
        self.sandbox = sandbox
        self.http = http

    async def code(self, company: str = ACME, **changes: str | None) -> str:
        """Let a company consent."""
        uri = f"{self.sandbox.authorize_url}?{authorization_query(changes)}"
        return parameters_of(await walk_consent(self.http, uri, company=company))["code"]

    async def post(
        self, form: Mapping[str, str | None], *, auth: tuple[str, str] | None = BASIC
    ) -> httpx.Response:
        """Send a token request; None leaves a parameter out."""
        kept = {name: value for name, value in form.items() if value is not None}
        # auth=None would mean the client's default.
        authorization = httpx.BasicAuth(*auth) if auth else httpx.Auth()
        return await self.http.post("/oauth/token", data=kept, auth=authorization)

    async def exchange(self, code: str, **changes: str | None) -> httpx.Response:
        """Redeem a code."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT_URI,
            "code_verifier": VERIFIER,
        }
        return await self.post({**form, **changes})

    async def refresh(self, refresh_token: str) -> httpx.Response:
        """Present a refresh token."""
        return await self.post({"grant_type": "refresh_token", "refresh_token": refresh_token})

    async def connected(self, company: str = ACME, **changes: str | None) -> Tokens:
        """Let a company consent and redeem its code: the tokens."""
        answer = await self.exchange(await self.code(company, **changes))
        return cast("Tokens", answer.raise_for_status().json())

    async def try_on(self, access_token: str) -> int:
        """Use an access token: the status that the API answers."""
        headers = {"Authorization": f"Bearer {access_token}"}
        return (await self.http.get("/v1/export-items", headers=headers)).status_code

    async def api(self, method: str, path: str, access_token: str) -> httpx.Response:
        """Call the API."""
        headers = {"Authorization": f"Bearer {access_token}"}
        return await self.http.request(method, path, headers=headers)


@asynccontextmanager
async def client_of(sandbox: Sandbox) -> AsyncIterator[SandboxClient]:
    """Open a client, whose patience is a test's and not a person's."""
    async with httpx.AsyncClient(base_url=sandbox.url, timeout=30, verify=_TLS) as http:
        yield SandboxClient(sandbox, http)
