"""How tracing ends, and what it keeps, where an exporter hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from broker.ops.spans import Spans
from broker.ops.tracing import spans_to

METHOD = "TokenService/GetAccessToken"

MOST_KEPT = 4096 + 512
"""What waits, and the batch that is on its way."""


class Hanging(SpanExporter):
    """Takes nothing until it is let go."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.released = threading.Event()
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.released.wait()
        self.taken += len(spans)
        return SpanExportResult.SUCCESS


def trace(spans: Spans, *, calls: int) -> None:
    for _ in range(calls):
        spans.begin(METHOD, ()).end(code="OK", reason="", tenant=None)


async def test_an_exporter_that_hangs_is_left_behind() -> None:
    exporter = Hanging()

    async with asyncio.timeout(15):
        async with spans_to(exporter, home="test") as spans:
            trace(spans, calls=1)

    assert exporter.asked.is_set()
    assert exporter.taken == 0
    exporter.released.set()


async def test_spans_that_nobody_takes_are_dropped_and_not_kept() -> None:
    exporter = Hanging()
    async with spans_to(exporter, home="test") as spans:
        trace(spans, calls=512)
        await asyncio.to_thread(exporter.asked.wait)

        trace(spans, calls=6000)

        exporter.released.set()
    assert 0 < exporter.taken <= MOST_KEPT
