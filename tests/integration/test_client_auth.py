"""What PleoAuth does to requests: a real channel to a fake broker, and an API in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from wsgiref.types import StartResponse, WSGIEnvironment

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from broker.client import BlockingTokenClient, PleoAuth, TokenClient
from broker.testing import FakeTokenBroker, fake_broker, fake_broker_thread

API = "https://external.pleo.test"


@dataclass(slots=True, kw_only=True)
class Api:
    """Answers as it is told, and remembers the headers and bodies that it was sent."""

    status_of: Callable[[str], int]
    headers: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        header = dict(scope["headers"]).get(b"authorization", b"").decode()
        body, has_more = b"", True
        while has_more:
            message = await receive()
            body += message.get("body", b"")
            has_more = message.get("more_body", False)
        status = self._note(header, body)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def wsgi(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """As WSGI has it."""
        status = self._note(environ.get("HTTP_AUTHORIZATION", ""), b"")
        start_response(f"{status} told", [])
        return [b""]

    def _note(self, header: str, body: bytes) -> int:
        self.headers.append(header)
        self.bodies.append(body)
        return self.status_of(header)


def only_first_is_dead() -> Callable[[str], int]:
    """Returns statuses: 401 to the token that comes first, 200 to any other."""
    first: list[str] = []

    def status(header: str) -> int:
        first.append(header)
        return 401 if header == first[0] else 200

    return status


async def posted(
    broker: FakeTokenBroker,
    api: Api,
    *,
    url: str = API,
    content: bytes | AsyncIterator[bytes] = b"",
) -> int:
    """Posts with a token of acme, and returns the status."""
    async with TokenClient(broker.address) as client:
        auth = PleoAuth(client, "acme", api_url=API)
        transport = httpx.ASGITransport(app=api)
        async with httpx.AsyncClient(auth=auth, transport=transport) as http:
            return (await http.post(url, content=content)).status_code


def reports(broker: FakeTokenBroker) -> list[int | None]:
    return [each.rejected_generation for each in broker.asked]


async def test_a_401_is_reported_and_sent_again_with_the_newer_token() -> None:
    api = Api(status_of=only_first_is_dead())
    async with fake_broker() as broker:
        broker.connect("acme")

        assert await posted(broker, api, content=b"body") == 200

        assert reports(broker) == [None, 1]
        assert api.headers[1] == f"Bearer {broker.access_token('acme')}" != api.headers[0]
    assert api.bodies == [b"body", b"body"]


async def test_a_401_to_the_newer_token_too_is_reported_once() -> None:
    api = Api(status_of=lambda _: 401)
    async with fake_broker() as broker:
        broker.connect("acme")

        assert await posted(broker, api) == 401

        assert reports(broker) == [None, 1]
    assert len(api.headers) == 2


async def test_a_streamed_body_is_reported_and_not_repeated() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"streamed"

    api = Api(status_of=only_first_is_dead())
    async with fake_broker() as broker:
        broker.connect("acme")

        assert await posted(broker, api, content=body()) == 401

        assert reports(broker) == [None, 1]
    assert api.bodies == [b"streamed"]


async def test_a_403_is_left_alone() -> None:
    api = Api(status_of=lambda _: 403)
    async with fake_broker() as broker:
        broker.connect("acme")

        assert await posted(broker, api) == 403

        assert reports(broker) == [None]


@pytest.mark.parametrize(
    "url", ["https://other.test", "http://external.pleo.test", "https://external.pleo.test:8443"]
)
async def test_another_origin_is_shown_no_token(url: str) -> None:
    api = Api(status_of=lambda _: 401)
    async with fake_broker() as broker:
        broker.connect("acme")

        assert await posted(broker, api, url=url) == 401

        assert reports(broker) == []
    assert api.headers == [""]


@pytest.mark.parametrize("url", ["http://external.pleo.test", "ftp://127.0.0.1"])
def test_an_api_that_shows_tokens_to_the_network_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        PleoAuth(TokenClient("localhost:1"), "acme", api_url=url)


def test_a_blocking_client_reports_and_repeats_as_well() -> None:
    api = Api(status_of=only_first_is_dead())
    with fake_broker_thread() as broker, BlockingTokenClient(broker.address) as client:
        broker.connect("acme")
        auth = PleoAuth(client, "acme", api_url=API)
        with httpx.Client(auth=auth, transport=httpx.WSGITransport(app=api.wsgi)) as http:
            assert http.get(API).status_code == 200

        assert reports(broker) == [None, 1]
    assert len(api.headers) == 2
