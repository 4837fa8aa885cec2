"""Counts what services see that call Pleo through the client library: `python -m bench.consumer`.

Some ask the broker, others watch too. Each calls the sandbox's API all the while, through planned
rotations of tokens that live for a minute, a forced rotation, a disconnect with a reconnect, and a
rolling restart of both brokers. The exit status is 1 where a service saw a 401 or had no token.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from broker.dev.rundir import RunDirectory, run_directory
from broker.dev.servers import free_port, postgres_server, valkey_server
from broker.store.migrate import migrate
from broker.v1.operations_service_pb2 import RefreshGrantRequest
from broker.v1.operations_service_pb2_grpc import OperationsServiceStub
from support.consumer import Consumer, consuming
from support.fleet import PATIENCE_SECONDS, Fleet, fleet
from support.onboarding import Customer, connect, grant_of, new_customer
from support.replica import Replica
from support.waiting import until

_LIFETIME: Final = timedelta(seconds=60)
"""Of a token: the shortest that the broker believes. Rotated 16 to 20 seconds before its end."""

_AHEAD: Final = "20"

Told = Callable[[str], None]
"""What happens now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was counted, of all services of a kind."""

    kind: str
    services: int
    api_calls: int
    seen_401: int
    failures: Counter[str]
    reports: int
    """Of 401s that the services did not see."""

    planned: int
    planned_calls: int
    """Calls of GetAccessToken while nothing but planned rotations happened."""

    all_calls: int


@dataclass(slots=True, kw_only=True)
class _Kind:
    name: str
    customers: list[Customer]
    consumers: list[Consumer]
    planned: int = 0
    planned_calls: int = 0

    def asked(self) -> int:
        return sum(each.calls.asked for each in self.consumers)

    def figures(self) -> Figures:
        """Returns what there is to tell."""
        answers = sum((each.answers for each in self.consumers), Counter[int]())
        return Figures(
            kind=self.name,
            services=len(self.consumers),
            api_calls=answers.total(),
            seen_401=answers[401],
            failures=sum((each.failures for each in self.consumers), Counter[str]()),
            reports=sum(each.calls.reports for each in self.consumers),
            planned=self.planned,
            planned_calls=self.planned_calls,
            all_calls=self.asked(),
        )


async def measure(
    brokers: Fleet, *, services: int, seconds: float, pause: float, told: Told
) -> Sequence[Figures]:
    """Runs as many services of each kind for a while in which only time passes, and then some."""
    brokers.sandbox.server.settings = replace(
        brokers.sandbox.server.settings, access_token_lifetime=_LIFETIME
    )
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    for each in addresses:
        await brokers.start(BROKER_GRPC_ADDRESS=each, BROKER_RENEW_AHEAD_SECONDS=_AHEAD)
    async with AsyncExitStack() as opened:
        kinds = []
        for name, watch in (("asks", False), ("watches", True)):
            kind = _Kind(name=name, customers=[], consumers=[])
            kinds.append(kind)
            for _ in range(services):
                customer = new_customer(brokers.sandbox)
                await connect(brokers, brokers.replicas[0], customer)
                running = consuming(
                    addresses,
                    tenant=customer.tenant,
                    api_url=brokers.sandbox.url,
                    watch=watch,
                    pause=pause,
                )
                kind.customers.append(customer)
                kind.consumers.append(await opened.enter_async_context(running))
        await _let_pass(brokers, kinds, seconds=seconds, told=told)
        await _force(brokers, kinds, told=told)
        await _part(brokers, kinds, told=told)
        await _restart(brokers, addresses, told=told)
        await _let_pass(brokers, kinds, seconds=seconds / 4, told=told)
        return [each.figures() for each in kinds]


async def _let_pass(brokers: Fleet, kinds: Sequence[_Kind], *, seconds: float, told: Told) -> None:
    for kind in kinds:
        kind.planned -= await _generations(brokers, kind)
        kind.planned_calls -= kind.asked()
    ends_at = time.monotonic() + seconds
    while (left := ends_at - time.monotonic()) > 0:
        told(f"planned rotations, {left:.0f} s to go")
        await asyncio.sleep(min(left, 1))
    for kind in kinds:
        kind.planned += await _generations(brokers, kind)
        kind.planned_calls += kind.asked()


async def _force(brokers: Fleet, kinds: Sequence[_Kind], *, told: Told) -> None:
    told("forced rotations")
    operations = OperationsServiceStub(_running(brokers)[0].first_channel)
    for kind in kinds:
        for customer in kind.customers:
            request = RefreshGrantRequest(tenant=customer.tenant, reason="a measurement")
            await operations.RefreshGrant(request, timeout=PATIENCE_SECONDS)


async def _part(brokers: Fleet, kinds: Sequence[_Kind], *, told: Told) -> None:
    """Disconnects some in Pleo, and connects them again: fewer than what the guard holds for."""
    told("a disconnect and a reconnect")
    for kind in kinds:
        customer, consumer = kind.customers[0], kind.consumers[0]
        brokers.sandbox.server.disconnect(company=customer.company)
        await _has_left(consumer)
        await connect(brokers, _running(brokers)[0], customer)
        consumer.reconnect()


async def _has_left(consumer: Consumer) -> None:
    await until(lambda: bool(consumer.left))


async def _restart(brokers: Fleet, addresses: Sequence[str], *, told: Told) -> None:
    told("a rolling restart")
    for leaves, address in zip(_running(brokers), addresses, strict=True):
        leaves.terminate()
        await leaves.ended()
        await leaves.hang_up()
        await brokers.start(BROKER_GRPC_ADDRESS=address, BROKER_RENEW_AHEAD_SECONDS=_AHEAD)
        # As a Deployment with minReadySeconds has it.
        await asyncio.sleep(5)


async def _generations(brokers: Fleet, kind: _Kind) -> int:
    replica = _running(brokers)[0]
    grants = [await grant_of(replica, each.tenant) for each in kind.customers]
    return sum(each.generation for each in grants)


def _running(brokers: Fleet) -> list[Replica]:
    return [each for each in brokers.replicas if each.status is None]


def table(figures: Sequence[Figures]) -> Table:
    """Returns the figures as they are shown."""
    shown = Table(
        "services", "API calls", "401 seen", "failed", "401 reported", "planned rotations",
        "broker calls meanwhile", "a rotation", "broker calls in all",
    )  # fmt: skip
    for each in figures:
        shown.add_row(
            f"{each.services}, {each.kind}",
            str(each.api_calls),
            str(each.seen_401),
            f"{each.failures.total()} {dict(each.failures) or ''}",
            str(each.reports),
            str(each.planned),
            str(each.planned_calls),
            f"{each.planned_calls / max(each.planned, 1):.2f}",
            str(each.all_calls),
        )
    return shown


async def _measure_alone(
    run: RunDirectory, *, services: int, seconds: float, pause: float, told: Told
) -> Sequence[Figures]:
    async with postgres_server(run) as postgres, valkey_server(run) as valkey:
        await migrate(postgres.url)
        async with fleet(postgres.url, valkey.url, run) as brokers:
            return await measure(
                brokers, services=services, seconds=seconds, pause=pause, told=told
            )


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.consumer", description=__doc__)
    parser.add_argument("--services", type=int, default=5, help="of each kind, a tenant each")
    parser.add_argument("--seconds", type=float, default=180, help="in which only time passes")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between API calls")
    given = parser.parse_args()
    console = Console(highlight=False)
    parts = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with run_directory() as run, Progress(*parts, console=console) as progress:
        bar = progress.add_task("starts", total=None)
        figures = asyncio.run(
            _measure_alone(
                run,
                services=given.services,
                seconds=given.seconds,
                pause=given.pause,
                told=lambda what: progress.update(bar, description=what),
            )
        )
    console.print(table(figures))
    return 1 if any(each.seen_401 or each.failures for each in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
