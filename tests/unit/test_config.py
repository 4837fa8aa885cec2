"""Settings: what is read, what is refused, and that no value is ever repeated."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from broker.config import (
    Address,
    LogLevel,
    MigrateSettings,
    SecretUnreadableError,
    ServeSettings,
    Settings,
    SettingsError,
    unknown_names,
)
from broker.config.table import PATH, markdown, rows

SECRET = "correct-horse-battery"

SERVE = {
    "BROKER_DATABASE_URL": f"postgresql://broker:{SECRET}@127.0.0.1/broker",
    "BROKER_REDIS_URL": f"redis://:{SECRET}@127.0.0.1:6379/0",
    "BROKER_KEYSET_FILE": "keyset.json",
    "BROKER_PLEO_CLIENT_ID": "client-1",
    "BROKER_PLEO_CLIENT_SECRET": SECRET,
}

CUSTOM = {
    "BROKER_PLEO_ENVIRONMENT": "custom",
    "BROKER_PLEO_AUTHORIZE_URL": "http://127.0.0.1:8420/oauth/authorize",
    "BROKER_PLEO_TOKEN_URL": "http://127.0.0.1:8420/oauth/token",
    "BROKER_PLEO_API_URL": "",
}

TLS = {
    "BROKER_TLS_CERT_FILE": "tls.crt",
    "BROKER_TLS_KEY_FILE": "tls.key",
    "BROKER_TLS_CLIENT_CA_FILE": "ca.crt",
    "BROKER_POLICY_FILE": "policy.yaml",
}

JWT = {
    "BROKER_JWT_ISSUER": "https://issuer.example",
    "BROKER_JWT_AUDIENCE": "token-broker",
    "BROKER_JWT_JWKS": "https://issuer.example/keys",
    "BROKER_POLICY_FILE": "policy.yaml",
}


def problems(environ: Mapping[str, str], *, settings: type[Settings] = Settings) -> dict[str, str]:
    """Returns what is expected of each variable that is wrong; nothing when all are right."""
    try:
        settings.from_environ(environ)
    except SettingsError as error:
        return {problem.variable: problem.expected for problem in error.problems}
    return {}


def test_nothing_has_to_be_set_for_a_command_that_needs_nothing() -> None:
    settings = Settings.from_environ({})

    assert settings.home == "default"
    assert settings.grpc_address == Address(host="127.0.0.1", port=50051)
    assert settings.renew_ahead == timedelta(seconds=90)
    assert settings.allows_anonymous


def test_serve_starts_with_what_it_needs_and_nothing_else() -> None:
    settings = ServeSettings.from_environ(SERVE)

    assert settings.pleo_client_secret.read().reveal() == SECRET
    assert settings.keyset_file == Path("keyset.json")


def test_everything_that_serve_lacks_is_named_at_once() -> None:
    assert problems({}, settings=ServeSettings).keys() == SERVE.keys()


def test_migrate_needs_a_database_alone() -> None:
    assert problems({}, settings=MigrateSettings).keys() == {"BROKER_DATABASE_URL"}


def test_wrong_values_missing_ones_and_broken_rules_are_told_together() -> None:
    environ = {
        "BROKER_LOG_LEVEL": "loud",
        "BROKER_REDIS_URL_FILE": "nowhere",
        "BROKER_GRPC_ADDRESS": "0.0.0.0:50051",
    }

    found = problems(environ, settings=ServeSettings)

    assert {*environ, "BROKER_DATABASE_URL"} <= found.keys()


def test_a_rule_about_a_variable_that_is_wrong_already_waits() -> None:
    found = problems({**CUSTOM, "BROKER_PLEO_ENVIRONMENT": "costume"})

    assert found.keys() == {"BROKER_PLEO_ENVIRONMENT"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BROKER_HOME", "production eu"),
        ("BROKER_HOME", "x" * 64),
        ("BROKER_GRPC_ADDRESS", "50051"),
        ("BROKER_GRPC_ADDRESS", "127.0.0.1:65536"),
        ("BROKER_GRPC_ADDRESS", "[127.0.0.1]:1"),
        ("BROKER_OPS_ADDRESS", ":8080"),
        ("BROKER_INSECURE", "yes"),
        ("BROKER_REFLECTION", "0"),
        ("BROKER_ADMIN_SOCKET", "admin.sock"),
        ("BROKER_ADMIN_SOCKET", "/" + "a" * 103),
        ("BROKER_PLEO_ENVIRONMENT", "sandbox"),
        ("BROKER_PLEO_CLIENT_ID", "two words"),
        ("BROKER_PLEO_CLIENT_AUTH", "none"),
        ("BROKER_PLEO_SCOPES", "users:read users:read"),
        ("BROKER_PLEO_SCOPES", 'users:"read"'),
        ("BROKER_PLEO_REDIRECT_URIS", "http://app.example/callback"),
        ("BROKER_PLEO_REDIRECT_URIS", "https://app.example/callback#here"),
        ("BROKER_PLEO_REDIRECT_URIS", "https://user@app.example/callback"),
        ("BROKER_PLEO_REDIRECT_URIS", "https://a.example/x https://a.example/x"),
        ("BROKER_PLEO_AUTHORIZE_PARAMS", "prompt"),
        ("BROKER_PLEO_AUTHORIZE_PARAMS", "state=mine"),
        ("BROKER_PLEO_TIMEOUT_SECONDS", "0"),
        ("BROKER_PLEO_TIMEOUT_SECONDS", "10s"),
        ("BROKER_PLEO_MAX_CONCURRENCY", "-1"),
        ("BROKER_PLEO_MAX_CONCURRENCY", "1_0"),
        ("BROKER_PLEO_MAX_RATE", "0"),
        ("BROKER_RENEW_AHEAD_SECONDS", "nan"),
        ("BROKER_RENEW_AHEAD_SECONDS", "86401"),
        ("BROKER_KEEPALIVE_DAYS", "60"),
        ("BROKER_REJECTION_INTERVAL_SECONDS", "901"),
        ("BROKER_LOG_FORMAT", "text"),
        ("BROKER_OTLP_ENDPOINT", "collector:4317"),
        ("BROKER_DATABASE_URL", "mysql://127.0.0.1/broker"),
        ("BROKER_DATABASE_URL", "postgresql:///broker"),
        ("BROKER_DATABASE_URL", "postgresql://broker:a@b@127.0.0.1/broker"),
        ("BROKER_DATABASE_URL", "postgresql://broker:1/2@127.0.0.1/broker"),
        ("BROKER_DATABASE_URL", "postgresql://127.0.0.1/broker?service=other"),
        ("BROKER_REDIS_URL", "memcached://127.0.0.1"),
        ("BROKER_REDIS_URL", "redis://:1/2@127.0.0.1"),
        ("BROKER_REDIS_URL", "redis+sentinel://127.0.0.1:26379"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(variable: str, value: str) -> None:
    assert problems({variable: value}).keys() == {variable}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BROKER_GRPC_ADDRESS", "[::1]:0"),
        ("BROKER_GRPC_ADDRESS", "localhost:50051"),
        ("BROKER_GRPC_ADDRESS", "127.9.9.9:50051"),
        ("BROKER_INSECURE", "TRUE"),
        (
            "BROKER_PLEO_REDIRECT_URIS",
            "http://localhost:8400/callback https://app.example/callback",
        ),
        ("BROKER_PLEO_AUTHORIZE_PARAMS", "prompt=&audience=a%20b"),
        ("BROKER_PLEO_TIMEOUT_SECONDS", "2.5"),
        ("BROKER_PLEO_TIMEOUT_SECONDS", "60"),
        ("BROKER_PLEO_API_URL", ""),
        ("BROKER_HOME", ""),
        ("BROKER_DATABASE_URL", "postgresql://broker@/broker?host=%2Frun%2Fpostgres"),
        ("BROKER_DATABASE_URL", "postgresql://a@127.0.0.1:1,[::1]:2/broker"),
        ("BROKER_DATABASE_URL", "postgres://db.example/broker?sslmode=verify-full"),
        ("BROKER_REDIS_URL", "rediss://user:pass@redis.example:6380/0"),
        ("BROKER_REDIS_URL", "unix:///run/redis.sock?db=0"),
        ("BROKER_REDIS_URL", "redis+sentinel://u:p@h1:26379,h2:26379/service/0"),
    ],
)
def test_a_right_value_is_accepted(variable: str, value: str) -> None:
    assert problems({variable: value}) == {}


@pytest.mark.parametrize("sslmode", ["", "?sslmode=require", "?sslmode=verify-ca"])
def test_a_database_elsewhere_has_to_prove_who_it_is(sslmode: str) -> None:
    environ = {"BROKER_DATABASE_URL": f"postgresql://db.example/broker{sslmode}"}

    assert "verify-full" in problems(environ)["BROKER_DATABASE_URL"]
    assert problems({**environ, "BROKER_INSECURE": "true"}) == {}


def test_one_host_elsewhere_is_enough_to_ask_for_proof() -> None:
    environ = {"BROKER_DATABASE_URL": "postgresql://127.0.0.1,db.example/broker"}

    assert problems(environ).keys() == {"BROKER_DATABASE_URL"}


def test_an_authority_for_redis_needs_encryption() -> None:
    environ = {"BROKER_REDIS_URL": "redis://127.0.0.1", "BROKER_REDIS_CA_FILE": "ca.crt"}

    assert problems(environ).keys() == {"BROKER_REDIS_CA_FILE"}
    assert problems({**environ, "BROKER_REDIS_URL": "rediss://127.0.0.1"}) == {}


@pytest.mark.parametrize("variable", ["BROKER_GRPC_ADDRESS", "BROKER_OPS_ADDRESS"])
def test_without_tls_only_loopback_is_listened_on(variable: str) -> None:
    everywhere = {variable: "[::]:8000"}

    assert problems(everywhere).keys() == {variable}
    assert problems({**everywhere, "BROKER_INSECURE": "true"}) == {}
    assert problems({**everywhere, **TLS}) == {}


def test_strangers_are_let_in_on_loopback_alone() -> None:
    elsewhere = {"BROKER_GRPC_ADDRESS": "0.0.0.0:1", "BROKER_INSECURE": "true"}

    assert not Settings.from_environ(elsewhere).allows_anonymous
    assert problems({**elsewhere, "BROKER_ANONYMOUS": "true"}).keys() == {"BROKER_ANONYMOUS"}


@pytest.mark.parametrize("guard", [TLS, JWT, {"BROKER_POLICY_FILE": "policy.yaml"}])
def test_strangers_are_not_let_in_where_callers_have_rules(guard: dict[str, str]) -> None:
    assert not Settings.from_environ(guard).allows_anonymous
    assert Settings.from_environ({**guard, "BROKER_ANONYMOUS": "true"}).allows_anonymous


@pytest.mark.parametrize("lacking", TLS)
def test_the_parts_of_mutual_tls_come_together(lacking: str) -> None:
    rest = {name: value for name, value in TLS.items() if name != lacking}

    assert problems(rest).keys() == {lacking}


def test_tls_without_callers_certificates_will_do_where_callers_have_tokens() -> None:
    without = {name: value for name, value in TLS.items() if "CLIENT_CA" not in name}

    assert problems({**without, **JWT}) == {}


@pytest.mark.parametrize("lacking", [name for name in JWT if "JWT" in name])
def test_the_parts_of_a_token_check_come_together(lacking: str) -> None:
    rest = {name: value for name, value in JWT.items() if name != lacking}

    assert lacking in problems(rest)


@pytest.mark.parametrize("lacking", [name for name in CUSTOM if "URL" in name])
def test_a_custom_pleo_needs_its_addresses(lacking: str) -> None:
    rest = {name: value for name, value in CUSTOM.items() if name != lacking}

    assert problems(CUSTOM) == {}
    assert problems(rest).keys() == {lacking}


def test_addresses_of_another_pleo_are_refused_unless_it_is_custom() -> None:
    environ = {**CUSTOM, "BROKER_PLEO_ENVIRONMENT": "production"}

    assert problems(environ).keys() == {"BROKER_PLEO_AUTHORIZE_URL", "BROKER_PLEO_TOKEN_URL"}


@pytest.mark.parametrize("wanted", ["any", "standby", "prefer-standby", "read-only"])
def test_an_address_that_may_lead_to_a_standby_is_refused(wanted: str) -> None:
    url = f"postgresql://u@localhost,127.0.0.1:5433/d?target_session_attrs={wanted}"

    assert "read-write" in problems({"BROKER_DATABASE_URL": url})["BROKER_DATABASE_URL"]
    assert problems({"BROKER_DATABASE_URL": url.replace(wanted, "primary")}) == {}


@pytest.mark.parametrize("nodes", ["redis.example", "u:p@h1:1,h2:2", "h1,h2/0"])
def test_serve_takes_a_redis_cluster(nodes: str) -> None:
    environ = {**SERVE, **TLS, **JWT, "BROKER_REDIS_URL": f"redis+cluster://{nodes}"}

    assert "BROKER_REDIS_URL" not in problems(environ, settings=ServeSettings)


def test_a_redis_cluster_has_no_other_database() -> None:
    assert (
        "redis+cluster"
        in problems({"BROKER_REDIS_URL": "redis+cluster://h1/1"})["BROKER_REDIS_URL"]
    )


def test_serve_takes_a_redis_through_sentinels() -> None:
    environ = {**SERVE, **TLS, **JWT, "BROKER_REDIS_URL": "redis+sentinel://h1,h2/main/0"}

    assert "BROKER_REDIS_URL" not in problems(environ, settings=ServeSettings)


def test_a_secret_comes_from_a_file_and_is_read_again_at_each_use(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("first\n")
    settings = Settings.from_environ({"BROKER_PLEO_CLIENT_SECRET_FILE": str(path)})
    source = settings.pleo_client_secret
    assert source is not None

    before = source.read().reveal()
    path.write_text("second \r\n")

    assert (before, source.read().reveal()) == ("first", "second ")


def test_a_secret_that_is_gone_is_told_with_its_variable_and_place(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("first")
    source = Settings.from_environ({"BROKER_PLEO_CLIENT_SECRET_FILE": str(path)}).pleo_client_secret
    assert source is not None
    path.unlink()

    with pytest.raises(SecretUnreadableError, match="No such file") as raised:
        source.read()

    assert (raised.value.variable, raised.value.path) == ("BROKER_PLEO_CLIENT_SECRET_FILE", path)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_file_without_a_secret_in_it_is_a_problem(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)

    found = problems({"BROKER_REDIS_URL_FILE": str(path)})

    assert found.keys() == {"BROKER_REDIS_URL_FILE"}


def test_a_secret_given_twice_is_a_problem() -> None:
    found = problems({**SERVE, "BROKER_PLEO_CLIENT_SECRET_FILE": "x"}, settings=ServeSettings)

    assert "not both" in found["BROKER_PLEO_CLIENT_SECRET"]


def test_no_printed_form_shows_a_secret() -> None:
    settings = ServeSettings.from_environ(SERVE)

    shown = f"{settings} {settings!r} {settings.redacted()} {settings.model_dump()}"

    assert SECRET not in shown
    assert settings.redacted()["BROKER_DATABASE_URL"] == "postgresql://broker@127.0.0.1/broker"
    assert settings.redacted()["BROKER_PLEO_CLIENT_SECRET"] == "<secret>"


def test_settings_with_a_secret_are_neither_pickled_nor_copied_deeply() -> None:
    settings = ServeSettings.from_environ(SERVE)

    for leave in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="secret"):
            leave(settings)


@pytest.mark.parametrize("variable", [row.variable for row in rows()])
def test_no_problem_repeats_a_value(variable: str) -> None:
    environ = {variable: f"\0 {SECRET} ://{SECRET}@{SECRET}/?x={SECRET}#"}

    with pytest.raises(SettingsError) as raised:
        ServeSettings.from_environ(environ)

    assert SECRET not in f"{raised.value} {raised.value!r} {raised.value.problems}"
    assert raised.value.__cause__ is None


def test_an_unknown_name_is_told_with_the_nearest_known_one() -> None:
    found = unknown_names({"BROKER_DATABASE_URI": SECRET, "BROKER_ZZ": "", "PATH": "", **SERVE})

    assert [(each.variable, each.nearest) for each in found] == [
        ("BROKER_DATABASE_URI", "BROKER_DATABASE_URL"),
        ("BROKER_ZZ", None),
    ]
    assert str(found[0]).endswith("did you mean BROKER_DATABASE_URL?")


def test_a_file_variable_is_known_for_secrets_only() -> None:
    found = unknown_names({"BROKER_REDIS_URL_FILE": "x", "BROKER_HOME_FILE": "x"})

    assert [each.variable for each in found] == ["BROKER_HOME_FILE"]


@pytest.mark.parametrize(
    "variable",
    [
        "BROKER_PORT",
        "BROKER_PORT_50051_TCP",
        "BROKER_PORT_50051_TCP_ADDR",
        "BROKER_SERVICE_HOST",
        "BROKER_SERVICE_PORT",
        "BROKER_SERVICE_PORT_GRPC",
        "BROKER_OPS_PORT_8080_TCP_PROTO",
    ],
)
def test_what_kubernetes_tells_of_services_is_ignored(variable: str) -> None:
    assert unknown_names({variable: "tcp://10.0.0.1:50051"}) == ()


def test_settings_that_let_nobody_in_are_warned_of() -> None:
    locked = {"BROKER_ANONYMOUS": "false", "BROKER_PLEO_REDIRECT_URIS": "https://app.example/cb"}

    assert [text[:15] for text in Settings.from_environ(locked).warnings()] == ["nobody can call"]
    assert Settings.from_environ({**locked, **TLS}).warnings() == ()


def test_the_effective_level_is_one_of_the_known() -> None:
    assert Settings.from_environ({"BROKER_LOG_LEVEL": "debug"}).log_level is LogLevel.DEBUG


def test_the_table_of_settings_is_up_to_date() -> None:
    assert PATH.read_text() == markdown(), "run python -m broker.config.table"


def test_the_table_shows_defaults_as_they_would_be_set() -> None:
    defaults = {row.variable: row.default for row in rows()}

    assert defaults["BROKER_GUARD_HOLD_SECONDS"] == "`14400`"
    assert defaults["BROKER_KEEPALIVE_DAYS"] == "`20`"
    assert defaults["BROKER_REFLECTION"] == "`true`"
