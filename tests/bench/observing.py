"""What observing costs on the way of nearly every call: a token from memory, over gRPC.

    PYTHONPATH=.:tests python -m bench.observing [--rounds 20] [--calls 1000]

Three servers in one process and on one loop answer the same calls in turn: one that tells nobody,
one with metrics and log, one with traces as well. What is compared are the calls of one round to a
second of processor time, of all threads, so that whatever else the machine does is left out. The
caller runs on the same loop: the share of a server alone is larger, which is why microseconds a
call are told too.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

import grpc
import grpc.aio
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from broker.config import LogFormat, LogLevel
from broker.domain.facts import Fact
from broker.ops.call_log import CallLog
from broker.ops.calls import CallObservers, about_call
from broker.ops.fact_log import FactLog
from broker.ops.logs import open_log
from broker.ops.metrics import Metrics
from broker.ops.observers import Observers
from broker.ops.spans import Spans, current_trace_id
from broker.ops.tracing import spans_to
from broker.ports import Observer
from broker.rpc.edge import Edge
from broker.rpc.gate import Gate, OpenGate
from broker.rpc.grant_service import GrantService
from broker.rpc.health import HealthService
from broker.rpc.observing import CallObserver
from broker.rpc.operations_service import OperationsService
from broker.rpc.server import ServerSettings, Servicers, grpc_server
from broker.rpc.short_way import ShortWay, Told
from broker.rpc.token_service import TokenService
from broker.service.build import build_service
from broker.service.foundation import Options, Ports
from broker.service.running import Service
from broker.v1 import token_service_pb2_grpc
from broker.v1.token_service_pb2 import GetAccessTokenRequest
from support.consent_service import KEEPALIVE, REGISTRATION, LongChance
from support.fake_broker import FakeBroker
from support.fake_escrows import FakeEscrows
from support.fake_fleet import FakeFleetStore
from support.fake_lease import FakeAnnouncements, FakeLeases
from support.fake_records import FakeRecords
from support.fake_renewals import FakeRenewals
from support.fake_store import FakeConsentStore, FakeGrantStore
from support.service import Fleet, fleet, virtual_now

_Stub: TypeAlias = "token_service_pb2_grpc.TokenServiceAsyncStub"

_AT_ONCE: Final = 20
"""Calls under way: enough that the loop is never idle."""


class Nobody:
    """Is told all, and makes nothing of it."""

    def observe(self, fact: Fact) -> None:
        """See the port."""

    def call_ended(
        self, *, method: str, code: str, reason: str, duration: timedelta, tenant: str | None
    ) -> None:
        """See the port."""


class _Discarding(SpanExporter):
    """A collector that takes no time."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Takes them."""
        return SpanExportResult.SUCCESS if spans else SpanExportResult.FAILURE


@dataclass(frozen=True, slots=True, kw_only=True)
class Watchers:
    """Who is told."""

    observer: Observer
    calls: CallObserver
    spans: Spans | None = None
    from_memory: Told = lambda *_: None


def service_of(ours: Fleet, observer: Observer) -> Service:
    """Returns the real service on this fleet's fakes."""
    world, redis = ours.world, ours.redis
    ports = Ports(
        store=FakeGrantStore(world),
        fleet=FakeFleetStore(world),
        renewals=FakeRenewals(world, keepalive=KEEPALIVE),
        consents=FakeConsentStore(world),
        records=FakeRecords(world),
        leases=FakeLeases(redis),
        announcements=FakeAnnouncements(redis),
        escrows=FakeEscrows(redis),
        provider=ours.pleo,
        chance=LongChance("bench"),
        observer=observer,
    )
    return build_service(ports, Options(replica="bench", registration=REGISTRATION), ours.tasks)


