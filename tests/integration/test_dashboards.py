"""The dashboard and the alerts ask only for what a running broker shows."""

from __future__ import annotations

import grpc.aio
import pytest

from broker.ops.metrics import Metrics
from support.facts import KINDS, example_of
from support.fleet import Fleet, until_true
from support.onboarding import connect, expire, get, new_customer
from support.queries import Exposed, alerts, dashboard_queries
from support.replica import Replica

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def shown_by(two: Fleet, replica: Replica) -> Exposed:
    """Returns what is shown after calls that went well and one that did not."""
    customer = new_customer(two.sandbox)
    await connect(two, replica, customer)
    await expire(two, customer.tenant, known_to=replica)
    await get(replica.tokens, customer.tenant)
    with pytest.raises(grpc.aio.AioRpcError):
        await get(replica.tokens, "nobody")
    exposed = Exposed()
    for each in two.replicas:
        exposed.take_text((await two.asked(each, "/metrics")).text)
    return exposed


def with_labels_of_rare_facts(exposed: Exposed) -> Exposed:
    """Adds the labels of what does not happen in a test; no names."""
    metrics = Metrics()
    for kind in KINDS:
        metrics.observe(example_of(kind))
    rare = Exposed()
    rare.take(metrics.registry.collect())
    for place, values in rare.values.items():
        exposed.values.setdefault(place, values)
    return exposed


async def test_every_query_names_what_a_running_broker_shows(two: Fleet) -> None:
    await until_true(lambda: is_counted(two), seconds=20)
    exposed = with_labels_of_rare_facts(await shown_by(two, two.replicas[0]))

    queries = [*dashboard_queries(), *(each["expr"] for each in alerts())]

    assert {query: lack for query in queries if (lack := exposed.lacks(query))} == {}
    assert len(queries) > 60


async def is_counted(two: Fleet) -> bool:
    texts = [(await two.asked(each, "/metrics")).text for each in two.replicas]
    return any("token_broker_census_taken 1.0" in text for text in texts)
