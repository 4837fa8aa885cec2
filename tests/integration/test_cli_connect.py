"""`connect` as a process of its own, with the sandbox's consent page and a browser of httpx."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from broker.domain.errors import AuthorizationStateInvalid, ConsentDenied
from broker.domain.grant import Grant
from broker.rpc.grant_service import GrantService
from broker.rpc.server import ServerSettings, Servicers, grpc_server
from broker.sandbox.server import sandbox_server
from broker.sandbox.settings import DEMO_CLIENT, Client, Settings
from broker.sandbox.visitor import walk_consent
from broker.service.messages import (
    AuthorizationDenied,
    CompleteAuthorization,
    ImportGrant,
    StartAuthorization,
    StartedAuthorization,
)
from support.cli import Running, run_beside, started
from support.fake_broker import FakeBroker
from support.grants import some_grant
from support.rpc import Told, edge_of, servicers_of
from support.sandbox_client import VERIFIER, SandboxClient, challenge_of, client_of

STATE = "fake-state"


@dataclass(slots=True, kw_only=True)
class SandboxConsents:
    """The consents of a broker whose Pleo is a sandbox: the least that is true of the real one."""

    sandbox: SandboxClient
    redirect_uri: str
    bindings: list[bytes] = field(default_factory=list)

    async def start_authorization(self, request: StartAuthorization) -> StartedAuthorization:
        self.bindings.append(request.session_binding)
        query = {
            "response_type": "code",
            "client_id": DEMO_CLIENT.client_id,
            "redirect_uri": request.redirect_uri or self.redirect_uri,
            "scope": "export-items:read",
            "state": STATE,
            "code_challenge": challenge_of(VERIFIER),
            "code_challenge_method": "S256",
        }
        return StartedAuthorization(
            authorization_uri=f"{self.sandbox.sandbox.authorize_url}?{urlencode(query)}",
            state=STATE,
            expires_at=datetime.now(UTC) + timedelta(minutes=10),
        )

    async def complete_authorization(
        self, request: CompleteAuthorization, *, budget: timedelta | None
    ) -> Grant:
        if (request.state, request.session_binding) != (STATE, self.bindings[-1]):
            raise AuthorizationStateInvalid(tenant=request.tenant)
        if isinstance(request.result, AuthorizationDenied):
            raise ConsentDenied(tenant=request.tenant, error=request.result.error)
        answer = await self.sandbox.exchange(
            request.result.reveal(), redirect_uri=self.redirect_uri
        )
        answer.raise_for_status()
        return some_grant(tenant=request.tenant, generation=1)

    async def import_grant(self, request: ImportGrant, *, budget: timedelta | None) -> Grant:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A broker, its Pleo, and a browser."""

    consents: SandboxConsents
    browser: httpx.AsyncClient
    environ: dict[str, str]

    @property
    def redirect_uri(self) -> str:
        return self.consents.redirect_uri

    async def consent(self, running: Running, *, is_approved: bool = True) -> str:
        """Opens the address that the terminal shows; returns where the browser is sent to."""
        uri = await running.told("http")
        return await walk_consent(self.browser, uri, is_approved=is_approved)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    redirect_uri = f"http://{getattr(request, 'param', '127.0.0.1')}:{free_port()}/callback"
    client = Client(
        client_id=DEMO_CLIENT.client_id,
        client_secret=DEMO_CLIENT.client_secret,
        redirect_uris=(redirect_uri,),
    )
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(
            sandbox_server(settings=Settings(clients=(client,)))
        )
        http = await stack.enter_async_context(client_of(sandbox))
        consents = SandboxConsents(sandbox=http, redirect_uri=redirect_uri)
        port = await stack.enter_async_context(
            grpc_server(
                ServerSettings(address="127.0.0.1:0", reflection=False),
                servicers_with(consents),
                edge=edge_of(Told()),
            )
        )
        environ = {"BROKER_ADDRESS": f"127.0.0.1:{port}"}
        yield World(consents=consents, browser=http.http, environ=environ)


def servicers_with(consents: SandboxConsents) -> Servicers:
    broker = FakeBroker()
    return replace(servicers_of(broker), grants=GrantService(consents=consents, grants=broker))


def with_state(address: str, state: str) -> str:
    query = parse_qs(urlsplit(address).query) | {"state": [state]}
    return urlsplit(address)._replace(query=urlencode(query, doseq=True)).geturl()


