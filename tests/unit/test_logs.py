"""What the log says of events and of libraries, and how it fares when nobody reads it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import timedelta

import pytest
import structlog

from broker.config import LogLevel
from broker.domain.answers import Refused
from broker.domain.facts import LoopFailed
from broker.domain.secret import Secret
from broker.ops.log_of_libraries import constant_part, log_of_libraries
from broker.ops.logs import Log
from broker.ops.outlet import Direct
from support.facts import THE_SECRET
from support.written_log import WrittenLog


def test_an_event_has_its_name_its_level_and_fields() -> None:
    written = WrittenLog()

    written.log.event("broker_started", version="0.1.0", addresses=("127.0.0.1:1", "127.0.0.1:2"))
    written.log.event("configuration_warning", level=LogLevel.WARNING, problem="nobody can call")

    started, warning = written.lines
    assert (started["event"], started["level"]) == ("broker_started", "info")
    assert started["addresses"] == ["127.0.0.1:1", "127.0.0.1:2"]
    assert (warning["event"], warning["level"]) == ("configuration_warning", "warning")


def test_values_of_any_kind_are_made_plain() -> None:
    written = WrittenLog()

    written.log.event(
        "odd",
        secret=Secret(THE_SECRET),
        error=ValueError(THE_SECRET),
        settings={"BROKER_HOME": timedelta(minutes=1)},
        answer=Refused(error="invalid_grant"),
    )

    (line,) = written.lines
    assert (line["secret"], line["error"]) == ("<secret>", "ValueError")
    assert line["settings"] == {"BROKER_HOME": 60.0}
    assert line["answer"] == "Refused(error='invalid_grant')"


def test_a_value_cannot_begin_a_line() -> None:
    written = WrittenLog()

    written.log.event("odd", text='one\n{"event": "forged"}')

    assert [line["event"] for line in written.lines] == ["odd"]


@pytest.mark.parametrize("level", LogLevel)
def test_what_is_below_the_level_is_not_written(level: LogLevel) -> None:
    written = WrittenLog(level=level)

    for each in LogLevel:
        written.log.event("something", level=each)

    order = list(LogLevel)
    assert [line["level"] for line in written.lines] == order[order.index(level) :]


class Pipe(io.StringIO):
    """A stream whose reader comes and goes."""

    is_open = False

    def write(self, text: str) -> int:
        if not self.is_open:
            raise BrokenPipeError
        return super().write(text)


def test_lines_that_cannot_be_written_are_counted_and_hurt_nobody() -> None:
    pipe = Pipe()
    log = Log(Direct(pipe))

    for is_open in (False, False, True, True):
        pipe.is_open = is_open
        log.event("something")

    lost = [json.loads(line).get("lines_lost") for line in pipe.getvalue().splitlines()]
    assert lost == [2, None]
    assert log.lost == 2


def test_a_stream_that_was_closed_hurts_nobody() -> None:
    written = WrittenLog()
    written.stream.close()

    written.facts.observe(LoopFailed(loop="news", error="TIMEOUT"))

    assert written.stream.closed


def test_a_log_is_as_it_was_made_whatever_others_configure() -> None:
    written = WrittenLog()
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
    try:
        written.log.event("something")
    finally:
        structlog.reset_defaults()

    assert [line["event"] for line in written.lines] == ["something"]


@pytest.fixture
def libraries() -> Iterator[WrittenLog]:
    written = WrittenLog()
    with log_of_libraries(written.log):
        yield written


def test_a_librarys_warning_is_a_line(libraries: WrittenLog) -> None:
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")

    (line,) = libraries.lines
    assert (line["event"], line["level"]) == ("library_message", "warning")
    assert (line["logger"], line["message"]) == ("uvicorn.error", "Invalid HTTP request received.")


def test_what_a_library_says_again_and_again_is_told_once(libraries: WrittenLog) -> None:
    for attempt in range(100):
        logging.getLogger("opentelemetry.exporter").error("Failed to export: %s", attempt)
    logging.getLogger("opentelemetry.sdk").error("Failed to export: %s", 1)

    assert [line["logger"] for line in libraries.lines] == [
        "opentelemetry.exporter",
        "opentelemetry.sdk",
    ]


def test_what_libraries_say_at_every_step_is_left_out(libraries: WrittenLog) -> None:
    logging.getLogger("asyncio").info("Using selector")
    logging.getLogger("httpx").warning("HTTP Request: %s", "https://x.example")
    logging.getLogger("httpcore.http11").warning("receive_response_headers")

    assert libraries.text == ""


def test_errors_of_the_http_client_are_kept(libraries: WrittenLog) -> None:
    logging.getLogger("httpcore.connection").error("connection is gone")

    assert [line["level"] for line in libraries.lines] == ["error"]


def test_an_exception_in_a_library_is_told_without_its_words(libraries: WrittenLog) -> None:
    try:
        raise ValueError(THE_SECRET)  # noqa: TRY301 - it must have been raised
    except ValueError:
        logging.getLogger("grpc").exception("Unexpected: %s", THE_SECRET)

    (line,) = libraries.lines
    assert (line["error"], line["message"]) == ("ValueError", "Unexpected: …")
    assert THE_SECRET not in libraries.text


@pytest.mark.parametrize(
    ("message", "arguments", "told"),
    [
        ("Executing %s took %.3f seconds", (object(), 0.25), "Executing … took 0.250 seconds"),
        ("GET %s -> %d", (f"https://x.example?c={THE_SECRET}", 200), "GET … -> 200"),
        ("%(a)s and %(b)d", {"a": THE_SECRET, "b": 2}, "… and 2"),
        ("met %s", {THE_SECRET: 2}, "met …"),
        ("%d things", (THE_SECRET,), "%d things"),
        ("%s and %s", (1,), "%s and %s"),
        (f"see https://x.example/?c={THE_SECRET} %s", ("x",), "see … …"),
        (f"redis://u:{THE_SECRET}@h is away", None, "… is away"),
        (f"Exception in callback f('{THE_SECRET}')", None, "Exception in callback f…"),
        (f"Task exception was never retrieved\nfuture: {THE_SECRET}", (), None),
        (f"failed: {THE_SECRET}", None, "failed…"),
        (f"code={THE_SECRET}", None, "code…"),
        (ValueError(THE_SECRET), None, "…"),
        ("attempt 7 of 9", None, "attempt…"),
        ("100 % sure", None, "…"),
    ],
)
def test_of_a_librarys_message_the_constant_part_is_told(
    message: object, arguments: object, told: str | None
) -> None:
    assert constant_part(message, arguments) == (told or "Task exception was never retrieved")


def test_the_root_logger_is_given_back_as_it_was() -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))

    with log_of_libraries(WrittenLog().log):
        during = (root.level, len(root.handlers))

    assert during == (logging.WARNING, len(before[1]) + 1)
    assert (root.level, root.handlers) == before
