"""What the log says of calls: which failed and for whom, and by which ids each line is known."""

from __future__ import annotations

from contextvars import copy_context
from datetime import timedelta

import pytest

from broker.ops.call_log import CallLog
from broker.ops.calls import CallObservers, about_call
from broker.ops.sampling import INTERVAL_SECONDS
from broker.rpc.caller import Caller, set_current_caller
from broker.rpc.request_id import current_request_id, set_current_request
from support.facts import KINDS, example_of
from support.rpc import EndedCall, Told
from support.written_log import WrittenLog

METHOD = "TokenService/GetAccessToken"

A_MOMENT = timedelta(milliseconds=3)


def fail(calls: CallLog, *, code: str = "UNAVAILABLE", reason: str = "STORE_UNAVAILABLE") -> None:
    calls.call_ended(method=METHOD, code=code, reason=reason, duration=A_MOMENT, tenant="acme")


@pytest.mark.parametrize(("code", "level"), [("UNAVAILABLE", "warning"), ("NOT_FOUND", "info")])
def test_a_call_that_failed_is_told_with_why_and_for_whom(code: str, level: str) -> None:
    written = WrittenLog()

    fail(CallLog(written.log), code=code)

    (line,) = written.lines
    assert line["level"] == level
    assert (line["event"], line["method"], line["code"]) == ("call_failed", METHOD, code)
    assert (line["reason"], line["tenant"]) == ("STORE_UNAVAILABLE", "acme")


def test_a_call_that_went_well_is_no_line() -> None:
    written = WrittenLog()

    fail(CallLog(written.log), code="OK", reason="")

    assert written.text == ""


def test_failures_that_are_alike_are_told_once_in_a_while() -> None:
    written = WrittenLog()
    calls = CallLog(written.log, clock=lambda: written.now)
    for _ in range(100):
        fail(calls)

    written.now += INTERVAL_SECONDS
    fail(calls)

    assert [line.get("held_back") for line in written.lines] == [None, 99]


def test_every_observer_is_told_of_a_call() -> None:
    told = Told(), Told()

    CallObservers(told).call_ended(
        method=METHOD, code="OK", reason="", duration=A_MOMENT, tenant=None
    )

    assert [each.calls for each in told] == [[EndedCall(method=METHOD, code="OK")]] * 2


@pytest.mark.parametrize(
    ("sent", "is_taken"),
    [("order-17", True), ("a" * 128, True), ("a" * 129, False), ("two words", False), ("", False)],
)
def test_the_id_that_a_caller_sent_is_taken_where_it_is_one(sent: str, *, is_taken: bool) -> None:
    def told() -> tuple[str | None, str | None]:
        set_current_request((("x-request-id", sent),))
        return current_request_id(), current_request_id()

    first, again = copy_context().run(told)

    assert first
    assert first == again
    assert (first == sent) == is_taken


def test_a_line_names_the_call_that_it_is_about_and_its_trace() -> None:
    written = WrittenLog()
    written.log.tell_about(lambda: about_call(lambda: "0af7"))

    def told() -> None:
        set_current_request((("x-request-id", "order-17"),))
        set_current_caller(Caller(identity="dns:web.example.org", rpc=METHOD))
        written.facts.observe(example_of(KINDS[0]))

    copy_context().run(told)

    (line,) = written.lines
    assert (line["request_id"], line["caller"]) == ("order-17", "dns:web.example.org")
    assert (line["rpc"], line["trace_id"]) == (METHOD, "0af7")


def test_a_line_about_no_call_names_none() -> None:
    written = WrittenLog()
    written.log.tell_about(about_call)

    written.facts.observe(example_of(KINDS[0]))

    assert {"request_id", "caller", "rpc", "trace_id"}.isdisjoint(written.lines[0])
