"""The proxy does to a connection what it says, and nothing else: fault tests rest on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
import redis.asyncio
import redis.exceptions

from support.proxy import Proxy, postgres_proxy, proxy, redis_proxy

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

COMMIT = b"COMMIT"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each chunk with the same, and the end of the requests with the end of the answers."""
    while chunk := await reader.read(100):
        writer.write(chunk)
    writer.write(b"bye")
    writer.close()


@pytest.fixture
async def before_echo() -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, proxy(server.sockets[0].getsockname()) as between:
        yield between


@asynccontextmanager
async def connected(between: Proxy) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", between.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(connection: Connection, chunk: bytes) -> bytes:
    reader, writer = connection
    writer.write(chunk)
    return await reader.readexactly(len(chunk))


async def test_bytes_pass_both_ways_unchanged(before_echo: Proxy) -> None:
    async with connected(before_echo) as connection:
        assert await ask(connection, b"hello") == b"hello"

    assert before_echo.accepted == 1


async def test_the_end_of_requests_leaves_the_answers_open(before_echo: Proxy) -> None:
    async with connected(before_echo) as (reader, writer):
        writer.write(b"last")
        writer.write_eof()

        assert await reader.read() == b"lastbye"


async def test_a_cut_resets_open_connections_and_takes_new_ones(before_echo: Proxy) -> None:
    async with connected(before_echo) as connection:
        await ask(connection, b"hello")

        before_echo.cut()

        with pytest.raises(ConnectionResetError):
            await connection[0].read()
    async with connected(before_echo) as connection:
        assert await ask(connection, b"again") == b"again"


async def test_a_refusal_spares_open_connections_and_ends_on_the_same_port(
    before_echo: Proxy,
) -> None:
    async with connected(before_echo) as connection:
        await ask(connection, b"hello")
        port = before_echo.port

        before_echo.refuse()

        assert await ask(connection, b"still") == b"still"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
    await before_echo.accept()
    async with connected(before_echo) as connection:
        assert await ask(connection, b"again") == b"again"
    assert before_echo.port == port


async def test_what_is_held_arrives_after_healing(before_echo: Proxy) -> None:
    async with connected(before_echo) as connection:
        await ask(connection, b"hello")
        before_echo.hold()
        answer = asyncio.ensure_future(ask(connection, b"held"))

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.shield(answer)
        before_echo.heal()

        assert await answer == b"held"


async def test_a_delay_holds_requests_and_answers_each(before_echo: Proxy) -> None:
    loop = asyncio.get_running_loop()
    async with connected(before_echo) as connection:
        await ask(connection, b"hello")
        before_echo.delay(0.05)
        asked_at = loop.time()

        await ask(connection, b"late")

    assert loop.time() - asked_at >= 0.1


async def test_a_half_close_ends_one_direction_only(before_echo: Proxy) -> None:
    async with connected(before_echo) as connection:
        await ask(connection, b"hello")

        before_echo.half_close("server")

        assert await connection[0].read() == b"bye"
        assert before_echo.open_connections == 1


async def test_swallowed_answers_leave_the_connection_open(before_echo: Proxy) -> None:
    async with connected(before_echo) as (reader, writer):
        before_echo.lose_answers(after=3)
        writer.write(b"hello")
        await before_echo.answer_lost()

        assert await reader.readexactly(3) == b"hel"
        before_echo.heal()

        assert await ask((reader, writer), b"again") == b"again"


async def test_answers_cut_off_arrive_up_to_the_cut(before_echo: Proxy) -> None:
    async with connected(before_echo) as (reader, writer):
        before_echo.lose_answers(after=3, loss="cut")
        writer.write(b"hello")

        assert await reader.readexactly(3) == b"hel"
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_an_upstream_that_is_gone_looks_like_a_reset() -> None:
    async with proxy("/nonexistent/socket") as between, connected(between) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_the_acknowledgement_of_a_commit_is_lost_and_the_commit_is_not(
    empty_database_url: str,
) -> None:
    async with postgres_proxy(empty_database_url) as (between, url):
        connection = await asyncpg.connect(url)
        await connection.execute("BEGIN; CREATE TABLE kept ()")
        between.lose_answers(asked=COMMIT)

        with pytest.raises(TimeoutError):
            await connection.execute("COMMIT", timeout=0.1)
        between.heal()
        connection.terminate()

    direct = await asyncpg.connect(empty_database_url)
    assert await direct.fetchval("SELECT to_regclass('kept')::text") == "kept"
    await direct.close()


async def test_redis_behind_a_cut_proxy_is_unreachable_and_then_reachable(redis_url: str) -> None:
    async with (
        redis_proxy(redis_url) as (between, url),
        redis.asyncio.from_url(url, retry=None) as client,
    ):
        await client.set("name", "kept")
        between.refuse()
        between.cut()

        with pytest.raises(redis.exceptions.ConnectionError):
            await client.get("name")
        await between.accept()

        assert await client.get("name") == b"kept"
