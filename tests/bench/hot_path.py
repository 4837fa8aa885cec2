"""A token from memory against a method that does nothing, both on this process's loop.

The baseline is a server of grpc.aio without interceptors, whose one method returns bytes that are
as many as the broker answers. What is compared are calls to a second of this process's processor
time, of all threads; who calls is another process.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

import grpc
import grpc.aio

from bench.caller import Unary, channel_to
from bench.figures import Figure, Pair, Step
from bench.load import Target, generator_of, send
from bench.observing import Nobody, serving_at, watchers_of
from broker.config import Settings
from broker.guarding import guarding
from broker.rpc.gate import Gate
from broker.v1.token_service_pb2 import GetAccessTokenRequest
from support.certificates import Authority, dns
from support.service import fleet, virtual_now

_METHOD: Final = "/broker.v1.TokenService/GetAccessToken"

_REQUEST: Final = GetAccessTokenRequest(tenant="acme").SerializeToString()

_POLICY: Final = """
callers:
  - identity: dns:exporter.example.org
    rpcs: [TokenService/*]
    tenants: ["acme", "tenant-*"]
"""


class Measure(Protocol):
    """One of the two below."""

    async def __call__(self, pairs: int, step: Step, *, calls: int) -> Figure:
        """Takes pairs of as many calls each."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Transport:
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

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """See grpc."""
        return grpc.unary_unary_rpc_method_handler(self._same)

    async def _same(self, request: bytes, context: object) -> bytes:
        return self._answer


async def over_clear_text(pairs: int, step: Step, *, calls: int) -> Figure:
    """Measures it as it is on loopback: no identities, metrics and log on."""
    return await _measure("GetAccessToken from memory", pairs, step, calls=calls, is_tls=False)


async def over_mutual_tls(pairs: int, step: Step, *, calls: int) -> Figure:
    """Measures it as in production: certificates, a policy, metrics, log and disclosures."""
    name = "the same with mutual TLS and policy"
    return await _measure(name, pairs, step, calls=calls, is_tls=True)


async def _measure(name: str, pairs: int, step: Step, *, calls: int, is_tls: bool) -> Figure:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        transport = _mutual_tls(Path(folder)) if is_tls else _Transport()
        async with _both(transport) as (ours, empty):
            for number in range(pairs + 1):
                # The order turns; the first pair only warms up.
                pair = await _pair(ours, empty, calls=calls, ours_first=number % 2 == 0)
                if number:
                    found.append(pair)
                    step()
            generator = generator_of(ours)
    return Figure(
        name=name,
        baseline=f"an empty grpc.aio method{', mutual TLS' if is_tls else ''}",
        unit="calls a processor second",
        aim=0.90 if is_tls else 0.95,
        is_floor=True,
        pairs=tuple(found),
        note=f"load: {generator}",
    )


async def _pair(ours: Target, empty: Target, *, calls: int, ours_first: bool) -> Pair:
    if ours_first:
        value, baseline = await _rate(ours, calls), await _rate(empty, calls)
    else:
        baseline, value = await _rate(empty, calls), await _rate(ours, calls)
    return Pair(value=value, baseline=baseline)


async def _rate(target: Target, calls: int) -> float:
    began = time.process_time()
    await send(target, calls)
    return calls / (time.process_time() - began)


@asynccontextmanager
async def _both(transport: _Transport) -> AsyncIterator[tuple[Target, Target]]:
    async with fleet() as ours, watchers_of() as watchers:
        now = virtual_now()
        ours.connect(renew_at=now + timedelta(hours=10), expires_at=now + timedelta(hours=12))
        async with serving_at(
            ours,
            watchers["metrics and log"],
            credentials=transport.credentials,
            gate=transport.gate,
        ) as port:
            target = _target(port, transport)
            answer = await _answered_by(target)
            async with _serving_empty(answer, transport) as other:
                yield target, _target(other, transport)


def _target(port: int, transport: _Transport) -> Target:
    return Target(port=port, method=_METHOD, request=_REQUEST, certificates=transport.certificates)


async def _answered_by(target: Target) -> bytes:
    """Returns what the broker answers, and has it in memory from then on."""
    async with channel_to(target.port, target.certificates) as channel:
        method: Unary = channel.unary_unary(target.method)
        return await method(target.request)


@asynccontextmanager
async def _serving_empty(answer: bytes, transport: _Transport) -> AsyncIterator[int]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Empty(answer),))
    port = (
        server.add_insecure_port("127.0.0.1:0")
        if transport.plain is None
        else server.add_secure_port("127.0.0.1:0", transport.plain)
    )
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


def _mutual_tls(folder: Path) -> _Transport:
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
    return _Transport(
        credentials=made.credentials, plain=plain, gate=made.gate, certificates=folder
    )
