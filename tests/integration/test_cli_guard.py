"""`guard confirm` and `guard discard` against a broker over real gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from broker.domain.errors import CallerNotAllowed, StoreUnavailable
from broker.domain.guard import Release
from broker.rpc.caller import ANONYMOUS
from broker.service.guard import Released
from support.cli import Ended, run_beside
from support.fake_broker import AskedForRelease
from support.rpc import Served, serving


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as running:
        yield running


async def guard(served: Served, *arguments: str) -> Ended:
    environ = {"BROKER_ADDRESS": f"127.0.0.1:{served.port}"}
    return await run_beside("guard", *arguments, "--reason", "OPS-17", environ=environ)


@pytest.mark.parametrize("release", Release)
async def test_the_broker_is_told_what_was_decided_and_why(
    served: Served, release: Release
) -> None:
    ended = await guard(served, release.value.lower())

    assert (ended.status, ended.stderr) == (0, "")
    assert served.broker.asked == [AskedForRelease(release=release, by=ANONYMOUS, reason="OPS-17")]


async def test_confirming_tells_what_became_of_the_grants(served: Served) -> None:
    released, remaining = (await guard(served, "confirm")).stdout.splitlines()

    assert released.split()[:4] == ["released", "5,", "now", "REAUTH_REQUIRED."]
    assert "BROKER_QUARANTINE_DAYS" in released
    assert "token-broker guard discard" in released
    assert remaining.split()[:3] == ["remaining", "2,", "held"]
    assert remaining.endswith("follow by themselves")


async def test_discarding_tells_what_becomes_of_the_grants(served: Served) -> None:
    released, _ = (await guard(served, "discard")).stdout.splitlines()

    assert released.split()[:4] == ["released", "5,", "now", "ACTIVE."]
    assert "presented once more" in released


@pytest.mark.parametrize("decision", ["confirm", "discard"])
async def test_where_nothing_was_held_that_is_all(served: Served, decision: str) -> None:
    served.broker.released = Released(released=0, remaining=0)

    ended = await guard(served, decision)

    assert ended.stdout == "released   0\nremaining  0\n"
    assert ended.status == 0


async def test_programs_get_both_numbers_also_where_they_are_none(served: Served) -> None:
    served.broker.released = Released(released=3, remaining=0)

    ended = await guard(served, "confirm", "--json")

    assert ended.document == {"released_count": "3", "remaining_count": "0"}


@pytest.mark.parametrize("failure", [StoreUnavailable("away"), CallerNotAllowed("no rule")])
async def test_a_decision_that_does_not_stand_ends_with_one(
    served: Served, failure: StoreUnavailable | CallerNotAllowed
) -> None:
    served.broker.failure = failure

    ended = await guard(served, "discard")

    assert (ended.status, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"error: {failure.reason}: ")
    assert "\nhint: " in ended.stderr
