"""A collector of traces: a small HTTP server that keeps what it is sent, or is as bad as told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(slots=True)
class Collector:
    """What has come so far."""

    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    answers: threading.Event = field(default_factory=threading.Event)
    """Cleared: it takes requests and leaves them unanswered."""

    def spans(self) -> list[Span]:
        """Returns all spans."""
        return [
            span
            for body in list(self.requests)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name: str) -> list[Span]:
        """Returns the spans of a name."""
        return [span for span in self.spans() if span.name == name]


@contextmanager
def collector() -> Iterator[Collector]:
    """Listens on a free port of loopback as long as the block runs."""
    kept = Collector()
    kept.answers.set()

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.requests.append(self.rfile.read(int(self.headers["content-length"])))
            kept.answers.wait()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
    server.daemon_threads = True
    kept.url = f"http://127.0.0.1:{server.server_port}"
    # Its end waits for one of these turns.
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="collector")
    thread.start()
    try:
        yield kept
    finally:
        kept.answers.set()
        server.shutdown()
        thread.join()
        server.server_close()
