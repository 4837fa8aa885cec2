"""The admin socket: who can open it, what is answered there, and what is in its way."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from broker.domain.guard import Release
from broker.rpc.admin import admin_edge, admin_socket
from broker.rpc.server import AddressUnavailableError
from broker.v1 import grant_service_pb2, operations_service_pb2, token_service_pb2
from broker.v1.grant_service_pb2 import (
    CompleteAuthorizationRequest,
    GetGrantRequest,
    ImportGrantRequest,
    ListGrantsRequest,
    RevokeGrantRequest,
    StartAuthorizationRequest,
)
from broker.v1.grant_service_pb2_grpc import GrantServiceStub
from broker.v1.operations_service_pb2 import GetFleetStatusRequest, RefreshGrantRequest
from broker.v1.operations_service_pb2_grpc import OperationsServiceStub
from broker.v1.token_service_pb2 import BatchGetAccessTokensRequest, GetAccessTokenRequest
from broker.v1.token_service_pb2_grpc import TokenServiceStub
from support.cli import run_beside
from support.fake_broker import AskedForRelease, AskedForRotation, FakeBroker
from support.rpc import Told, failure_of, servicers_of, told_by

PATIENCE_SECONDS = 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "admin.sock"


@pytest.fixture
async def broker(path: Path) -> AsyncIterator[FakeBroker]:
    broker, told = FakeBroker(), Told()
    edge = admin_edge(observer=told, calls=told)
    async with admin_socket(path, servicers_of(broker), edge=edge):
        yield broker


@pytest.fixture
async def channel(path: Path, broker: FakeBroker) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        yield channel


Call = Callable[[grpc.aio.Channel], Awaitable[object]]


async def test_only_its_owner_can_open_the_socket(path: Path, broker: FakeBroker) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_grants_are_shown_without_further_identity(channel: grpc.aio.Channel) -> None:
    stub = GrantServiceStub(channel)

    got = await stub.GetGrant(GetGrantRequest(tenant="acme"))
    listed = await stub.ListGrants(ListGrantsRequest())

    assert listed.grants == [got.grant]


async def test_a_grant_is_explained_to_the_command_line(path: Path, broker: FakeBroker) -> None:
    environ = {"BROKER_ADMIN_SOCKET": str(path), "BROKER_ADDRESS": "127.0.0.1:1"}

    ended = await run_beside("explain", "acme", environ=environ)

    assert ended.status == 0
    assert "What to do: " in ended.stdout


OPERATIONS: dict[str, Call] = {
    "the fleet": lambda channel: OperationsServiceStub(channel).GetFleetStatus(
        GetFleetStatusRequest()
    ),
    "a grant": lambda channel: OperationsServiceStub(channel).RefreshGrant(
        RefreshGrantRequest(tenant="acme", reason="OPS-17")
    ),
}


@pytest.mark.parametrize("which", OPERATIONS)
async def test_operations_are_let_in(
    channel: grpc.aio.Channel, broker: FakeBroker, which: str
) -> None:
    await OPERATIONS[which](channel)

    assert broker.asked != []


async def test_a_rotation_is_in_the_name_of_the_sockets_owner(
    path: Path, broker: FakeBroker
) -> None:
    environ = {"BROKER_ADMIN_SOCKET": str(path), "BROKER_ADDRESS": "127.0.0.1:1"}

    ended = await run_beside("refresh", "acme", "--reason", "OPS-17", environ=environ)

    asked = broker.asked[-1]
    assert ended.status == 0
    assert isinstance(asked, AskedForRotation)
    assert asked.request.caller == f"admin:{os.getuid()}"


async def test_the_fleet_is_shown_over_the_socket(path: Path, broker: FakeBroker) -> None:
    environ = {"BROKER_ADMIN_SOCKET": str(path), "BROKER_ADDRESS": "127.0.0.1:1"}

    ended = await run_beside("status", "--json", environ=environ)

    assert ended.document["home"] == "production-eu"


async def test_the_guard_is_released_in_the_name_of_the_sockets_owner(
    path: Path, broker: FakeBroker
) -> None:
    environ = {"BROKER_ADMIN_SOCKET": str(path), "BROKER_ADDRESS": "127.0.0.1:1"}

    ended = await run_beside("guard", "discard", "--reason", "OPS-17", environ=environ)

    assert ended.status == 0
    assert broker.asked == [
        AskedForRelease(release=Release.DISCARD, by=f"admin:{os.getuid()}", reason="OPS-17")
    ]


ELSEWHERE: dict[str, Call] = {
    "GetAccessToken": lambda channel: TokenServiceStub(channel).GetAccessToken(
        GetAccessTokenRequest(tenant="acme")
    ),
    "BatchGetAccessTokens": lambda channel: TokenServiceStub(channel).BatchGetAccessTokens(
        BatchGetAccessTokensRequest(tenants=["acme"])
    ),
    "StartAuthorization": lambda channel: GrantServiceStub(channel).StartAuthorization(
        StartAuthorizationRequest(tenant="acme")
    ),
    "CompleteAuthorization": lambda channel: GrantServiceStub(channel).CompleteAuthorization(
        CompleteAuthorizationRequest(tenant="acme")
    ),
    "ImportGrant": lambda channel: GrantServiceStub(channel).ImportGrant(
        ImportGrantRequest(tenant="acme")
    ),
    "RevokeGrant": lambda channel: GrantServiceStub(channel).RevokeGrant(
        RevokeGrantRequest(tenant="acme", reason="bye")
    ),
}


@pytest.mark.parametrize("which", ELSEWHERE)
async def test_what_is_not_for_admins_is_refused(
    channel: grpc.aio.Channel, broker: FakeBroker, which: str
) -> None:
    failure = await failure_of(ELSEWHERE[which](channel))

    assert failure.error_info.reason == "CALLER_NOT_ALLOWED"
    assert failure.error_info.metadata["caller"] == f"admin:{os.getuid()}"
    assert broker.asked == []


APART = {"GrantService/GetGrant", "GrantService/ListGrants"}
"""What admins may call beside OperationsService."""


async def refusal_of(channel: grpc.aio.Channel, rpc: str) -> str | None:
    """Calls with an empty request; the reason of a refusal, or None where it was let in."""
    method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
    method = channel.unary_stream(f"/broker.v1.{rpc}")
    call = method(b"", timeout=PATIENCE_SECONDS)
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
            return told_by(error).error_info.reason
    finally:
        call.cancel()
    return None


def calls_of_the_api() -> list[str]:
    """Every method of every service that the protos declare."""
    services = [
        service
        for file in (grant_service_pb2, operations_service_pb2, token_service_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
    ]
    return [f"{service.name}/{method.name}" for service in services for method in service.methods]


@pytest.mark.parametrize("rpc", calls_of_the_api())
async def test_admins_call_operations_and_two_looks_only(
    channel: grpc.aio.Channel, rpc: str
) -> None:
    is_for_admins = rpc in APART or rpc.startswith("OperationsService/")

    assert await refusal_of(channel, rpc) == (None if is_for_admins else "CALLER_NOT_ALLOWED")


async def test_the_command_line_uses_the_socket_where_there_is_one(
    path: Path, broker: FakeBroker
) -> None:
    environ = {"BROKER_ADMIN_SOCKET": str(path), "BROKER_ADDRESS": "127.0.0.1:1"}

    ended = await run_beside("grants", "--json", environ=environ)

    assert [grant["tenant"] for grant in ended.document["grants"]] == ["acme"]


async def test_the_command_line_does_without_a_socket_that_is_gone(path: Path) -> None:
    environ = {"BROKER_ADMIN_SOCKET": str(path), "BROKER_ADDRESS": "127.0.0.1:1"}

    ended = await run_beside("grants", environ=environ)

    assert ended.stderr.startswith("error: UNAVAILABLE")


async def test_a_socket_goes_with_its_server(path: Path) -> None:
    told = Told()
    async with admin_socket(
        path, servicers_of(FakeBroker()), edge=admin_edge(observer=told, calls=told)
    ):
        assert path.is_socket()

    assert not path.exists()


async def serve_again(path: Path) -> None:
    told = Told()
    edge = admin_edge(observer=told, calls=told)
    async with admin_socket(path, servicers_of(FakeBroker()), edge=edge):
        assert path.is_socket()


async def test_a_socket_that_a_crash_left_behind_is_taken_over(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))

    await serve_again(path)


async def test_a_socket_in_use_is_left_alone(path: Path, channel: grpc.aio.Channel) -> None:
    with pytest.raises(AddressUnavailableError, match="somebody listens there"):
        await serve_again(path)

    assert await GrantServiceStub(channel).GetGrant(GetGrantRequest(tenant="acme")) is not None


async def test_a_file_in_its_place_is_left_alone(path: Path) -> None:
    path.write_text("precious")

    with pytest.raises(AddressUnavailableError, match="something else than a socket"):
        await serve_again(path)

    assert path.read_text() == "precious"


async def test_a_place_that_there_is_not_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "admin.sock"

    said = rf"^cannot listen on {path} \(BROKER_ADMIN_SOCKET\)"
    with pytest.raises(AddressUnavailableError, match=said):
        await asyncio.wait_for(serve_again(path), 10)
