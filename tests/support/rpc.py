"""A gRPC server of the broker in this process, a channel to it, and statuses made readable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from broker.domain.facts import Fact
from broker.rpc.edge import Edge
from broker.rpc.gate import Gate
from broker.rpc.grant_service import GrantService
from broker.rpc.health import HealthService
from broker.rpc.operations_service import OperationsService
from broker.rpc.server import ServerSettings, Servicers, grpc_server
from broker.rpc.short_way import AtOnce
from broker.rpc.token_service import TokenService
from broker.v1 import (
    grant_service_pb2_grpc,
    operations_service_pb2_grpc,
    token_service_pb2_grpc,
)
from support.fake_broker import FakeBroker
from support.law_seven import LEDGER
from support.service import running

THE_DEFECT_ID: Final = "00c0ffee00c0ffee"

_PATIENCE_SECONDS: Final = 20.0

PUSHBACK: Final = "grpc-retry-pushback-ms"

DetailT = TypeVar("DetailT", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedCall:
    """What was told of a call, its duration aside."""

    method: str
    code: str
    reason: str = ""


@dataclass(slots=True)
class Told:
    """Remembers what the edge tells."""

    calls: list[EndedCall] = field(default_factory=list)
    tenants: list[str | None] = field(default_factory=list)
    durations: list[timedelta] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)

    def call_ended(
        self, *, method: str, code: str, reason: str, duration: timedelta, tenant: str | None
    ) -> None:
        """As `CallObserver` has it."""
        self.tenants.append(tenant)
        self.calls.append(EndedCall(method=method, code=code, reason=reason))
        self.durations.append(duration)

    def observe(self, fact: Fact) -> None:
        """As `Observer` has it."""
        self.facts.append(fact)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server that runs, and all that surrounds it."""

    port: int
    broker: FakeBroker
    health: HealthService
    told: Told
    channel: grpc.aio.Channel
    tokens: token_service_pb2_grpc.TokenServiceAsyncStub
    grants: grant_service_pb2_grpc.GrantServiceAsyncStub
    operations: operations_service_pb2_grpc.OperationsServiceAsyncStub


def servicers_of(broker: FakeBroker, operations: OperationsService | None = None) -> Servicers:
    """Returns all services over one fake."""
    return Servicers(
        tokens=TokenService(broker, broker.watching),
        grants=GrantService(consents=broker, grants=broker),
        operations=operations
        or OperationsService(
            broker, explains=broker, rotations=broker, reports=broker, keys=broker
        ),
        health=HealthService(),
    )


def edge_of(told: Told, gate: Gate | None = None, *, at_once: AtOnce | None = None) -> Edge:
    """Returns an edge that tells `told`, and gives every defect the same id."""
    return Edge(
        observer=told,
        calls=told,
        gate=gate,
        new_defect_id=lambda: THE_DEFECT_ID,
        at_once=at_once,
    )


@asynccontextmanager
async def serving(
    *,
    reflection: bool = True,
    grace: timedelta = timedelta(seconds=5),
    operations: OperationsService | None = None,
    credentials: grpc.ServerCredentials | None = None,
    gate: Gate | None = None,
    max_streams: int = 10_000,
    at_once: AtOnce | None = None,
) -> AsyncIterator[Served]:
    """Serves on a free port, with a channel to it; with `credentials` it is of no use."""
    broker, told = FakeBroker(), Told()
    servicers = servicers_of(broker, operations)
    settings = ServerSettings(
        address="127.0.0.1:0",
        reflection=reflection,
        grace=grace,
        credentials=credentials,
        max_streams=max_streams,
    )
    # The channel is closed after the server has left, and once all that was answered is read.
    async with (
        AsyncExitStack() as channels,
        running(broker.watching.run()),
        grpc_server(settings, servicers, edge=edge_of(told, gate, at_once=at_once)) as port,
    ):
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        channels.push_async_callback(channel.close, _PATIENCE_SECONDS)
        yield Served(
            port=port,
            broker=broker,
            health=servicers.health,
            told=told,
            channel=channel,
            tokens=token_service_pb2_grpc.TokenServiceStub(channel),
            grants=grant_service_pb2_grpc.GrantServiceStub(channel),
            operations=operations_service_pb2_grpc.OperationsServiceStub(channel),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failed call, as a client sees it."""

    code: grpc.StatusCode
    message: str
    trailers: Mapping[str, str | bytes]

    @property
    def said(self) -> bytes:
        """All that there is to read of it."""
        texts = [self.message, *self.trailers.values()]
        return b"\n".join(each.encode() if isinstance(each, str) else each for each in texts)

    @property
    def status(self) -> Status:
        """The status with its details."""
        raw = self.trailers["grpc-status-details-bin"]
        assert isinstance(raw, bytes)
        return Status.FromString(raw)

    @property
    def error_info(self) -> ErrorInfo:
        """The one ErrorInfo."""
        (info,) = details(self.status, ErrorInfo)
        return info

    @property
    def violations(self) -> dict[str, str]:
        """What was expected of each bad field."""
        (bad,) = details(self.status, BadRequest)
        return {each.field: each.description for each in bad.field_violations}


async def failure_of(call: Awaitable[object]) -> Failure:
    """Awaits a call that fails, and returns how."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return told_by(error)
    raise AssertionError("the call did not fail")


def told_by(error: grpc.aio.AioRpcError) -> Failure:
    """Returns how a call failed, and keeps all that was said of it for the ledger."""
    trailers = dict(error.trailing_metadata() or ())
    failure = Failure(code=error.code(), message=error.details() or "", trailers=trailers)
    LEDGER.keep("statuses", failure.said)
    return failure


def details(status: Status, kind: type[DetailT]) -> Sequence[DetailT]:
    """Returns a status's details of one kind."""
    found: list[DetailT] = []
    for packed in status.details:
        detail = kind()
        if packed.Unpack(detail):
            found.append(detail)
    return found


def retry_delay(status: Status) -> timedelta | None:
    """Returns what RetryInfo says; None: there is none."""
    found = details(status, RetryInfo)
    return found[0].retry_delay.ToTimedelta() if found else None
