"""`adopt` on real servers: whose home a database is changes once, when the other one is off."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from broker.config import ServeSettings
from broker.sandbox.sandbox import Sandbox
from broker.store.adopting import adopt_home
from broker.store.home import Home, read_home
from broker.store.pool import APPLICATION_NAME, open_pool
from broker.store.sealing import generate_keyset
from broker.wiring import home, pool_settings, redis_prefix
from support import onboarding
from support.cli import Ended, run_beside
from support.installation import execute, settings_of_an_installation, settle
from support.waiting import until

ANOTHER = {"BROKER_HOME": "there", "BROKER_PLEO_CLIENT_ID": "client-2"}

ALIVE = """
    INSERT INTO replicas (name, build, seen_at)
    VALUES ('old-1', '1.0', clock_timestamp() - interval '10 seconds'),
    ('gone-1', '1.0', clock_timestamp() - interval '40 seconds')
"""


@pytest.fixture
async def environ(
    database_url: str, redis_url: str, tmp_path: Path, sandbox: Sandbox
) -> dict[str, str]:
    """The settings of an installation whose home the database is."""
    settings = settings_of_an_installation(
        database_url, redis_url, sandbox=sandbox, folder=tmp_path
    )
    await settle(settings)
    return settings


async def adopt(environ: dict[str, str], *options: str, **changes: str) -> Ended:
    arguments = ("adopt", "--the-old-one-is-off", *options)
    return await run_beside(*arguments, environ=environ | changes)


async def stored(environ: dict[str, str]) -> Home | None:
    async with open_pool(pool_settings(ServeSettings.from_environ(environ))) as pool:
        return await read_home(pool)


def ours(environ: dict[str, str]) -> Home:
    return home(ServeSettings.from_environ(environ))


async def test_without_the_option_it_says_what_that_affirms(environ: dict[str, str]) -> None:
    ended = await run_beside("adopt", environ=environ | ANOTHER)

    assert (ended.status, ended.stdout) == (2, "")
    assert "affirms that no broker of the other home runs" in ended.stderr
    assert await stored(environ) == ours(environ)


async def test_the_home_changes_from_the_one_shown_to_ours(environ: dict[str, str]) -> None:
    ended = await adopt(environ, **ANOTHER)

    heading, *rows, last = ended.stdout.splitlines()
    assert heading.split() == ["HOME", "FROM", "TO"]
    assert [row.split()[0] for row in rows] == ["name", "environment", "token_url", "client_id"]
    assert [rows[0].split()[1:], rows[3].split()[1:]] == [
        ["here", "there"],
        ["client-1", "client-2"],
    ]
    assert (ended.status, last.split(".")[0]) == (0, "Adopted")
    assert await stored(environ) == ours(environ | ANOTHER)


async def test_an_adoption_is_logged_and_stays_on_record(environ: dict[str, str]) -> None:
    ended = await adopt(environ, "--json", **ANOTHER)

    told = ended.document
    *_, line = ended.stderr.splitlines()
    logged = json.loads(line)
    assert (told["adopted"], told["from"]["name"], told["to"]["name"]) == (True, "here", "there")
    assert (logged["event"], logged["level"]) == ("home_adopted", "warning")
    assert (logged["before"], logged["after"]) == (told["from"], told["to"])
    (event,) = await execute(environ, "SELECT * FROM grant_events WHERE tenant = '*'")
    assert (event["call"], event["state_before"].split()[0]) == ("adopt", "here")
    assert event["actor"].startswith("role ")


async def test_another_client_is_warned_of(environ: dict[str, str]) -> None:
    warned = await adopt(environ, **ANOTHER)
    again = await adopt(environ, **ANOTHER | {"BROKER_HOME": "elsewhere"})

    assert "warning: refresh tokens are good for the client" in warned.stderr
    assert (again.status, "warning:" in again.stderr) == (0, False)


async def test_what_is_ours_already_is_left_alone(environ: dict[str, str]) -> None:
    ended = await adopt(environ)
    as_json = await adopt(environ, "--json")

    assert (ended.status, ended.stdout) == (0, "Nothing to do: it is ours already.\n")
    assert (as_json.document["adopted"], as_json.document["to"]["name"]) == (False, "here")


async def test_what_is_nobodys_yet_is_left_to_the_first_start(
    environ: dict[str, str], database_url: str
) -> None:
    await onboarding.execute(database_url, "DELETE FROM home")

    ended = await adopt(environ)
    as_json = await adopt(environ, "--json")

    assert (ended.status, ended.stdout[:13]) == (0, "Nothing to do")
    assert (as_json.document["adopted"], as_json.document["from"]) == (False, None)
    assert await stored(environ) is None


async def test_replicas_that_are_alive_are_named_and_keep_their_home(
    environ: dict[str, str],
) -> None:
    await execute(environ, ALIVE)

    ended = await adopt(environ, **ANOTHER)

    assert ended.status == 1
    assert "replicas of the other home are alive: old-1 (seen 1" in ended.stderr
    assert "gone-1" not in ended.said
    assert "hint: end them in order" in ended.stderr
    assert await stored(environ) == ours(environ)


async def test_a_replica_that_comes_to_life_meanwhile_keeps_its_home(
    environ: dict[str, str],
) -> None:
    await execute(environ, ALIVE)

    async with open_pool(pool_settings(ServeSettings.from_environ(environ))) as pool:
        is_done = await adopt_home(pool, shown=ours(environ), ours=ours(environ | ANOTHER))

        assert (is_done, await read_home(pool)) == (False, ours(environ))


async def test_a_home_that_is_not_as_it_was_shown_is_left(environ: dict[str, str]) -> None:
    shown = ours(environ | {"BROKER_PLEO_CLIENT_ID": "client-3"})

    async with open_pool(pool_settings(ServeSettings.from_environ(environ))) as pool:
        is_done = await adopt_home(pool, shown=shown, ours=ours(environ | ANOTHER))

        assert (is_done, await read_home(pool)) == (False, ours(environ))
    assert await execute(environ, "SELECT FROM grant_events") == []


async def test_a_schema_that_is_too_old_is_not_adopted(
    environ: dict[str, str], empty_database_url: str
) -> None:
    ended = await adopt(environ, BROKER_DATABASE_URL=empty_database_url)

    assert ended.status == 1
    assert "SCHEMA_TOO_OLD" in ended.stderr
    assert "hint: token-broker migrate" in ended.stderr


async def test_a_keyset_without_the_homes_key_does_not_adopt(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "other.json").write_text(generate_keyset())

    ended = await adopt(environ, BROKER_KEYSET_FILE=str(tmp_path / "other.json"), **ANOTHER)

    assert ended.status == 1
    assert "the home's key does not open" in ended.stderr
    assert await stored(environ) == ours(environ)


async def test_pairs_left_in_redis_under_the_other_name_forbid_it(
    environ: dict[str, str],
) -> None:
    async with Redis.from_url(environ["BROKER_REDIS_URL"]) as redis:
        name = f"{redis_prefix(ServeSettings.from_environ(environ))}escrows"
        await redis.hset(name, "acme|1", b"sealed")

    renamed = await adopt(environ, **ANOTHER)
    under_the_same_name = await adopt(environ, BROKER_PLEO_CLIENT_ID="client-2")

    assert (renamed.status, under_the_same_name.status) == (1, 0)
    assert "1 pairs of tokens wait in Redis under the other name" in renamed.stderr


async def test_a_redis_that_is_away_is_not_one_without_pairs(environ: dict[str, str]) -> None:
    ended = await adopt(environ, BROKER_REDIS_URL="redis://127.0.0.1:1/0", **ANOTHER)

    assert ended.status == 1
    assert "Redis does not say" in ended.stderr
    assert await stored(environ) == ours(environ)


async def test_what_brokers_of_the_other_home_have_open_is_closed(
    environ: dict[str, str],
) -> None:
    url = environ["BROKER_DATABASE_URL"]
    open_one = await asyncpg.connect(url, server_settings={"application_name": APPLICATION_NAME})

    ended = await adopt(environ, **ANOTHER)

    await until(open_one.is_closed)
    assert json.loads(ended.stderr.splitlines()[-1])["connections_closed"] == 1


async def test_who_repeats_an_adoption_that_was_cut_short_closes_them_too(
    environ: dict[str, str],
) -> None:
    url = environ["BROKER_DATABASE_URL"]
    open_one = await asyncpg.connect(url, server_settings={"application_name": APPLICATION_NAME})
    await cut_short(environ)

    ended = await adopt(environ, **ANOTHER)

    await until(open_one.is_closed)
    assert (ended.status, ended.stdout[:13]) == (0, "Nothing to do")


async def test_what_was_opened_after_an_adoption_stays_open(
    environ: dict[str, str], database_url: str
) -> None:
    url = environ["BROKER_DATABASE_URL"]
    await cut_short(environ)
    long_ago = "UPDATE grant_events SET at = at - interval '1 minute'"
    await onboarding.execute(database_url, long_ago)
    open_one = await asyncpg.connect(url, server_settings={"application_name": APPLICATION_NAME})

    await adopt(environ, **ANOTHER)

    assert await open_one.fetchval("SELECT 1") == 1
    await open_one.close()


async def cut_short(environ: dict[str, str]) -> None:
    """Changes the home, and no more."""
    settings = replace(pool_settings(ServeSettings.from_environ(environ)), application_name="test")
    async with open_pool(settings) as pool:
        assert await adopt_home(pool, shown=ours(environ), ours=ours(environ | ANOTHER))
