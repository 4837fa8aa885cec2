"""`doctor --registration`: what has to be registered with Pleo for these settings."""

from __future__ import annotations

from support.cli import run_here

ENVIRON = {
    "BROKER_PLEO_CLIENT_ID": "client-1",
    "BROKER_PLEO_CLIENT_SECRET": "correct-horse-battery",
    "BROKER_PLEO_REDIRECT_URIS": "https://app.example/callback http://localhost:8400/callback",
    "BROKER_PLEO_SCOPES": "export-items:read accounts:read",
}


def test_all_that_pleo_wants_to_know_is_told() -> None:
    told = run_here("doctor", "--registration", "--json", environ=ENVIRON).document

    assert told["redirect_uris"] == ENVIRON["BROKER_PLEO_REDIRECT_URIS"].split()
    assert told["scope"] == ENVIRON["BROKER_PLEO_SCOPES"]
    assert told["code_challenge_method"] == "S256"
    assert told["token_endpoint_auth_method"] == "client_secret_basic"


def test_credentials_in_the_body_are_told() -> None:
    environ = ENVIRON | {"BROKER_PLEO_CLIENT_AUTH": "body"}

    told = run_here("doctor", "--registration", "--json", environ=environ).document

    assert told["token_endpoint_auth_method"] == "client_secret_post"


def test_people_read_a_line_each() -> None:
    ended = run_here("doctor", "--registration", environ=ENVIRON)

    assert "https://app.example/callback" in ended.stdout
    assert "S256" in ended.stdout
    assert "correct-horse" not in ended.said


def test_a_missing_client_is_wrong_use() -> None:
    assert run_here("doctor", "--registration").status == 2


def test_missing_redirect_uris_are_warned_of() -> None:
    ended = run_here(
        "doctor", "--registration", "--json", environ={"BROKER_PLEO_CLIENT_ID": "client-1"}
    )

    assert ended.document["redirect_uris"] == []
    assert "warning: nobody can authorize" in ended.stderr
