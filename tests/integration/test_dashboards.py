"""The dashboard and the alerts ask only for what a running broker shows."""

from __future__ import annotations

import re

import grpc.aio
import pytest

from broker.ops.metrics import Metrics
from support.facts import KINDS, example_of
from support.fleet import Fleet, until_true
from support.onboarding import connect, expire, get, new_customer
from support.queries import Exposed, alerts, dashboard_queries, selected
from support.replica import Replica
from support.typed import documents

SERIES = r"\b(?:token_broker|process)_\w+(?:\{[^}]*\})?"
"""A metric that a document names, with the labels that it names."""

NOT_DRAWN = {
    "token_broker_attempts_claimed": "follows what is answered, but for what was let go",
    "token_broker_census_taken": "an alert watches it; there is nothing to see in it",
    "token_broker_files_refused": "files_good says it, and for as long as it matters",
    "token_broker_flights_ended": "calls that failed tell the same, with their code",
    "token_broker_unreadable_records_met": "unreadable_records tells how many there are",
    "process_virtual_memory_bytes": "resident memory is what runs out",
    "python_info": "the image has it",
    "python_gc_collections": "of no use to who is on call",
    "python_gc_objects_collected": "of no use to who is on call",
    "python_gc_objects_uncollectable": "of no use to who is on call",
}
"""Metrics without a panel, and why."""

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


async def test_every_metric_is_drawn_or_is_left_out_for_a_reason(two: Fleet) -> None:
    shown = await shown_by(two, two.replicas[0])
    drawn = {name for query in dashboard_queries() for name in families_in(query)}

    assert shown.families - drawn == NOT_DRAWN.keys()
    assert len(drawn) > 40


async def test_every_metric_that_a_document_names_is_shown(two: Fleet) -> None:
    exposed = with_labels_of_rare_facts(await shown_by(two, two.replicas[0]))
    exposed.names |= exposed.families
    named = {found for path in documents() for found in re.findall(SERIES, path.read_text())}

    assert {series: lack for series in named if (lack := exposed.lacks(series))} == {}
    assert len(named) > 25


def families_in(query: str) -> set[str]:
    return {re.sub(r"_(bucket|count|sum|total)$", "", each.name) for each in selected(query)}


async def is_counted(two: Fleet) -> bool:
    texts = [(await two.asked(each, "/metrics")).text for each in two.replicas]
    return any("token_broker_census_taken 1.0" in text for text in texts)
