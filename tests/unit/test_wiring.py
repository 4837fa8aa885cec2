"""Settings as the rooms are told of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from broker.config import ServeSettings
from broker.wiring import (
    home,
    pleo,
    pool_settings,
    provider_settings,
    redis_client,
    service_options,
)

ENVIRON = {
    "BROKER_HOME": "here",
    "BROKER_DATABASE_URL": "postgresql://broker:one@127.0.0.1/broker",
    "BROKER_REDIS_URL": "redis://:one@127.0.0.1:6379/0",
    "BROKER_KEYSET_FILE": "keyset.json",
    "BROKER_PLEO_CLIENT_ID": "client-1",
    "BROKER_PLEO_CLIENT_SECRET": "one",
}

CUSTOM = {
    "BROKER_PLEO_ENVIRONMENT": "custom",
    "BROKER_PLEO_AUTHORIZE_URL": "http://127.0.0.1:8420/oauth/authorize",
    "BROKER_PLEO_TOKEN_URL": "http://127.0.0.1:8420/oauth/token",
    "BROKER_PLEO_API_URL": "http://127.0.0.1:8420",
}


def settings_of(**changes: str) -> ServeSettings:
    return ServeSettings.from_environ(ENVIRON | changes)


@pytest.mark.parametrize(
    ("environment", "host"), [("staging", "auth.staging.pleo.io"), ("production", "auth.pleo.io")]
)
def test_each_environment_has_its_addresses(environment: str, host: str) -> None:
    addresses = pleo(settings_of(BROKER_PLEO_ENVIRONMENT=environment))

    assert addresses.token_url == f"https://{host}/oauth/token"
    assert addresses.api_url is not None


def test_a_custom_pleo_is_where_it_is_set() -> None:
    addresses = pleo(settings_of(**CUSTOM))

    assert addresses.authorize_url == CUSTOM["BROKER_PLEO_AUTHORIZE_URL"]
    assert addresses.token_url == CUSTOM["BROKER_PLEO_TOKEN_URL"]
    assert addresses.api_url == CUSTOM["BROKER_PLEO_API_URL"]


@pytest.mark.parametrize("changes", [{}, CUSTOM])
def test_an_empty_api_address_turns_it_off(changes: dict[str, str]) -> None:
    assert pleo(settings_of(**{**changes, "BROKER_PLEO_API_URL": ""})).api_url is None


def test_a_client_secret_in_a_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("one\n")
    without = {name: value for name, value in ENVIRON.items() if not name.endswith("_SECRET")}
    environ = without | {"BROKER_PLEO_CLIENT_SECRET_FILE": str(path)}
    provider = provider_settings(ServeSettings.from_environ(environ))

    path.write_text("two\n")

    assert provider.client_secret().reveal() == "two"


def test_what_the_provider_is_told_is_what_was_set() -> None:
    changes = {
        "BROKER_PLEO_CLIENT_AUTH": "body",
        "BROKER_PLEO_AUTHORIZE_PARAMS": "a=b",
        "BROKER_PLEO_MAX_CONCURRENCY": "7",
    }

    provider = provider_settings(settings_of(**changes))

    assert (provider.client_id, provider.client_auth) == ("client-1", "body")
    assert (provider.authorize_params, provider.max_concurrency) == ((("a", "b"),), 7)


def test_the_home_is_named_by_its_settings() -> None:
    found = home(settings_of(**CUSTOM))

    assert (found.name, found.environment, found.client_id) == ("here", "custom", "client-1")
    assert found.token_url == CUSTOM["BROKER_PLEO_TOKEN_URL"]


def test_the_database_is_where_it_is_set() -> None:
    pool = pool_settings(settings_of())

    assert pool.url() == ENVIRON["BROKER_DATABASE_URL"]
    assert pool.tls is None


def test_a_database_that_proves_itself_has_a_context() -> None:
    url = "postgresql://broker@db.example/broker?sslmode=verify-full"

    assert pool_settings(settings_of(BROKER_DATABASE_URL=url)).tls is not None


async def test_redis_is_connected_to_by_nobody_yet() -> None:
    async with redis_client(settings_of()):
        pass


@pytest.mark.parametrize(("seconds", "life"), [("1", 30), ("10", 30), ("60", 80)])
async def test_a_lease_lives_as_long_as_an_attempt(seconds: str, life: int) -> None:
    async with redis_client(settings_of(BROKER_PLEO_TIMEOUT_SECONDS=seconds)) as client:
        assert client.times.life == timedelta(seconds=life)


@pytest.mark.parametrize(
    ("told", "most"), [({}, 50_000), ({"BROKER_MAX_CACHED_TOKENS": "700"}, 700)]
)
def test_the_service_keeps_as_many_tokens_as_are_set(told: dict[str, str], most: int) -> None:
    options = service_options(settings_of(**told), replica="here-1")

    assert options.max_cached_tokens == most


def test_the_service_is_told_what_is_set() -> None:
    settings = settings_of(
        BROKER_RENEW_AHEAD_SECONDS="45",
        BROKER_REJECTION_INTERVAL_SECONDS="61",
        BROKER_GUARD_HOLD_SECONDS="3600",
        BROKER_QUARANTINE_DAYS="3",
        BROKER_PLEO_MAX_CONCURRENCY="11",
        BROKER_PLEO_MAX_RATE="12",
    )

    options = service_options(settings, replica="here-1")

    assert options.renew_ahead == timedelta(seconds=45)
    assert options.rejection_interval == timedelta(seconds=61)
    assert options.guard_hold == timedelta(hours=1)
    assert options.quarantine == timedelta(days=3)
    assert (options.max_concurrency, options.max_rate) == (11, 12)
    assert options.replica == "here-1"
