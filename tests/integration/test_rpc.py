"""The gRPC edge as real clients see it: a real server and real channels, over a fake service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Iterator,
)
from datetime import UTC, timedelta

import grpc
import grpc.aio
import pytest
from grpc_status.rpc_status import aio as rpc_status

from broker.domain.errors import (
    BrokerError,
    GrantHeld,
    InternalError,
    KeyUnavailable,
    ProviderUnavailable,
    StoreUnavailable,
    TenantNotFound,
)
from broker.domain.facts import DefectMet
from broker.domain.guard import Release
from broker.domain.secret import AccessToken, AuthorizationCode, RefreshToken, Secret
from broker.rpc.caller import ANONYMOUS, Context
from broker.rpc.ending import new_defect_id
from broker.rpc.operations_service import OperationsService
from broker.service.messages import (
    CompleteAuthorization,
    ImportGrant,
    RevokeGrant,
    StartAuthorization,
)
from broker.v1 import operations_service_pb2
from broker.v1.grant_service_pb2 import (
    CompleteAuthorizationRequest,
    GetGrantRequest,
    Grant,
    ImportGrantRequest,
    ListGrantsRequest,
    RevokeGrantRequest,
    StartAuthorizationRequest,
)
from broker.v1.operations_service_pb2 import ReleaseGuardRequest
from broker.v1.operations_service_pb2_grpc import OperationsServiceStub
from broker.v1.token_service_pb2 import (
    GetAccessTokenRequest,
    WatchAccessTokensRequest,
)
from broker.v1.token_service_pb2_grpc import TokenServiceStub
from support.fake_broker import AskedForRelease, AskedForToken, FakeBroker
from support.grants import THE_NOW, some_grant
from support.rpc import PUSHBACK, THE_DEFECT_ID, EndedCall, Served, failure_of, retry_delay, serving
from support.waiting import until

THE_BINDING = b"sixteen bytes ok"
GET = "TokenService/GetAccessToken"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server and a channel to it; no handler outlives it."""
    async with serving() as served:
        yield served
    assert handlers() == []


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever callers do, gRPC has nothing to complain about."""
    yield
    assert [record.message for record in caplog.records if record.name.startswith("grpc")] == []


def handlers() -> list[str]:
    """Returns the calls that this process is handling."""
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith("HandleExceptions")]


def ask(served: Served, tenant: str = "acme", timeout: float | None = None) -> Awaitable[object]:
    return served.tokens.GetAccessToken(GetAccessTokenRequest(tenant=tenant), timeout=timeout)


async def test_a_caller_gets_the_token_of_its_tenant(served: Served) -> None:
    request = GetAccessTokenRequest(tenant="acme", rejected_generation=6)

    response = await served.tokens.GetAccessToken(request)

    assert (response.access_token, response.generation) == ("fake-access-7", 7)
    assert response.expire_time.ToDatetime(tzinfo=UTC) == THE_NOW + timedelta(minutes=10)
    assert served.broker.asked == [
        AskedForToken(tenant="acme", rejected_generation=6, budget=timedelta(seconds=30))
    ]


async def test_a_token_that_is_given_out_is_noted_with_its_caller(served: Served) -> None:
    await ask(served)

    assert served.broker.handed_out == [("acme", ANONYMOUS, served.broker.served.generation)]


async def test_who_gets_no_token_is_not_noted(served: Served) -> None:
    served.broker.failure = TenantNotFound(tenant="acme")
    await failure_of(ask(served))

    assert served.broker.handed_out == []


async def test_the_budget_is_what_is_left_of_the_callers_deadline(served: Served) -> None:
    await ask(served, timeout=5)

    (asked,) = served.broker.asked
    assert isinstance(asked, AskedForToken)
    assert timedelta(seconds=3) < asked.budget < timedelta(seconds=6)


async def test_every_call_is_counted_with_its_duration(served: Served) -> None:
    await ask(served)
    served.broker.failure = TenantNotFound(tenant="acme")
    await failure_of(ask(served))

    assert served.told.calls == [
        EndedCall(method=GET, code="OK"),
        EndedCall(method=GET, code="NOT_FOUND", reason="TENANT_NOT_FOUND"),
    ]
    assert all(timedelta(0) < each < timedelta(seconds=5) for each in served.told.durations)


async def test_a_failure_can_be_read_with_the_usual_library(served: Served) -> None:
    served.broker.failure = TenantNotFound(tenant="acme", revoked_at=THE_NOW)
    call = served.tokens.GetAccessToken(GetAccessTokenRequest(tenant="acme"))
    failure = await failure_of(call)

    status = await rpc_status.from_call(call)

    assert failure.code is grpc.StatusCode.NOT_FOUND
    assert status == failure.status
    assert failure.message.startswith("TENANT_NOT_FOUND: ")
    assert failure.error_info.domain == "pleo-token-broker"
    assert failure.error_info.metadata == {"tenant": "acme", "revoked_at": THE_NOW.isoformat()}


async def test_a_failure_that_waiting_mends_says_how_long(served: Served) -> None:
    served.broker.failure = ProviderUnavailable("away", retry_after=timedelta(seconds=1.5))

    failure = await failure_of(ask(served))

    assert retry_delay(failure.status) == timedelta(seconds=1.5)
    assert failure.trailers[PUSHBACK] == "1500"


async def test_a_failure_names_the_tenant_of_the_call_where_it_knows_none(served: Served) -> None:
    served.broker.failure = StoreUnavailable("PostgreSQL is away")

    failure = await failure_of(ask(served, "eu/acme"))

    assert failure.error_info.metadata == {"tenant": "eu/acme"}


async def test_a_wrong_request_is_refused_field_by_field_and_asks_nothing(served: Served) -> None:
    request = StartAuthorizationRequest(tenant="no tenant", scopes=["a b"])

    failure = await failure_of(served.grants.StartAuthorization(request))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.violations.keys() == {"tenant", "session_binding", "scopes[0]"}
    assert "tenant" not in failure.error_info.metadata
    assert served.broker.asked == []


NO_MESSAGE = b"\x0a\x02\xff\xfe"  # a tenant that is no UTF-8


async def test_bytes_that_are_no_message_are_an_invalid_request(served: Served) -> None:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    call = served.channel.unary_unary(f"/broker.v1.{GET}")

    failure = await failure_of(call(NO_MESSAGE))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.error_info.reason == "INVALID_REQUEST"
    assert failure.violations == {
        "": "must be a broker.v1.GetAccessTokenRequest message in protobuf's encoding"
    }
    assert served.told.calls == [
        EndedCall(method=GET, code="INVALID_ARGUMENT", reason="INVALID_REQUEST")
    ]
    assert (served.told.facts, served.broker.asked) == ([], [])


async def test_bytes_that_are_no_message_open_no_stream_of_answers(served: Served) -> None:
    call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
    call = served.channel.unary_stream("/broker.v1.OperationsService/RewrapKeys")

    failure = await failure_of(first(call(b"\xff")))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.error_info.reason == "INVALID_REQUEST"


async def test_bytes_that_are_no_message_end_a_stream_as_invalid(served: Served) -> None:
    call: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
    call = served.channel.stream_stream("/broker.v1.TokenService/WatchAccessTokens")
    subscribed = WatchAccessTokensRequest.Subscribe(tenants=["acme"])
    stream = call()
    await stream.write(WatchAccessTokensRequest(subscribe=subscribed).SerializeToString())
    await stream.read()

    await stream.write(b"\xff")
    failure = await failure_of(stream.read())

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.error_info.reason == "INVALID_REQUEST"
    assert served.told.facts == []
    assert len(served.broker.watching) == 0


async def test_a_defect_is_told_with_an_id_and_nothing_else(served: Served) -> None:
    served.broker.failure = defect = RuntimeError("fake-access-7 in a driver's text")

    failure = await failure_of(ask(served))

    assert failure.code is grpc.StatusCode.INTERNAL
    assert failure.error_info.metadata == {"tenant": "acme", "error_id": THE_DEFECT_ID}
    assert "driver" not in str(failure)
    assert served.told.facts == [DefectMet(defect_id=THE_DEFECT_ID, where=GET, error=defect)]


async def test_a_defect_that_was_told_already_keeps_its_id(served: Served) -> None:
    served.broker.failure = InternalError(defect_id="d-1")

    failure = await failure_of(ask(served))

    assert failure.error_info.metadata == {"tenant": "acme", "error_id": "d-1"}
    assert served.told.facts == []


def test_every_defect_has_an_id_of_its_own() -> None:
    assert new_defect_id() != new_defect_id()


async def test_a_server_serves_on_after_a_defect(served: Served) -> None:
    served.broker.failure = RuntimeError("a defect")
    await failure_of(ask(served))

    served.broker.failure = None

    await ask(served)


async def retried(served: Served, failure: BrokerError) -> int:
    """Returns how often a channel that retries by itself has called, before it gave up."""
    served.broker.failure = failure
    policy = {
        "maxAttempts": 3,
        "initialBackoff": "0.001s",
        "maxBackoff": "0.001s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    options = [("grpc.service_config", config)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}", options=options) as channel:
        await failure_of(TokenServiceStub(channel).GetAccessToken(request_for("acme")))
    return len(served.broker.asked)


def request_for(tenant: str) -> GetAccessTokenRequest:
    return GetAccessTokenRequest(tenant=tenant)


async def test_a_channel_retries_where_it_may(served: Served) -> None:
    """By gRFC A6, the trailer takes the place of the channel's own backoff."""
    failure = ProviderUnavailable("away", retry_after=timedelta(milliseconds=1))

    assert await retried(served, failure) == 3


