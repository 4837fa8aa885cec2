"""What becomes of a token request when servers and networks do their worst. No sandbox here."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import logging
import shutil
import socket
import ssl
import subprocess
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event
from urllib.parse import parse_qs

import httpx
import pytest

from broker.domain.answers import Answer, Misconfigured, NotProcessed, Refused, Rotated, Unknown
from broker.domain.secret import AccessToken, ClientSecret, Secret
from broker.pleo.api_call import call_api, read_introspection
from broker.pleo.provider import PleoProvider
from broker.pleo.token_call import TokenCall
from broker.pleo.transport import unsent_code
from broker.ports import Introspection, Presentation
from support.pleo import demo_secret, provider_at, refresh_of, window
from support.raw_server import Conduct, Peer, RawServer, answering, http_answer, raw_server, silence

TOKENS = {
    "access_token": "a-fake-access-token",
    "refresh_token": "a-fake-next-token",
    "token_type": "Bearer",
    "expires_in": 900,
    "scope": "a:read",
}
ROTATED = http_answer(200, TOKENS)
TOKEN_BYTES = b"a-fake-refresh-token"


@asynccontextmanager
async def provider_of(conduct: Conduct) -> AsyncIterator[tuple[PleoProvider, RawServer]]:
    async with raw_server(conduct) as server, provider_at(server.url) as provider:
        yield provider, server


async def presented(conduct: Conduct, *, answer: float = 30) -> Presentation:
    """Presents a token to a server that behaves like this."""
    async with provider_of(conduct) as (provider, _):
        return await provider.present(refresh_of(), window(answer=answer))


def with_tls(server: RawServer) -> str:
    return server.url.replace("http:", "https:")


# What is sent


async def test_a_refresh_is_one_form_with_basic_credentials() -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def conduct(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(ROTATED)

    await presented(conduct)

    ((head, body),) = seen
    assert head.startswith(b"POST /oauth/token HTTP/1.1\r\n")
    assert b"\r\nContent-Type: application/x-www-form-urlencoded\r\n" in head
    assert base64.b64encode(b"sandbox-client:sandbox-secret") in head
    assert body == b"grant_type=refresh_token&refresh_token=a-fake-refresh-token"


async def test_credentials_in_the_body_are_not_in_the_head_as_well() -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def conduct(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(ROTATED)

    async with (
        raw_server(conduct) as server,
        provider_at(server.url, client_auth="body") as provider,
    ):
        await provider.present(refresh_of(), window())

    ((head, body),) = seen
    assert b"authorization" not in head.lower()
    form = parse_qs(body.decode())
    assert (form["client_id"], form["client_secret"]) == (["sandbox-client"], ["sandbox-secret"])


async def test_the_secret_is_asked_for_at_each_request() -> None:
    secrets = iter(["a-fake-old-secret", "a-fake-new-secret"])
    heads: list[bytes] = []

    async def conduct(peer: Peer) -> None:
        heads.append((await peer.request())[0])
        await peer.send(ROTATED)

    async with (
        raw_server(conduct) as server,
        provider_at(
            server.url, client_secret=lambda: ClientSecret(Secret(next(secrets)))
        ) as provider,
    ):
        for _ in range(2):
            await provider.present(refresh_of(), window())

    for head, secret in zip(heads, [b"a-fake-old-secret", b"a-fake-new-secret"], strict=True):
        assert base64.b64encode(b"sandbox-client:" + secret) in head


@pytest.mark.parametrize(
    "error", [FileNotFoundError(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x")]
)
async def test_nothing_is_sent_where_the_secret_cannot_be_read(error: Exception) -> None:
    def unreadable() -> ClientSecret:
        raise error

    async with (
        raw_server(silence) as server,
        provider_at(server.url, client_secret=unreadable) as provider,
    ):
        result = await provider.present(refresh_of(), window())

    assert result == Presentation(answer=NotProcessed(code="client_secret"), sent_at=None)
    assert server.connections == 0


async def test_the_time_of_sending_is_told_before_the_first_byte_of_the_body() -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    async with provider_of(answering(ROTATED)) as (provider, _):
        before = loop.time()
        result = await provider.present(refresh_of(), window(on_sending=told.set))

    assert told.is_set()
    assert result.http_status == 200
    assert result.sent_at is not None
    assert before <= result.sent_at <= loop.time()


# The last check


async def test_raising_at_the_last_check_sends_no_byte_of_the_body() -> None:
    class StoppedError(Exception):
        pass

    def stop() -> None:
        raise StoppedError

    async with provider_of(silence) as (provider, server):
        result = await provider.present(refresh_of(), window(on_sending=stop))
        peer = await server.peer()
        await asyncio.wait_for(peer.gone.wait(), timeout=20)

    assert result.answer == NotProcessed(code="defect")
    assert peer.received.startswith(b"POST /oauth/token ")
    assert peer.received.endswith(b"\r\n\r\n")
    assert TOKEN_BYTES not in peer.received


async def test_a_body_that_is_asked_for_too_late_is_not_given() -> None:
    given: list[bytes] = []

    class Stalling(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            while asyncio.get_running_loop().time() <= limits.send_by:
                pass  # the whole process stands still
            assert isinstance(request.stream, httpx.AsyncByteStream)
            given.extend([chunk async for chunk in request.stream])
            return httpx.Response(200)

    limits = window(send=0.01, on_sending=lambda: given.append(b"sending"))
    call = TokenCall(limits)

    result = await call.make(Stalling(), httpx.Request("POST", "http://x.invalid"), TOKEN_BYTES)

    assert result == Presentation(answer=NotProcessed(code="too_late"), sent_at=None)
    assert given == []


async def test_who_is_held_up_while_telling_does_not_send_late() -> None:
    def tell() -> None:
        told.append(b"sending")
        while asyncio.get_running_loop().time() <= limits.send_by:
            pass  # as in a write to a log that nobody reads

    told: list[bytes] = []
    limits = window(send=0.5, on_sending=tell)
    async with provider_of(silence) as (provider, server):
        result = await provider.present(refresh_of(), limits)
        peer = await server.peer()
        await asyncio.wait_for(peer.gone.wait(), timeout=20)

    assert told == [b"sending"]
    assert isinstance(result.answer, NotProcessed)
    assert result.sent_at is None
    assert TOKEN_BYTES not in peer.received


async def test_what_was_sent_in_time_is_answered_after_the_time_to_send() -> None:
    class Slow(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            assert isinstance(request.stream, httpx.AsyncByteStream)
            assert [chunk async for chunk in request.stream] == [TOKEN_BYTES]
            asyncio.get_running_loop().call_at(limits.send_by + 0.05, is_over.set)
            await is_over.wait()
            return httpx.Response(200, json=TOKENS)

    limits, is_over = window(send=0.2), asyncio.Event()

    result = await TokenCall(limits).make(
        Slow(), httpx.Request("POST", "http://x.invalid"), TOKEN_BYTES
    )

    assert isinstance(result.answer, Rotated)


async def test_a_request_that_finds_no_connection_in_time_is_not_sent() -> None:
    async with (
        raw_server(silence) as server,
        provider_at(server.url, max_concurrency=1) as provider,
        asyncio.TaskGroup() as group,
    ):
        sent = asyncio.Event()
        first = group.create_task(
            provider.present(refresh_of(), window(on_sending=sent.set)), name="first"
        )
        await sent.wait()
        second = await provider.present(refresh_of(), window(send=0.05))
        first.cancel()

    assert second == Presentation(answer=NotProcessed(code="pool_timeout"), sent_at=None)
    assert server.connections == 1


# Never sent


async def test_connection_refused_was_never_sent() -> None:
    async with raw_server(silence) as server:
        url = server.url

    async with provider_at(url) as provider:
        result = await provider.present(refresh_of(), window())

    assert result == Presentation(answer=NotProcessed(code="connect_refused"), sent_at=None)


async def test_connection_refused_at_every_address_of_a_name_was_never_sent() -> None:
    async with raw_server(silence) as server:
        url = server.url.replace("127.0.0.1", "localhost")

    async with provider_at(url) as provider:
        result = await provider.present(refresh_of(), window())

    assert result == Presentation(answer=NotProcessed(code="connect_refused"), sent_at=None)


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (ExceptionGroup("", [OSError(), ConnectionRefusedError()]), "connect_refused"),
        (OSError("no route to host"), "connect_failed"),
    ],
)
def test_a_failed_connection_is_named_after_its_cause(cause: Exception, code: str) -> None:
    error = httpx.ConnectError("")
    error.__context__ = cause

    assert unsent_code(error, "connect") == code


async def test_a_name_that_is_not_found_was_never_sent() -> None:
    async with provider_at("http://nonexistent.invalid") as provider:
        result = await provider.present(refresh_of(), window())

    assert result == Presentation(answer=NotProcessed(code="dns"), sent_at=None)


async def test_what_speaks_no_tls_was_never_sent() -> None:
    async def conduct(peer: Peer) -> None:
        await peer.send(b"SSH-2.0-OpenSSH_9.6\r\n")
        await peer.until_gone()

    async with raw_server(conduct) as server, provider_at(with_tls(server)) as provider:
        result = await provider.present(refresh_of(), window())

    assert result == Presentation(answer=NotProcessed(code="tls"), sent_at=None)


async def test_a_handshake_without_end_was_never_sent() -> None:
    async with (
        raw_server(silence) as server,
        provider_at(with_tls(server), connect_timeout=timedelta(milliseconds=50)) as provider,
    ):
        result = await provider.present(refresh_of(), window())

    assert result == Presentation(answer=NotProcessed(code="tls_timeout"), sent_at=None)


async def test_a_handshake_is_given_up_when_the_request_may_not_be_sent_any_more() -> None:
    async with raw_server(silence) as server, provider_at(with_tls(server)) as provider:
        result = await provider.present(refresh_of(), window(send=0.05))
        await asyncio.wait_for((await server.peer()).gone.wait(), timeout=20)

    assert result == Presentation(answer=NotProcessed(code="tls_timeout"), sent_at=None)


@pytest.fixture
def own_certificate(tmp_path: Path) -> Path:
    """A certificate that its owner signed, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("this test makes a certificate with openssl")
    path = tmp_path / "own.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        [*made, *names, "-keyout", path, "-out", tmp_path / "c"], check=True, capture_output=True
    )
    path.write_text(path.read_text() + (tmp_path / "c").read_text())
    return path


