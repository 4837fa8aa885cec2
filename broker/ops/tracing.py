"""Where spans go: to a collector over OTLP (HTTP, protobuf), from a thread of its own.

Upholds: nobody waits for a collector. Spans wait in a queue of a bounded length, those above it are
dropped; the end of the broker waits for the last ones for a moment and not longer. Which traces are
kept is the caller's decision, else OpenTelemetry's own settings' (`OTEL_TRACES_SAMPLER`), as are
headers for the collector (`OTEL_EXPORTER_OTLP_HEADERS`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from broker import __version__
from broker.ops.spans import Spans

_PATH: Final = "/v1/traces"

_MOST_SPANS: Final = 4096
"""That wait to be sent: seconds of busy traffic, some megabytes."""

_BATCH: Final = 512
"""Spans in one request; OpenTelemetry's own."""

_SEND_EVERY_MS: Final = 1000
"""A trace is there when somebody looks for it."""

_ANSWER_SECONDS: Final = 2.0
"""For the collector, which stands nearby."""

_LAST_SECONDS: Final = 2.0
"""For what is left at the end: of the 30 s that Kubernetes gives, calls and pairs have the rest."""


@asynccontextmanager
async def tracing(endpoint: str | None, *, home: str) -> AsyncIterator[Spans | None]:
    """Gives who makes spans, as long as the context lasts; None without an endpoint.

    `endpoint`: the collector's base URL, as `https://collector:4318`; or the whole address with
    `/v1/traces`.
    """
    if endpoint is None:
        yield None
        return
    address = endpoint if endpoint.endswith(_PATH) else f"{endpoint.rstrip('/')}{_PATH}"
    exporter = OTLPSpanExporter(endpoint=address, timeout=_ANSWER_SECONDS)
    async with spans_to(exporter, home=home) as spans:
        yield spans


@asynccontextmanager
async def spans_to(exporter: SpanExporter, *, home: str) -> AsyncIterator[Spans]:
    """Gives who makes spans for an exporter, which may block as it likes."""
    provider = TracerProvider(
        resource=Resource.create(
            {
                "service.name": "pleo-token-broker",
                "service.version": __version__,
                "deployment.environment.name": home,
            }
        ),
        # It would wait at the end of the process for as long as the exporter likes.
        shutdown_on_exit=False,
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=_MOST_SPANS,
            max_export_batch_size=_BATCH,
            schedule_delay_millis=_SEND_EVERY_MS,
        )
    )
    try:
        yield Spans(provider.get_tracer("broker", __version__))
    finally:
        await _shut_down(provider)


async def _shut_down(provider: TracerProvider) -> None:
    """Lets the last spans be sent, for a moment."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        if not loop.is_closed():
            loop.call_soon_threadsafe(ended.set)

    # A daemon: where a collector hangs, the process ends without it.
    threading.Thread(target=shut_down, name="last spans", daemon=True).start()
    try:
        async with asyncio.timeout(_LAST_SECONDS):
            await ended.wait()
    except TimeoutError:
        return