async def test_a_channel_does_not_retry_where_it_must_not(served: Served) -> None:
    """By gRFC A6, a negative number ends it."""
    failure = GrantHeld("held", retry_after=timedelta(milliseconds=1))

    assert await retried(served, failure) == 1


async def test_a_caller_that_leaves_ends_its_handler(served: Served) -> None:
    async with served.broker.hold():
        call = served.tokens.GetAccessToken(request_for("acme"))
        await served.broker.waiting.wait()
        assert len(handlers()) == 1

        call.cancel()

        await until(lambda: served.told.calls == [EndedCall(method=GET, code="CANCELLED")])
        await until(lambda: handlers() == [])


async def test_a_deadline_ends_the_handler(served: Served) -> None:
    async with served.broker.hold():
        failure = await failure_of(ask(served, timeout=0.1))

        await until(lambda: served.told.calls == [EndedCall(method=GET, code="DEADLINE_EXCEEDED")])

    assert failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert served.told.facts == []


async def test_a_deadline_that_gRPC_enforces_carries_no_details(served: Served) -> None:  # noqa: N802 - its name
    async with served.broker.hold():
        failure = await failure_of(ask(served, timeout=0.05))

    assert "grpc-status-details-bin" not in failure.trailers


async def test_an_unknown_call_is_unimplemented(served: Served) -> None:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = served.channel.unary_unary(
        "/broker.v1.TokenService/Frobnicate"
    )

    failure = await failure_of(call(b""))

    assert failure.code is grpc.StatusCode.UNIMPLEMENTED
    assert served.told.calls == []