@pytest.fixture
def tls(own_certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own_certificate)
    return context


async def test_a_certificate_that_nobody_vouches_for_is_refused(tls: ssl.SSLContext) -> None:
    async with raw_server(answering(ROTATED), tls=tls) as server, provider_at(server.url) as one:
        result = await one.present(refresh_of(), window())

    assert result == Presentation(answer=NotProcessed(code="tls"), sent_at=None)


async def test_a_certificate_that_is_trusted_is_taken(
    tls: ssl.SSLContext, own_certificate: Path
) -> None:
    trusting = ssl.create_default_context(cafile=own_certificate)
    async with (
        raw_server(answering(ROTATED), tls=tls) as server,
        provider_at(server.url, tls=trusting) as provider,
    ):
        result = await provider.present(refresh_of(), window())

    assert isinstance(result.answer, Rotated)


# Sent, and answered in one of the ways that pleo.md knows


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (http_answer(400, {"error": "invalid_grant"}), Refused(error="invalid_grant")),
        (http_answer(401, {"error": "invalid_client"}), Misconfigured(error="invalid_client")),
        (
            http_answer(429, headers={"Retry-After": "7"}),
            NotProcessed(code="http_429", retry_after=timedelta(seconds=7)),
        ),
        (http_answer(502, b"<html>"), Unknown(code="http_502")),
        (http_answer(400, b"<html>"), Unknown(code="unreadable_400")),
        (http_answer(200, b"<html>"), Unknown(code="unreadable_200")),
        (http_answer(204), Unknown(code="unreadable_204")),
        (
            http_answer(200, b"no gzip at all", {"Content-Encoding": "gzip"}),
            Unknown(code="unreadable_200"),
        ),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", Unknown(code="unreadable")),
        (b"", Unknown(code="connection_lost")),
        (b"HTTP/1.1 200 OK\r\nContent-Le", Unknown(code="connection_lost")),
        (ROTATED[: ROTATED.index(b"-next-token")], Unknown(code="cut_short")),
    ],
)
async def test_an_answer_is_read_as_what_it_is(reply: bytes, answer: Answer) -> None:
    result = await presented(answering(reply))

    assert result.answer == answer
    assert result.sent_at is not None


