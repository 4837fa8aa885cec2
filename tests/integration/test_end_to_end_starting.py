"""What a broker does whose surroundings are not as they should be, and when it comes to life."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import httpx
import pytest

from broker.dev.embedded import EmbeddedServer
from broker.dev.rundir import RunDirectory
from broker.store.migrate import migrate
from support.fleet import Fleet, fleet, until_true
from support.onboarding import connect, execute, get, new_customer
from support.replica import Replica
from support.rpc import Failure, failure_of
from support.service_role import SERVICE_ROLE


@pytest.fixture
async def brokers(database_url: str, redis_url: str, run: RunDirectory) -> AsyncIterator[Fleet]:
    """No broker yet, on a migrated database."""
    async with fleet(database_url, redis_url, run) as brokers:
        yield brokers
        brokers.tell()


@pytest.fixture
async def unmigrated(
    empty_database_url: str, redis_url: str, run: RunDirectory
) -> AsyncIterator[Fleet]:
    """No broker yet, on an empty database."""
    async with fleet(empty_database_url, redis_url, run) as brokers:
        yield brokers
        brokers.tell()


@pytest.fixture
async def without_postgres(
    own_postgres: EmbeddedServer, redis_url: str, run: RunDirectory
) -> AsyncIterator[Fleet]:
    """No broker yet, on a migrated database whose server is down."""
    await migrate(own_postgres.url)
    await own_postgres.stop()
    async with fleet(own_postgres.url, redis_url, run) as brokers:
        yield brokers
        brokers.tell()


async def answer(brokers: Fleet, replica: Replica, path: str) -> tuple[int, str]:
    response = await brokers.asked(replica, path)
    return response.status_code, response.text


async def until_not_ready_because(brokers: Fleet, replica: Replica, why: str) -> None:
    """Waits until a broker says what keeps it from being ready."""
    await replica.saw("broker_started")

    async def says_so() -> bool:
        status, text = await answer(brokers, replica, "/readyz")
        assert status == httpx.codes.SERVICE_UNAVAILABLE
        return why in text

    await until_true(says_so)


async def failure_at(replica: Replica) -> Failure:
    return await failure_of(get(replica.tokens, "some-tenant"))


async def test_on_an_empty_schema_it_lives_and_serves_nobody(unmigrated: Fleet) -> None:
    replica = unmigrated.launch()

    await until_not_ready_because(unmigrated, replica, "SCHEMA_TOO_OLD")

    assert await answer(unmigrated, replica, "/livez") == (200, "alive\n")
    failure = await failure_at(replica)
    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert failure.error_info.reason == "STORE_UNAVAILABLE"
    await migrate(unmigrated.database_url)
    await unmigrated.until_ready(replica)
    assert (await failure_at(replica)).error_info.reason == "TENANT_NOT_FOUND"


@pytest.mark.parametrize("table", ["schema_migrations", "home", "disclosures"])
async def test_with_a_role_that_may_do_too_little_it_serves_nobody(
    brokers: Fleet, table: str
) -> None:
    await execute(brokers.database_url, f"REVOKE ALL ON {table} FROM {SERVICE_ROLE}")
    replica = brokers.launch()

    await until_not_ready_because(brokers, replica, "PRIVILEGES_MISSING")

    assert await answer(brokers, replica, "/livez") == (200, "alive\n")
    assert "PRIVILEGES_MISSING" in (await answer(brokers, replica, "/readyz?verbose"))[1]
    await migrate(brokers.database_url, service_role=SERVICE_ROLE)
    await brokers.until_ready(replica)
    assert (await failure_at(replica)).error_info.reason == "TENANT_NOT_FOUND"


async def test_it_waits_for_a_postgres_that_is_down(
    without_postgres: Fleet, own_postgres: EmbeddedServer
) -> None:
    replica = without_postgres.launch()

    await until_not_ready_because(without_postgres, replica, "STORE_UNAVAILABLE")

    assert await answer(without_postgres, replica, "/livez") == (200, "alive\n")
    assert (await failure_at(replica)).error_info.reason == "STORE_UNAVAILABLE"
    await own_postgres.start()
    await without_postgres.until_ready(replica)
    assert (await failure_at(replica)).error_info.reason == "TENANT_NOT_FOUND"


async def test_commits_that_a_crash_undoes_are_refused(brokers: Fleet) -> None:
    await execute(
        brokers.database_url,
        "DO $$ BEGIN EXECUTE format("
        "'ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$",
    )
    replica = brokers.launch()

    await until_not_ready_because(brokers, replica, "SYNCHRONOUS_COMMIT_OFF")

    failure = await failure_at(replica)
    assert failure.error_info.reason == "STORE_UNAVAILABLE"
    assert "synchronous_commit" in failure.message


STRANGERS = [
    {"BROKER_HOME": "elsewhere"},
    {"BROKER_PLEO_CLIENT_ID": "another-client"},
    {"BROKER_PLEO_TOKEN_URL": "http://127.0.0.1:1/oauth/token"},
]


@pytest.mark.parametrize("changes", STRANGERS, ids=lambda each: next(iter(each)))
async def test_another_home_ends_at_once_and_says_why(
    brokers: Fleet, changes: dict[str, str]
) -> None:
    resident = await brokers.started()
    customer = new_customer(brokers.sandbox)
    await connect(brokers, resident, customer)

    intruder = brokers.launch(**changes)
    await intruder.saw("broker_started")
    while intruder.status is None:
        await failure_of(get(intruder.tokens, customer.tenant, seconds=1))

    assert intruder.status == 1
    (value,) = changes.values()
    assert f"here {value!r}" in intruder.said
    assert "token-broker adopt --the-old-one-is-off" in intruder.said
    assert (await get(resident.tokens, customer.tenant)).generation == 1


async def test_two_brokers_do_not_share_a_port(brokers: Fleet) -> None:
    resident = await brokers.started()

    second = brokers.launch(BROKER_GRPC_ADDRESS=resident.target)

    assert await second.ended() == 1
    assert f"cannot listen on {resident.target}" in second.said
    assert (await failure_at(resident)).error_info.reason == "TENANT_NOT_FOUND"
