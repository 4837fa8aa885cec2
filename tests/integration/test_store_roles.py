"""The role of the service may do what the service does, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from broker.domain.disclosure import HandedOut
from broker.store.migrate import migrate
from broker.store.pool import PoolSettings, open_pool
from broker.store.privileges import NEEDED, Privileges, UnfitRoleError, judge_privileges
from broker.store.records import PostgresRecords
from broker.store.upkeep import maintain
from support.fleet import Fleet
from support.service_role import SERVICE_ROLE, as_service

A_FORTNIGHT = timedelta(days=14)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


FORBIDDEN = [
    "UPDATE grant_events SET reason = ''",
    "DELETE FROM grant_events",
    "TRUNCATE grant_events",
    "UPDATE refresh_attempts SET error = ''",
    "DELETE FROM refresh_attempts",
    "DELETE FROM refresh_attempts_default",
    "DROP TABLE refresh_attempts_default",
    "DELETE FROM grants",
    "DELETE FROM disclosures",
    "UPDATE disclosures SET caller = 'somebody else'",
    "UPDATE disclosures SET tenant = 'another'",
    "DELETE FROM home",
    "UPDATE schema_migrations SET version = 9",
    "ALTER TABLE grants DROP COLUMN doubt",
    "ALTER TABLE grant_events DISABLE TRIGGER ALL",
    "DROP TABLE grants",
    "CREATE TABLE mine ()",
    "CREATE INDEX mine ON grants (state)",
    "ALTER FUNCTION drop_attempts_before(date) RESET ALL",
    "CREATE ROLE friend",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_the_service_may_not_touch_schema_or_past(database_url: str, statement: str) -> None:
    async with connected(as_service(database_url)) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


async def test_the_service_does_its_upkeep(database_url: str) -> None:
    async with (
        open_pool(PoolSettings(url=lambda: as_service(database_url))) as pool,
        connected(database_url) as owner,
    ):
        await owner.execute(
            "CREATE TABLE refresh_attempts_20200101 PARTITION OF refresh_attempts "
            "FOR VALUES FROM ('2020-01-01') TO ('2020-01-02')"
        )

        await maintain(pool, attempt_retention=A_FORTNIGHT)

        names = {row[0] for row in await owner.fetch("SELECT relname FROM pg_class")}
    assert "refresh_attempts_20200101" not in names
    assert f"refresh_attempts_{datetime.now(UTC):%Y%m%d}" in names


def handed_out(generation: int) -> HandedOut:
    return HandedOut(
        tenant="acme",
        caller="dns:web",
        first_generation=generation,
        last_generation=generation,
        first_age=timedelta(),
        last_age=timedelta(),
    )


async def test_the_service_notes_again_what_it_handed_out(database_url: str) -> None:
    async with open_pool(PoolSettings(url=lambda: as_service(database_url))) as pool:
        records = PostgresRecords(pool)
        for generation in (3, 5):
            await records.note_handed_out([handed_out(generation)])

        (disclosure,) = (await records.about("acme", limit=9)).disclosures

    assert (disclosure.first_generation, disclosure.last_generation) == (3, 5)


@pytest.mark.parametrize("before", ["'2999-01-01'", "'infinity'", "NULL"])
async def test_the_service_cannot_have_a_weeks_attempts_dropped(
    database_url: str, before: str
) -> None:
    async with (
        connected(database_url) as owner,
        connected(as_service(database_url)) as service,
    ):
        await owner.execute(
            "INSERT INTO refresh_attempts_default SELECT 'acme', 1, 'a', 'REFRESH', 1, 'ARMED', "
            "'one', now() - interval '6 days', now(), now(), 'ROTATED', 200, '', NULL, 2"
        )

        await service.execute(f"SELECT drop_attempts_before({before})")

        assert await owner.fetchval("SELECT count(*) FROM refresh_attempts") == 1


async def test_the_service_makes_no_partitions_of_its_own_choice(database_url: str) -> None:
    async with connected(as_service(database_url)) as connection:
        with pytest.raises(asyncpg.RaiseError, match="coming days"):
            await connection.execute("SELECT make_attempts_partition('2999-01-01')")


async def test_nobody_else_may_call_for_the_owners_help(database_url: str) -> None:
    async with connected(database_url) as owner:
        for name in ("make_attempts_partition(date)", "drop_attempts_before(date)"):
            granted = await owner.fetchval(
                "SELECT proacl::text FROM pg_proc WHERE oid = $1::text::regprocedure", name
            )
            assert f"{SERVICE_ROLE}=X" in granted
            assert not any(each.startswith("=") for each in granted.strip("{}").split(","))


async def test_a_schema_of_the_callers_does_not_mislead_the_owners_functions(
    database_url: str,
) -> None:
    async with connected(as_service(database_url)) as connection:
        await connection.execute("CREATE TEMP TABLE refresh_attempts_default (started_at text)")

        await connection.execute("SELECT drop_attempts_before('2020-01-01')")


async def test_every_table_is_spoken_for(database_url: str) -> None:
    async with connected(database_url) as owner:
        rows = await owner.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "AND relkind IN ('r', 'p') AND NOT relispartition"
        )
    assert {row[0] for row in rows} == set(NEEDED)


async def test_of_the_service_nothing_is_missing_and_nothing_in_excess(database_url: str) -> None:
    async with open_pool(PoolSettings(url=lambda: as_service(database_url))) as pool:
        privileges = await judge_privileges(pool)

    assert privileges.role == SERVICE_ROLE
    assert (privileges.excess, privileges.missing) == ([], [])


async def mended(database_url: str, *spoilt: str) -> tuple[Privileges, Privileges]:
    """Spoils what is granted, and has it granted anew; returns how both were judged."""
    async with (
        connected(database_url) as owner,
        open_pool(PoolSettings(url=lambda: as_service(database_url))) as pool,
    ):
        for statement in spoilt:
            await owner.execute(statement)
        before = await judge_privileges(pool)
        await migrate(database_url, service_role=SERVICE_ROLE)
        return before, await judge_privileges(pool)


async def test_what_is_granted_beside_is_found_and_taken_back(database_url: str) -> None:
    before, after = await mended(
        database_url,
        f"GRANT ALL ON grant_events TO {SERVICE_ROLE}",
        f"REVOKE INSERT ON disclosures FROM {SERVICE_ROLE}",
    )

    (excess,) = before.excess
    assert "DELETE" in excess
    assert before.missing == ["INSERT on disclosures"]
    assert (after.excess, after.missing) == ([], [])


async def test_a_column_too_many_or_too_few_is_found(database_url: str) -> None:
    before, after = await mended(
        database_url,
        f"GRANT UPDATE (caller) ON disclosures TO {SERVICE_ROLE}",
        f"REVOKE UPDATE (last_at) ON disclosures FROM {SERVICE_ROLE}",
    )

    assert before.excess == ["UPDATE (caller) on disclosures"]
    assert before.missing == ["UPDATE (last_at) on disclosures"]
    assert (after.excess, after.missing) == ([], [])


async def test_a_table_granted_whole_that_needs_columns_is_found(database_url: str) -> None:
    async with (
        connected(database_url) as owner,
        open_pool(PoolSettings(url=lambda: as_service(database_url))) as pool,
    ):
        await owner.execute(f"GRANT UPDATE ON disclosures TO {SERVICE_ROLE}")

        privileges = await judge_privileges(pool)

    assert (privileges.excess, privileges.missing) == (["UPDATE on disclosures"], [])


async def test_the_owner_has_more_than_the_service_needs(database_url: str) -> None:
    async with open_pool(PoolSettings(url=lambda: database_url)) as pool:
        assert len((await judge_privileges(pool)).excess) == 1


@pytest.mark.parametrize(
    ("role", "why"),
    [("nobody_of_that_name", "no role nobody_of_that_name"), ("", "may do all")],
)
async def test_a_role_that_cannot_be_the_services_is_refused(
    database_url: str, role: str, why: str
) -> None:
    async with connected(database_url) as owner:
        ours = await owner.fetchval("SELECT current_user::text")

    with pytest.raises(UnfitRoleError, match=why):
        await migrate(database_url, service_role=role or ours)


async def test_the_brokers_of_these_tests_serve_as_that_role(two: Fleet) -> None:
    async with connected(two.database_url) as owner:
        rows = await owner.fetch(
            "SELECT DISTINCT usename::text FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'token-broker'"
        )
    assert [row[0] for row in rows] == [SERVICE_ROLE]
