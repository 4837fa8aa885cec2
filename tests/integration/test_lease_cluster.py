"""A Redis Cluster is refused: by its name at the start, by what it says of itself afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from broker.dev.rundir import RunDirectory
from broker.domain.facts import LeaseOutcome
from broker.lease.client import RedisClient
from broker.lease.leases import RedisLeases
from broker.lease.status import RedisStatus, probe
from support.clusters import cluster
from support.redis_worlds import PREFIX, QUICK, ask

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(run: RunDirectory) -> AsyncIterator[tuple[str, str]]:
    async with cluster(run) as made:
        yield made


async def told_by(url: str) -> RedisStatus:
    async with RedisClient(lambda: url, times=QUICK) as client:
        return await probe(client)


async def asked(url: str) -> LeaseOutcome:
    async with RedisClient(lambda: url, times=QUICK) as client:
        return await ask(RedisLeases(client, prefix=PREFIX), "acme")


async def test_a_node_under_a_plain_address_is_told_from_a_redis(nodes: tuple[str, str]) -> None:
    assert [(await told_by(each)).is_cluster for each in nodes] == [True, True]


async def test_a_node_refuses_a_numbered_database(nodes: tuple[str, str]) -> None:
    assert (await told_by(f"{nodes[0].rpartition('/')[0]}/1")).is_refusing


async def test_a_lease_that_lies_on_another_node_is_a_redis_that_is_away(
    nodes: tuple[str, str],
) -> None:
    assert {await asked(each) for each in nodes} == {
        LeaseOutcome.ACQUIRED,
        LeaseOutcome.UNREACHABLE,
    }
