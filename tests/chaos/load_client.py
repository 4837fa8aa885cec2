"""Backends that ask at a fixed rate, in a process of their own: `python -m chaos.load_client`.

Takes an `Order` as JSON on stdin, and writes every call as JSON on stdout when stdin is closed. The
rate does not follow the answers: a call is due at its time, and its latency counts from there.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Final, NamedTuple

import grpc

from broker.v1 import token_service_pb2, token_service_pb2_grpc
from chaos.calls import reason_of

CALL_SECONDS: Final = 5.0
"""A caller's deadline: what a backend may spend on a token before its own user gives up."""

CONNECTIONS: Final = 4
"""To each replica, as from several backends."""

MOST_AT_ONCE: Final = 4000
"""Calls without an answer: more than the rate and the deadline allow for, so that none is held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Whom to ask for what, and how often."""

    targets: tuple[str, ...]
    tenants: tuple[str, ...]
    rate: float
    """Calls a second, of all replicas together."""

    seed: int


class Told(NamedTuple):
    """One call."""

    due_at: float
    """Seconds since the epoch."""

    seconds: float
    """From then to the answer."""

    reason: str
    """Empty for a token."""

    tenant: str
    generation: int
    is_degraded: bool


@dataclass(slots=True)
class Callers:
    """The backends."""

    order: Order
    told: list[Told] = field(default_factory=list)

    async def ask_until(self, over: asyncio.Event) -> None:
        """Asks at the rate until it is over, and waits for the last answers."""
        channels = [
            grpc.aio.insecure_channel(each, _OPTIONS) for each in self.order.targets * CONNECTIONS
        ]
        stubs = itertools.cycle(map(token_service_pb2_grpc.TokenServiceStub, channels))
        room = asyncio.Semaphore(MOST_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for due_at, tenant in self._due():
                if over.is_set():
                    break
                await asyncio.sleep(due_at - time.time())
                await room.acquire()
                call = tasks.create_task(self._ask(next(stubs), tenant, due_at), name=tenant)
                call.add_done_callback(lambda _: room.release())
        for channel in channels:
            await channel.close()

    def _due(self) -> Iterator[tuple[float, str]]:
        chance, begin = Random(self.order.seed), time.time()  # noqa: S311 - which tenant is asked for
        for number in itertools.count():
            yield begin + number / self.order.rate, chance.choice(self.order.tenants)

    async def _ask(
        self, stub: token_service_pb2_grpc.TokenServiceAsyncStub, tenant: str, due_at: float
    ) -> None:
        request = token_service_pb2.GetAccessTokenRequest(tenant=tenant)
        reason, generation, is_degraded = "", 0, False
        try:
            answer = await stub.GetAccessToken(request, timeout=CALL_SECONDS)
            generation, is_degraded = answer.generation, answer.degraded
        except grpc.aio.AioRpcError as error:
            reason, _ = reason_of(error)
        seconds = time.time() - due_at
        self.told.append(Told(due_at, seconds, reason, tenant, generation, is_degraded))


_OPTIONS: Final = [("grpc.use_local_subchannel_pool", 1)]


async def main() -> None:
    """Reads the order, asks, and tells."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    callers = Callers(read_order(sys.stdin.readline()))
    loop.add_reader(sys.stdin, over.set)
    await callers.ask_until(over)
    json.dump(callers.told, sys.stdout)


def read_order(line: str) -> Order:
    """Returns the order in a line of JSON."""
    read = json.loads(line)
    return Order(**{**read, "targets": tuple(read["targets"]), "tenants": tuple(read["tenants"])})


def written(order: Order) -> str:
    """Returns the line of an order."""
    return json.dumps(asdict(order)) + "\n"


if __name__ == "__main__":
    asyncio.run(main())
