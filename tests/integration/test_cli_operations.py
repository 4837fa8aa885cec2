"""`status` and `refresh` against a broker over real gRPC."""

from __future__ import annotations

import pytest

from broker.domain.errors import ProviderUnavailable, ReauthRequired, StoreUnavailable
from broker.domain.grant import ReauthCause
from broker.domain.guard import Guard
from support.cli import Ended, run_beside
from support.grants import THE_NOW
from support.reports import some_report
from support.rpc import Served


async def call(served: Served, *arguments: str) -> Ended:
    environ = {"BROKER_ADDRESS": f"127.0.0.1:{served.port}"}
    return await run_beside(*arguments, environ=environ)


async def line_of(served: Served, name: str) -> str:
    """Returns what `status` says under this name."""
    lines = (await call(served, "status")).stdout.splitlines()
    return next(line.removeprefix(name).strip() for line in lines if line.startswith(name))


async def test_programs_get_the_whole_report(served: Served) -> None:
    ended = await call(served, "status", "--json")

    assert (ended.status, ended.stderr) == (0, "")
    assert ended.document["grant_counts"]["active"] == "1204"
    assert ended.document["breaker"]["state"] == "STATE_OPEN"
    assert ended.document["guard"]["state"] == "STATE_HOLDING"
    assert len(ended.document["dependencies"]) == 3


async def test_people_are_told_what_is_wrong_in_words(served: Served) -> None:
    said = (await call(served, "status")).stdout

    assert "1204 active (3 in doubt), 7 held, 31 must consent again, 12 revoked" in said
    assert "OPEN since" in said
    assert "Pleo refuses our client (invalid_client)" in said
    assert "token-broker guard discard" in said
    assert "4, the latest by 390 s" in said
    assert "REDIS_UNREACHABLE" in said
    assert "MISSING" in said


async def test_a_fleet_that_is_well_is_told_in_few_words(served: Served) -> None:
    served.broker.report = some_report(breaker=None, guard=Guard(), escrow_count=0)

    assert await line_of(served, "breaker") == "closed"
    assert (await line_of(served, "guard")).startswith("watching")
    assert await line_of(served, "escrows") == "0"


async def test_what_nobody_knows_is_not_called_zero(served: Served) -> None:
    served.broker.report = some_report(tally=None, escrow_count=None)

    assert (await line_of(served, "grants")).startswith("unknown")
    assert (await line_of(served, "overdue renewals")).startswith("unknown")
    assert (await line_of(served, "escrows")).startswith("unknown")


async def test_a_rotation_shows_the_grant_after_it(served: Served) -> None:
    for_people = await call(served, "refresh", "acme", "--reason", "OPS-17")
    for_programs = await call(served, "refresh", "acme", "--reason", "OPS-17", "--json")

    assert (for_people.status, for_programs.document["generation"]) == (0, "9")
    assert "generation" in for_people.stdout


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (ProviderUnavailable("Pleo is down"), 1),
        (StoreUnavailable("away"), 1),
        (
            ReauthRequired(
                tenant="acme", cause=ReauthCause.EXPIRED_OR_REVOKED, since=THE_NOW, generation=7
            ),
            3,
        ),
    ],
)
async def test_a_rotation_that_did_not_come_ends_with_its_status(
    served: Served, failure: ProviderUnavailable | StoreUnavailable | ReauthRequired, status: int
) -> None:
    served.broker.failure = failure

    ended = await call(served, "refresh", "acme", "--reason", "OPS-17")

    assert (ended.status, ended.stdout) == (status, "")
    assert ended.stderr.startswith(f"error: {failure.reason}: ")


@pytest.mark.parametrize("arguments", [("refresh", "acme"), ("refresh", "--reason", "x")])
async def test_a_rotation_without_tenant_or_reason_is_wrong_use(
    served: Served, arguments: tuple[str, ...]
) -> None:
    ended = await call(served, *arguments)

    assert ended.status == 2
    assert served.broker.asked == []


async def test_a_broker_that_is_not_there_ends_status_with_one() -> None:
    ended = await run_beside("status", environ={"BROKER_ADDRESS": "127.0.0.1:1"})

    assert (ended.status, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: UNAVAILABLE")
