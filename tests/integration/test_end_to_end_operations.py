"""Real brokers, as on-call sees them: the page, the probes, and the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support.cli import Ended, run_beside
from support.fleet import Fleet, until_true
from support.onboarding import Customer, connect, get
from support.replica import Replica

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def call(replica: Replica, *arguments: str) -> Ended:
    return await run_beside(*arguments, environ={"BROKER_ADDRESS": replica.target})


async def verbose(brokers: Fleet, replica: Replica) -> Mapping[str, Any]:
    read: dict[str, Any] = (await brokers.asked(replica, "/readyz?verbose")).json()
    return read


async def test_a_rotation_by_hand_reaches_every_replica(
    two: Fleet, first: Replica, second: Replica, customer: Customer
) -> None:
    await connect(two, first, customer)
    before = await get(second.tokens, customer.tenant)

    ended = await call(first, "refresh", customer.tenant, "--reason", "OPS-17", "--json")

    async def is_newer() -> bool:
        return (await get(second.tokens, customer.tenant)).generation == before.generation + 1

    assert ended.status == 0, ended.said
    assert ended.document["generation"] == str(before.generation + 1)
    await until_true(is_newer)
    assert two.sandbox.record.counts(customer.company).presentations == 1


async def test_the_fleet_is_told_by_each_of_its_replicas(
    two: Fleet, first: Replica, second: Replica
) -> None:
    async def both_are_seen() -> bool:
        return len((await call(first, "status", "--json")).document["replicas"]) == 2

    await until_true(both_are_seen)
    told = [(await call(each, "status", "--json")).document for each in (first, second)]

    healthy = {each["name"]: each["healthy"] for each in told[0]["dependencies"]}
    assert healthy == {"postgres": True, "redis": True, "pleo": True}
    assert told[0]["replica"] != told[1]["replica"]
    assert {each["name"] for each in told[0]["replicas"]} == {each["replica"] for each in told}
    assert told[0]["escrow_count"] == "0"
    (key,) = told[0]["keys"]
    assert (key["primary"], key["available"]) == (True, True)


async def test_readiness_tells_all_that_is_asked_in_the_background(
    two: Fleet, first: Replica
) -> None:
    told = await verbose(two, first)

    checks = told["checks"]
    keyset = json.loads((two.directory / "keyset.json").read_text())
    assert (told["can_serve"], told["can_refresh"], told["can_persist"]) == (True, True, True)
    assert {name for name, each in checks.items() if not each["healthy"]} == set()
    assert abs(checks["clock"]["details"]["skew_seconds"]) < 5
    assert checks["schema"]["details"]["version"] > 0
    assert checks["keyset"]["details"] == {"primary_key_id": keyset["primaryKeyId"]}
    assert checks["breaker"]["healthy"]


async def test_the_page_shows_attempts_and_not_whose_they_are(
    two: Fleet, first: Replica, customer: Customer
) -> None:
    await connect(two, first, customer)
    page = ""

    async def shows_the_consent() -> bool:
        nonlocal page
        page = (await two.asked(first, "/statusz")).text
        return "exchange" in page

    await until_true(shows_the_consent)
    assert "All is well" in page
    assert customer.tenant not in page
    assert customer.company not in page


async def test_a_lost_keyset_file_takes_no_readiness_and_is_told(
    two: Fleet, first: Replica, tmp_path: Path
) -> None:
    keyset = two.directory / "keyset.json"
    kept = keyset.rename(tmp_path / "kept.json")

    async def is_told() -> bool:
        return not (await verbose(two, first))["checks"]["keyset"]["healthy"]

    try:
        await until_true(is_told)
        assert (await two.asked(first, "/readyz")).status_code == 200
        assert "Not well: keyset" in (await two.asked(first, "/statusz")).text
    finally:
        kept.rename(keyset)
