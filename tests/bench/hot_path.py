"""A token from memory against a method that does nothing, both on this process's loop.

The baseline is a server of grpc.aio with the broker's own options and without interceptors, whose
one method returns bytes that are as many as the broker answers. What is compared are calls to a
second of this process's processor time, of all threads, which the rest of the machine changes least
of all; calls to a second of the clock are told beside it. Who calls is another process. The two
take turns every few hundred calls, so that a machine that is busy for a moment is so for both.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import Final, Protocol, TypeVar

import grpc
import grpc.aio

from bench.caller import Unary, channel_to
from bench.figures import Figure, Pair, Step
from bench.load import Target
from bench.observing import Nobody, serving_at, watchers_of
from bench.standing import StandingCaller, standing_caller
from broker.config import Settings
from broker.guarding import guarding
from broker.rpc.gate import Gate
from broker.rpc.server import ServerSettings, server_options
from broker.v1.token_service_pb2 import GetAccessTokenRequest
from support.certificates import Authority, dns
from support.service import Fleet, fleet, virtual_now

_METHOD: Final = "/broker.v1.TokenService/GetAccessToken"

_TURN: Final = 200
"""Calls before it is another's turn: some tens of milliseconds."""

_PACED_SECONDS: Final = 0.1
"""The same, of calls at a rate."""

_TENANTS: Final = 1000
"""Asked for one after the other, so that each was last asked for long ago."""

_POLICY: Final = """
callers:
  - identity: dns:exporter.example.org
    rpcs: [TokenService/*]
    tenants: ["acme", "tenant-*"]
"""

T = TypeVar("T")


class Measure(Protocol):
    """One of those below."""

    async def __call__(self, pairs: int, step: Step, *, calls: int) -> Figure:
        """Takes pairs of as many calls each."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """How both servers are reached."""

    credentials: grpc.ServerCredentials | None = None
    plain: grpc.ServerCredentials | None = None
    """The same for the empty method, as gRPC makes them; ours are for one server each."""

    gate: Gate | None = None
    certificates: Path | None = None


class _Empty(grpc.GenericRpcHandler):
    """Answers every method with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            self._same
        )

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """See grpc."""
        return self._handler

    async def _same(self, request: bytes, context: object) -> bytes:
        return self._answer


@dataclass(frozen=True, slots=True)
class Spent:
    """What calls took."""

    of_processor: float
    of_clock: float


async def over_clear_text(pairs: int, step: Step, *, calls: int) -> Figure:
    """Measures it as it is on loopback: no identities, metrics and log on."""
    async with _callers(Transport(), has_many=True) as callers:
        spent = await pairs_of(pairs, step, lambda: by_turns(callers, calls))
    many = median(_ratios(spent, of=2))
    figure = figure_of("GetAccessToken from memory", spent, calls=calls, aim=0.95)
    return replace(figure, note=f"{figure.note}; {_TENANTS:,} tenants in turn: {many:.3f}")


async def over_mutual_tls(pairs: int, step: Step, *, calls: int) -> Figure:
    """Measures it as in production: certificates, a policy, metrics, log and disclosures."""
    with tempfile.TemporaryDirectory() as folder:
        async with _callers(_mutual_tls(Path(folder))) as callers:
            spent = await pairs_of(pairs, step, lambda: by_turns(callers, calls))
    figure = figure_of("the same with mutual TLS and policy", spent, calls=calls, aim=0.90)
    return replace(figure, baseline=f"{figure.baseline}, mutual TLS")


async def tail_at_half(pairs: int, step: Step, *, calls: int) -> Figure:
    """Measures the slowest hundredth of calls over mutual TLS, at half of what ours can answer."""
    with tempfile.TemporaryDirectory() as folder:
        async with _callers(_mutual_tls(Path(folder))) as callers:
            warm = [await by_turns(callers, calls) for _ in range(3)]
            rate = calls / median(each[0].of_clock for each in warm) / 2
            found = await pairs_of(pairs, step, lambda: _tails(callers, calls, rate=rate))
    return Figure(
        name="its p99 at half of saturation",
        baseline="an empty grpc.aio method, mutual TLS",
        unit="seconds",
        aim=1.15,
        is_floor=False,
        pairs=tuple(Pair(value=ours, baseline=empty) for ours, empty in found),
        note=f"{rate:.0f} calls a second; {1000 * median(each[1] for each in found):.1f} ms",
    )


async def pairs_of(pairs: int, step: Step, take: Callable[[], Awaitable[T]]) -> Sequence[T]:
    """Takes them; the first only warms up."""
    await take()
    found = []
    for _ in range(pairs):
        found.append(await take())
        step()
    return found


