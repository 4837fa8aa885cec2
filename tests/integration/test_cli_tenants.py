"""`get`, `grants` and `revoke` against a broker over real gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.errors import (
    BrokerError,
    CallerNotAllowed,
    ProviderUnavailable,
    ReauthRequired,
    TenantNotFound,
)
from broker.domain.grant import GrantState, ReauthCause
from broker.service.messages import RevokeGrant
from support.cli import Ended, run_beside
from support.fake_broker import some_served_token
from support.grants import THE_NOW, some_grant
from support.rpc import Served

ACCESS_TOKEN = some_served_token().access_token.reveal()


def address_of(served: Served) -> Mapping[str, str]:
    return {"BROKER_ADDRESS": f"127.0.0.1:{served.port}"}


async def call(served: Served, *arguments: str) -> Ended:
    return await run_beside(*arguments, environ=address_of(served))


async def test_get_tells_all_but_the_token(served: Served) -> None:
    ended = await call(served, "get", "acme", "--json")

    assert ended.status == 0
    assert ended.document["generation"] == "7"
    assert ended.document["degraded"] is False
    assert "access_token" not in ended.document
    assert ACCESS_TOKEN not in ended.said


async def test_get_for_people_keeps_the_token_back(served: Served) -> None:
    ended = await call(served, "get", "acme")

    assert "generation" in ended.stdout
    assert "in 600 s" in ended.stdout
    assert ACCESS_TOKEN not in ended.said


async def test_get_shows_the_token_when_asked(served: Served) -> None:
    for_programs = await call(served, "get", "acme", "--show-token", "--json")
    for_people = await call(served, "get", "acme", "--show-token")

    assert for_programs.document["access_token"] == ACCESS_TOKEN
    assert for_people.stdout.split()[-1] == ACCESS_TOKEN


async def test_a_degraded_token_is_told(served: Served) -> None:
    served.broker.served = some_served_token(is_degraded=True)

    assert "degraded" in (await call(served, "get", "acme")).stdout


async def test_reauth_required_ends_with_three(served: Served) -> None:
    served.broker.failure = ReauthRequired(
        tenant="acme", cause=ReauthCause.ROTATION_LOST, since=THE_NOW, generation=7
    )

    ended = await call(served, "get", "acme", "--json")

    assert (ended.status, ended.stdout) == (3, "")
    error, hint = ended.stderr.splitlines()
    assert error.startswith("error: REAUTH_REQUIRED: ")
    assert hint == "hint: the customer consents again: token-broker connect TENANT"


@pytest.mark.parametrize(
    "failure", [TenantNotFound(tenant="acme"), CallerNotAllowed("no rule"), ValueError("secret")]
)
async def test_other_failures_end_with_one_and_a_hint(served: Served, failure: Exception) -> None:
    served.broker.failure = failure
    reason = failure.reason if isinstance(failure, BrokerError) else "INTERNAL_ERROR"

    ended = await call(served, "get", "acme")

    assert (ended.status, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"error: {reason}: ")
    assert "\nhint: " in ended.stderr


async def test_when_to_try_again_is_told(served: Served) -> None:
    served.broker.failure = ProviderUnavailable("Pleo is slow", retry_after=timedelta(seconds=4.2))

    assert "(not sooner than in 5 s)" in (await call(served, "get", "acme")).stderr


async def test_nobody_at_the_address_is_told() -> None:
    ended = await run_beside("get", "acme", environ={"BROKER_ADDRESS": "127.0.0.1:1"})

    assert ended.status == 1
    assert ended.stderr.startswith("error: UNAVAILABLE: ")
    assert "BROKER_ADDRESS" in ended.stderr


async def test_grants_lists_all_pages(served: Served) -> None:
    served.broker.grants = {f"t{n:04}": some_grant(tenant=f"t{n:04}") for n in range(1001)}

    ended = await call(served, "grants", "--json")

    assert [each["tenant"] for each in ended.document["grants"]] == [*served.broker.grants]
    assert ended.document["grants"][0]["state"] == "STATE_ACTIVE"


async def test_grants_can_be_asked_for_by_state(served: Served) -> None:
    dead = some_grant(tenant="dead")
    served.broker.grants["dead"] = replace(dead, state=GrantState.REVOKED)

    ended = await call(served, "grants", "--state", "REVOKED", "--state", "reauth_required")

    heading, row = ended.stdout.splitlines()
    assert heading.split()[:2] == ["TENANT", "STATE"]
    assert row.split()[:2] == ["dead", "REVOKED"]


async def test_no_grants_are_told(served: Served) -> None:
    served.broker.grants = {}

    assert (await call(served, "grants")).stdout == "No grants.\n"
    assert (await call(served, "grants", "--json")).document == {"grants": []}


async def test_revoke_tells_why_and_shows_what_is_left(served: Served) -> None:
    ended = await call(served, "revoke", "acme", "--reason", "they left", "--json")

    assert ended.document["state"] == "STATE_REVOKED"
    (asked,) = [each for each in served.broker.asked if isinstance(each, RevokeGrant)]
    assert (asked.tenant, asked.reason, asked.at_provider) == ("acme", "they left", False)


async def test_revoke_at_pleo_is_asked_for(served: Served) -> None:
    ended = await call(served, "revoke", "acme", "--reason", "they left", "--at-provider")

    assert "REVOKED" in ended.stdout
    (asked,) = [each for each in served.broker.asked if isinstance(each, RevokeGrant)]
    assert asked.at_provider
