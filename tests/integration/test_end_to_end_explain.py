"""A real broker explains a real grant, keeps its memory to itself, and remembers who got tokens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from broker.dev.rundir import RunDirectory
from broker.v1.operations_service_pb2 import ExplainGrantRequest, RefreshAttempt
from broker.v1.operations_service_pb2_grpc import OperationsServiceStub
from support.cli import run_beside
from support.fleet import Fleet, fleet
from support.onboarding import connect, get, new_customer
from support.replica import Replica
from support.source import ROOT

WHO_MAY_HOLD_IT = """
    SELECT caller FROM disclosures
    WHERE tenant = $1 AND $2 BETWEEN first_generation AND last_generation
"""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="tells it in /proc")


@pytest.fixture
async def brokers(database_url: str, redis_url: str, run: RunDirectory) -> AsyncIterator[Fleet]:
    async with fleet(database_url, redis_url, run) as made:
        yield made
        made.tell()


@pytest.fixture
async def one(brokers: Fleet) -> Replica:
    return await brokers.started()


async def test_a_broker_that_ends_leaves_on_record_who_may_hold_a_token(
    brokers: Fleet, one: Replica
) -> None:
    customer = new_customer(brokers.sandbox)
    await connect(brokers, one, customer)
    served = await get(one.tokens, customer.tenant)

    await one.hang_up()
    one.terminate()
    assert await one.ended() == 0

    connection = await asyncpg.connect(brokers.database_url)
    rows = await connection.fetch(WHO_MAY_HOLD_IT, customer.tenant, served.generation)
    await connection.close()
    assert [row[0] for row in rows] == ["anonymous"]


async def test_a_grants_story_is_told_from_what_really_happened(
    brokers: Fleet, one: Replica
) -> None:
    customer = new_customer(brokers.sandbox)
    await connect(brokers, one, customer)
    stub = OperationsServiceStub(one.channel())

    told = await stub.ExplainGrant(ExplainGrantRequest(tenant=customer.tenant))

    (attempt,), (event,) = told.attempts, told.events
    assert (attempt.kind, attempt.outcome) == (
        RefreshAttempt.KIND_EXCHANGE,
        RefreshAttempt.OUTCOME_ROTATED,
    )
    assert (event.call, event.after) == ("GrantService/CompleteAuthorization", "ACTIVE")
    assert told.lease.standing == told.lease.STANDING_FREE
    assert told.key_id > 0
    assert customer.company in told.story


async def test_the_command_explains_a_grant_of_a_real_broker(brokers: Fleet, one: Replica) -> None:
    customer = new_customer(brokers.sandbox)
    await connect(brokers, one, customer)

    ended = await run_beside("explain", customer.tenant, environ={"BROKER_ADDRESS": one.target})

    assert ended.status == 0
    assert ended.stdout.startswith(f"{customer.tenant} is connected to ")


@on_linux
async def test_a_broker_leaves_no_core_file(one: Replica) -> None:
    limits = Path(f"/proc/{one.pid}/limits").read_text().splitlines()

    (core,) = [line.split() for line in limits if line.startswith("Max core file size")]
    assert core[4:6] == ["0", "0"]


@on_linux
def test_a_process_that_keeps_its_memory_private_is_not_dumpable() -> None:
    """Asked of the kernel: root may read the memory all the same, and tests may run as root."""
    asking = (
        "import ctypes; from broker.hardening import keep_memory_private; "
        "print(ctypes.CDLL(None).prctl(3)); keep_memory_private(); "
        "print(ctypes.CDLL(None).prctl(3))"
    )

    ended = subprocess.run(
        [sys.executable, "-c", asking], check=True, capture_output=True, text=True, cwd=ROOT
    )

    assert ended.stdout.split() == ["1", "0"]


@on_linux
async def test_no_secret_is_among_a_brokers_arguments(brokers: Fleet, one: Replica) -> None:
    arguments = Path(f"/proc/{one.pid}/cmdline").read_text()

    assert "serve" in arguments
    for name, value in brokers.settings().items():
        if name.endswith(("SECRET", "URL", "ID")):
            assert value not in arguments
