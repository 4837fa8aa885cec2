"""What a broker reaches beyond itself: PostgreSQL, Redis, Pleo, and who is told what happens."""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final

from broker.chance import SystemChance
from broker.config import ServeSettings
from broker.domain.facts import HistoryLost
from broker.guarding import Guarding, guarding
from broker.lease.announcements import RedisAnnouncements
from broker.lease.client import RedisClient
from broker.lease.escrows import RedisEscrows
from broker.lease.leases import RedisLeases
from broker.ops.checks import PleoWatch
from broker.ops.metrics import Metrics
from broker.ops.observers import Observers
from broker.ops.spans import Spans
from broker.pleo.provider import PleoProvider
from broker.ports import Observer
from broker.rpc.observing import CallObserver
from broker.service.foundation import Ports
from broker.store.consents import PostgresConsents
from broker.store.escrow_sealing import EscrowSealer
from broker.store.fleet import PostgresFleet
from broker.store.grants import PostgresGrants
from broker.store.home import admission
from broker.store.pool import Pool, open_pool
from broker.store.records import PostgresRecords
from broker.store.renewals import PostgresRenewals
from broker.store.rewrapping import PostgresKeys
from broker.store.sealing import Keyring
from broker.store.tally import PostgresTally
from broker.store.unreadable import UnreadableRecords
from broker.watching import Watching
from broker.wiring import home, pool_settings, provider_settings, redis_client, redis_prefix

_CHECK_CONNECTIONS: Final = 2
"""For health alone: a check must not wait behind a herd, nor a herd behind a check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """Who is told what happens."""

    log: Observer
    metrics: Metrics
    calls: CallObserver
    spans: Spans | None = None
    """None: nothing is traced."""

    logs_tokens: bool = False
    """Whether the log has a line of every token, also of one from memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
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


async def open_outside(
    settings: ServeSettings, telling: Telling, opened: AsyncExitStack
) -> Outside:
    """Opens all of it as long as `opened` lasts; nothing has been reached then.

    Raises:
        KeysetUnreadableError, RedisUrlRefused, SecretUnreadableError, FilesUnusableError: the
        settings are of no use.
    """
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
        # A host may run several, and one that was restarted is another one.
        replica=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}",
    )
    return Outside(
        watching=watching,
        keyring=keyring,
        pool=pool,
        checking=await opened.enter_async_context(open_pool(checking)),
        redis=redis,
        provider=await opened.enter_async_context(provider),
        pleo=pleo,
        escrows=RedisEscrows(redis, EscrowSealer(keyring), prefix=redis_prefix(settings)),
        keys=PostgresKeys(pool, keyring),
        tally=PostgresTally(pool, keepalive=settings.keepalive),
        observer=observer,
        guarding=guarding(settings, observer=observer),
    )


def ports_of(settings: ServeSettings, outside: Outside) -> Ports:
    """Returns it as `service/` knows it."""

    def on_history_lost(tenant: str, number: int, error: str) -> None:
        outside.observer.observe(HistoryLost(tenant=tenant, number=number, error=error))

    prefix = redis_prefix(settings)
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
