"""What PleoAuth does to requests: a real channel to a fake broker, and an API in this process."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from textwrap import indent
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from broker.client import BlockingTokenClient, PleoAuth, TokenClient
from broker.testing import FakeTokenBroker, fake_broker, fake_broker_thread
from support.source import ROOT

API = "https://external.pleo.test"


@dataclass(slots=True, kw_only=True)
class Api:
    """Answers as it is told, and remembers the headers and bodies that it was sent."""

    status_of: Callable[[str], int]
    location: str = ""
    """Where `/old` has moved to."""

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
        moved = self._moved(scope["path"])
        status, headers = (302, [(b"location", moved.encode())]) if moved else (status, [])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    def answer(self, request: httpx.Request) -> httpx.Response:
        """As httpx has it, for those who do without asyncio."""
        assert isinstance(request.stream, httpx.SyncByteStream)
        status = self._note(request.headers.get("Authorization", ""), b"".join(request.stream))
        moved = self._moved(request.url.path)
        return httpx.Response(302, headers={"location": moved}) if moved else httpx.Response(status)

    def _moved(self, path: str) -> str:
        return self.location if path == "/old" else ""

    def _note(self, header: str, body: bytes) -> int:
        self.headers.append(header)
        self.bodies.append(body)
        return self.status_of(header)


class Wire(httpx.BaseTransport):
    """Reads a body as it is sent; httpx's own transports of tests read it into memory before."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """As httpx has it."""
        return self._api.answer(request)


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


def http_of(client: TokenClient, api: Api, *, api_url: str | None = API) -> httpx.AsyncClient:
    """Returns an httpx client of acme, before that API."""
    auth = PleoAuth(client, "acme", api_url=api_url)
    return httpx.AsyncClient(auth=auth, transport=httpx.ASGITransport(app=api))


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


async def test_a_401_to_a_token_that_lives_is_shown_and_sent_once() -> None:
    api = Api(status_of=lambda _: 401)
    async with fake_broker() as broker:
        broker.connect("acme")
        broker.believes_reports = False

        assert await posted(broker, api) == 401

        assert reports(broker) == [None, 1]
    assert len(api.headers) == 1


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


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
async def test_a_request_in_memory_is_repeated_whatever_its_method(method: str) -> None:
    api = Api(status_of=only_first_is_dead())
    async with fake_broker() as broker, TokenClient(broker.address) as client:
        broker.connect("acme")
        async with http_of(client, api) as http:
            assert (await http.request(method, API, json={"a": 1})).status_code == 200

    assert len(api.headers) == 2
    assert api.bodies[0] == api.bodies[1] != b""


async def test_a_streamed_body_that_was_read_is_repeated() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"streamed"

    api = Api(status_of=only_first_is_dead())
    async with fake_broker() as broker, TokenClient(broker.address) as client:
        broker.connect("acme")
        async with http_of(client, api) as http:
            request = http.build_request("POST", API, content=body())
            await request.aread()
            assert (await http.send(request)).status_code == 200

    assert api.bodies == [b"streamed", b"streamed"]


@pytest.mark.parametrize("host", ["https://external.pleo.test", "https://other.test"])
async def test_a_redirect_takes_the_token_to_the_same_host_only(host: str) -> None:
    api = Api(status_of=lambda _: 200, location=f"{host}/moved")
    async with fake_broker() as broker, TokenClient(broker.address) as client:
        broker.connect("acme")
        async with http_of(client, api) as http:
            answer = await http.get(f"{API}/old", follow_redirects=True)

        header = f"Bearer {broker.access_token('acme')}"
    assert answer.url == f"{host}/moved"
    assert api.headers == [header, header if host == API else ""]


async def test_a_401_after_a_redirect_elsewhere_is_not_reported() -> None:
    api = Api(status_of=lambda header: 200 if header else 401, location="https://other.test/moved")
    async with fake_broker() as broker, TokenClient(broker.address) as client:
        broker.connect("acme")
        async with http_of(client, api) as http:
            answer = await http.get(f"{API}/old", follow_redirects=True)

        assert reports(broker) == [None]
    assert answer.status_code == 401


async def test_the_deadline_of_the_client_is_the_brokers() -> None:
    api = Api(status_of=only_first_is_dead())
    async with fake_broker() as broker, TokenClient(broker.address, timeout=3) as client:
        broker.connect("acme")
        async with http_of(client, api) as http:
            await http.get(API)

        budgets = [each.budget.total_seconds() for each in broker.asked]
    assert [0 < each < 5 for each in budgets] == [True, True]


async def test_an_api_on_this_machine_may_be_clear_text() -> None:
    api = Api(status_of=lambda _: 200)
    async with fake_broker() as broker, TokenClient(broker.address) as client:
        broker.connect("acme")
        async with http_of(client, api, api_url="http://127.0.0.1:8500") as http:
            await http.get("http://127.0.0.1:8500/v1")

        assert api.headers == [f"Bearer {broker.access_token('acme')}"]


