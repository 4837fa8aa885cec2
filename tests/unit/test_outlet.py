"""Lines leave by real pipes: nobody waits for a reader, and what is lost is counted and told."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import suppress

import pytest

from broker.config import LogFormat, LogLevel
from broker.ops.logs import Log, open_log
from broker.ops.outlet import Direct, Outlet

LINES = [f"line {number}" for number in range(100)]


class Pipe:
    """A pipe, both ends of it."""

    def __init__(self) -> None:
        reading, self.writing = os.pipe()
        self.reader = os.fdopen(reading, "rb")

    def fill(self) -> int:
        """Writes as much as it holds; returns how much that was."""
        written = 0
        os.set_blocking(self.writing, False)
        for size in (4096, 1):
            with suppress(BlockingIOError):
                while True:
                    written += os.write(self.writing, b"x" * size)
        os.set_blocking(self.writing, True)
        return written

    def rest(self) -> list[str]:
        """Closes it, and returns the lines that are left in it."""
        os.close(self.writing)
        return self.reader.read().decode().splitlines()

    def close(self) -> None:
        """Closes what is open."""
        self.reader.close()
        with suppress(OSError):
            os.close(self.writing)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def test_lines_arrive_in_order_and_all_of_them_at_the_end(pipe: Pipe) -> None:
    outlet = Outlet(pipe.writing)

    for line in LINES:
        outlet.write(line)
    outlet.close()

    assert pipe.rest() == LINES
    assert outlet.lost == 0


def test_a_pipe_that_nobody_reads_keeps_nobody_waiting(pipe: Pipe) -> None:
    filled = pipe.fill()
    outlet = Outlet(pipe.writing, most_lines=3)
    log = Log(outlet)

    for number in range(10):
        log.event("told", number=number)

    # One more than may wait has left the queue by now, or not.
    assert log.lost in {6, 7}
    pipe.reader.read(filled)
    arrived = [json.loads(pipe.reader.readline()) for _ in range(3)]
    log.event("told", number=10)
    outlet.close()
    arrived += map(json.loads, pipe.rest())
    assert [line["number"] for line in arrived] == [*range(10 - log.lost), 10]
    assert [line.get("lines_lost") for line in arrived if "lines_lost" in line] == [log.lost]
    assert arrived[-1]["lines_lost"] == log.lost


def test_a_pipe_that_nobody_reads_holds_up_no_end(pipe: Pipe) -> None:
    pipe.fill()
    outlet = Outlet(pipe.writing)
    outlet.write("never read")

    outlet.close(patience=0)


def test_lines_that_a_reader_who_left_did_not_take_are_counted(pipe: Pipe) -> None:
    pipe.reader.close()
    outlet = Outlet(pipe.writing)

    for line in LINES:
        outlet.write(line)
    outlet.close()

    assert outlet.lost == outlet.take_untold() == len(LINES)
    assert outlet.take_untold() == 0


def test_what_a_lost_line_told_is_told_by_another(pipe: Pipe) -> None:
    pipe.reader.close()
    outlet = Outlet(pipe.writing)

    outlet.write("lost with all it knew", telling=5)
    outlet.close()

    assert (outlet.lost, outlet.take_untold()) == (1, 6)


def test_a_line_after_the_end_is_lost_and_counted(pipe: Pipe) -> None:
    outlet = Outlet(pipe.writing)
    outlet.close()

    outlet.write("too late")

    assert outlet.lost == 1
    assert pipe.rest() == []


def test_a_pipe_that_somebody_made_non_blocking_is_waited_for(pipe: Pipe) -> None:
    much = "x" * 1_000_000  # far more than a pipe holds
    os.set_blocking(pipe.writing, False)
    outlet = Outlet(pipe.writing)

    outlet.write(much)

    assert pipe.reader.readline().decode() == f"{much}\n"
    outlet.close()
    assert outlet.lost == 0


def test_text_that_has_no_encoding_is_written_all_the_same(pipe: Pipe) -> None:
    outlet = Outlet(pipe.writing)

    outlet.write("half a \ud83d pair")
    outlet.close()

    assert pipe.rest() == ["half a \\ud83d pair"]


def test_a_stream_in_memory_is_written_at_once() -> None:
    stream = io.StringIO()

    Direct(stream).write("at once")

    assert stream.getvalue() == "at once\n"


@pytest.mark.parametrize("ends_well", [True, False])
def test_the_last_lines_of_a_log_are_written_however_it_ends(
    pipe: Pipe, *, ends_well: bool
) -> None:
    with (
        os.fdopen(os.dup(pipe.writing), "w") as stream,
        suppress(ZeroDivisionError),
        open_log(stream, log_format=LogFormat.JSON, level=LogLevel.INFO) as log,
    ):
        log.event("last_words")
        _ = 1 / int(ends_well)

    assert [json.loads(line)["event"] for line in pipe.rest()] == ["last_words"]


def test_a_log_on_a_stream_that_was_closed_tells_nobody() -> None:
    with open_log(None, log_format=LogFormat.CONSOLE, level=LogLevel.INFO) as log:
        log.event("unheard")

    assert log.lost == 0
