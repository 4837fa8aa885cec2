"""A thousand callers at once on three replicas, and the grant has expired: how long the last waits.

Whole processes of `serve`, on connections that are open already. The callers are frames that were
made before, so that they cost the machine little; Pleo's sandbox is in their process. The baseline
is what Pleo takes. Beside it is told how long the last of as many callers waits where the token is
in memory, and where three empty methods answer so long after their first call: the machine's share,
the load's, and that of any server of grpc.aio.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from bench.customers import QUIET, opened, put
from bench.figures import Figure, Pair, Step
from bench.frames import Wave
from bench.late import late_servers
from broker.dev.rundir import run_directory
from broker.dev.servers import postgres_server, valkey_server
from broker.sandbox.faults import Delay
from broker.store.migrate import migrate
from broker.v1.token_service_pb2 import GetAccessTokenRequest
from support.fleet import Fleet, fleet
from support.onboarding import EXPIRE, Customer, execute

LATENCY_SECONDS: Final = 0.2
"""Of Pleo."""

_REPLICAS: Final = 3

_CONNECTIONS: Final = 4
"""To each replica: as many services as ask for one customer."""

_ANSWER_BYTES: Final = 200
"""Of the empty method: about as many as the broker's."""

_METHOD: Final = "/broker.v1.TokenService/GetAccessToken"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Herd:
    brokers: Fleet
    callers: int
    empty: Sequence[str]
    """Where the empty methods are."""

    of_empty: list[float] = field(default_factory=list)
    from_memory: list[float] = field(default_factory=list)
    presentations: list[int] = field(default_factory=list)

    async def slowest(self, customer: Customer) -> float:
        """Returns how long the slowest of the callers waited."""
        await execute(self.brokers.database_url, EXPIRE, [customer.tenant])
        targets = [replica.target for replica in self.brokers.replicas]
        if is_empty_first := len(self.of_empty) % 2 == 0:
            self.of_empty.append(await self._stampede(customer, self.empty))
        spent = await self._stampede(customer, targets)
        if not is_empty_first:
            self.of_empty.append(await self._stampede(customer, self.empty))
        counts = self.brokers.sandbox.record.counts(customer.company)
        self.presentations.append(counts.presentations)
        self.from_memory.append(await self._stampede(customer, targets))
        return spent

    async def _stampede(self, customer: Customer, targets: Sequence[str]) -> float:
        message = GetAccessTokenRequest(tenant=customer.tenant).SerializeToString()
        waves = [
            await _connected(target, message) for target in targets for _ in range(_CONNECTIONS)
        ]
        try:
            began = time.perf_counter()
            answered = await asyncio.gather(*map(Wave.call, waves, self._shares(len(waves))))
        finally:
            for each in waves:
                each.close()
        return max(last for last, _ in answered) - began

    def _shares(self, count: int) -> Sequence[int]:
        return [self.callers // count + (number < self.callers % count) for number in range(count)]


async def _connected(target: str, message: bytes) -> Wave:
    host, _, port = target.rpartition(":")
    made = Wave(authority=target, method=_METHOD, message=message)
    await asyncio.get_running_loop().create_connection(lambda: made, host, int(port))
    return made


async def slowest_of_a_herd(pairs: int, step: Step, *, callers: int) -> Figure:
    """Measures it, each time with a customer whom no replica knows yet."""
    found = []
    async with AsyncExitStack() as entered:
        run = entered.enter_context(run_directory())
        postgres = await entered.enter_async_context(postgres_server(run))
        valkey = await entered.enter_async_context(valkey_server(run))
        await migrate(postgres.url)
        brokers = await entered.enter_async_context(fleet(postgres.url, valkey.url, run))
        customers, held = opened(brokers.sandbox, count=pairs + 1)
        await put(postgres.url, brokers.directory / "keyset.json", held)
        brokers.sandbox.faults.add(
            Delay(seconds=LATENCY_SECONDS), times=None, grant_type="refresh_token"
        )
        await brokers.start(_REPLICAS, BROKER_CALLER_MAX_RATE="100000", **QUIET)
        empty = await entered.enter_async_context(
            late_servers(run, count=_REPLICAS, seconds=LATENCY_SECONDS, answer=_ANSWER_BYTES)
        )
        herd = _Herd(brokers=brokers, callers=callers, empty=empty)
        for number, customer in enumerate(customers):
            value = await herd.slowest(customer)
            if number:
                found.append(Pair(value=value, baseline=LATENCY_SECONDS))
                step()
    return Figure(
        name=f"{callers:,} callers on {_REPLICAS} replicas, expired: the slowest",
        baseline=f"Pleo's {1000 * LATENCY_SECONDS:.0f} ms",
        unit="seconds",
        aim=1.5,
        is_floor=False,
        pairs=tuple(found),
        note=_note(herd, [each.value for each in found]),
    )


def _note(herd: _Herd, slowest: Sequence[float]) -> str:
    of_empty = herd.of_empty[1:]  # the first of each has warmed up
    ratio = median(value / least for value, least in zip(slowest, of_empty, strict=True))
    return (
        f"presentations each: {max(herd.presentations)} at most; the slowest of as many where empty"
        f" methods answer then: {1000 * median(of_empty):.0f} ms, ratio to that {ratio:.2f}, and"
        f" from memory: {1000 * median(herd.from_memory):.0f} ms; load: frames, Python"
    )
