"""How spans are built: one trace from the caller to the settlement, and no secret in it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from broker.domain.facts import Fact
from broker.ops import spans
from broker.ops.spans import Spans, current_trace_id
from broker.service.flights import Flight, Flights
from support.facts import KINDS, THE_SECRET, example_of
from support.service import CountingChance
from support.virtual_time import in_virtual_time

METHOD = "TokenService/GetAccessToken"

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


@dataclass(slots=True)
class Traced:
    """Spans, and where they end up."""

    kept: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    spans: Spans = field(init=False)

    def __post_init__(self) -> None:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.kept))
        self.spans = Spans(provider.get_tracer("test"))

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.kept.get_finished_spans() if span.name == name]

    @contextmanager
    def call(self, *metadata: tuple[str, str | bytes]) -> Iterator[None]:
        open_call = self.spans.begin(METHOD, metadata)
        yield
        open_call.end(code="OK", reason="", tenant="acme")


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


@pytest.fixture(autouse=True)
def _no_call() -> None:
    """Leaves no call or flight of an earlier test in the context."""
    spans._call.set(None)  # noqa: SLF001 - in production each call has a task of its own
    spans._flight.set(None)  # noqa: SLF001 - likewise


async def work(_flight: Flight[str]) -> str:
    return "a token"


def test_a_call_goes_on_with_the_callers_trace() -> None:
    traced = Traced()

    with traced.call(("traceparent", f"00-{TRACE}-{SPAN}-01")):
        assert current_trace_id() == TRACE

    (span,) = traced.named(f"broker.v1.{METHOD}")
    assert trace_of(span) == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == SPAN


def test_a_caller_that_does_not_sample_gets_no_spans() -> None:
    traced = Traced()

    with traced.call(("traceparent", f"00-{TRACE}-{SPAN}-00")):
        pass

    assert traced.kept.get_finished_spans() == ()


@pytest.mark.parametrize("odd", ["", "00-xyz", f"00-{'0' * 32}-{SPAN}-01", b"\xff"])
def test_a_malformed_trace_counts_as_none(odd: str | bytes) -> None:
    traced = Traced()

    with traced.call(("traceparent", odd)):
        pass

    (span,) = traced.named(f"broker.v1.{METHOD}")
    assert span.parent is None


@in_virtual_time
async def test_a_flight_is_below_the_call_that_started_it_and_others_are_linked() -> None:
    traced = Traced()
    async with asyncio.TaskGroup() as tasks:
        flights = Flights[str](tasks, traced.spans, chance=CountingChance("a"))

        async def caller() -> None:
            with traced.call():
                await flights.join("acme", "acme", work).landed(1)

        for name in ("leader", "follower"):
            tasks.create_task(caller(), name=name)

    (flight,) = traced.named("flight")
    calls = traced.named(f"broker.v1.{METHOD}")
    (leader,) = [id_of(each) for each in calls if not each.links]
    (links,) = [each.links for each in calls if each.links]
    assert flight.parent is not None
    assert flight.parent.span_id == leader
    assert [link.context.span_id for link in links] == [id_of(flight)]


@in_virtual_time
async def test_what_a_flight_is_told_stays_out_of_its_callers_context() -> None:
    traced = Traced()
    async with asyncio.TaskGroup() as tasks:
        flights = Flights[str](tasks, traced.spans, chance=CountingChance("a"))

        await flights.join("acme", "acme", work).landed(1)

        assert current_trace_id() is None
    assert len(traced.named("flight")) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_no_fact_brings_a_secret_into_a_span(kind: type[Fact]) -> None:
    traced = Traced()

    def told() -> None:
        with traced.call():
            for fact in (kind, *KINDS):
                traced.spans.observe(example_of(fact))

    copy_context().run(told)

    written = [span.to_json() for span in traced.kept.get_finished_spans()]
    assert written
    assert not [text for text in written if THE_SECRET in text]


def test_a_step_lasts_as_long_as_its_fact_says() -> None:
    traced = Traced()

    for kind in KINDS:
        traced.spans.observe(example_of(kind))

    for name in ("lease", "wait", "claim", "pleo", "settle"):
        (span,) = traced.named(name)
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.end_time - span.start_time == 1_500_000_000
