"""Two brokers through PgBouncer, where there is one, and Sentinels, over the death of a master."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc.aio
import pytest
import pytest_asyncio

from broker.dev.databases import fresh_database
from broker.dev.rundir import RunDirectory
from support.fleet import Fleet, fleet
from support.onboarding import Customer, expire, get, new_customer, stubs_of, take_over_living
from support.pooler import NoPoolerError, Pooler, dismiss, pooler
from support.sentinels import Watched, watched_pair
from support.service_role import as_service

pytestmark = pytest.mark.asyncio(loop_scope="module")

TENANTS = 25
CALLERS = 8
"""Of each tenant, at both brokers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The brokers, and what stands between them and their stores."""

    brokers: Fleet
    pair: Watched
    pooler: Pooler | None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(
    database_server: str, migrated_template: str, run: RunDirectory
) -> AsyncIterator[Scene]:
    async with (
        watched_pair(run) as pair,
        fresh_database(database_server, template=migrated_template) as database_url,
        AsyncExitStack() as between,
    ):
        through, settings = None, {"BROKER_REDIS_URL": pair.url}
        try:
            through = await between.enter_async_context(
                pooler(run, database_url, name="pgbouncer-fleet")
            )
        except NoPoolerError:  # the test that is about it is skipped
            pass
        else:
            settings["BROKER_DATABASE_URL"] = through.through(as_service(database_url))
        # Looked into at the end: by then that one is the master.
        async with fleet(database_url, pair.replica.url, run) as brokers:
            await brokers.start(2, **settings)
            yield Scene(brokers=brokers, pair=pair, pooler=through)
        await dismiss(database_url)


@pytest.fixture(autouse=True)
def told(scene: Scene) -> Iterator[None]:
    yield
    scene.brokers.tell()


async def some_due(brokers: Fleet) -> list[Customer]:
    """Returns tenants whose access token has ended, and whose refresh token nobody has shown."""
    customers = [new_customer(brokers.sandbox) for _ in range(TENANTS)]
    first = brokers.replicas[0]
    await take_over_living(brokers, first, customers)
    await expire(brokers, *(each.tenant for each in customers), known_to=first)
    return customers


async def failures(brokers: Fleet, customers: list[Customer]) -> list[str]:
    """Lets everybody ask at once; returns how calls failed."""
    stubs = stubs_of(brokers.replicas, each=CALLERS // 2)
    calls = [get(stub, each.tenant) for each in customers for stub in stubs]
    ended = await asyncio.gather(*calls, return_exceptions=True)
    failed = [each for each in ended if isinstance(each, BaseException)]
    return [str(e.details()) if isinstance(e, grpc.aio.AioRpcError) else repr(e) for e in failed]


def presented(brokers: Fleet, customers: list[Customer]) -> tuple[int, int]:
    """Returns how often refresh tokens were shown, and superseded ones."""
    counts = [brokers.sandbox.record.counts(each.company) for each in customers]
    return (
        sum(each.presentations for each in counts),
        sum(each.presentations_of_superseded for each in counts),
    )


async def test_calls_through_a_pooler_show_each_token_once(scene: Scene) -> None:
    if scene.pooler is None:
        pytest.skip("PgBouncer is not installed")
    customers = await some_due(scene.brokers)

    failed = await failures(scene.brokers, customers)

    assert failed == []
    assert presented(scene.brokers, customers) == (TENANTS, 0)


async def test_the_death_of_a_redis_master_fails_no_call(scene: Scene) -> None:
    before, after = await some_due(scene.brokers), await some_due(scene.brokers)
    replicas = scene.brokers.replicas
    subscribed = [len(each.seen("memory_dropped", cause="resubscribed")) for each in replicas]

    failed, _ = await asyncio.gather(failures(scene.brokers, before), scene.pair.master.kill())
    for each in replicas:
        await each.saw("loop_failed", loop="announcements")
    failed += await failures(scene.brokers, after)
    for each, times in zip(replicas, subscribed, strict=True):  # at its heir
        await each.saw("memory_dropped", count=times + 1, cause="resubscribed")

    assert failed == []
    assert presented(scene.brokers, [*before, *after]) == (2 * TENANTS, 0)
