"""Whatever a caller sends, the broker answers with its own words, repeats no secret, and lives on.

A real broker on real stores with a Pleo sandbox; real channels; requests made from the protos.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random

import pytest
import pytest_asyncio

from broker.dev.rundir import RunDirectory
from fuzz.budget import SEED, examples, report
from fuzz.calling import Run
from fuzz.corpora import lines
from fuzz.making import MARK, Request, methods
from support.fleet import Fleet, fleet_of_a_module
from support.onboarding import connect, get, grant_of, new_customer

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(0)]

USUAL = 800
"""About ten seconds."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def brokers(
    database_server: str, migrated_template: str, redis_server: str, run: RunDirectory
) -> AsyncIterator[Fleet]:
    """One broker."""
    stores = (database_server, migrated_template, redis_server)
    async with fleet_of_a_module(*stores, run=run) as brokers:
        await brokers.start(1)
        yield brokers


def run_of(brokers: Fleet) -> Run:
    replica = brokers.replicas[0]
    return Run([replica.channel() for _ in range(4)], Random(SEED))


async def test_no_request_brings_an_internal_error_a_hang_or_a_secret(brokers: Fleet) -> None:
    replica = brokers.replicas[0]
    customer = new_customer(brokers.sandbox)
    await connect(brokers, replica, customer)
    run = run_of(brokers)

    await run.fuzz(examples(USUAL))

    report("RPC", run.tally)
    assert "\n".join(run.found) == ""
    assert (await get(replica.tokens, customer.tenant)).generation == 1
    assert (await grant_of(replica, customer.tenant)).generation == 1
    assert MARK not in replica.said
    assert (replica.seen("defect_met"), replica.seen("loop_failed")) == ([], [])
    assert "Traceback" not in replica.said


async def test_what_found_a_defect_once_finds_none_again(brokers: Fleet) -> None:
    run, by_path = run_of(brokers), {Request(method=m, encoded=b"").path: m for m in methods()}

    for path, *encoded in lines("rpc"):
        sent = bytes.fromhex("".join(encoded))
        await run.attempt(Request(method=by_path[path], encoded=sent))

    assert run.tally.total() > 0
    assert run.found == []