async def test_a_redirect_is_not_followed() -> None:
    there = http_answer(307, headers={"Location": "/elsewhere"})
    async with provider_of(answering(there, ROTATED)) as (provider, server):
        result = await provider.present(refresh_of(), window())

    assert result.answer == Unknown(code="http_307")
    assert server.connections == 1


async def test_no_answer_in_time_is_unknown_and_the_connection_is_ended() -> None:
    async with provider_of(silence) as (provider, server):
        result = await provider.present(refresh_of(), window(answer=0.05))
        peer = await server.peer()
        await asyncio.wait_for(peer.gone.wait(), timeout=20)

    assert result.answer == Unknown(code="read_timeout")
    assert TOKEN_BYTES in peer.received


async def test_a_reset_after_the_body_is_unknown() -> None:
    async def conduct(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    result = await presented(conduct)

    assert result.answer == Unknown(code="connection_lost")


async def test_headers_that_never_end_are_unknown_in_time() -> None:
    async def conduct(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        await peer.until_gone()

    result = await presented(conduct, answer=0.05)

    assert result.answer == Unknown(code="read_timeout")


async def test_an_answer_that_drips_is_given_up_in_time() -> None:
    async def conduct(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not peer.gone.is_set():
            await peer.send(b" ")
            await asyncio.sleep(0.01)

    result = await presented(conduct, answer=0.1)

    assert result.answer == Unknown(code="read_timeout")


async def test_a_body_without_bounds_is_read_past() -> None:
    result = await presented(answering(http_answer(200, b" " * 3_000_000)))

    assert result.answer == Unknown(code="unreadable_200")


# Nothing received is lost (law 3)


async def test_tokens_count_though_the_end_of_their_answer_is_missing() -> None:
    longer = ROTATED.replace(b"Content-Length: 1", b"Content-Length: 9")

    result = await presented(answering(longer))

    assert isinstance(result.answer, Rotated)
    assert result.answer.refresh_token == Secret("a-fake-next-token")
    assert result.answer.flags == ("cut_short",)


async def test_tokens_count_though_the_connection_stays_open_after_them() -> None:
    async def conduct(peer: Peer) -> None:
        await peer.request()
        await peer.send(ROTATED.replace(b"Content-Length: 1", b"Content-Length: 9"))
        await peer.until_gone()

    result = await presented(conduct, answer=1)

    assert isinstance(result.answer, Rotated)


async def test_tokens_count_though_they_come_compressed_without_being_asked() -> None:
    compressed = gzip.compress(json.dumps(TOKENS).encode())

    result = await presented(answering(http_answer(200, compressed, {"Content-Encoding": "gzip"})))

    assert isinstance(result.answer, Rotated)


async def test_tokens_count_though_what_follows_them_was_cut_off() -> None:
    result = await presented(answering(ROTATED[: ROTATED.index(b"900")]))

    assert isinstance(result.answer, Rotated)
    assert result.answer.refresh_token == Secret("a-fake-next-token")
    assert result.answer.flags == ("broken_json", "no_expires_in", "cut_short")


async def test_tokens_count_though_they_are_not_compressed_as_their_head_says() -> None:
    result = await presented(answering(http_answer(200, TOKENS, {"Content-Encoding": "gzip"})))

    assert isinstance(result.answer, Rotated)


@pytest.mark.parametrize("times", [1, 2])
async def test_what_grows_when_it_is_unpacked_fills_no_memory(times: int) -> None:
    bomb = b" " * 50_000_000
    for _ in range(times):
        bomb = gzip.compress(bomb)
    reply = http_answer(200, bomb, {"Content-Encoding": ", ".join(["gzip"] * times)})

    tracemalloc.start()
    result = await presented(answering(reply))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert isinstance(result.answer, Unknown)
    assert most < 10_000_000


async def test_a_refusal_without_its_end_is_no_definite_word() -> None:
    refused = http_answer(400, {"error": "invalid_grant"})

    result = await presented(answering(refused.replace(b"Length: ", b"Length: 9")))

    assert result.answer == Unknown(code="cut_short")


async def test_429_says_all_in_its_head() -> None:
    result = await presented(answering(b"HTTP/1.1 429 Slow\r\nContent-Length: 9\r\n\r\n"))

    assert result.answer == NotProcessed(code="http_429")


async def test_an_answer_that_came_while_the_process_stood_still_is_read() -> None:
    # So long that one turn of the loop does not read it.
    reply = http_answer(200, b" " * 100_000 + json.dumps(TOKENS).encode())
    loop, stands_still, is_answered = asyncio.get_running_loop(), Event(), Event()

    def stand_still() -> None:
        stands_still.set()
        is_answered.wait(20)
        while loop.time() <= limits.answer_by:
            pass

    def answer_meanwhile(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            while TOKEN_BYTES not in connection.recv(65_536):
                pass
            loop.call_soon_threadsafe(stand_still)
            stands_still.wait(20)
            connection.sendall(reply)
            is_answered.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with provider_at(url) as provider, asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(answer_meanwhile, listener), name="server")
            limits = window(answer=0.3)
            result = await provider.present(refresh_of(), limits)

    assert isinstance(result.answer, Rotated)


async def test_an_answer_to_the_headers_alone_was_not_processed() -> None:
    class Hasty(httpx.AsyncBaseTransport):
        async def handle_async_request(
            self,
            request: httpx.Request,
        ) -> httpx.Response:
            return httpx.Response(503)

    call = TokenCall(window())

    result = await call.make(Hasty(), httpx.Request("POST", "http://x.invalid"), b"")

    assert result.answer == NotProcessed(code="not_sent")
    assert result.sent_at is None


@pytest.mark.parametrize("is_sent", [True, False])
async def test_an_unforeseen_failure_still_tells_whether_it_was_sent(is_sent: bool) -> None:  # noqa: FBT001 - of the table
    class Odd(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if is_sent:
                await anext(aiter(request.stream))  # type: ignore[arg-type]
            raise RuntimeError("the handler is closed")

    call = TokenCall(window())

    result = await call.make(Odd(), httpx.Request("POST", "http://x.invalid"), b"form")

    expected = Unknown(code="defect") if is_sent else NotProcessed(code="defect")
    assert result.answer == expected
    assert (result.sent_at is not None) == is_sent


async def test_an_unforeseen_failure_of_the_api_leaves_the_question_open() -> None:
    class Odd(httpx.AsyncBaseTransport):
        async def handle_async_request(
            self,
            request: httpx.Request,
        ) -> httpx.Response:
            raise RuntimeError("the handler is closed")

    answer = await call_api(
        Odd(), "GET", httpx.URL("http://x.invalid"), AccessToken(Secret("fake-access"))
    )

    assert read_introspection(answer) == Introspection(is_live=None)


# Connections


async def test_each_request_has_a_connection_of_its_own() -> None:
    """A server that ends an idle one just then would leave the outcome unknown."""
    async with provider_of(answering(ROTATED, ROTATED)) as (provider, server):
        for _ in range(2):
            await provider.present(refresh_of(), window())

    assert server.connections == 2


async def test_what_follows_an_answer_is_not_the_answer_to_the_next_request() -> None:
    """Another grant's request would be refused by it, or be given its tokens."""
    refused = http_answer(400, {"error": "invalid_grant"})
    async with provider_of(answering(ROTATED + refused, ROTATED)) as (provider, server):
        answers = [(await provider.present(refresh_of(), window())).answer for _ in range(2)]

    assert all(isinstance(each, Rotated) for each in answers)
    assert server.connections == 2


async def test_a_cancelled_request_ends_its_connection_and_leaves_room_for_the_next() -> None:
    async def conduct(peer: Peer) -> None:
        await peer.request()
        if server.connections == 1:
            await peer.until_gone()
        await peer.send(ROTATED)

    async with (
        raw_server(conduct) as server,
        provider_at(server.url, max_concurrency=1) as provider,
    ):
        sent = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            call = group.create_task(
                provider.present(refresh_of(), window(on_sending=sent.set)), name="cancelled"
            )
            await sent.wait()
            call.cancel()
        await (await server.peer()).gone.wait()
        after = await provider.present(refresh_of(), window())

    assert call.cancelled()
    assert isinstance(after.answer, Rotated)


async def test_cookies_are_not_kept() -> None:
    heads: list[bytes] = []

    async def conduct(peer: Peer) -> None:
        for _ in range(2):
            heads.append((await peer.request())[0])
            await peer.send(http_answer(200, TOKENS, {"Set-Cookie": "session=a-fake-session"}))

    async with provider_of(conduct) as (provider, _):
        for _ in range(2):
            await provider.present(refresh_of(), window())

    assert b"cookie" not in heads[1].lower()


# No secret leaves (law 7)


@pytest.mark.parametrize("reply", [ROTATED, http_answer(400, {"error": "a-fake-refresh-token"})])
async def test_no_secret_is_in_logs_or_reprs(
    reply: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with provider_of(answering(reply)) as (provider, _):
        result = await provider.present(refresh_of(), window())

    said = caplog.text + repr(result) + repr(provider) + repr(provider.__dict__)
    for secret in ("a-fake-", demo_secret().reveal(), base64.b64encode(b"sandbox-client").decode()):
        assert secret not in said
