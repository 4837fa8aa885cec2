"""`migrate` and `doctor` on real servers: what is good, and each thing that can be bad."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.dev.embedded import EmbeddedServer
from broker.sandbox.sandbox import Sandbox
from broker.store.sealing import generate_keyset
from support.cli import Ended, run_beside
from support.installation import (
    CLIENT_SECRET,
    execute,
    settings_of_an_installation,
    settle,
)
from support.logical import on_logical_database
from support.pooler import Pooler, dismiss
from support.service_role import SERVICE_ROLE


@pytest.fixture
def environ(database_url: str, redis_url: str, tmp_path: Path, sandbox: Sandbox) -> dict[str, str]:
    """The settings of an installation that is well."""
    return settings_of_an_installation(database_url, redis_url, sandbox=sandbox, folder=tmp_path)


async def examine(environ: dict[str, str], **changes: str) -> Ended:
    ended = await run_beside("doctor", "--json", environ=environ | changes)
    assert CLIENT_SECRET not in ended.said
    return ended


def outcomes(ended: Ended) -> dict[str, str]:
    """Returns how each check ended; of several with one name the last."""
    return {each["check"]: each["outcome"] for each in ended.document["checks"]}


def found(ended: Ended, check: str) -> str:
    (one,) = [each["found"] for each in ended.document["checks"] if each["check"] == check]
    return str(one)


async def test_migrate_applies_what_is_pending_once(empty_database_url: str) -> None:
    environ = {"BROKER_DATABASE_URL": empty_database_url}

    dry = await run_beside("migrate", "--dry-run", "--json", environ=environ)
    first = await run_beside("migrate", "--json", environ=environ)
    again = await run_beside("migrate", environ=environ)

    assert dry.document["pending"] == first.document["applied"] != []
    assert (again.status, again.stdout) == (0, "The schema is up to date.\n")


async def test_migrate_tells_in_json_that_it_marked_the_database(empty_database_url: str) -> None:
    environ = {"BROKER_DATABASE_URL": empty_database_url}

    dry = await run_beside("migrate", "--restored", "--dry-run", "--json", environ=environ)
    marked = await run_beside("migrate", "--restored", "--json", environ=environ)
    plain = await run_beside("migrate", "--json", environ=environ)

    told = [each.document["marked_restored"] for each in (dry, marked, plain)]
    assert told == [False, True, False]


async def test_migrate_for_people_names_each_file(empty_database_url: str) -> None:
    ended = await run_beside("migrate", environ={"BROKER_DATABASE_URL": empty_database_url})

    assert ended.stdout.splitlines()[0].startswith("applied  0001_")


async def test_migrate_without_a_server_fails_without_its_password() -> None:
    url = f"postgresql://broker:{CLIENT_SECRET}@127.0.0.1:1/broker"

    ended = await run_beside("migrate", environ={"BROKER_DATABASE_URL": url})

    assert ended.status == 1
    assert "PostgreSQL cannot be reached" in ended.stderr
    assert CLIENT_SECRET not in ended.said


async def test_migrate_without_an_authority_names_its_variable(tmp_path: Path) -> None:
    environ = {
        "BROKER_DATABASE_URL": "postgresql://broker@127.0.0.1:1/broker",
        "BROKER_DATABASE_CA_FILE": str(tmp_path / "nowhere"),
    }

    ended = await run_beside("migrate", environ=environ)

    assert ended.status == 1
    assert "error: BROKER_DATABASE_CA_FILE: No such file" in ended.stderr


async def test_migrate_without_an_address_is_wrong_use() -> None:
    assert (await run_beside("migrate")).status == 2


async def test_doctor_finds_a_new_installation_well(environ: dict[str, str]) -> None:
    ended = await examine(environ)

    assert ended.status == 0
    assert ended.document["ok"] is True
    assert set(outcomes(ended).values()) == {"ok"}
    assert found(ended, "home").startswith("nobody's yet")


async def test_doctor_warns_of_a_role_that_may_do_more_than_it_needs(
    environ: dict[str, str], database_url: str
) -> None:
    ended = await examine(environ, BROKER_DATABASE_URL=database_url)

    assert (ended.status, outcomes(ended)["role"]) == (0, "warning")
    assert "has more than it needs: is a superuser" in found(ended, "role")


async def test_doctor_finds_a_role_bad_that_may_do_too_little(
    environ: dict[str, str], database_url: str
) -> None:
    await execute(
        environ | {"BROKER_DATABASE_URL": database_url},
        f"REVOKE UPDATE ON grants FROM {SERVICE_ROLE}",
    )

    ended = await examine(environ)

    assert ended.status == 1
    assert found(ended, "role") == f"{SERVICE_ROLE} lacks UPDATE on grants"


async def test_migrate_gives_the_services_role_what_it_needs(
    environ: dict[str, str], database_url: str
) -> None:
    as_owner = environ | {"BROKER_DATABASE_URL": database_url}
    await execute(as_owner, f"REVOKE ALL ON grants FROM {SERVICE_ROLE}")

    ended = await run_beside("migrate", "--service-role", SERVICE_ROLE, environ=as_owner)

    assert ended.status == 0
    assert outcomes(await examine(environ))["role"] == "ok"


async def test_migrate_with_an_unknown_role_changes_nothing(empty_database_url: str) -> None:
    environ = {"BROKER_DATABASE_URL": empty_database_url}

    ended = await run_beside("migrate", "--service-role", "nobody_there", environ=environ)

    assert (ended.status, ended.stdout) == (1, "")
    assert "error: --service-role: there is no role nobody_there" in ended.stderr
    assert (await run_beside("migrate", "--dry-run", "--json", environ=environ)).document["pending"]


async def test_doctor_finds_a_settled_installation_well(environ: dict[str, str]) -> None:
    await settle(environ)

    ended = await examine(environ)

    assert ended.status == 0
    assert found(ended, "home") == "here"
    assert found(ended, "keys in use") == "1, all in the keyset"


async def test_doctor_for_people_is_a_table(environ: dict[str, str]) -> None:
    ended = await run_beside("doctor", environ=environ)

    heading, *rows = ended.stdout.splitlines()
    assert heading.split() == ["CHECK", "OUTCOME", "FOUND", "WHAT", "TO", "MEND"]
    assert all(row.split()[0] != "" for row in rows)


async def test_an_unknown_name_is_an_error_for_doctor(environ: dict[str, str]) -> None:
    ended = await examine(environ, BROKER_RENEW_AHED_SECONDS="90")

    assert ended.status == 1
    (told,) = [each["found"] for each in ended.document["checks"] if each["outcome"] == "bad"]
    assert told.startswith("BROKER_RENEW_AHED_SECONDS: no setting has this name; did you mean")


async def test_wrong_settings_leave_the_rest_unseen(environ: dict[str, str]) -> None:
    ended = await examine(environ, BROKER_LOG_LEVEL=CLIENT_SECRET)

    assert ended.status == 1
    assert outcomes(ended)["settings"] == "bad"
    assert outcomes(ended)["redis"] == "skipped"


async def test_what_is_probably_not_meant_is_a_warning(environ: dict[str, str]) -> None:
    ended = await examine(environ, BROKER_PLEO_REDIRECT_URIS="")

    assert ended.status == 0
    assert outcomes(ended)["settings"] == "warning"


async def test_a_keyset_that_is_none_is_bad(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(CLIENT_SECRET)

    ended = await examine(environ, BROKER_KEYSET_FILE=str(tmp_path / "other.json"))

    assert ended.status == 1
    assert (outcomes(ended)["keyset"], outcomes(ended)["keys in use"]) == ("bad", "skipped")


async def test_a_database_that_is_away_is_bad(environ: dict[str, str]) -> None:
    url = f"postgresql://broker:{CLIENT_SECRET}@127.0.0.1:1/broker"

    ended = await examine(environ, BROKER_DATABASE_URL=url)

    assert ended.status == 1
    assert (outcomes(ended)["database"], outcomes(ended)["schema"]) == ("bad", "skipped")
    assert outcomes(ended)["redis"] == "ok"


async def test_a_database_without_schema_wants_migrate(
    environ: dict[str, str], empty_database_url: str
) -> None:
    ended = await examine(environ, BROKER_DATABASE_URL=empty_database_url)

    assert ended.status == 1
    (schema,) = [each for each in ended.document["checks"] if each["check"] == "schema"]
    assert (schema["outcome"], schema["mend"]) == ("bad", "token-broker migrate")
    assert outcomes(ended)["home"] == "skipped"


async def test_a_newer_schema_wants_a_newer_release(
    environ: dict[str, str], database_url: str
) -> None:
    await execute(
        environ | {"BROKER_DATABASE_URL": database_url},
        "INSERT INTO schema_migrations (version, name, checksum, minimum_reader)"
        " VALUES (9999, 'x', 'x', 9999)",
    )

    assert outcomes(await examine(environ))["schema"] == "bad"


async def test_another_brokers_home_is_bad(environ: dict[str, str]) -> None:
    await settle(environ)

    ended = await examine(environ, BROKER_HOME="elsewhere")

    assert ended.status == 1
    (home,) = [each for each in ended.document["checks"] if each["check"] == "home"]
    assert home["found"].endswith("name: 'here', here 'elsewhere'")
    assert "token-broker adopt --the-old-one-is-off" in home["mend"]


async def test_a_key_in_use_that_is_lacking_is_bad(environ: dict[str, str], tmp_path: Path) -> None:
    await settle(environ)
    (tmp_path / "other.json").write_text(generate_keyset())

    ended = await examine(environ, BROKER_KEYSET_FILE=str(tmp_path / "other.json"))

    assert (ended.status, outcomes(ended)["keys in use"]) == (1, "bad")


async def test_a_redis_that_is_away_is_bad(environ: dict[str, str]) -> None:
    ended = await examine(environ, BROKER_REDIS_URL=f"redis://:{CLIENT_SECRET}@127.0.0.1:1/0")

    assert (ended.status, outcomes(ended)["redis"]) == (1, "bad")


async def test_a_redis_that_evicts_is_bad(
    environ: dict[str, str], own_valkey: EmbeddedServer
) -> None:
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.config_set("maxmemory-policy", "allkeys-lru")

    ended = await examine(environ, BROKER_REDIS_URL=own_valkey.url)

    assert (ended.status, outcomes(ended)["redis"]) == (1, "bad")
    assert "allkeys-lru" in found(ended, "redis")


async def test_a_look_at_pleo_presents_and_counts_nothing(
    environ: dict[str, str], sandbox: Sandbox
) -> None:
    ended = await examine(environ)

    assert outcomes(ended)["pleo token endpoint"] == outcomes(ended)["pleo API"] == "ok"
    assert sandbox.record.counts().presentations == 0


async def test_a_pleo_that_nobody_reaches_is_bad(environ: dict[str, str]) -> None:
    ended = await examine(environ, BROKER_PLEO_TOKEN_URL="http://127.0.0.1:1/oauth/token")

    assert (ended.status, outcomes(ended)["pleo token endpoint"]) == (1, "bad")
    assert found(ended, "pleo token endpoint").startswith("127.0.0.1:1 cannot be reached")


async def test_an_api_that_is_turned_off_is_not_asked(environ: dict[str, str]) -> None:
    ended = await examine(environ, BROKER_PLEO_API_URL="")

    assert outcomes(ended)["pleo API"] == "ok"
    assert "turned off" in found(ended, "pleo API")


async def test_a_client_secret_that_goes_is_told_as_a_setting(
    environ: dict[str, str], tmp_path: Path
) -> None:
    del environ["BROKER_PLEO_CLIENT_SECRET"]

    ended = await examine(environ, BROKER_PLEO_CLIENT_SECRET_FILE=str(tmp_path / "nowhere"))

    assert ended.status == 1
    assert "BROKER_PLEO_CLIENT_SECRET_FILE" in ended.stdout


async def test_doctor_says_of_a_database_that_redis_does_not_have(environ: dict[str, str]) -> None:
    url = on_logical_database(environ["BROKER_REDIS_URL"], 9999)

    ended = await examine(environ, BROKER_REDIS_URL=url)

    assert outcomes(ended)["redis"] == "bad"
    assert found(ended, "redis") == "refuses the connection (ResponseError)"


async def test_doctor_says_what_a_role_behind_a_pooler_lacks(
    environ: dict[str, str], database_url: str, pooler: Pooler
) -> None:
    ended = await examine(environ, BROKER_DATABASE_URL=pooler.through(database_url))
    await dismiss(database_url)

    assert outcomes(ended)["database"] == "bad"
    assert " SET statement_timeout = '3s'" in found(ended, "database")
