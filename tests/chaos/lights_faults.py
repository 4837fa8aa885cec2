"""The faults: how each begins and ends, and what must and what may be seen of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import asyncpg

from broker.sandbox.faults import Hang, Step, rate_limit, refuse
from chaos.lights_scene import Scene, end_skewed, faketime, start_skewed
from support.certificates import A_DAY
from support.keysets import add_key, promote_key
from support.onboarding import EXPIRE, execute

Act = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that breaks, how it is mended, and what must and may be seen of it."""

    name: str
    strike: Act
    heal: Act
    lights: frozenset[str] = frozenset()
    alerts: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    """Lights and alerts that come only if a caller, or a probe, happens to meet it."""

    section: str = ""
    """Of the runbook, where no alert names one."""

    seconds: float = 15.0
    """How long it lasts: longer than rules look back here."""

    def lacks(self, scene: Scene) -> str:
        """Returns what is missing for it here; empty: nothing."""
        if self.name == "PostgreSQL full" and scene.disk is None:
            return "only root can mount a small disk"
        if self.name == "clock skew" and not faketime().exists():
            return "libfaketime is not installed (Debian: libfaketime)"
        return ""


_MOST_PADDING: Final = 1000

_PAD: Final = """
    INSERT INTO grants SELECT (jsonb_populate_record(one, jsonb_build_object(
        'tenant', $2::text, 'subject', NULL, 'exclusive_subject', NULL))).*
    FROM grants AS one WHERE tenant = $1
"""


