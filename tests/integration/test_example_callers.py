"""The example callers in Go and Node, and the grpcurl session: run as their page says."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest
import pytest_asyncio

from broker.dev.rundir import RunDirectory
from broker.sandbox.faults import Substitute
from broker.sandbox.oauth import json_answer
from support.fleet import Fleet, fleet_of_a_module
from support.onboarding import Customer, connect, expire, grant_of, new_customer
from support.toolchains import EXAMPLES, go_example, grpcurl, node_example

# Compiling gRPC for Go takes most of a minute, more where others work.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

SUCCEEDED, FAILED, RECONNECT = 0, 1, 3
NOT_FOUND = 64 + 5
"""grpcurl's exit status for gRPC's code 5."""

KINDS = {"go": go_example, "node": node_example}


@pytest.fixture(scope="module", params=KINDS)
def caller(request: pytest.FixtureRequest, run: RunDirectory) -> list[str]:
    """The command that runs a caller."""
    return KINDS[request.param](run)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(
    database_server: str, migrated_template: str, redis_server: str, run: RunDirectory
) -> AsyncIterator[Fleet]:
    """One broker."""
    stores = (database_server, migrated_template, redis_server)
    async with fleet_of_a_module(*stores, run=run) as brokers:
        await brokers.start()
        yield brokers


@pytest_asyncio.fixture(loop_scope="module")
async def customer(one: Fleet) -> AsyncIterator[Customer]:
    """A connected tenant."""
    customer = new_customer(one.sandbox)
    await connect(one, one.replicas[0], customer)
    yield customer
    one.sandbox.faults.clear()
    one.tell()


async def ran(command: list[str]) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
    )


async def called(
    caller: list[str], one: Fleet, tenant: str, *, calls: int = 1
) -> subprocess.CompletedProcess[str]:
    where = [one.replicas[0].target, tenant, one.sandbox.url]
    return await ran([*caller, *where, str(calls)])


def refuse_at_the_api(one: Fleet, customer: Customer, *, times: int) -> None:
    """Lets Pleo's API answer 401, to callers and to the broker that asks about a token."""
    refusal = json_answer(HTTPStatus.UNAUTHORIZED, {"error": "invalid_token"})
    one.sandbox.faults.add(
        Substitute(answer=refusal), times=times, endpoint="api", company=customer.company
    )


async def test_a_token_is_kept_for_as_long_as_promised(
    caller: list[str], one: Fleet, customer: Customer
) -> None:
    before = len(one.replicas[0].seen("token_served"))

    done = await called(caller, one, customer.tenant, calls=3)

    assert done.returncode == SUCCEEDED, done.stderr
    assert done.stdout.splitlines() == ["200 with generation 1"] * 3
    assert len(one.replicas[0].seen("token_served")) - before == 1


async def test_a_rejected_token_is_reported_and_the_call_made_again(
    caller: list[str], one: Fleet, customer: Customer
) -> None:
    refuse_at_the_api(one, customer, times=2)

    done = await called(caller, one, customer.tenant)

    assert (done.returncode, done.stdout) == (SUCCEEDED, "200 with generation 2\n"), done.stderr


async def test_a_token_that_lives_is_not_tried_again(
    caller: list[str], one: Fleet, customer: Customer
) -> None:
    refuse_at_the_api(one, customer, times=1)

    done = await called(caller, one, customer.tenant)

    assert (done.returncode, done.stdout) == (FAILED, "401 with generation 1\n"), done.stderr
    assert (await grant_of(one.replicas[0], customer.tenant)).generation == 1


async def test_a_customer_who_left_is_sent_to_reconnect(
    caller: list[str], one: Fleet, customer: Customer
) -> None:
    await called(caller, one, customer.tenant)
    await expire(one, customer.tenant, known_to=one.replicas[0])
    one.sandbox.server.disconnect(company=customer.company)

    done = await called(caller, one, customer.tenant)

    assert (done.returncode, done.stdout) == (RECONNECT, ""), done.stderr
    assert done.stderr.startswith(f"reconnect {customer.tenant}: EXPIRED_OR_REVOKED, since 20")


async def test_another_failure_is_no_reason_to_reconnect(caller: list[str], one: Fleet) -> None:
    done = await called(caller, one, "nobody-knows-me")

    assert done.returncode == FAILED
    assert "TENANT_NOT_FOUND" in done.stderr


def session() -> tuple[str, list[str]]:
    """Returns grpcurl's version and the commands of the page."""
    page = (EXAMPLES / "README.md").read_text().replace("\\\n", "")
    (version,) = re.findall(r"grpcurl/cmd/grpcurl@(\S+)", page)
    return version, re.findall(r"^grpcurl -plaintext .*$", page, re.MULTILINE)


async def test_the_grpcurl_session_works_as_printed(one: Fleet, customer: Customer) -> None:
    version, commands = session()
    program = await asyncio.to_thread(grpcurl, version)

    done = []
    for command in commands:
        words = shlex.split(command.replace("127.0.0.1:50051", one.replicas[0].target))
        words = [word.replace('"demo"', f'"{customer.tenant}"') for word in words]
        done.append(await ran([program, *words[1:]]))

    assert [each.returncode for each in done] == [0, 0, 0, NOT_FOUND, 0, 0]
    assert "broker.v1.TokenService" in done[0].stdout
    assert '"generation": "1"' in done[2].stdout
    assert '"reason": "TENANT_NOT_FOUND"' in done[3].stderr
