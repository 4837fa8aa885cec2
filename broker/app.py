"""The composition root: settings in, a running broker out; and how it ends.

    async with running(settings, telling) as broker:
        …  # broker.grpc_port, broker.ops_url

Ending is the part with laws. Readiness goes first, so that nobody new is sent here; calls under way
are answered; nothing is claimed any more; what was sent to Pleo is followed to its answer and to
PostgreSQL, however long that takes (law 3); only then are the connections taken away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

from broker.config import ServeSettings
from broker.ops.checks import Subjects, checks
from broker.ops.health import Health, HealthSnapshot
from broker.ops.server import ops_server
from broker.ops.status_view import COLLECT_SECONDS, Overview
from broker.outside import Outside, Telling, open_outside, ports_of
from broker.reporting import Reporter, Reporting
from broker.rpc.admin import admin_edge, admin_socket
from broker.rpc.edge import Edge
from broker.rpc.grant_service import GrantService
from broker.rpc.health import DEPENDENCIES, SERVICES, HealthService
from broker.rpc.operations_service import OperationsService
from broker.rpc.server import ServerSettings, Servicers, grpc_server
from broker.rpc.short_way import AsAnyCall, ShortWay, Told
from broker.rpc.token_service import TokenService
from broker.service.build import build_service
from broker.service.loops import repeat
from broker.service.rewrapping import Rewrapping
from broker.service.running import Service
from broker.store.home import HomeDiffersError
from broker.store.upkeep import maintain
from broker.wiring import home, service_options

_SETTLING_PATIENCE: Final = 10.0
"""Seconds for flights that hold nothing, after the calls' own grace: time to read a row twice. With
that grace of 10 s it fits into the 30 s that Kubernetes gives by default."""

_HOUR: Final = 3600.0
"""Seconds between turns of the upkeep: partitions are made a week ahead."""


Loop: TypeAlias = Callable[[], Coroutine[None, None, None]]

Loops: TypeAlias = Mapping[str, Loop]
"""What runs in the background, by name; each until it is cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A broker that listens."""

    grpc_port: int
    ops_url: str
    health: Health
    service: Service
    refused: asyncio.Future[HomeDiffersError]
    """Done when the database turns out to be another broker's home: this one must end."""


@asynccontextmanager
async def running(settings: ServeSettings, telling: Telling) -> AsyncIterator[Running]:
    """Runs a broker as long as the context lasts.

    It listens before PostgreSQL or Redis has been reached, and is not ready until then.

    Raises:
        KeysetUnreadableError, RedisUrlRefused, SecretUnreadableError, FilesUnusableError: the
        settings are of no use.
        AddressUnavailableError, OSError: an address cannot be listened on.
    """
    async with AsyncExitStack() as opened:
        outside = await open_outside(settings, telling, opened)
        # Two groups: a loop that fails ends the broker in order, and cancels no flight (law 3).
        async with asyncio.TaskGroup() as flight_group, asyncio.TaskGroup() as loop_group:
            options = service_options(settings, replica=outside.watching.replica)
            service = build_service(ports_of(settings, outside), options, flight_group)
            outside.watching.show(service)
            refused: asyncio.Future[HomeDiffersError] = asyncio.get_running_loop().create_future()
            health = _health(settings, outside, telling, service, refused=refused)
            reporting = Reporting(
                settings=settings,
                health=health,
                fleet=service.fleet,
                tally=outside.tally,
                keys=outside.keys,
                escrows=outside.escrows,
                keyring=outside.keyring,
            )
            overview = reporting.overview()
            loops = _loops(settings, outside, service, health, overview=overview)
            shown = reporting.shown(telling.metrics.registry, overview)
            servicers = _servicers(service, reporting.reporter(), _keys(outside))
            # Left in the opposite order: calls, what they have sent, then what runs beside them.
            async with (
                _beside(loop_group, loops),
                ops_server(settings.ops_address, shown) as ops_url,
                _settled(service),
                _listening(
                    settings, outside, telling, servicers, health=health, service=service
                ) as grpc_port,
            ):
                yield Running(
                    grpc_port=grpc_port,
                    ops_url=ops_url,
                    health=health,
                    service=service,
                    refused=refused,
                )


def _keys(outside: Outside) -> Rewrapping:
    return Rewrapping(outside.keys, outside.escrows, outside.observer)


