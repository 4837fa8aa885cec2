"""Traces as a collector gets them, and what a collector that is away costs: nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from broker.sandbox.faults import Hold
from broker.v1.token_service_pb2 import GetAccessTokenRequest
from support.collector import Collector, collector
from support.fleet import Fleet
from support.onboarding import connect, expire, get, new_customer
from support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")

CALL = "broker.v1.TokenService/GetAccessToken"


@pytest.fixture
def collecting() -> Iterator[Collector]:
    with collector() as kept:
        yield kept


def of_the_trace(kept: Collector) -> dict[str, Span]:
    return {span.name: span for span in kept.spans() if span.trace_id.hex() == TRACE}


async def test_a_refresh_is_one_trace_from_the_caller_to_the_settlement(
    two: Fleet, collecting: Collector
) -> None:
    replica = await two.started(BROKER_OTLP_ENDPOINT=collecting.url)
    customer = new_customer(two.sandbox)
    await connect(two, replica, customer)
    await expire(two, customer.tenant, known_to=replica)

    request = GetAccessTokenRequest(tenant=customer.tenant)
    metadata = (PARENT, ("x-request-id", "order-17"))
    answer = await replica.tokens.GetAccessToken(request, metadata=metadata, timeout=20)
    await until(lambda: {CALL, "flight", "settle"} <= of_the_trace(collecting).keys())

    spans = of_the_trace(collecting)
    assert {"lease", "claim", "pleo"} <= spans.keys()
    assert spans["flight"].parent_span_id == spans[CALL].span_id
    for step in ("lease", "claim", "pleo", "settle"):
        assert spans[step].parent_span_id == spans["flight"].span_id
    settled = await replica.saw("attempt_settled", tenant=customer.tenant, trace_id=TRACE)
    assert (settled["request_id"], settled["caller"]) == ("order-17", "anonymous")
    assert not [body for body in collecting.requests if answer.access_token.encode() in body]
    replica.terminate()
    assert await replica.ended() == 0


async def test_who_waits_for_a_flight_is_linked_to_it(two: Fleet, collecting: Collector) -> None:
    replica = await two.started(BROKER_OTLP_ENDPOINT=collecting.url)
    customer = new_customer(two.sandbox)
    await connect(two, replica, customer)
    await expire(two, customer.tenant, known_to=replica)
    two.sandbox.faults.add(Hold(when="after"), grant_type="refresh_token", company=customer.company)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(get(replica.tokens, customer.tenant), name="leader")
        await two.sandbox.until(held=1)
        tasks.create_task(get(replica.tokens, customer.tenant), name="follower")
        await replica.saw("flight_joined", tenant=customer.tenant)
        two.sandbox.release()
    await replica.hang_up()
    replica.terminate()

    assert await replica.ended() == 0  # and has sent what was left
    calls = collecting.named(CALL)
    (leader,) = [each.span_id for each in calls if not each.links]
    (flight,) = [each for each in collecting.named("flight") if each.parent_span_id == leader]
    assert [link.span_id for each in calls for link in each.links] == [flight.span_id]


async def test_a_collector_that_hangs_keeps_no_caller_and_no_end_waiting(
    two: Fleet, collecting: Collector
) -> None:
    collecting.answers.clear()
    replica = await two.started(BROKER_OTLP_ENDPOINT=collecting.url)
    with pytest.raises(grpc.aio.AioRpcError, match="TENANT_NOT_FOUND"):
        await get(replica.tokens, "nobody")
    await until(lambda: bool(collecting.requests))

    asked_at = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError, match="TENANT_NOT_FOUND"):
        await get(replica.tokens, "nobody")
    replica.terminate()

    assert await replica.ended() == 0
    assert time.monotonic() - asked_at < 15


async def test_a_collector_that_is_away_is_told_of_and_no_more(two: Fleet) -> None:
    replica = await two.started(BROKER_OTLP_ENDPOINT="http://127.0.0.1:1")
    with pytest.raises(grpc.aio.AioRpcError, match="TENANT_NOT_FOUND"):
        await get(replica.tokens, "nobody")

    said = await replica.saw("library_message", level="error")
    replica.terminate()

    assert "opentelemetry" in str(said["logger"])
    assert await replica.ended() == 0