async def first(stream: AsyncIterable[object]) -> object:
    return await anext(aiter(stream))


class Rewrapping(OperationsService):
    """Reports twice, and then does as it is told."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.is_closed = False
        self.never = asyncio.Event()

    async def RewrapKeys(  # noqa: N802 - the API's name
        self,
        request: operations_service_pb2.RewrapKeysRequest,
        context: Context,
    ) -> AsyncGenerator[operations_service_pb2.RewrapKeysResponse, None]:
        try:
            yield operations_service_pb2.RewrapKeysResponse()
            yield operations_service_pb2.RewrapKeysResponse()
            if self.failure is not None:
                raise self.failure
            await self.never.wait()
        finally:
            self.is_closed = True


REWRAP = "OperationsService/RewrapKeys"


async def test_a_stream_that_fails_has_told_what_came_before() -> None:
    async with serving(operations=Rewrapping(KeyUnavailable("no such key"))) as served:
        request = operations_service_pb2.RewrapKeysRequest()
        answers = aiter(OperationsServiceStub(served.channel).RewrapKeys(request))

        told = [await anext(answers), await anext(answers)]
        failure = await failure_of(anext(answers))

    assert len(told) == 2
    assert (failure.error_info.reason, failure.trailers[PUSHBACK]) == ("KEY_UNAVAILABLE", "-1")
    assert served.told.calls == [
        EndedCall(method=REWRAP, code="UNAVAILABLE", reason="KEY_UNAVAILABLE")
    ]


async def test_a_reason_that_is_no_line_is_refused_before_anything_is_sealed(
    served: Served,
) -> None:
    request = operations_service_pb2.RewrapKeysRequest(reason="two\nlines")

    failure = await failure_of(served.operations.RewrapKeys(request).read())

    assert set(failure.violations) == {"reason"}
    assert served.broker.asked == []


async def test_a_stream_whose_caller_leaves_is_closed() -> None:
    rewrapping = Rewrapping()
    async with serving(operations=rewrapping) as served:
        request = operations_service_pb2.RewrapKeysRequest()
        stream = OperationsServiceStub(served.channel).RewrapKeys(request)
        await stream.read()

        stream.cancel()

        await until(lambda: served.told.calls == [EndedCall(method=REWRAP, code="CANCELLED")])
        assert rewrapping.is_closed


async def test_a_message_that_is_too_large_is_refused_by_gRPC(served: Served) -> None:  # noqa: N802 - its name
    request = StartAuthorizationRequest(tenant="acme", session_binding=bytes(5 * 1024 * 1024))

    failure = await failure_of(served.grants.StartAuthorization(request))

    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "grpc-status-details-bin" not in failure.trailers


async def test_an_authorization_is_started_for_whom_nobody_knows(served: Served) -> None:
    request = StartAuthorizationRequest(tenant="acme", session_binding=THE_BINDING)

    response = await served.grants.StartAuthorization(request)

    assert response.state == "fake-state"
    assert served.broker.asked == [
        StartAuthorization(tenant="acme", caller=ANONYMOUS, session_binding=THE_BINDING)
    ]


async def test_an_authorization_is_completed(served: Served) -> None:
    request = CompleteAuthorizationRequest(
        tenant="new", state="s", session_binding=THE_BINDING, code="fake-code"
    )

    response = await served.grants.CompleteAuthorization(request)

    assert (response.grant.tenant, response.grant.state) == ("new", Grant.STATE_ACTIVE)
    assert served.broker.asked == [
        CompleteAuthorization(
            tenant="new",
            caller=ANONYMOUS,
            state="s",
            session_binding=THE_BINDING,
            result=AuthorizationCode(Secret("fake-code")),
        )
    ]


async def test_a_refresh_token_is_taken_over(served: Served) -> None:
    request = ImportGrantRequest(tenant="new", refresh_token="fake-refresh")

    response = await served.grants.ImportGrant(request)

    assert response.grant.tenant == "new"
    assert served.broker.asked == [
        ImportGrant(
            tenant="new", caller=ANONYMOUS, refresh_token=RefreshToken(Secret("fake-refresh"))
        )
    ]


async def test_who_makes_a_grant_is_answered_within_the_callers_deadline(served: Served) -> None:
    done = CompleteAuthorizationRequest(
        tenant="new", state="s", session_binding=THE_BINDING, code="fake-code"
    )
    brought = ImportGrantRequest(tenant="new", refresh_token="fake-refresh")

    for seconds in (5, None):
        await served.grants.CompleteAuthorization(done, timeout=seconds)
        await served.grants.ImportGrant(brought, timeout=seconds)

    *within, no_limit, none = served.broker.budgets
    assert (no_limit, none) == (None, None)
    assert all(each and timedelta(seconds=3) < each < timedelta(seconds=6) for each in within)


async def test_a_grant_is_revoked_and_shown_ever_after(served: Served) -> None:
    request = RevokeGrantRequest(tenant="acme", reason="OPS-17", revoke_at_provider=True)

    revoked = await served.grants.RevokeGrant(request)
    shown = await served.grants.GetGrant(GetGrantRequest(tenant="acme"))

    assert revoked.grant == shown.grant
    assert shown.grant.state == Grant.STATE_REVOKED
    assert served.broker.asked[1] == RevokeGrant(
        tenant="acme", caller=ANONYMOUS, reason="OPS-17", at_provider=True
    )


@pytest.mark.parametrize(
    ("action", "release"),
    [
        (ReleaseGuardRequest.ACTION_CONFIRM, Release.CONFIRM),
        (ReleaseGuardRequest.ACTION_DISCARD, Release.DISCARD),
    ],
)
async def test_the_guard_is_released_as_the_caller_decides(
    served: Served, action: ReleaseGuardRequest.Action.ValueType, release: Release
) -> None:
    request = ReleaseGuardRequest(action=action, reason="OPS-17")

    response = await served.operations.ReleaseGuard(request)

    assert (response.released_count, response.remaining_count) == (5, 2)
    assert served.broker.asked == [AskedForRelease(release=release, by=ANONYMOUS, reason="OPS-17")]


async def test_the_guards_record_names_who_decided() -> None:
    broker = FakeBroker()
    operations = OperationsService(
        broker,
        explains=broker,
        rotations=broker,
        reports=broker,
        keys=broker,
        caller_of=lambda _: "sa:on-call",
    )
    request = ReleaseGuardRequest(action=ReleaseGuardRequest.ACTION_DISCARD, reason="OPS-17")

    async with serving(operations=operations) as served:
        await served.operations.ReleaseGuard(request)

    (asked,) = broker.asked
    assert asked == AskedForRelease(release=Release.DISCARD, by="sa:on-call", reason="OPS-17")


@pytest.mark.parametrize("action", [0, 3, -1])
async def test_a_decision_that_is_none_releases_nothing(served: Served, action: int) -> None:
    request = ReleaseGuardRequest(action=ReleaseGuardRequest.Action.ValueType(action), reason=" ")

    failure = await failure_of(served.operations.ReleaseGuard(request))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.violations.keys() == {"action", "reason"}
    assert served.broker.asked == []


async def test_a_decision_that_cannot_be_written_can_be_retried(served: Served) -> None:
    served.broker.failure = StoreUnavailable("PostgreSQL is away")
    request = ReleaseGuardRequest(action=ReleaseGuardRequest.ACTION_CONFIRM, reason="OPS-17")

    failure = await failure_of(served.operations.ReleaseGuard(request))

    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert failure.error_info.reason == "STORE_UNAVAILABLE"
    assert failure.error_info.metadata == {}
    assert retry_delay(failure.status) is not None


async def listed(served: Served, request: ListGrantsRequest) -> list[list[str]]:
    """Returns the tenants of each page, to the last."""
    pages: list[list[str]] = []
    while not pages or request.page_token:
        response = await served.grants.ListGrants(request)
        pages.append([grant.tenant for grant in response.grants])
        request.page_token = response.next_page_token
    return pages


async def test_grants_are_listed_page_by_page(served: Served) -> None:
    served.broker.grants = {tenant: some_grant(tenant=tenant) for tenant in "edcba"}

    pages = await listed(served, ListGrantsRequest(page_size=2))

    assert pages == [["a", "b"], ["c", "d"], ["e"]]


async def test_a_full_last_page_is_followed_by_an_empty_one(served: Served) -> None:
    served.broker.grants = {tenant: some_grant(tenant=tenant) for tenant in "ab"}

    assert await listed(served, ListGrantsRequest(page_size=2)) == [["a", "b"], []]


async def test_a_page_token_of_another_list_is_refused(served: Served) -> None:
    page = await served.grants.ListGrants(ListGrantsRequest(page_size=1))
    other = ListGrantsRequest(page_token=page.next_page_token, states=[Grant.STATE_REVOKED])

    failure = await failure_of(served.grants.ListGrants(other))

    assert failure.violations.keys() == {"page_token"}


async def test_no_secret_is_in_the_reprs_of_what_was_asked(served: Served) -> None:
    token = AccessToken(Secret("fake-access"))
    request = ImportGrantRequest(
        tenant="new", refresh_token="fake-refresh", access_token=token.reveal()
    )
    request.expire_time.FromDatetime(THE_NOW)

    await served.grants.ImportGrant(request)

    assert "fake-" not in repr(served.broker.asked)