@asynccontextmanager
async def serving_at(
    ours: Fleet,
    watchers: Watchers,
    *,
    credentials: grpc.ServerCredentials | None = None,
    gate: Gate | None = None,
) -> AsyncIterator[int]:
    """Serves what the real service answers, and yields the port."""
    service = service_of(ours, watchers.observer)
    broker = service.broker
    servicers = Servicers(
        tokens=TokenService(broker, service.watching),
        grants=GrantService(consents=broker, grants=broker),
        operations=OperationsService(
            broker, explains=broker, rotations=broker, reports=FakeBroker(), keys=FakeBroker()
        ),
        health=HealthService(),
    )
    gate = gate or OpenGate()
    short = (
        ShortWay(service.at_hand, gate, told=watchers.from_memory)
        if watchers.spans is None
        else None
    )
    edge = Edge(
        observer=watchers.observer,
        calls=watchers.calls,
        gate=gate,
        tracer=watchers.spans,
        at_once=None if short is None else short.answer,
    )
    settings = ServerSettings(address="127.0.0.1:0", reflection=False, credentials=credentials)
    async with grpc_server(settings, servicers, edge=edge) as port:
        yield port


@asynccontextmanager
async def _stub(ours: Fleet, watchers: Watchers) -> AsyncIterator[_Stub]:
    async with (
        serving_at(ours, watchers) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield token_service_pb2_grpc.TokenServiceStub(channel)


@asynccontextmanager
async def watchers_of() -> AsyncIterator[Mapping[str, Watchers]]:
    """Opens log, metrics and traces; returns who is told of what, by name."""
    async with AsyncExitStack() as opened:
        # No stream: as loud as in production, and nobody reads it.
        log = opened.enter_context(open_log(None, log_format=LogFormat.JSON, level=LogLevel.INFO))
        log.tell_about(lambda: about_call(current_trace_id))
        spans = await opened.enter_async_context(spans_to(_Discarding(), home="bench"))
        nobody, metrics, facts = Nobody(), Metrics(), FactLog(log)
        calls = CallObservers((metrics, CallLog(log)))
        yield {
            "off": Watchers(observer=nobody, calls=nobody),
            "metrics and log": Watchers(
                observer=Observers((facts, metrics)),
                calls=calls,
                from_memory=metrics.token_from_memory,
            ),
            "and traces": Watchers(
                observer=Observers((spans, facts, metrics)), calls=calls, spans=spans
            ),
        }


async def _rate(tokens: _Stub, calls: int) -> float:
    """Returns calls to a second of processor time."""
    request = GetAccessTokenRequest(tenant="acme")

    async def some() -> None:
        for _ in range(calls // _AT_ONCE):
            await tokens.GetAccessToken(request)

    began = time.process_time()
    async with asyncio.TaskGroup() as tasks:
        for number in range(_AT_ONCE):
            tasks.create_task(some(), name=f"caller {number}")
    return calls // _AT_ONCE * _AT_ONCE / (time.process_time() - began)


async def _measure(rounds: int, calls: int) -> Mapping[str, list[float]]:
    async with fleet() as ours, watchers_of() as watchers, AsyncExitStack() as servers:
        now = virtual_now()
        ours.connect(renew_at=now + timedelta(hours=10), expires_at=now + timedelta(hours=12))
        stubs = {
            name: await servers.enter_async_context(_stub(ours, each))
            for name, each in watchers.items()
        }
        rates: dict[str, list[float]] = {name: [] for name in stubs}
        for number in range(rounds + 1):
            # The order turns, so that none always comes first; the first round only warms up.
            names = list(stubs)[number % 3 :] + list(stubs)[: number % 3]
            for name in names:
                rate = await _rate(stubs[name], calls)
                if number:
                    rates[name].append(rate)
        return rates


def _tell(rates: Mapping[str, list[float]]) -> str:
    lines = []
    for name, found in rates.items():
        ratios = [one / off for one, off in zip(found, rates["off"], strict=True)]
        more = [1e6 / one - 1e6 / off for one, off in zip(found, rates["off"], strict=True)]
        lines.append(
            f"{name:16} {statistics.median(found):8.0f} calls a processor second"
            f"  {statistics.median(ratios):5.3f} of off"
            f" ({min(ratios):.3f} to {max(ratios):.3f})"
            f"  {statistics.median(more):+6.1f} µs a call"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, and prints."""
    arguments = argparse.ArgumentParser(description="What observing costs a token from memory")
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--calls", type=int, default=1000, help="of each kind in a round")
    chosen = arguments.parse_args()
    found = asyncio.run(_measure(chosen.rounds, chosen.calls))
    print(_tell(found))  # noqa: T201 - its result


if __name__ == "__main__":
    main()
