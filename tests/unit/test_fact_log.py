"""What the log says of facts: how loudly, how often, and what it never says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from broker.config import LogFormat, LogLevel
from broker.domain.errors import StoreUnavailable
from broker.domain.facts import (
    AttemptAnswered,
    AttemptSettled,
    BreakerMoved,
    DefectMet,
    Fact,
    GuardMoved,
    LoopFailed,
    MemoryDropped,
    RejectionReported,
    SettlementDelayed,
)
from broker.domain.guard import GuardState
from broker.domain.history import AttemptOutcome
from broker.ops.fact_log import event_name, level_of
from broker.ops.failures import trace_of
from broker.ops.sampling import INTERVAL_SECONDS, MOST_KINDS, Sampler
from support.facts import KINDS, THE_SECRET, THE_TENANT, example_of
from support.written_log import WrittenLog

OUTAGE = LoopFailed(loop="news", error="STORE_UNAVAILABLE")


def raised(error: Exception, *, cause: Exception | None = None) -> Exception:
    """Returns an error that has been raised, so that it has frames."""
    try:
        raise error from cause
    except type(error) as caught:
        return caught


def a_defect(error: BaseException) -> DefectMet:
    return DefectMet(defect_id="c0ffee", where="TokenService/GetAccessToken", error=error)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_fact_is_a_line_of_its_own_name(kind: type[Fact]) -> None:
    written = WrittenLog()

    line = written.of(example_of(kind))

    assert line["event"] == event_name(kind.__name__)
    assert line["level"] == level_of(example_of(kind)).value
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_fact_is_a_line_for_people(kind: type[Fact]) -> None:
    written = WrittenLog(log_format=LogFormat.CONSOLE)

    written.facts.observe(example_of(kind))

    assert event_name(kind.__name__) in written.text
    assert written.text.count("\n") == 1


def test_a_name_is_that_of_the_class_in_small_letters() -> None:
    assert event_name("ReauthBecameRequired") == "reauth_became_required"


def test_an_attempt_is_told_in_plain_values() -> None:
    line = WrittenLog().of(example_of(AttemptAnswered))

    assert line | {"timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "event": "attempt_answered",
        "tenant": THE_TENANT,
        "kind": "REFRESH",
        "number": 8,
        "outcome": "REFUSED",
        "error": "invalid_grant",
        "http_status": 400,
        "duration_seconds": 1.5,
        "flags": ["no_expires_in"],
    }


def test_what_there_is_not_is_no_field() -> None:
    settled = example_of(AttemptSettled)
    assert isinstance(settled, AttemptSettled)

    line = WrittenLog().of(replace(settled, not_allowed=None))

    assert "not_allowed" not in line


def test_what_a_person_looks_for_comes_first() -> None:
    assert list(WrittenLog().of(OUTAGE))[:3] == ["timestamp", "level", "event"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_happens_at_every_call_is_for_debugging(kind: type[Fact]) -> None:
    written = WrittenLog(level=LogLevel.INFO)

    written.facts.observe(example_of(kind))

    is_for_debugging = kind.__name__.startswith(("Token", "Flight", "Lease", "Memory", "Renewal"))
    assert (written.text == "") == is_for_debugging


def test_all_memory_dropped_at_once_is_news() -> None:
    assert level_of(MemoryDropped(tenant=None, cause="resubscribed")) is LogLevel.INFO


def test_what_concerns_the_whole_fleet_is_a_warning() -> None:
    answered = example_of(AttemptAnswered)
    assert isinstance(answered, AttemptAnswered)
    rolled_back = RejectionReported(tenant="acme", generation=99, verdict="unheard_of")

    refused_client = replace(answered, outcome=AttemptOutcome.MISCONFIGURED)

    assert level_of(refused_client) is LogLevel.WARNING
    assert level_of(rolled_back) is LogLevel.WARNING


@pytest.mark.parametrize(
    ("fact", "level"),
    [
        (BreakerMoved(cause="CLIENT_REJECTED", code="invalid_client"), LogLevel.ERROR),
        (BreakerMoved(cause="", code=""), LogLevel.WARNING),
        (GuardMoved(state=GuardState.HOLDING, by="", reason=""), LogLevel.ERROR),
        (GuardMoved(state=GuardState.CONFIRMING, by="broker", reason="x"), LogLevel.WARNING),
        (GuardMoved(state=GuardState.WATCHING, by="", reason=""), LogLevel.WARNING),
    ],
)
def test_what_holds_up_the_whole_fleet_wants_somebody_now(fact: Fact, level: LogLevel) -> None:
    assert level_of(fact) is level


def test_who_decided_about_the_guard_is_on_record() -> None:
    line = WrittenLog().of(
        GuardMoved(state=GuardState.DISCARDING, by="sa:on-call", reason="OPS-17")
    )

    assert (line["state"], line["by"], line["reason"]) == ("DISCARDING", "sa:on-call", "OPS-17")


@pytest.mark.parametrize("log_format", LogFormat)
def test_the_words_of_a_defect_are_not_repeated(log_format: LogFormat) -> None:
    written = WrittenLog(log_format=log_format)
    error = raised(ValueError(f"bad {THE_SECRET}"), cause=KeyError(THE_SECRET))
    error.add_note(THE_SECRET)

    written.facts.observe(a_defect(error))

    assert "ValueError" in written.text
    assert THE_SECRET not in written.text


def test_a_defect_is_told_with_where_it_came_about() -> None:
    line = WrittenLog().of(a_defect(raised(ValueError("bad"))))

    (frame,) = line["trace"]
    assert (line["level"], line["error"]) == ("error", "ValueError")
    assert Path(__file__).name in frame
    assert frame.endswith(" in raised")


def test_what_caused_a_defect_is_told_too() -> None:
    line = WrittenLog().of(a_defect(raised(ValueError("bad"), cause=raised(KeyError("x")))))

    assert "because of KeyError" in line["trace"]
    assert len(line["trace"]) == 3


def test_each_error_of_a_group_is_told() -> None:
    group = ExceptionGroup("both", [raised(ValueError("a")), raised(KeyError("b"))])

    line = WrittenLog().of(a_defect(group))

    told = [each for each in line["trace"] if each.startswith("because of")]
    assert told == ["because of ValueError", "because of KeyError"]


def test_errors_that_caused_each_other_are_told_once() -> None:
    first, second = ValueError("a"), KeyError("b")
    first.__cause__, second.__cause__ = second, first

    assert trace_of(first) == ["because of KeyError"]


def test_a_recursion_without_end_is_told_by_its_end() -> None:
    def deeper() -> None:
        deeper()

    with pytest.raises(RecursionError) as met:
        deeper()

    trace = trace_of(met.value)
    assert len(trace) == 30
    assert trace[-1].endswith("deeper")


def test_a_long_chain_of_causes_is_cut() -> None:
    error = ValueError("0")
    for number in range(1, 50):
        error = raised(ValueError(str(number)), cause=error)  # type: ignore[assignment]  # the same class

    assert trace_of(error)[-1] == "and more"


def test_the_words_of_an_error_of_ours_are_told() -> None:
    line = WrittenLog().of(a_defect(StoreUnavailable("PostgreSQL is away")))

    assert line["message"] == "PostgreSQL is away"
    assert line["error"] == "broker.domain.errors.StoreUnavailable"


def test_what_goes_on_is_told_once_a_minute_with_what_was_held_back() -> None:
    written = WrittenLog()

    for seconds in (0.0, 1.0, INTERVAL_SECONDS - 1.1, 0.1, 1.0):
        written.now += seconds
        written.facts.observe(OUTAGE)

    assert [line.get("held_back") for line in written.lines] == [None, 2]


def test_what_is_back_after_a_long_time_is_told_at_once() -> None:
    written = WrittenLog()
    written.facts.observe(OUTAGE)

    written.now += INTERVAL_SECONDS
    written.facts.observe(OUTAGE)

    assert [line.get("held_back") for line in written.lines] == [None, None]


@pytest.mark.parametrize(
    "other",
    [
        replace(OUTAGE, loop="usage"),
        replace(OUTAGE, error="TIMEOUT"),
        example_of(SettlementDelayed),
    ],
)
def test_one_thing_that_goes_on_hides_no_other(other: Fact) -> None:
    written = WrittenLog()

    for fact in (OUTAGE, other, OUTAGE, other):
        written.facts.observe(fact)

    assert len(written.lines) == 2


def test_reports_of_a_caller_with_a_broken_client_are_sampled() -> None:
    written = WrittenLog()

    for generation in range(50):
        written.facts.observe(
            RejectionReported(tenant="acme", generation=generation, verdict="too_soon")
        )

    assert len(written.lines) == 1


def test_defects_are_told_each() -> None:
    written = WrittenLog()

    for _ in range(3):
        written.facts.observe(example_of(DefectMet))

    assert len(written.lines) == 3


def test_the_memory_of_what_was_told_is_bounded() -> None:
    sampler = Sampler(lambda: 0.0)
    for kind in range(MOST_KINDS + 1):
        sampler.admit(kind)

    newest, oldest = sampler.admit(MOST_KINDS), sampler.admit(0)

    assert (newest, oldest) == (None, 0)
