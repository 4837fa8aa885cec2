"""BatchGetAccessTokens and WatchAccessTokens as real clients see them, over a fake service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from broker.domain.errors import ProviderUnavailable, TenantNotFound
from broker.v1.token_service_pb2 import (
    BatchGetAccessTokensRequest,
    WatchAccessTokensRequest,
    WatchAccessTokensResponse,
)
from broker.v1.token_service_pb2_grpc import TokenServiceStub
from support.callers import Guarded, guarded
from support.certificates import dns
from support.fake_broker import some_served_token
from support.rpc import EndedCall, Served, details, failure_of, retry_delay, serving
from support.waiting import until

if TYPE_CHECKING:
    from broker.v1.token_service_pb2_grpc import TokenServiceAsyncStub

POLICY = """
callers:
  - identity: dns:exporter.example.org
    rpcs: [TokenService/*]
    tenants: ["acme", "eu/*"]
    scopes: ["export-items:read"]
"""

Stream: TypeAlias = grpc.aio.StreamStreamCall[WatchAccessTokensRequest, WatchAccessTokensResponse]


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server and a channel to it."""
    async with serving() as served:
        yield served


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Guarded]:
    """A server that knows its callers."""
    async with guarded(tmp_path, POLICY) as server:
        yield server


@asynccontextmanager
async def exporter_of(server: Guarded) -> AsyncIterator[TokenServiceAsyncStub]:
    """A caller that may see acme, and not globex."""
    caller = server.authority.issue(dns("exporter.example.org"))
    async with server.channel(caller) as channel:
        yield TokenServiceStub(channel)


def subscribe(*tenants: str) -> WatchAccessTokensRequest:
    subscribed = WatchAccessTokensRequest.Subscribe(tenants=tenants)
    return WatchAccessTokensRequest(subscribe=subscribed)


def unsubscribe(*tenants: str) -> WatchAccessTokensRequest:
    unsubscribed = WatchAccessTokensRequest.Unsubscribe(tenants=tenants)
    return WatchAccessTokensRequest(unsubscribe=unsubscribed)


async def read(stream: Stream) -> WatchAccessTokensResponse:
    """Returns what comes next."""
    async with asyncio.timeout(20):
        answer = await stream.read()
    assert isinstance(answer, WatchAccessTokensResponse)
    return answer


def reason(status: Status) -> str:
    """Returns that of the one ErrorInfo."""
    (info,) = details(status, ErrorInfo)
    return info.reason


async def test_a_batch_answers_for_each_tenant_in_its_order(served: Served) -> None:
    served.broker.failures = {
        "beta": TenantNotFound(tenant="beta"),
        "gamma": ProviderUnavailable("away", tenant="gamma"),
    }

    request = BatchGetAccessTokensRequest(tenants=["gamma", "acme", "beta"])
    gamma, acme, beta = (await served.tokens.BatchGetAccessTokens(request)).results

    assert (gamma.tenant, acme.tenant, beta.tenant) == ("gamma", "acme", "beta")
    assert (reason(gamma.status), reason(beta.status)) == (
        "PROVIDER_UNAVAILABLE",
        "TENANT_NOT_FOUND",
    )
    assert retry_delay(gamma.status) is not None
    assert acme.token.access_token == "fake-access-7"


async def test_a_batch_asks_for_all_its_tenants_at_once(served: Served) -> None:
    request = BatchGetAccessTokensRequest(tenants=[f"t-{number}" for number in range(100)])

    async with served.broker.hold():
        call = served.tokens.BatchGetAccessTokens(request)
        await until(lambda: len(served.broker.asked) == 100)

    assert len((await call).results) == 100


@pytest.mark.parametrize(
    ("tenants", "field"),
    [
        ([], "tenants"),
        ([f"t-{number}" for number in range(101)], "tenants"),
        (["acme", "beta", "acme"], "tenants[2]"),
        (["acme", "a b"], "tenants[1]"),
    ],
)
async def test_a_list_that_is_wrong_fails_as_a_whole(
    served: Served, tenants: list[str], field: str
) -> None:
    call = served.tokens.BatchGetAccessTokens(BatchGetAccessTokensRequest(tenants=tenants))

    failure = await failure_of(call)

    assert failure.error_info.reason == "INVALID_REQUEST"
    assert list(failure.violations) == [field]
    assert served.broker.asked == []


async def test_a_tenant_that_is_not_allowed_fails_no_other_of_a_batch(server: Guarded) -> None:
    async with exporter_of(server) as tokens:
        request = BatchGetAccessTokensRequest(tenants=["globex", "acme"])
        globex, acme = (await tokens.BatchGetAccessTokens(request)).results

    assert (reason(globex.status), acme.token.generation) == ("CALLER_NOT_ALLOWED", 7)
    assert [getattr(each, "tenant", "") for each in server.served.broker.asked] == ["acme"]


async def test_a_batch_of_a_grant_without_the_scopes_has_none(server: Guarded) -> None:
    server.served.broker.served = some_served_token(scopes=("users:read",))

    async with exporter_of(server) as tokens:
        request = BatchGetAccessTokensRequest(tenants=["acme"])
        (acme,) = (await tokens.BatchGetAccessTokens(request)).results

    assert reason(acme.status) == "SCOPE_MISSING"


async def test_a_watch_tells_the_state_and_then_what_changes(served: Served) -> None:
    stream = served.tokens.WatchAccessTokens()
    await stream.write(subscribe("acme"))
    assert (await read(stream)).token.generation == 7

    served.broker.served = some_served_token(generation=8)
    served.broker.watching.moved("acme")

    told = await read(stream)
    assert (told.tenant, told.token.generation) == ("acme", 8)
    stream.cancel()


async def test_who_has_said_all_is_told_all_the_same(served: Served) -> None:
    stream = served.tokens.WatchAccessTokens()
    await stream.write(subscribe("acme"))
    await stream.done_writing()
    await read(stream)

    served.broker.served = some_served_token(generation=8)
    served.broker.watching.moved("acme")

    assert (await read(stream)).token.generation == 8
    stream.cancel()


async def test_a_watch_tells_why_there_is_no_token(served: Served) -> None:
    served.broker.failures = {"beta": ProviderUnavailable("away", tenant="beta")}
    stream = served.tokens.WatchAccessTokens()

    await stream.write(subscribe("beta"))

    told = await read(stream)
    assert (told.tenant, reason(told.status)) == ("beta", "PROVIDER_UNAVAILABLE")
    assert retry_delay(told.status) is not None
    stream.cancel()


async def test_who_goes_is_forgotten(served: Served) -> None:
    stream = served.tokens.WatchAccessTokens()
    await stream.write(subscribe("acme", "beta"))
    await read(stream)

    stream.cancel()

    await until(lambda: len(served.broker.watching) == 0)
    await until(lambda: bool(served.told.calls))
    assert served.told.calls == [
        EndedCall(method="TokenService/WatchAccessTokens", code="CANCELLED")
    ]


async def test_what_is_unsubscribed_is_watched_no_more(served: Served) -> None:
    stream = served.tokens.WatchAccessTokens()
    await stream.write(subscribe("acme", "beta"))
    await read(stream)

    await stream.write(unsubscribe("acme"))

    await until(lambda: len(served.broker.watching) == 1)
    stream.cancel()


async def test_a_malformed_tenant_is_told_so_and_ends_no_other(served: Served) -> None:
    stream = served.tokens.WatchAccessTokens()

    await stream.write(subscribe("a b", "acme"))

    bad, good = await read(stream), await read(stream)
    assert (bad.tenant, reason(bad.status)) == ("a b", "INVALID_REQUEST")
    (expected,) = details(bad.status, BadRequest)
    assert [each.field for each in expected.field_violations] == ["subscribe.tenants"]
    assert good.token.generation == 7
    stream.cancel()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (WatchAccessTokensRequest(), "action"),
        (subscribe(), "subscribe.tenants"),
        (unsubscribe(), "unsubscribe.tenants"),
        (subscribe(*(f"t-{number}" for number in range(1001))), "subscribe.tenants"),
    ],
)
async def test_a_request_that_says_nothing_or_too_much_ends_the_watch(
    served: Served, request_: WatchAccessTokensRequest, field: str
) -> None:
    stream = served.tokens.WatchAccessTokens()
    await stream.write(request_)

    failure = await failure_of(stream.read())

    assert failure.error_info.reason == "INVALID_REQUEST"
    assert list(failure.violations) == [field]


async def test_a_stream_watches_ten_thousand_tenants_and_no_more(served: Served) -> None:
    stream = served.tokens.WatchAccessTokens()
    for first in range(0, 10_000, 1000):
        await stream.write(subscribe(*(f"t-{first + number}" for number in range(1000))))
    seen = {(await read(stream)).tenant for _ in range(10_000)}
    await stream.write(subscribe("one-more"))

    failure = await failure_of(stream.read())

    assert len(seen) == 10_000
    assert list(failure.violations) == ["subscribe.tenants"]


async def test_a_drain_ends_every_stream_as_a_good_one(served: Served) -> None:
    stream = served.tokens.WatchAccessTokens()
    await stream.write(subscribe("acme"))
    await read(stream)

    served.broker.watching.drain()

    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_tenant_that_is_not_allowed_is_not_watched(server: Guarded) -> None:
    async with exporter_of(server) as tokens:
        stream = tokens.WatchAccessTokens()
        await stream.write(subscribe("globex", "acme"))

        globex, acme = await read(stream), await read(stream)

        assert (globex.tenant, reason(globex.status)) == ("globex", "CALLER_NOT_ALLOWED")
        assert acme.token.generation == 7
        assert [getattr(each, "tenant", "") for each in server.served.broker.asked] == ["acme"]
        stream.cancel()


async def test_a_rule_that_is_withdrawn_ends_the_subscription(server: Guarded) -> None:
    async with exporter_of(server) as tokens:
        stream = tokens.WatchAccessTokens()
        await stream.write(subscribe("acme", "eu/one"))
        await read(stream), await read(stream)

        server.policy.write_text(POLICY.replace('"acme", ', ""))
        await server.look()
        server.served.broker.served = some_served_token(generation=8)
        server.served.broker.watching.moved("acme")

        told = await read(stream)
        assert (told.tenant, reason(told.status)) == ("acme", "CALLER_NOT_ALLOWED")
        assert len(server.served.broker.watching) == 1
        stream.cancel()


async def test_a_watched_grant_without_the_scopes_says_which(server: Guarded) -> None:
    server.served.broker.served = some_served_token(scopes=("users:read",))
    async with exporter_of(server) as tokens:
        stream = tokens.WatchAccessTokens()
        await stream.write(subscribe("acme"))

        told = await read(stream)

        (info,) = details(told.status, ErrorInfo)
        assert (info.reason, info.metadata["missing"]) == ("SCOPE_MISSING", "export-items:read")
        stream.cancel()