async def fill(scene: Scene) -> None:
    """Leaves no room: neither on the disk nor in the pages that there are."""
    scene.calling.clear()  # what is asked for before there is no room would be stored
    tenants = [each.tenant for each in scene.customers]
    await execute(scene.brokers.database_url, EXPIRE, tenants)
    for table in ("grants", "replicas", "fleet"):
        await execute(scene.brokers.database_url, f"VACUUM FULL {table}")
    assert scene.disk is not None
    with (scene.disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(b"\0" * 4096)
    # An update finds room in a page that is not full: rows like it are added until one is refused.
    with suppress(asyncpg.DiskFullError):
        for number in range(_MOST_PADDING):
            name = f"padding-{number}"
            await execute(scene.brokers.database_url, _PAD, tenants[0], name)
        raise RuntimeError("nothing is refused: the disk is not full")
    scene.calling.set()


async def empty(scene: Scene) -> None:
    """Makes room."""
    assert scene.disk is not None
    (scene.disk / "ballast").unlink()
    await execute(scene.brokers.database_url, "DELETE FROM grants WHERE tenant LIKE 'padding-%'")


def _slow(way: str, seconds: float) -> tuple[Act, Act]:
    async def strike(scene: Scene) -> None:
        scene.ways[way].delay(seconds)

    async def heal(scene: Scene) -> None:
        scene.ways[way].heal()

    return strike, heal


def _down(way: str) -> tuple[Act, Act]:
    async def strike(scene: Scene) -> None:
        scene.ways[way].refuse()
        scene.ways[way].cut()

    async def heal(scene: Scene) -> None:
        await scene.ways[way].accept()

    return strike, heal


def _answering(*steps: Step) -> tuple[Act, Act]:
    async def strike(scene: Scene) -> None:
        scene.brokers.sandbox.faults.add(*steps, times=None, grant_type="refresh_token")

    async def heal(scene: Scene) -> None:
        scene.brokers.sandbox.faults.clear()
        scene.brokers.sandbox.release()

    return strike, heal


async def nothing(_scene: Scene) -> None:
    """A fault that heals by nobody's doing."""


async def disconnect(scene: Scene) -> None:
    """One customer takes the consent back, in Pleo."""
    scene.gone = scene.customers[-1]
    scene.brokers.sandbox.server.disconnect(company=scene.gone.company)


async def forget(scene: Scene) -> None:
    """Has the callers ask no more for who is gone."""
    if scene.gone is not None:
        scene.customers.remove(scene.gone)
        scene.gone = None


async def age(scene: Scene) -> None:
    """Leaves the certificate one day of ninety."""
    scene.certify(starts=-89 * A_DAY, ends=A_DAY)


async def renew(scene: Scene) -> None:
    """Issues it anew."""
    scene.certify(starts=-A_DAY, ends=89 * A_DAY)


_A_ROUND_SECONDS: Final = 6.0
"""For a replica to read its keyset anew (3 s), and then to refresh some customers."""


async def promote_too_early(scene: Scene) -> None:
    """Has all brokers but one seal with a key that the one was never given."""
    promote_key(scene.keyset, add_key(scene.keyset))
    # What the first has sealed, the second is asked for.
    await asyncio.sleep(_A_ROUND_SECONDS)
    scene.shift = 1


async def roll_out(scene: Scene) -> None:
    """Gives it to that one as well."""
    scene.shift = 0
    scene.roll_out()


async def grow_old(scene: Scene) -> None:
    """Has a year and more pass over the keyset of all."""
    scene.date_keysets(ago=_LONG_AGO)


async def rotate(scene: Scene) -> None:
    """Has it written today."""
    scene.date_keysets(ago=timedelta(0))


_LONG_AGO: Final = timedelta(days=500)

_STORE: Final = frozenset({"readyz postgres", "grpc postgres", "can_refresh", "can_persist"})
_STORE_CHECKS: Final = frozenset({"readyz schema", "readyz home", "readyz keyset", "readyz clock"})
_CALLERS: Final = frozenset(
    {"TokenBrokerCallersFailing", "TokenBrokerTokensDegraded", "TokenBrokerTokensSlow"}
)
_PLEO: Final = frozenset({"readyz pleo", "grpc pleo", "can_refresh"})
_STORE_ALERTS: Final = ("TokenBrokerDatabaseAway", "TokenBrokerTokensDegraded")
"""Callers do not fail while replicas have living tokens in memory."""

_REDIS: Final = frozenset({"readyz redis", "grpc redis"})
_BREAKER: Final = frozenset({"readyz breaker", "TokenBrokerBreakerOpen"})
_AT_WORK: Final = frozenset({"TokenBrokerLoopsFailing", "TokenBrokerNobodyCounts"})
_HELD: Final = frozenset(
    {"TokenBrokerPairAtRisk", "TokenBrokerEscrowHeld", "TokenBrokerAttemptsUnresolved"}
)


def _fault(name: str, acts: tuple[Act, Act], *, lights: frozenset[str] = frozenset(),
           alerts: Sequence[str] = (), may: frozenset[str] = frozenset(), section: str = "",
           seconds: float = 15.0) -> Fault:  # fmt: skip
    strike, heal = acts
    return Fault(name=name, strike=strike, heal=heal, lights=lights, alerts=frozenset(alerts),
                 may=may, section=section, seconds=seconds)  # fmt: skip


FAULTS: Final = (
    _fault("nothing", (nothing, nothing)),
    _fault("PostgreSQL down", _down("postgres"), lights=_STORE, alerts=_STORE_ALERTS,
           may=_STORE_CHECKS | _CALLERS | _AT_WORK | _HELD),
    _fault("PostgreSQL slow", _slow("postgres", 3.0), lights=_STORE, alerts=_STORE_ALERTS,
           may=_STORE_CHECKS | _CALLERS | _AT_WORK | _HELD | {"TokenBrokerPoolExhausted"}),
    _fault("PostgreSQL full", (fill, empty), lights=_STORE,
           alerts=["TokenBrokerDatabaseAway", "TokenBrokerCallersFailing"],
           may=_STORE_CHECKS | _CALLERS | _AT_WORK | _HELD),
    _fault("Redis down", _down("valkey"), lights=_REDIS,
           alerts=["TokenBrokerRedisAway"], may=_AT_WORK),
    _fault("Redis slow", _slow("valkey", 0.4), lights=_REDIS,
           alerts=["TokenBrokerRedisAway"], may=_AT_WORK),
    _fault("Pleo down", _down("pleo"), lights=_PLEO, alerts=["TokenBrokerPleoAway"],
           may=_CALLERS | _BREAKER),
    _fault("Pleo slow", _answering(Hang(when="before")), lights=_PLEO | {"readyz breaker"},
           alerts=["TokenBrokerPleoAway", "TokenBrokerBreakerOpen"],
           may=_CALLERS | {"TokenBrokerAttemptsUnresolved"}, seconds=60.0),
    _fault("Pleo refuses our client", _answering(refuse("invalid_client", status=401)),
           lights=_PLEO | {"readyz breaker"}, alerts=["TokenBrokerClientRejected"], may=_CALLERS),
    _fault("Pleo limits our rate", _answering(rate_limit(retry_after="2")),
           lights=_PLEO | {"readyz breaker"}, alerts=["TokenBrokerBreakerOpen"], may=_CALLERS),
    _fault("a customer gone", (disconnect, forget), section="REAUTH_REQUIRED"),
    _fault("clock skew", (start_skewed, end_skewed), lights=frozenset({"readyz clock"}),
           alerts=["TokenBrokerClockSkewed"]),
    _fault("certificate expires soon", (age, renew), lights=frozenset({"readyz certificate"}),
           alerts=["TokenBrokerCertificateExpires"]),
    _fault("a key missing", (promote_too_early, roll_out),
           lights=frozenset({"readyz keyset", "can_refresh", "can_persist"}),
           alerts=["TokenBrokerKeysetUnusable"], may=_CALLERS),
    _fault("keys old", (grow_old, rotate), alerts=["TokenBrokerKeysetOld"]),
)  # fmt: skip
"""The first is the control: whatever is seen of it is a false alarm."""
