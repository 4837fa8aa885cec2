"""The provider as the broker holds it: its addresses, its API calls, its settings."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from broker.domain.answers import Misconfigured, Rotated
from broker.domain.errors import ProviderUnavailable
from broker.domain.secret import AccessToken, ClientSecret, Secret
from broker.pleo.api_call import call_api
from broker.pleo.environments import ENVIRONMENTS
from broker.pleo.provider import PleoProvider
from broker.pleo.settings import ProviderSettings, http_address
from broker.pleo.transport import open_transport
from broker.ports import Introspection
from broker.sandbox.server import sandbox_server
from broker.sandbox.settings import Settings
from support.pleo import TRUSTS_NOBODY, demo_secret, provider_at, refresh_of, window
from support.provider_worlds import ASKED, provider_world
from support.raw_server import answering, http_answer, raw_server, silence

TOKEN = AccessToken(Secret("a-fake-access-token"))
UNKNOWN = Introspection(is_live=None)

SETTINGS = ProviderSettings(
    authorize_url="https://pleo.example/authorize?brand=x",
    token_url="https://pleo.example/token",
    api_url=None,
    client_id="a-client",
    client_secret=demo_secret,
    authorize_params=(("prompt", "login"),),
)


def made(settings: ProviderSettings) -> PleoProvider:
    return PleoProvider(settings, tls=TRUSTS_NOBODY)


def test_the_environments_have_addresses_of_their_own() -> None:
    addresses = [
        address
        for each in ENVIRONMENTS.values()
        for address in (each.authorize_url, each.token_url, each.api_url or "")
    ]

    assert len(set(addresses)) == 6
    assert {http_address(address).scheme for address in addresses} == {"https"}


def test_the_address_for_the_browser_has_the_settings_parameters() -> None:
    uri = made(SETTINGS).authorization_uri(ASKED)

    query = parse_qs(urlsplit(uri).query)
    assert uri.startswith("https://pleo.example/authorize?brand=x&")
    assert query["client_id"] == ["a-client"]
    assert query["prompt"] == ["login"]


@pytest.mark.parametrize(
    "url", ["", "pleo.example", "ftp://pleo.example/", "https://", "http://x:y"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="HTTPS or HTTP"):
        http_address(url)


@pytest.mark.parametrize(
    "settings",
    [
        replace(SETTINGS, authorize_url="nowhere"),
        replace(SETTINGS, token_url="nowhere"),
        replace(SETTINGS, api_url="nowhere"),
    ],
)
def test_all_addresses_are_looked_at_before_they_are_needed(settings: ProviderSettings) -> None:
    with pytest.raises(ValueError, match="HTTPS or HTTP"):
        made(settings)


def test_the_usual_authorities_are_trusted_where_none_are_named() -> None:
    PleoProvider(SETTINGS)


@pytest.mark.parametrize("api_url", [None, ""])
async def test_without_an_api_nothing_is_asked(api_url: str | None) -> None:
    async with made(replace(SETTINGS, api_url=api_url)) as provider:
        assert await provider.introspect(TOKEN) == UNKNOWN
        with pytest.raises(ProviderUnavailable) as raised:
            await provider.delete_installation(TOKEN)

    assert raised.value.metadata == {"code": "no_api_url"}


async def test_a_secret_that_pleo_refuses_is_our_misconfiguration() -> None:
    def wrong() -> ClientSecret:
        return ClientSecret(Secret("a-fake-wrong-secret"))

    async with (
        sandbox_server() as sandbox,
        provider_at(sandbox.url, client_secret=wrong) as provider,
    ):
        result = await provider.present(refresh_of(), window())

    assert result.answer == Misconfigured(error="invalid_client")


async def test_credentials_in_the_body_are_taken_where_they_are_asked_for() -> None:
    settings = Settings(client_authentication="body")
    async with (
        sandbox_server(settings=settings) as sandbox,
        provider_at(sandbox.url, client_auth="body") as provider,
    ):
        result = await provider.present(refresh_of(), window())

    assert result.http_status == 400
    assert sandbox.record.presentations[0].error == "invalid_grant"


async def test_many_requests_at_once_share_few_connections() -> None:
    async with provider_world("sandbox") as world, asyncio.TaskGroup() as group:
        codes = [await world.code() for _ in range(20)]
        calls = [
            group.create_task(world.provider.present(code, window()), name=f"call {number}")
            for number, code in enumerate(codes)
        ]

    assert all(isinstance(call.result().answer, Rotated) for call in calls)


@pytest.mark.parametrize(
    ("answer", "introspection"),
    [
        (http_answer(200, {"data": {}}), Introspection(is_live=True)),
        (
            http_answer(200, {"data": {"scope": "", "subjectURN": ""}}),
            Introspection(is_live=True, scopes=()),
        ),
        (
            http_answer(200, {"data": {"scope": "b a b", "subjectURN": "urn:x"}}),
            Introspection(is_live=True, subject="urn:x", scopes=("b", "a")),
        ),
        (http_answer(200, {"data": {"scope": 7, "subjectURN": []}}), Introspection(is_live=True)),
        # What PostgreSQL could not store would keep the pair from it (law 3).
        (
            http_answer(200, {"data": {"scope": "a\0b", "subjectURN": "urn:\0"}}),
            Introspection(is_live=True),
        ),
        (http_answer(200, {"data": {"subjectURN": "u" * 9000}}), Introspection(is_live=True)),
        (http_answer(200, {"data": None}), UNKNOWN),
        (http_answer(200, {}), UNKNOWN),
        (http_answer(200, []), UNKNOWN),
        (http_answer(401), Introspection(is_live=False)),
        (http_answer(401, b"<html>"), Introspection(is_live=False)),
        (http_answer(403, {"data": {}}), UNKNOWN),
        (http_answer(307, headers={"Location": "/"}), UNKNOWN),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", UNKNOWN),
    ],
)
async def test_an_introspection_says_what_can_be_read(
    answer: bytes, introspection: Introspection
) -> None:
    async with raw_server(answering(answer)) as server, provider_at(server.url) as provider:
        assert await provider.introspect(TOKEN) == introspection


@pytest.mark.parametrize("token", ["a\r\nHost: b", "a b", "tåken", ""])
async def test_a_token_that_fits_into_no_header_is_not_sent(token: str) -> None:
    async with raw_server(silence) as server, provider_at(server.url) as provider:
        assert await provider.introspect(AccessToken(Secret(token))) == UNKNOWN

    assert server.connections == 0


async def test_the_api_may_lie_below_a_path() -> None:
    async with raw_server(answering(http_answer(401))) as server:
        settings = replace(SETTINGS, api_url=f"{server.url}/below/")
        async with made(settings) as provider:
            await provider.introspect(TOKEN)
        peer = await server.peer()

    assert peer.heads[0].startswith(b"GET /below/v1/introspect HTTP/1.1\r\n")


async def test_an_api_that_does_not_answer_is_given_up_and_its_connection_ended() -> None:
    async with raw_server(silence) as server, open_transport(connections=1) as transport:
        address = http_address(server.url)
        answer = await call_api(transport, "GET", address, TOKEN, patience=0.05)
        await asyncio.wait_for((await server.peer()).gone.wait(), timeout=20)

    assert (answer.status, answer.code) == (None, "read_timeout")


async def test_a_handshake_with_the_api_is_given_up_without_leaving_it_open() -> None:
    async with (
        raw_server(silence) as server,
        open_transport(connections=1, tls=TRUSTS_NOBODY) as transport,
    ):
        address = http_address(server.url.replace("http:", "https:"))
        await call_api(transport, "GET", address, TOKEN, patience=0.05)
        await asyncio.wait_for((await server.peer()).gone.wait(), timeout=20)


@pytest.mark.parametrize("status", [200, 204, 404])
async def test_an_installation_is_deleted_or_was_gone(status: int) -> None:
    async with (
        raw_server(answering(http_answer(status))) as server,
        provider_at(server.url) as provider,
    ):
        await provider.delete_installation(TOKEN)
        peer = await server.peer()

    assert peer.heads[0].startswith(b"DELETE /v1/installations/me HTTP/1.1\r\n")


async def test_errors_tell_neither_tokens_nor_addresses(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        raw_server(answering(http_answer(500, b"a-fake-access-token"))) as server,
        provider_at(server.url) as provider,
    ):
        with pytest.raises(ProviderUnavailable) as raised:
            await provider.delete_installation(TOKEN)

    said = f"{raised.value!r} {raised.value.metadata} {caplog.text}"
    assert "a-fake" not in said
    assert raised.value.__cause__ is None


async def test_a_connect_timeout_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "httpcore")
    async with (
        raw_server(answering(http_answer(401))) as server,
        provider_at(server.url, connect_timeout=timedelta(seconds=17)) as provider,
    ):
        await provider.present(refresh_of(), window())

    assert "timeout=17.0" in caplog.text