def _health(
    settings: ServeSettings,
    outside: Outside,
    telling: Telling,
    service: Service,
    *,
    refused: asyncio.Future[HomeDiffersError],
) -> Health:
    def on_refused(error: HomeDiffersError) -> None:
        if not refused.done():
            refused.set_result(error)

    subjects = Subjects(
        pool=outside.checking,
        redis=outside.redis,
        keyring=outside.keyring,
        home=home(settings),
        pleo=outside.pleo,
        breaker=lambda: service.fleet.breaker,
        certificate=outside.guarding.certificate_life,
        on_refused=on_refused,
    )
    health = Health(checks(subjects), observer=outside.observer)
    health.on_change(telling.metrics.health_changed)
    return health


def _loops(
    settings: ServeSettings,
    outside: Outside,
    service: Service,
    health: Health,
    *,
    overview: Overview,
) -> Loops:
    async def turn() -> None:
        await maintain(outside.pool, attempt_retention=settings.attempt_retention)

    async def upkeep() -> None:
        await repeat("upkeep", turn, pause=_HOUR, observer=outside.observer)

    async def counting() -> None:
        pause, observer = COLLECT_SECONDS, outside.observer
        await repeat("overview", overview.turn, pause=pause, observer=observer)

    # Until the database has been seen to be ours, asking it would only fill the log.
    later = {
        **service.loops(),
        "upkeep": upkeep,
        "census": outside.watching.census,
        "overview": counting,
    }
    return {"health": health.run, "lag": outside.watching.lag, **outside.guarding.loops()} | {
        name: _once_ready(health, loop) for name, loop in later.items()
    }


def _once_ready(health: Health, loop: Loop) -> Loop:
    async def wait_and_run() -> None:
        ready = asyncio.Event()
        health.on_change(lambda snapshot: ready.set() if snapshot.is_ready else None)
        await ready.wait()
        await loop()

    return wait_and_run


@asynccontextmanager
async def _beside(loop_group: asyncio.TaskGroup, loops: Loops) -> AsyncIterator[None]:
    """Runs the loops while the block runs."""
    running_loops = [
        loop_group.create_task(loop(), name=f"loop {name}") for name, loop in loops.items()
    ]
    try:
        yield
    finally:
        for loop in running_loops:
            loop.cancel()


@asynccontextmanager
async def _settled(service: Service) -> AsyncIterator[None]:
    """Leaves only when whatever was sent is settled."""
    try:
        yield
    finally:
        await service.settled(patience=_SETTLING_PATIENCE)


def _servicers(service: Service, reporter: Reporter, keys: Rewrapping) -> Servicers:
    broker = service.broker
    return Servicers(
        tokens=TokenService(broker, service.watching),
        grants=GrantService(consents=broker, grants=broker),
        operations=OperationsService(
            broker, explains=broker, rotations=broker, reports=reporter, keys=keys
        ),
        health=HealthService(),
    )


@asynccontextmanager
async def _listening(
    settings: ServeSettings,
    outside: Outside,
    telling: Telling,
    servicers: Servicers,
    *,
    health: Health,
    service: Service,
) -> AsyncIterator[int]:
    health.on_change(lambda snapshot: _tell_grpc(servicers.health, snapshot))
    server_settings = ServerSettings(
        address=str(settings.grpc_address),
        reflection=settings.reflection,
        max_connection_age=settings.max_connection_age,
        credentials=outside.guarding.credentials,
    )
    observer, calls, tracer = outside.observer, telling.calls, telling.spans
    edge = _edge(outside, telling, service)
    by_admins = admin_edge(observer=observer, calls=calls, tracer=tracer)
    async with (
        admin_socket(settings.admin_socket, servicers, edge=by_admins),
        grpc_server(server_settings, servicers, edge=edge) as port,
    ):
        try:
            yield port
        finally:
            health.drain()
            # Streams would keep the drain up to its end, and their callers here.
            service.watching.drain()


def _edge(outside: Outside, telling: Telling, service: Service) -> Edge:
    gate = outside.guarding.gate
    told: Told = telling.metrics.token_from_memory
    if telling.logs_tokens:
        told = AsAnyCall(outside.observer, telling.calls)
    short = ShortWay(service.at_hand, gate, told=told)
    return Edge(
        observer=outside.observer,
        calls=telling.calls,
        gate=gate,
        tracer=telling.spans,
        at_once=short.answer if telling.spans is None else None,
    )


def _tell_grpc(grpc_health: HealthService, snapshot: HealthSnapshot) -> None:
    for service in SERVICES:
        grpc_health.set(service, serving=snapshot.is_ready)
    for dependency in DEPENDENCIES:
        grpc_health.set(dependency, serving=snapshot.check(dependency).is_good)
