"""RefreshGrant and GetFleetStatus over real gRPC, over a fake service."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest

from broker.domain.errors import GrantHeld, ReauthRequired
from broker.domain.grant import ReauthCause
from broker.domain.guard import Guard, GuardState
from broker.rpc.caller import ANONYMOUS
from broker.service.messages import RefreshGrant
from broker.v1.operations_service_pb2 import (
    GetFleetStatusRequest,
    GetFleetStatusResponse,
    RefreshGrantRequest,
)
from support.fake_broker import AskedForRotation
from support.grants import THE_NOW
from support.reports import some_report
from support.rpc import PUSHBACK, Served, failure_of

Breaker, GuardMessage = GetFleetStatusResponse.Breaker, GetFleetStatusResponse.Guard


async def status(served: Served) -> GetFleetStatusResponse:
    return await served.operations.GetFleetStatus(GetFleetStatusRequest())


async def test_a_rotation_answers_with_the_new_generation(served: Served) -> None:
    request = RefreshGrantRequest(tenant="acme", reason="OPS-17")

    response = await served.operations.RefreshGrant(request, timeout=20)

    (_, asked) = served.broker.asked
    assert response.grant.generation == 8
    assert isinstance(asked, AskedForRotation)
    assert asked.request == RefreshGrant(tenant="acme", caller=ANONYMOUS, reason="OPS-17")
    assert timedelta(seconds=10) < asked.budget < timedelta(seconds=21)


@pytest.mark.parametrize(
    ("request_", "violations"),
    [
        (RefreshGrantRequest(tenant="acme"), {"reason"}),
        (RefreshGrantRequest(reason="OPS-17"), {"tenant"}),
        (RefreshGrantRequest(tenant="a b", reason="x" * 501), {"tenant", "reason"}),
    ],
)
async def test_a_rotation_wants_a_tenant_and_a_reason(
    served: Served, request_: RefreshGrantRequest, violations: set[str]
) -> None:
    failure = await failure_of(served.operations.RefreshGrant(request_))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.violations.keys() == violations
    assert served.broker.asked == []


async def test_why_there_is_no_rotation_is_told(served: Served) -> None:
    served.broker.failure = GrantHeld("held", retry_after=timedelta(seconds=60))

    failure = await failure_of(
        served.operations.RefreshGrant(RefreshGrantRequest(tenant="acme", reason="OPS-17"))
    )

    assert failure.error_info.reason == "GRANT_HELD"
    assert failure.trailers[PUSHBACK] == "-1"


async def test_a_dead_grant_is_told_with_its_cause(served: Served) -> None:
    served.broker.failure = ReauthRequired(
        tenant="acme", cause=ReauthCause.ROTATION_LOST, since=THE_NOW, generation=7
    )

    failure = await failure_of(
        served.operations.RefreshGrant(RefreshGrantRequest(tenant="acme", reason="OPS-17"))
    )

    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert failure.error_info.metadata["cause"] == "ROTATION_LOST"


async def test_the_fleet_is_told_with_all_that_is_known(served: Served) -> None:
    told = await status(served)

    counts = told.grant_counts
    assert (told.home, told.environment, told.replica) == (
        "production-eu",
        "production",
        "broker-1",
    )
    assert (counts.active, counts.held, counts.reauth_required, counts.revoked) == (1204, 7, 31, 12)
    assert counts.in_doubt == 3
    assert (told.overdue_renewals.count, told.overdue_renewals.longest_delay.seconds) == (4, 390)
    assert [each.name for each in told.replicas] == ["broker-1", "broker-2"]
    assert told.escrow_count == 2


async def test_dependencies_are_told_with_their_last_error(served: Served) -> None:
    postgres, redis, pleo = (await status(served)).dependencies

    assert (postgres.healthy, postgres.last_error) == (True, "")
    assert (redis.healthy, redis.last_error) == (False, "REDIS_UNREACHABLE")
    assert redis.check_time.ToDatetime() == THE_NOW.replace(tzinfo=None)
    assert not pleo.HasField("check_time")


async def test_keys_are_told_by_what_they_are_used_for(served: Served) -> None:
    primary, missing = (await status(served)).keys

    assert (primary.key_id, primary.primary, primary.available) == (11, True, True)
    assert (missing.key_id, missing.primary, missing.available) == (12, False, False)
    assert (primary.row_count, missing.row_count) == (1254, 2)


async def test_an_open_breaker_tells_why_and_until_when(served: Served) -> None:
    breaker = (await status(served)).breaker

    assert breaker.state == Breaker.STATE_OPEN
    assert breaker.cause == "Pleo refuses our client (invalid_client)"
    assert breaker.next_probe_time.seconds - breaker.since_time.seconds == 320


async def test_a_closed_breaker_is_told_too(served: Served) -> None:
    served.broker.report = some_report(breaker=None)

    breaker = (await status(served)).breaker

    assert (breaker.state, breaker.cause) == (Breaker.STATE_CLOSED, "")
    assert not breaker.HasField("since_time")


async def test_a_guard_that_holds_tells_since_and_until_when(served: Served) -> None:
    guard = (await status(served)).guard

    assert (guard.state, guard.recent_refusals) == (GuardMessage.STATE_HOLDING, 9)
    assert guard.end_time.seconds - guard.since_time.seconds == 4 * 3600


@pytest.mark.parametrize("state", [GuardState.WATCHING, GuardState.CONFIRMING])
async def test_a_guard_that_does_not_hold_watches(served: Served, state: GuardState) -> None:
    served.broker.report = some_report(guard=Guard(state=state, since=THE_NOW))

    guard = (await status(served)).guard

    assert guard.state == GuardMessage.STATE_WATCHING
    assert not guard.HasField("since_time")


async def test_what_was_not_found_out_is_absent(served: Served) -> None:
    served.broker.report = some_report(tally=None, keys=(), escrow_count=None)

    told = await status(served)

    present = {field.name for field, _ in told.ListFields()}
    assert present == {"home", "environment", "replica", "dependencies", "breaker"}