async def test_the_wrong_twin_is_told_so() -> None:
    async with fake_broker() as broker:
        auth = PleoAuth(BlockingTokenClient(broker.address), "acme", api_url=API)
        async with httpx.AsyncClient(auth=auth) as http:
            with pytest.raises(TypeError, match="TokenClient"):
                await http.get(API)


def test_the_wrong_twin_is_told_so_without_asyncio_too() -> None:
    auth = PleoAuth(TokenClient("localhost:1"), "acme", api_url=API)
    with httpx.Client(auth=auth) as http, pytest.raises(TypeError, match="Blocking"):
        http.get(API)


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


async def test_without_an_address_the_first_requests_origin_is_the_one() -> None:
    api = Api(status_of=lambda _: 200)
    async with fake_broker() as broker, TokenClient(broker.address) as client:
        broker.connect("acme")
        async with http_of(client, api, api_url=None) as http:
            for url in ("http://external.pleo.test", API, "https://other.test", f"{API}/v1"):
                await http.get(url)

        header = f"Bearer {broker.access_token('acme')}"
    assert api.headers == ["", header, "", header]


@pytest.mark.parametrize("url", ["http://external.pleo.test", "ftp://127.0.0.1"])
def test_an_api_that_shows_tokens_to_the_network_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        PleoAuth(TokenClient("localhost:1"), "acme", api_url=url)


async def ran(snippet: str, address: str, api: Api) -> None:
    """Runs what the README prints, before that broker and that API."""
    aimed = snippet.replace("127.0.0.1:50051", address)
    aimed = aimed.replace("httpx.AsyncClient(", "httpx.AsyncClient(transport=transport, ")
    names: dict[str, Any] = {"transport": httpx.ASGITransport(app=api)}
    exec(f"async def run():\n{indent(aimed, '    ')}", names)  # noqa: S102 - ours
    await names["run"]()


async def test_the_lines_of_the_readme_call_pleo_and_say_who_must_reconnect(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    api = Api(status_of=only_first_is_dead())
    async with fake_broker() as broker:
        broker.connect("acme")
        await ran(snippet, broker.address, api)
        assert api.headers[1:] == [f"Bearer {broker.access_token('acme')}"]

        broker.require_reauth("acme")
        await ran(snippet, broker.address, api)

    assert capsys.readouterr().out.startswith("reconnect acme EXPIRED_OR_REVOKED 20")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocking:
    """A service without asyncio."""

    broker: FakeTokenBroker
    api: Api
    http: httpx.Client


@contextmanager
def blocking(status_of: Callable[[str], int], *, location: str = "") -> Iterator[Blocking]:
    """Gives one, with acme connected."""
    api = Api(status_of=status_of, location=location)
    with fake_broker_thread() as broker, BlockingTokenClient(broker.address, timeout=3) as client:
        broker.connect("acme")
        auth = PleoAuth(client, "acme", api_url=API)
        with httpx.Client(auth=auth, transport=Wire(api)) as http:
            yield Blocking(broker=broker, api=api, http=http)


def test_a_blocking_client_reports_and_repeats_as_well() -> None:
    with blocking(only_first_is_dead()) as service:
        assert service.http.post(API, content=b"body").status_code == 200

        assert reports(service.broker) == [None, 1]
    assert service.api.bodies == [b"body", b"body"]


def test_a_blocking_client_shows_the_401_to_a_token_that_lives() -> None:
    with blocking(lambda _: 401) as service:
        service.broker.believes_reports = False

        assert service.http.get(API).status_code == 401

        assert reports(service.broker) == [None, 1]
    assert len(service.api.headers) == 1


def test_a_blocking_client_repeats_no_stream() -> None:
    with blocking(only_first_is_dead()) as service:
        assert service.http.post(API, content=iter([b"streamed"])).status_code == 401

        assert reports(service.broker) == [None, 1]
    assert service.api.bodies == [b"streamed"]


def test_a_blocking_client_leaves_a_403_alone_and_passes_its_deadline_on() -> None:
    with blocking(lambda _: 403) as service:
        assert service.http.get(API).status_code == 403

        (asked,) = service.broker.asked
    assert asked.rejected_generation is None
    assert 0 < asked.budget.total_seconds() < 5


def test_a_blocking_client_shows_no_token_to_where_it_is_redirected() -> None:
    with blocking(lambda _: 401, location="https://other.test/moved") as service:
        answer = service.http.get(f"{API}/old", follow_redirects=True)

        assert reports(service.broker) == [None]
    assert answer.status_code == 401
    assert service.api.headers[1:] == [""]