async def by_turns(callers: Sequence[StandingCaller], calls: int) -> Sequence[Spent]:
    """Returns what so many calls of each took."""
    spent = [[0.0, 0.0] for _ in callers]
    for turn in range(max(2, calls // _TURN)):
        for number in range(len(callers))[:: 1 if turn % 2 else -1]:
            began = time.perf_counter(), time.process_time()
            await callers[number].as_fast(min(_TURN, calls // 2))
            spent[number][0] += time.process_time() - began[1]
            spent[number][1] += time.perf_counter() - began[0]
    return [Spent(*each) for each in spent]


async def _tails(
    callers: Sequence[StandingCaller], calls: int, *, rate: float
) -> tuple[float, float]:
    """Returns the 99th percentile of each."""
    took: list[list[float]] = [[] for _ in callers]
    for turn in range(max(2, round(calls / rate / _PACED_SECONDS))):
        for number in range(len(callers))[:: 1 if turn % 2 else -1]:
            took[number] += await callers[number].at_rate(rate, seconds=_PACED_SECONDS)
    ours, empty = (quantiles(each, n=100)[98] for each in took)
    return ours, empty


def _ratios(spent: Sequence[Sequence[Spent]], *, of: int = 0) -> list[float]:
    return [each[1].of_processor / each[of].of_processor for each in spent]


def figure_of(name: str, spent: Sequence[Sequence[Spent]], *, calls: int, aim: float) -> Figure:
    """Returns the first caller's calls to a second of processor time, over the second's."""
    by_clock = median(each[1].of_clock / each[0].of_clock for each in spent)
    return Figure(
        name=name,
        baseline="an empty grpc.aio method",
        unit="calls a processor second",
        aim=aim,
        is_floor=True,
        pairs=tuple(
            Pair(value=calls / ours.of_processor, baseline=calls / empty.of_processor)
            for ours, empty, *_ in spent
        ),
        note=f"by the clock: {by_clock:.3f}; load: Python",
    )


@asynccontextmanager
async def _callers(
    transport: Transport, *, has_many: bool = False
) -> AsyncIterator[Sequence[StandingCaller]]:
    """Serves both, and connects: to ours, to the empty one, and with many tenants to ours."""
    async with fleet() as world, watchers_of() as watchers, AsyncExitStack() as opened:
        tenants = connected(world, _TENANTS if has_many else 0)
        port = await opened.enter_async_context(
            serving_at(
                world,
                watchers["metrics and log"],
                credentials=transport.credentials,
                gate=transport.gate,
            )
        )
        ours = target_of(port, transport)
        answer = await answered_by(ours)
        empty = await opened.enter_async_context(_serving_empty(answer, transport))
        callers = [standing_caller(ours), standing_caller(target_of(empty, transport))]
        if has_many:
            callers.append(standing_caller(ours, [_asking_for(each) for each in tenants]))
        made = [await opened.enter_async_context(each) for each in callers]
        for each in made:
            await each.as_fast(_TENANTS)
        yield made


def connected(world: Fleet, count: int) -> Sequence[str]:
    """Connects `acme` and so many others, and returns those."""
    now, tenants = virtual_now(), [f"tenant-{number}" for number in range(count)]
    for tenant in ("acme", *tenants):
        world.connect(
            tenant=tenant,
            renew_at=now + timedelta(hours=10),
            expires_at=now + timedelta(hours=12),
        )
    return tenants


def _asking_for(tenant: str) -> bytes:
    return GetAccessTokenRequest(tenant=tenant).SerializeToString()


def target_of(port: int, transport: Transport) -> Target:
    """Returns whom to ask for `acme`'s token."""
    return Target(
        port=port,
        method=_METHOD,
        request=_asking_for("acme"),
        certificates=transport.certificates,
    )


async def answered_by(target: Target) -> bytes:
    """Returns what the broker answers, and has it in memory from then on."""
    async with channel_to(target.port, target.certificates) as channel:
        method: Unary = channel.unary_unary(target.method)
        return await method(target.request)


@asynccontextmanager
async def _serving_empty(answer: bytes, transport: Transport) -> AsyncIterator[int]:
    address = "127.0.0.1:0"
    empty = grpc.aio.server(options=server_options(ServerSettings(address=address)))
    empty.add_generic_rpc_handlers((_Empty(answer),))
    port = (
        empty.add_insecure_port(address)
        if transport.plain is None
        else empty.add_secure_port(address, transport.plain)
    )
    await empty.start()
    try:
        yield port
    finally:
        await empty.stop(0)


def _mutual_tls(folder: Path) -> Transport:
    authority = Authority()
    cert, key = authority.issue(dns("localhost")).write(folder, "tls")
    authority.issue(dns("exporter.example.org")).write(folder, "caller")
    (folder / "ca.crt").write_bytes(authority.cert)
    (folder / "policy.yaml").write_text(_POLICY)
    settings = Settings.from_environ(
        {
            "BROKER_TLS_CERT_FILE": str(cert),
            "BROKER_TLS_KEY_FILE": str(key),
            "BROKER_TLS_CLIENT_CA_FILE": str(folder / "ca.crt"),
            "BROKER_POLICY_FILE": str(folder / "policy.yaml"),
            "BROKER_CALLER_MAX_RATE": "1000000",
        }
    )
    made = guarding(settings, observer=Nobody())
    plain = grpc.ssl_server_credentials(
        [(key.read_bytes(), cert.read_bytes())], authority.cert, require_client_auth=True
    )
    return Transport(credentials=made.credentials, plain=plain, gate=made.gate, certificates=folder)
