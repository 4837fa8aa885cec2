"""A token from memory, of a real broker: whichever way it goes, it is told of as any other."""

from __future__ import annotations

import pytest

from broker.v1.token_service_pb2 import GetAccessTokenRequest
from support.fleet import Fleet
from support.onboarding import Customer, connect, get
from support.replica import Replica

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def counted(brokers: Fleet, replica: Replica, sample: str) -> float:
    """Returns a sample of the metrics, 0 where it is not shown."""
    lines = (await brokers.asked(replica, "/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(sample))


SERVED = 'token_broker_tokens_served_total{degraded="false",source="memory"}'

ENDED = (
    'token_broker_calls_total{code="OK",method="TokenService/GetAccessToken",reason=""}',
    'token_broker_call_duration_seconds_count{method="TokenService/GetAccessToken"}',
)


async def counts(brokers: Fleet, replica: Replica) -> list[float]:
    return [await counted(brokers, replica, each) for each in (SERVED, *ENDED)]


@pytest.mark.parametrize("number", [0, 1], ids=["traced", "at once"])
async def test_a_token_from_memory_is_counted_and_logged(
    two: Fleet, customer: Customer, number: int
) -> None:
    replica = two.replicas[number]
    await connect(two, replica, customer)
    first = await get(replica.tokens, customer.tenant)
    before = await counts(two, replica)

    request = GetAccessTokenRequest(tenant=customer.tenant)
    metadata = (("x-request-id", f"from-memory-{number}"),)
    again = await replica.tokens.GetAccessToken(request, metadata=metadata)

    line = await replica.saw("token_served", request_id=f"from-memory-{number}")
    assert (line["source"], line["caller"]) == ("memory", "anonymous")
    assert again.access_token == first.access_token
    assert await counts(two, replica) == [each + 1 for each in before]


async def test_without_a_line_of_every_token_all_are_counted(
    two: Fleet, customer: Customer
) -> None:
    quiet = await two.started(BROKER_LOG_LEVEL="info", BROKER_OTLP_ENDPOINT="")
    await connect(two, quiet, customer)

    answers = [await get(quiet.tokens, customer.tenant) for _ in range(5)]

    assert {each.generation for each in answers} == {1}
    assert await counts(two, quiet) == [5, 5, 5]
    assert quiet.seen("token_served") == []
