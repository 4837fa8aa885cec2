"""ExplainGrant over real gRPC, and `token-broker explain`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, timedelta

import grpc
import pytest

from broker.domain.errors import TenantNotFound
from broker.domain.facts import LeaseStanding
from broker.domain.grant import AttemptPhase, GrantState
from broker.domain.history import AttemptOutcome
from broker.domain.trouble import Trouble
from broker.ports import LeaseSeen
from broker.v1.operations_service_pb2 import (
    ExplainGrantRequest,
    ExplainGrantResponse,
    RefreshAttempt,
)
from support.cli import Ended, run_beside
from support.fake_broker import AskedForStory
from support.grants import THE_NOW, some_attempt, some_grant, some_grant_under, some_reauth
from support.known import known_of, some_disclosure, some_event, some_record
from support.rpc import Served, failure_of


@pytest.fixture
def told(served: Served) -> Served:
    """A broker that has something of everything to tell."""
    served.broker.known = replace(
        known_of(),
        attempts=(some_record(),),
        events=(some_event(),),
        disclosures=(some_disclosure(),),
        key_id=4242,
    )
    served.broker.lease = LeaseSeen(
        standing=LeaseStanding.HELD, holder="replica-1", remaining=timedelta(seconds=8)
    )
    return served


async def explain(served: Served, history_size: int = 0) -> ExplainGrantResponse:
    request = ExplainGrantRequest(tenant="acme", history_size=history_size)
    return await served.operations.ExplainGrant(request)


def address_of(served: Served) -> Mapping[str, str]:
    return {"BROKER_ADDRESS": f"127.0.0.1:{served.port}"}


async def command(served: Served, *arguments: str) -> Ended:
    return await run_beside("explain", "acme", *arguments, environ=address_of(served))


async def test_everything_known_is_in_the_answer(told: Served) -> None:
    answer = await explain(told)

    (attempt,), (event,), (disclosure,) = answer.attempts, answer.events, answer.disclosures
    assert (answer.grant.tenant, answer.key_id) == ("acme", 4242)
    assert (attempt.number, attempt.outcome) == (12, RefreshAttempt.OUTCOME_ROTATED)
    assert (attempt.provider_status, attempt.duration.ToSeconds()) == (200, 60)
    assert (event.call, event.before, event.after) == (
        "GrantService/RevokeGrant",
        "ACTIVE",
        "REVOKED",
    )
    assert (disclosure.caller, disclosure.last_generation) == ("sa:web", 7)
    assert answer.next_step.due_time.ToDatetime(tzinfo=UTC) == some_grant().renew_at
    assert answer.story.splitlines()[-1].startswith("What to do: ")
    assert not answer.HasField("hold")


async def test_who_holds_the_lease_and_until_when_is_told(told: Served) -> None:
    lease = (await explain(told)).lease

    assert (lease.standing, lease.holder) == (lease.STANDING_HELD, "replica-1")
    assert lease.expire_time.ToDatetime(tzinfo=UTC) == THE_NOW + timedelta(seconds=8)


async def test_what_is_not_there_is_absent(served: Served) -> None:
    answer = await explain(served)

    assert not answer.HasField("key_id")
    assert not answer.lease.HasField("expire_time")
    assert (list(answer.attempts), list(answer.events)) == ([], [])


@pytest.mark.parametrize(
    ("phase", "seconds", "outcome"),
    [
        (AttemptPhase.ARMED, 1, RefreshAttempt.OUTCOME_IN_PROGRESS),
        (AttemptPhase.ARMED, 0, RefreshAttempt.OUTCOME_ABANDONED),
        (AttemptPhase.UNKNOWN, 1, RefreshAttempt.OUTCOME_UNKNOWN),
    ],
)
async def test_an_attempt_on_the_row_comes_first(
    told: Served, phase: AttemptPhase, seconds: int, outcome: RefreshAttempt.Outcome.ValueType
) -> None:
    deadline = THE_NOW + timedelta(seconds=seconds)
    attempt = some_attempt(phase=phase, deadline=deadline)
    told.broker.grants["acme"] = some_grant_under(attempt)

    first, second = (await explain(told)).attempts

    assert (first.number, first.outcome, second.number) == (13, outcome, 12)
    assert first.deadline_time.ToDatetime(tzinfo=UTC) == deadline
    assert not first.HasField("duration")


async def test_an_attempt_that_has_its_line_is_told_once(told: Served) -> None:
    told.broker.grants["acme"] = some_grant_under(some_attempt(number=12))

    assert [each.number for each in (await explain(told)).attempts] == [12]


@pytest.mark.parametrize("outcome", AttemptOutcome)
async def test_every_outcome_has_a_name(told: Served, outcome: AttemptOutcome) -> None:
    told.broker.known = replace(told.broker.known, attempts=(some_record(outcome),))

    (attempt,) = (await explain(told)).attempts

    assert attempt.outcome != RefreshAttempt.OUTCOME_UNSPECIFIED


async def test_a_held_grant_tells_until_when(told: Served) -> None:
    told.broker.grants["acme"] = some_grant(state=GrantState.HELD, reauth=some_reauth())

    answer = await explain(told)

    assert answer.hold.since_time.ToDatetime(tzinfo=UTC) == THE_NOW


async def test_what_the_broker_did_by_itself_has_its_name_in_the_reason(told: Served) -> None:
    line = some_event()
    own = replace(line.event, actor="broker", call="guard HOLD", after=GrantState.ACTIVE)
    told.broker.known = replace(told.broker.known, events=(replace(line, event=own),))

    (event,) = (await explain(told)).events

    assert (event.call, event.reason) == ("", "guard HOLD: they left")
    assert (event.before, event.after) == ("", "")


async def test_what_the_replica_finds_bad_is_part_of_the_story(told: Served) -> None:
    told.broker.troubled = (Trouble(name="postgres", error="DISK_FULL"),)

    ended = await command(told)

    assert "finds PostgreSQL in trouble: DISK_FULL." in ended.stdout
    assert "What to do: Make room on PostgreSQL's disk." in ended.stdout


@pytest.mark.parametrize(("asked", "limit"), [(0, 20), (1, 1), (200, 200)])
async def test_as_many_lines_as_wanted_are_asked_for(
    served: Served, asked: int, limit: int
) -> None:
    await explain(served, asked)

    assert AskedForStory(tenant="acme", limit=limit) in served.broker.asked


@pytest.mark.parametrize("size", [-1, 201])
async def test_a_history_without_measure_is_refused(served: Served, size: int) -> None:
    failure = await failure_of(explain(served, size))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.violations == {"history_size": "must be 0 to 200"}


async def test_the_command_tells_the_story_and_its_records(told: Served) -> None:
    ended = await command(told)

    assert (ended.status, ended.stderr) == (0, "")
    assert ended.stdout.startswith("acme is connected to ")
    for words in ("What to do: ", "held by replica-1", "4242", "GrantService/RevokeGrant"):
        assert words in ended.stdout
    assert "5 to 7" in ended.stdout
    assert "ACTIVE -> REVOKED" in ended.stdout


async def test_the_command_gives_programs_the_whole_answer(told: Served) -> None:
    document = (await command(told, "--json")).document

    assert document["grant"]["tenant"] == "acme"
    assert document["disclosures"][0]["caller"] == "sa:web"
    assert document["next_step"]["due_time"] == "2026-03-01T12:08:00Z"


@pytest.mark.parametrize("arguments", [(), ("--json",)])
async def test_where_the_customer_must_consent_again_it_ends_with_three(
    told: Served, arguments: tuple[str, ...]
) -> None:
    told.broker.grants["acme"] = some_grant(state=GrantState.REAUTH_REQUIRED, reauth=some_reauth())

    ended = await command(told, *arguments)

    assert ended.status == 3
    assert "Let the customer consent again" in ended.stdout


async def test_a_tenant_that_nobody_knows_ends_with_one(served: Served) -> None:
    served.broker.failure = TenantNotFound(tenant="acme")

    ended = await command(served)

    assert (ended.status, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: TENANT_NOT_FOUND: ")


async def test_what_moves_a_terminals_cursor_is_not_told(told: Served) -> None:
    line = some_event()
    told.broker.known = replace(
        told.broker.known,
        events=(replace(line, event=replace(line.event, reason="\x1b[2J")),),
    )

    assert "\x1b" not in (await command(told)).stdout