@pytest.mark.parametrize("world", ["127.0.0.1", "localhost"], indirect=True)
async def test_a_consent_comes_back_over_loopback(world: World) -> None:
    async with started("connect", "acme", "--json", environ=world.environ) as running:
        page = await world.browser.get(await world.consent(running))
        ended = await running.end()

    assert (page.status_code, page.headers["cache-control"]) == (200, "no-store")
    assert "You can close this window" in page.text
    assert (ended.status, ended.document["tenant"]) == (0, "acme")
    assert len(world.consents.bindings[0]) == 32


async def test_the_grant_is_shown_to_people(world: World) -> None:
    async with started("connect", "acme", "--no-browser", environ=world.environ) as running:
        await world.browser.get(await world.consent(running))
        ended = await running.end()

    assert ended.stdout.split()[:4] == ["tenant", "acme", "state", "ACTIVE"]


async def test_nobody_else_can_answer_for_pleo(world: World) -> None:
    async with started("connect", "acme", environ=world.environ) as running:
        address = await world.consent(running)
        elsewhere = await world.browser.get(
            urlsplit(address)._replace(path="/favicon.ico").geturl()
        )
        forged = await world.browser.get(with_state(address, "another"))
        posted = await world.browser.post(address)
        page = await world.browser.get(address)
        ended = await running.end()

    answers = [each.status_code for each in (elsewhere, forged, posted, page)]
    assert answers == [404, 400, 404, 200]
    assert ended.status == 0


async def test_rubbish_and_idle_connections_hold_up_nothing(world: World) -> None:
    async with started("connect", "acme", environ=world.environ) as running:
        address = await world.consent(running)
        host, port = urlsplit(address).hostname, urlsplit(address).port
        _, idle = await asyncio.open_connection(host, port)
        reader, rubbish = await asyncio.open_connection(host, port)
        rubbish.write(b"\xff\r\n\r\n")
        assert await reader.read() == b""
        await world.browser.get(address)
        ended = await running.end()
        for writer in (idle, rubbish):
            writer.close()

    assert (ended.status, ended.stderr) == (0, "")


async def test_a_denied_consent_fails(world: World) -> None:
    async with started("connect", "acme", environ=world.environ) as running:
        await world.browser.get(await world.consent(running, is_approved=False))
        ended = await running.end()

    assert (ended.status, ended.stdout) == (1, "")
    assert "error: CONSENT_DENIED: " in ended.stderr


async def test_the_redirected_address_can_be_pasted(world: World) -> None:
    async with started("connect", "acme", "--paste", "--json", environ=world.environ) as running:
        address = await world.consent(running)
        ended = await running.end(f"{address}\n")

    assert (ended.status, ended.document["tenant"]) == (0, "acme")
    assert parse_qs(urlsplit(address).query)["code"][0] not in ended.said


async def test_a_pasted_denial_fails(world: World) -> None:
    async with started("connect", "acme", "--paste", environ=world.environ) as running:
        ended = await running.end(await world.consent(running, is_approved=False))

    assert ended.status == 1
    assert "CONSENT_DENIED" in ended.stderr


async def test_a_pasted_address_with_another_state_is_refused(world: World) -> None:
    async with started("connect", "acme", "--paste", environ=world.environ) as running:
        address = await world.consent(running)
        ended = await running.end(with_state(address, "another"))

    assert ended.status == 1
    assert "its state is another one" in ended.stderr
    assert parse_qs(urlsplit(address).query)["code"][0] not in ended.said


async def test_nothing_pasted_fails(world: World) -> None:
    async with started("connect", "acme", "--paste", environ=world.environ) as running:
        ended = await running.end()

    assert ended.status == 1
    assert "hint: start again" in ended.stderr


async def test_a_redirect_uri_elsewhere_wants_paste(world: World) -> None:
    environ = world.environ

    ended = await run_beside(
        "connect", "acme", "--redirect-uri", "https://a.example/", environ=environ
    )

    assert ended.status == 2
    assert "--paste" in ended.stderr
    assert world.consents.bindings == []


async def test_a_default_redirect_uri_elsewhere_wants_paste(world: World) -> None:
    world.consents.redirect_uri = "https://app.example/callback"

    ended = await run_beside("connect", "acme", environ=world.environ)

    assert ended.status == 2
    assert "--paste" in ended.stderr


async def test_a_port_that_is_taken_is_told(world: World) -> None:
    with socket.create_server(("127.0.0.1", urlsplit(world.redirect_uri).port or 0)):
        ended = await run_beside("connect", "acme", environ=world.environ)

    assert ended.status == 1
    assert "cannot listen on 127.0.0.1 port" in ended.stderr


async def test_ctrl_c_ends_the_waiting_quietly(world: World) -> None:
    async with started("connect", "acme", environ=world.environ) as running:
        await running.told("http")
        running.interrupt()
        ended = await running.end()

    assert (ended.status, ended.said) == (130, "")
