"""A rotation of the encryption key through the command line, as a rolling update meets it.

Two brokers run all the while, each with a keyset file of its own, one a step behind the other.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from broker.dev.rundir import RunDirectory
from support.cli import Ended, run_beside
from support.fleet import Fleet, fleet_of_a_module
from support.onboarding import connect, expire, get, grant_of, new_customer
from support.replica import Replica

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

_USE = """
    SELECT key_id, count(*) FROM (
        SELECT key_id FROM home UNION ALL SELECT key_id FROM grants
        UNION ALL SELECT key_id FROM authorizations UNION ALL SELECT key_id FROM imports
    ) AS sealed WHERE key_id IS NOT NULL GROUP BY key_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolling:
    """Two brokers in the middle of a rolling update."""

    fleet: Fleet
    source: Path
    """The newest keyset, which the steps are taken with."""

    files: tuple[Path, Path]
    """What each broker has."""

    @property
    def replicas(self) -> tuple[Replica, Replica]:
        first, second = self.fleet.replicas
        return first, second

    async def keys(self, *arguments: str) -> Ended:
        """Runs `token-broker keys …`, at the first broker."""
        environ = {
            "BROKER_KEYSET_FILE": str(self.source),
            "BROKER_ADDRESS": self.replicas[0].target,
        }
        return await run_beside("keys", *arguments, environ=environ)

    async def step(self, *arguments: str) -> Ended:
        """Takes a step that makes the newest keyset of the one before."""
        ended = await self.keys(*arguments, "--output", str(self.source), "--json")
        assert (ended.status, ended.stderr) == (0, "")
        return ended

    async def roll_out(self) -> None:
        """Gives the newest keyset to one broker after the other; each serves for the other."""
        for file in self.files:
            newer = file.with_suffix(".new")
            shutil.copy(self.source, newer)
            newer.rename(file)
            await self.serve_both_ways()

    async def serve_both_ways(self) -> None:
        first, second = self.replicas
        await asyncio.gather(self.serve(first, second), self.serve(second, first))

    async def serve(self, one: Replica, other: Replica) -> None:
        """Connects at one; each rotates what the other has sealed, and reads what it sealed."""
        customer = new_customer(self.fleet.sandbox)
        await connect(self.fleet, one, customer)
        assert (await get(other.tokens, customer.tenant)).generation == 1
        await expire(self.fleet, customer.tenant, known_to=other)
        rotated = await get(other.tokens, customer.tenant)
        assert rotated.generation == 2
        assert (await grant_of(one, customer.tenant)).generation == 2
        await expire(self.fleet, customer.tenant, known_to=other)
        assert (await get(one.tokens, customer.tenant)).generation == 3
        counts = self.fleet.sandbox.record.counts(customer.company)
        assert counts.presentations_of_superseded == 0

    async def use(self) -> Mapping[int, int]:
        """Counts the rows under each key."""
        connection = await asyncpg.connect(self.fleet.database_url)
        try:
            return {row[0]: row[1] for row in await connection.fetch(_USE)}
        finally:
            await connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rolling(
    database_server: str, migrated_template: str, redis_server: str, run: RunDirectory
) -> AsyncIterator[Rolling]:
    stores = (database_server, migrated_template, redis_server)
    async with fleet_of_a_module(*stores, run=run) as brokers:
        source = brokers.directory / "keyset.json"
        files = (brokers.directory / "first.json", brokers.directory / "second.json")
        for file in files:
            shutil.copy(source, file)
            await brokers.start(BROKER_KEYSET_FILE=str(file))
        yield Rolling(fleet=brokers, source=source, files=files)
        brokers.tell()


def primary_of(ended: Ended) -> int:
    return int(next(each["key_id"] for each in ended.document["keys"] if each["primary"]))


async def test_a_rolling_update_survives_every_step(rolling: Rolling) -> None:
    older = primary_of(await rolling.keys("status", "--json"))
    await rolling.serve_both_ways()

    added = await rolling.step("add")
    newer = next(each["key_id"] for each in added.document["keys"] if each["key_id"] != older)
    await rolling.roll_out()
    assert set(await rolling.use()) == {older}

    early = await rolling.keys("remove", str(older))
    assert (early.status, "promote another one first" in early.stderr) == (1, True)

    await rolling.step("promote", str(newer))
    await rolling.roll_out()
    assert set(await rolling.use()) == {older, newer}

    in_question = (await rolling.use())[older]
    refused = await rolling.keys("remove", str(older), "--json")
    assert refused.status == 1
    assert "rows or escrows are under other keys" in refused.stderr

    rewrapped = await rolling.keys("rewrap", "--reason", "OPS-17", "--json")
    assert (rewrapped.status, rewrapped.stderr) == (0, "")
    assert int(rewrapped.document["rewrapped_count"]) == in_question
    await rolling.serve_both_ways()
    assert set(await rolling.use()) == {newer}

    removed = await rolling.step("remove", str(older))
    assert [each["key_id"] for each in removed.document["keys"]] == [newer]
    await rolling.roll_out()
    assert set(await rolling.use()) == {newer}
    for replica in rolling.replicas:
        assert (await rolling.fleet.asked(replica, "/readyz")).status_code == 200
        assert replica.seen("reauth_became_required") == []
