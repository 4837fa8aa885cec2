"""A Pleo, real or fake, behind `ports.Provider`, with the same handle on both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from broker.domain.requests import AuthorizationRequest, ExchangeRequest
from broker.domain.secret import AuthorizationCode, CodeVerifier, Secret
from broker.ports import Provider
from broker.sandbox.sandbox import Sandbox
from broker.sandbox.server import sandbox_server
from broker.sandbox.settings import DEMO_CLIENT
from broker.sandbox.visitor import walk_consent
from support.fake_provider import FakeProvider
from support.pleo import provider_at
from support.sandbox_client import ACME, VERIFIER, client_of, parameters_of

CODE_VERIFIER = CodeVerifier(Secret(VERIFIER))

ASKED = AuthorizationRequest(
    redirect_uri=DEMO_CLIENT.redirect_uris[0],
    scopes=("export-items:read", "accounts:read"),
    state="a-fake-state",
    code_verifier=CODE_VERIFIER,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderWorld:
    """What a conformance suite needs of a Pleo."""

    provider: Provider
    sandbox: Sandbox
    consent: Callable[[str], Awaitable[AuthorizationCode]]
    """Lets ACME consent to what an address asks."""

    async def code(self) -> ExchangeRequest:
        """Lets ACME consent: the request that redeems its code."""
        code = await self.consent(self.provider.authorization_uri(ASKED))
        return ExchangeRequest(
            code=code, redirect_uri=ASKED.redirect_uri, code_verifier=CODE_VERIFIER
        )


@asynccontextmanager
async def provider_world(kind: str) -> AsyncIterator[ProviderWorld]:
    """Makes the `fake` one, or the `sandbox` with the provider that speaks HTTP."""
    async with _fake() if kind == "fake" else _served() as world:
        yield world


@asynccontextmanager
async def _fake() -> AsyncIterator[ProviderWorld]:
    async with FakeProvider() as fake:

        async def consent(uri: str) -> AuthorizationCode:
            return fake.consent(uri, company=ACME)

        yield ProviderWorld(provider=fake, sandbox=fake.sandbox, consent=consent)


@asynccontextmanager
async def _served() -> AsyncIterator[ProviderWorld]:
    async with (
        sandbox_server() as sandbox,
        client_of(sandbox) as browser,
        provider_at(sandbox.url) as provider,
    ):

        async def consent(uri: str) -> AuthorizationCode:
            location = await walk_consent(browser.http, uri, company=ACME)
            return AuthorizationCode(Secret(parameters_of(location)["code"]))

        yield ProviderWorld(provider=provider, sandbox=sandbox, consent=consent)
