"""The composition root: settings in, a running broker out; and how it ends.

    async with running(settings, telling) as broker:
        …  # broker.grpc_port, broker.ops_url

Ending is the part with laws. Readiness goes first, so that nobody new is sent here; calls under way
are answered; nothing is claimed any more; what was sent to Pleo is followed to its answer and to
PostgreSQL, however long that takes (law 3); only then are the connections taken away.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from broker import __version__
from broker.chance import SystemChance
from broker.config import ServeSettings
from broker.domain.facts import HistoryLost
from broker.guarding import Guarding, guarding
from broker.lease.announcements import RedisAnnouncements
from broker.lease.client import RedisClient
from broker.lease.escrows import RedisEscrows
from broker.lease.leases import RedisLeases
from broker.ops.checks import Subjects, checks
from broker.ops.health import Health, HealthSnapshot
from broker.ops.metrics import Metrics
from broker.ops.observers import Observers
from broker.ops.pleo_watch import PleoWatch
from broker.ops.server import ops_server
from broker.ops.spans import Spans
from broker.ops.status_view import COLLECT_SECONDS, Overview
from broker.pleo.provider import PleoProvider
from broker.ports import Observer
from broker.reporting import Reporter, Reporting
from broker.rpc.admin import admin_edge, admin_socket
from broker.rpc.edge import Edge
from broker.rpc.grant_service import GrantService
from broker.rpc.health import DEPENDENCIES, SERVICES, HealthService
from broker.rpc.observing import CallObserver
from broker.rpc.operations_service import OperationsService
from broker.rpc.server import ServerSettings, Servicers, grpc_server
from broker.rpc.token_service import TokenService
from broker.service.build import build_service
from broker.service.foundation import Options, Ports
from broker.service.loops import repeat
from broker.service.rewrapping import Rewrapping
from broker.service.running import Service
from broker.service.starting import Registration
from broker.store.consents import PostgresConsents
from broker.store.escrow_sealing import EscrowSealer
from broker.store.fleet import PostgresFleet
from broker.store.grants import PostgresGrants
from broker.store.home import HomeDiffersError, admission
from broker.store.pool import Pool, open_pool
from broker.store.records import PostgresRecords
from broker.store.renewals import PostgresRenewals
from broker.store.rewrapping import PostgresKeys
from broker.store.sealing import Keyring
from broker.store.tally import PostgresTally
from broker.store.unreadable import UnreadableRecords
from broker.store.upkeep import maintain
from broker.watching import Watching
from broker.wiring import home, pool_settings, provider_settings, redis_client

_SETTLING_PATIENCE: Final = 10.0
"""Seconds for flights that hold nothing, after the calls' own grace: time to read a row twice. With
that grace of 10 s it fits into the 30 s that Kubernetes gives by default."""

_CHECK_CONNECTIONS: Final = 2
"""For health alone: a check must not wait behind a herd, nor a herd behind a check."""

_HOUR: Final = 3600.0
"""Seconds between turns of the upkeep: partitions are made a week ahead."""


Loop: TypeAlias = Callable[[], Coroutine[None, None, None]]

Loops: TypeAlias = Mapping[str, Loop]
"""What runs in the background, by name; each until it is cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """Who is told what happens."""

    log: Observer
    metrics: Metrics
    calls: CallObserver
    spans: Spans | None = None
    """None: nothing is traced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A broker that listens."""

    grpc_port: int
    ops_url: str
    health: Health
    service: Service
    refused: asyncio.Future[HomeDiffersError]
    """Done when the database turns out to be another broker's home: this one must end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outside:
    """What was opened: where grants are, who refreshes them, and who is told."""

    watching: Watching
    keyring: Keyring
    pool: Pool
    checking: Pool
    redis: RedisClient
    provider: PleoProvider
    pleo: PleoWatch
    escrows: RedisEscrows
    tally: PostgresTally
    keys: PostgresKeys
    observer: Observer
    guarding: Guarding


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
        outside = await _open(settings, telling, opened)
        # Two groups: a loop that fails ends the broker in order, and cancels no flight (law 3).
        async with asyncio.TaskGroup() as flight_group, asyncio.TaskGroup() as loop_group:
            options = _options(settings, replica=outside.watching.replica)
            service = build_service(_ports(settings, outside), options, flight_group)
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


async def _open(settings: ServeSettings, telling: Telling, opened: AsyncExitStack) -> _Outside:
    pleo = PleoWatch()
    # Spans first: the log's line of a flight's start names the trace.
    traced = () if telling.spans is None else (telling.spans,)
    observer = Observers((*traced, telling.log, telling.metrics, pleo))
    unreadable = UnreadableRecords(observer.observe)
    telling.metrics.watch_unreadable(unreadable)
    keyring = Keyring.from_file(settings.keyset_file, unreadable=unreadable)
    address = pool_settings(settings)
    checking = replace(address, size=_CHECK_CONNECTIONS)
    serving = replace(address, admit=admission(home(settings), keyring))
    provider = PleoProvider(provider_settings(settings))
    pool = await opened.enter_async_context(open_pool(serving))
    redis = await opened.enter_async_context(redis_client(settings, observer=observer))
    watching = Watching(
        metrics=telling.metrics,
        pool=pool,
        keyring=keyring,
        observer=observer,
        keepalive=settings.keepalive,
        # A host may run several, and one that was restarted is another one.
        replica=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}",
    )
    return _Outside(
        watching=watching,
        keyring=keyring,
        pool=pool,
        checking=await opened.enter_async_context(open_pool(checking)),
        redis=redis,
        provider=await opened.enter_async_context(provider),
        pleo=pleo,
        escrows=RedisEscrows(redis, EscrowSealer(keyring), prefix=_prefix(settings)),
        keys=PostgresKeys(pool, keyring),
        tally=PostgresTally(pool, keepalive=settings.keepalive),
        observer=observer,
        guarding=guarding(settings, observer=observer),
    )


def _prefix(settings: ServeSettings) -> str:
    """Returns what all our keys in Redis begin with."""
    return f"token-broker:{settings.home}:"


def _ports(settings: ServeSettings, outside: _Outside) -> Ports:
    def on_history_lost(tenant: str, number: int, error: str) -> None:
        outside.observer.observe(HistoryLost(tenant=tenant, number=number, error=error))

    prefix = _prefix(settings)
    return Ports(
        store=PostgresGrants(
            outside.pool,
            outside.keyring,
            allow_shared_subject=settings.allow_shared_subject,
            on_history_lost=on_history_lost,
        ),
        fleet=PostgresFleet(outside.pool),
        renewals=PostgresRenewals(outside.pool, keepalive=settings.keepalive),
        consents=PostgresConsents(outside.pool, outside.keyring),
        records=PostgresRecords(outside.pool),
        leases=RedisLeases(outside.redis, prefix=prefix, replica=outside.watching.replica),
        escrows=outside.escrows,
        announcements=RedisAnnouncements(outside.redis, prefix=prefix),
        provider=outside.provider,
        chance=SystemChance(),
        observer=outside.observer,
    )


def _keys(outside: _Outside) -> Rewrapping:
    return Rewrapping(outside.keys, outside.escrows, outside.observer)


def _options(settings: ServeSettings, *, replica: str) -> Options:
    return Options(
        replica=replica,
        registration=Registration(
            redirect_uris=settings.pleo_redirect_uris,
            scopes=settings.pleo_scopes,
            time_to_live=settings.authorization_ttl,
        ),
        http_timeout=settings.pleo_timeout,
        renew_ahead=settings.renew_ahead,
        rejection_interval=settings.rejection_interval,
        max_concurrency=settings.pleo_max_concurrency,
        max_rate=settings.pleo_max_rate,
        max_cached_tokens=settings.max_cached_tokens,
        guard_hold=settings.guard_hold,
        quarantine=settings.quarantine,
        build=__version__,
        may_delete_at_provider=settings.allow_provider_revoke,
    )


def _health(
    settings: ServeSettings,
    outside: _Outside,
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
        refused_write=outside.pool.refusals.latest,
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
    outside: _Outside,
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
    outside: _Outside,
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
    edge = Edge(observer=observer, calls=calls, gate=outside.guarding.gate, tracer=tracer)
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


def _tell_grpc(grpc_health: HealthService, snapshot: HealthSnapshot) -> None:
    for service in SERVICES:
        grpc_health.set(service, serving=snapshot.is_ready)
    for dependency in DEPENDENCIES:
        grpc_health.set(dependency, serving=snapshot.check(dependency).is_good)
