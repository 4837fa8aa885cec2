"""Callers over mutual TLS under a policy: who is let in, and what the others are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509

from broker.domain.facts import FilesLoaded, FilesRefused
from broker.v1.grant_service_pb2 import (
    GetGrantRequest,
    ListGrantsRequest,
    RevokeGrantRequest,
    StartAuthorizationRequest,
)
from broker.v1.grant_service_pb2_grpc import GrantServiceStub
from broker.v1.operations_service_pb2 import ExplainGrantRequest, GetFleetStatusRequest
from broker.v1.operations_service_pb2_grpc import OperationsServiceStub
from broker.v1.token_service_pb2 import GetAccessTokenRequest, WatchAccessTokensRequest
from broker.v1.token_service_pb2_grpc import TokenServiceStub
from support.callers import Guarded, guarded
from support.certificates import dns, uri
from support.grants import some_grant
from support.rpc import failure_of

EXPORTER = "spiffe://example.org/ns/export/sa/exporter"

POLICY = f"""
callers:
  - identity: uri:{EXPORTER}
    rpcs: [TokenService/*]
    tenants: ["acme", "eu/*"]
    scopes: ["export-items:read"]
  - identity: uri:{EXPORTER}
    rpcs: [GrantService/GetGrant, GrantService/ListGrants, GrantService/RevokeGrant]
    tenants: ["acme", "eu/*"]
  - identity: uri:{EXPORTER}
    rpcs: [OperationsService/ExplainGrant, OperationsService/GetFleetStatus]
    tenants: ["acme", "a*"]
  - identity: dns:on-call.example.org
    rpcs: [OperationsService/*, GrantService/*, GrantService/RevokeGrant#provider]
    tenants: ["*"]
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with guarded(tmp_path, POLICY) as server:
        server.served.broker.served = replace(
            server.served.broker.served, scopes=("export-items:read", "users:read")
        )
        yield server


@pytest.fixture
async def exporter(server: Guarded) -> AsyncIterator[grpc.aio.Channel]:
    async with server.channel(server.authority.issue(uri(EXPORTER))) as channel:
        yield channel


@pytest.fixture
async def on_call(server: Guarded) -> AsyncIterator[grpc.aio.Channel]:
    async with server.channel(server.authority.issue(dns("on-call.example.org"))) as channel:
        yield channel


def ask(channel: grpc.aio.Channel, tenant: str = "acme") -> Awaitable[object]:
    return TokenServiceStub(channel).GetAccessToken(GetAccessTokenRequest(tenant=tenant))


async def watch(channel: grpc.aio.Channel) -> None:
    stream = TokenServiceStub(channel).WatchAccessTokens(iter([WatchAccessTokensRequest()]))
    async for _ in stream:
        pass


ALLOWED: dict[str, Callable[[grpc.aio.Channel], Awaitable[object]]] = {
    "a literal": lambda channel: ask(channel, "acme"),
    "a prefix": lambda channel: ask(channel, "eu/north/acme"),
    "another call": lambda channel: GrantServiceStub(channel).GetGrant(
        GetGrantRequest(tenant="acme")
    ),
}


@pytest.mark.parametrize("what", ALLOWED)
async def test_what_a_rule_allows_is_answered(exporter: grpc.aio.Channel, what: str) -> None:
    assert await ALLOWED[what](exporter) is not None


REFUSED: dict[str, tuple[Callable[[grpc.aio.Channel], Awaitable[object]], str, str]] = {
    "another tenant": (
        lambda channel: ask(channel, "us/acme"),
        "TokenService/GetAccessToken",
        "for this tenant",
    ),
    "another case": (
        lambda channel: ask(channel, "ACME"),
        "TokenService/GetAccessToken",
        "for this tenant",
    ),
    "another call": (
        lambda channel: GrantServiceStub(channel).StartAuthorization(
            StartAuthorizationRequest(tenant="acme")
        ),
        "GrantService/StartAuthorization",
        "for this tenant",
    ),
    "the fleet with a prefix": (
        lambda channel: OperationsServiceStub(channel).GetFleetStatus(GetFleetStatusRequest()),
        "OperationsService/GetFleetStatus",
        "for all tenants",
    ),
    "deleting at Pleo": (
        lambda channel: GrantServiceStub(channel).RevokeGrant(
            RevokeGrantRequest(tenant="acme", reason="bye", revoke_at_provider=True)
        ),
        "GrantService/RevokeGrant#provider",
        "for this tenant",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_no_rule_allows_is_refused_by_name(
    server: Guarded, exporter: grpc.aio.Channel, what: str
) -> None:
    call, rpc, whom = REFUSED[what]

    failure = await failure_of(call(exporter))

    assert failure.code is grpc.StatusCode.PERMISSION_DENIED
    assert failure.message == (
        f"CALLER_NOT_ALLOWED: no rule of the policy allows uri:{EXPORTER} to call {rpc} {whom}"
    )
    assert failure.error_info.metadata["caller"] == f"uri:{EXPORTER}"
    assert server.served.broker.asked == []


async def test_a_caller_without_a_rule_may_nothing(server: Guarded) -> None:
    async with server.channel(server.authority.issue(uri("spiffe://example.org/x"))) as channel:
        failures = [
            await failure_of(call)
            for call in (
                ask(channel),
                watch(channel),
                GrantServiceStub(channel).ListGrants(ListGrantsRequest()),
            )
        ]

    assert {failure.error_info.reason for failure in failures} == {"CALLER_NOT_ALLOWED"}


async def test_a_stream_is_let_in_as_any_call(exporter: grpc.aio.Channel) -> None:
    failure = await failure_of(watch(exporter))

    assert failure.error_info.reason == "INVALID_REQUEST"


NAMELESS: dict[str, tuple[list[x509.GeneralName], str]] = {
    "two URIs": ([uri(EXPORTER), uri("spiffe://example.org/other")], "expected one URI name"),
    "no names": ([], "and it has none"),
    "an address": ([x509.RFC822Name("a@example.org")], "and it has others only"),
}


@pytest.mark.parametrize("which", NAMELESS)
async def test_a_certificate_without_one_name_is_no_identity(server: Guarded, which: str) -> None:
    names, why = NAMELESS[which]
    async with server.channel(server.authority.issue(*names)) as channel:
        failure = await failure_of(ask(channel))

    assert failure.code is grpc.StatusCode.UNAUTHENTICATED
    assert failure.error_info.reason == "CALLER_UNAUTHENTICATED"
    assert why in failure.message


async def test_a_dns_name_is_not_taken_for_the_uri_that_it_spells(server: Guarded) -> None:
    """GRPC's merged list of names holds both without saying which is which."""
    async with server.channel(server.authority.issue(dns(EXPORTER))) as channel:
        failure = await failure_of(ask(channel))

    assert failure.error_info.metadata["caller"] == f"dns:{EXPORTER}"


async def test_a_grant_without_the_scopes_of_the_rule_serves_no_token(
    server: Guarded, exporter: grpc.aio.Channel
) -> None:
    server.served.broker.served = replace(server.served.broker.served, scopes=("users:read",))

    failure = await failure_of(ask(exporter))

    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert failure.error_info.reason == "SCOPE_MISSING"
    assert server.served.broker.handed_out == []
    assert failure.error_info.metadata == {"tenant": "acme", "missing": "export-items:read"}


async def test_a_list_shows_allowed_tenants_and_full_pages(
    server: Guarded, exporter: grpc.aio.Channel
) -> None:
    tenants = ["a", "acme", "eu/1", "eu/2", "f", "us/1"]
    server.served.broker.grants = {each: some_grant(tenant=each) for each in tenants}
    stub, pages, following = GrantServiceStub(exporter), [], ""
    while True:
        request = ListGrantsRequest(page_size=2, page_token=following)
        response = await stub.ListGrants(request)
        pages.append([grant.tenant for grant in response.grants])
        following = response.next_page_token
        if not following:
            break

    assert pages == [["acme", "eu/1"], ["eu/2"]]


async def test_the_caller_is_on_record(server: Guarded, on_call: grpc.aio.Channel) -> None:
    request = RevokeGrantRequest(tenant="acme", reason="bye", revoke_at_provider=True)

    await GrantServiceStub(on_call).RevokeGrant(request)

    (asked,) = [each for each in server.served.broker.asked if hasattr(each, "caller")]
    assert asked.caller == "dns:on-call.example.org"


async def test_a_malformed_tenant_is_told_to_those_who_may_call_at_all(
    exporter: grpc.aio.Channel, on_call: grpc.aio.Channel
) -> None:
    known = await failure_of(ask(exporter, "no tenant"))
    unknown = await failure_of(ask(on_call, "no tenant"))

    assert known.error_info.reason == "INVALID_REQUEST"
    assert unknown.error_info.reason == "CALLER_NOT_ALLOWED"
    assert "no tenant" not in unknown.message


async def test_who_calls_is_asked_before_what_is_said(server: Guarded) -> None:
    async with server.channel(server.authority.issue(uri("spiffe://example.org/x"))) as channel:
        nonsense: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        nonsense = channel.unary_unary("/broker.v1.TokenService/GetAccessToken")
        failure = await failure_of(nonsense(b"\xff\xff\xff"))

    assert failure.error_info.reason == "CALLER_NOT_ALLOWED"


async def test_health_needs_no_rule(server: Guarded) -> None:
    async with server.channel(server.authority.issue(uri("spiffe://example.org/x"))) as channel:
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        check = channel.unary_unary("/grpc.health.v1.Health/Check")

        assert await check(b"") == b"\x08\x02"


async def test_a_new_rule_counts_without_a_new_connection(
    server: Guarded, on_call: grpc.aio.Channel
) -> None:
    request = ExplainGrantRequest(tenant="acme")
    explain = OperationsServiceStub(on_call).ExplainGrant
    assert (await explain(request)).grant.tenant == "acme"

    server.policy.write_text(POLICY.replace('["*"]', '["acme2"]'))
    await server.look()

    assert (await failure_of(explain(request))).error_info.reason == "CALLER_NOT_ALLOWED"


async def test_a_broken_policy_leaves_the_last_good_one_in_force(
    server: Guarded, exporter: grpc.aio.Channel
) -> None:
    server.policy.write_text(POLICY.replace("tenants", "tenant"))
    await server.look()

    assert await ask(exporter) is not None
    refused = server.told.facts[-1]
    assert isinstance(refused, FilesRefused)
    assert refused.what == "policy"
    assert f"{server.policy}: line 5: unknown key; expected one of" in refused.error


async def test_a_policy_replaced_under_load_fails_no_call(
    server: Guarded, exporter: grpc.aio.Channel
) -> None:
    async with AsyncExitStack() as held, asyncio.TaskGroup() as tasks:
        calls = []
        await held.enter_async_context(server.served.broker.hold())
        for number in range(50):
            calls += [tasks.create_task(told(exporter), name="a call") for _ in range(10)]
            server.policy.write_text(f"{POLICY}\n# {number}")
            await server.look()
        await held.aclose()

    assert [call.result() for call in calls] == [7] * 500
    assert server.told.facts.count(FilesLoaded(what="policy")) == 51


async def told(channel: grpc.aio.Channel) -> int:
    stub = TokenServiceStub(channel)
    return (await stub.GetAccessToken(GetAccessTokenRequest(tenant="acme"))).generation
