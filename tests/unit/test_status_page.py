"""The status page: what it says in words, what it draws, and what it never shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import pytest

from broker.domain.fleet_report import MinuteCount
from broker.domain.guard import Canary, GuardState
from broker.ops.status_chart import Ending, chart, totals
from broker.ops.status_page import span, status_page
from broker.ops.status_view import Aged, StatusView
from support.grants import THE_NOW
from support.reports import HOLDING, OPEN, THE_HOUR, THE_TALLY
from support.status import WELL, WITHOUT_REDIS, some_view

OLD = timedelta(minutes=2)
VOID = {"meta", "path", "rect", "br"}


class Reader(HTMLParser):
    """Reads a page as people do, and looks whether it is laid out right."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open):
            self.words.append(data)


def words_of(view: StatusView) -> str:
    reader = Reader(status_page(view))
    assert reader.open == []
    return " ".join(" ".join(reader.words).split())


def headline(view: StatusView) -> str:
    return re.search("<h1>(.*?)</h1>", status_page(view)).group(1)  # type: ignore[union-attr]  # there is one


IN_TROUBLE = some_view(health=WITHOUT_REDIS, breaker=OPEN, guard=HOLDING)


def test_a_fleet_that_is_well_is_said_to_be() -> None:
    assert headline(some_view()) == "All is well"


HEADLINES: dict[str, StatusView] = {
    "Not well: redis (REDIS_UNREACHABLE)": some_view(health=WITHOUT_REDIS),
    "Not ready": some_view(health=replace(WELL, is_ready=False)),
    "Stopping": some_view(health=replace(WELL, is_ready=False, is_draining=True)),
    "The breaker is open: nothing is presented to Pleo": some_view(breaker=OPEN),
    "The guard is holding: somebody must decide": some_view(guard=HOLDING, breaker=OPEN),
}


@pytest.mark.parametrize("words", HEADLINES)
def test_the_worst_is_the_headline(words: str) -> None:
    assert headline(HEADLINES[words]) == words


def test_what_else_is_wrong_is_said_below() -> None:
    said = words_of(IN_TROUBLE)

    assert "The breaker is open: nothing is presented to Pleo" in said
    assert "Not well: redis" in said


@pytest.mark.parametrize(
    ("view", "deed"),
    [
        (some_view(health=WITHOUT_REDIS), "What to do: Bring Redis back."),
        (some_view(breaker=OPEN), "What to do: Mend our client at Pleo or its secret"),
        (IN_TROUBLE, "and none is harmed. Bring Redis back."),
    ],
)
def test_what_to_do_is_said_at_the_top(view: StatusView, deed: str) -> None:
    assert deed in words_of(view).partition("Dependencies")[0]


def test_where_all_is_well_there_is_nothing_to_do() -> None:
    assert "What to do" not in words_of(some_view())


def test_a_detail_in_seconds_is_read_as_a_time() -> None:
    clock = replace(WELL.checks[1], name="clock", details={"skew_seconds": -0.006})

    said = words_of(some_view(health=replace(WELL, checks=(clock,))))

    assert "clock well skew -0.006 s" in said


def test_lights_are_told_in_words_too() -> None:
    said = words_of(some_view(health=WITHOUT_REDIS))

    assert "postgres well last error STORE_UNAVAILABLE 2 h 0 min ago" in said
    assert "redis NOT WELL REDIS_UNREACHABLE now" in said
    assert "schema well version 2" in said


def test_counts_of_the_fleet_are_shown_with_their_age() -> None:
    said = words_of(some_view())

    assert "Grants 2 s ago active 1,204 of them in doubt 3 held by the guard 7" in said
    assert "overdue 4" in said
    assert "The latest is 6 min 30 s late." in said


def test_breaker_and_guard_tell_since_and_until_when() -> None:
    said = words_of(IN_TROUBLE)

    assert "Breaker OPEN CLIENT_REJECTED (invalid_client) since 2026-03-01 11:55 UTC" in said
    assert "The next probe goes in 20 s." in said
    assert "Guard HOLDING since 2026-03-01 11:50 UTC" in said
    assert "believed from 2026-03-01 15:50 UTC on" in said


def test_a_guard_that_was_decided_on_asks_for_no_decision() -> None:
    said = words_of(some_view(guard=replace(HOLDING, state=GuardState.DISCARDING)))

    assert "Guard DISCARDING: held grants are being taken back" in said
    assert "unless somebody decides" not in said


def test_what_is_old_is_said_to_be_and_why() -> None:
    said = words_of(some_view(hour=Aged(found=THE_HOUR, age=OLD)))

    assert "Latest attempts 2 min 0 s ago: PostgreSQL does not answer" in said
    assert "2 min 3 s ago refresh unknown read_timeout, 10.00 s broker-1" in said


def test_what_was_never_told_is_not_shown_as_nothing() -> None:
    said = words_of(some_view(tally=None, hour=None))

    assert said.count("PostgreSQL has not told yet.") == 5
    assert "active" not in said


def test_no_tenant_caller_or_reason_is_shown() -> None:
    canary = Canary(tenant="the-canary", generation=7, refused_at=THE_NOW)

    page = status_page(some_view(guard=replace(HOLDING, canary=canary)))

    for secret in ("the-canary", "anna", "OPS-17", "acme", "spiffe"):
        assert secret not in page


NAMED: dict[str, Callable[[str], StatusView]] = {
    "home": lambda name: some_view(home=name),
    "breaker": lambda name: some_view(breaker=replace(OPEN, code=name)),
    "attempt": lambda name: some_view(
        hour=Aged(
            found=replace(
                THE_HOUR, latest=(replace(THE_HOUR.latest[0], error=name, outcome=name),)
            ),
            age=OLD,
        )
    ),
    "replica": lambda name: some_view(
        tally=Aged(
            found=replace(THE_TALLY, replicas=(replace(THE_TALLY.replicas[0], name=name),)),
            age=OLD,
        )
    ),
}


@pytest.mark.parametrize("where", NAMED)
def test_no_name_is_read_as_markup(where: str) -> None:
    page = status_page(NAMED[where]("<script>x</script>"))

    assert "script" not in Reader(page).tags
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("view", [some_view(), IN_TROUBLE, some_view(tally=None, hour=None)])
def test_the_page_runs_and_loads_nothing(view: StatusView) -> None:
    page = status_page(view)

    assert not {"script", "link", "img", "iframe", "form"} & set(Reader(page).tags)
    assert not re.search(r"https?:|url\(|@import|\son\w+=", page)


def test_the_page_suits_phones_and_nights() -> None:
    page = status_page(some_view())

    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "prefers-color-scheme: dark" in page


def bars(drawing: str) -> list[tuple[str, int, float]]:
    """Returns what is drawn: how it ended, where, and how high."""
    found = re.findall(
        r'rect class="(\w+)" x="(\d+)" y="[\d.]+" width="8" height="([\d.]+)"', drawing
    )
    return [(kind, int(left), float(height)) for kind, left, height in found]


def test_each_minute_is_a_bar_and_the_present_one_at_the_right() -> None:
    drawn = bars(chart(THE_HOUR.minutes))

    assert [(kind, left) for kind, left, _ in drawn] == [
        ("rotated", 591),
        ("unanswered", 591),
        ("refused", 421),
        ("rotated", 1),
    ]


def test_bars_are_as_high_as_their_counts() -> None:
    minutes = [MinuteCount(minutes_ago=ago, outcome="ROTATED", count=ago) for ago in (10, 20, 40)]

    heights = {left: height for _, left, height in bars(chart(minutes))}

    assert heights == {491: 27.5, 391: 55.0, 191: 110.0}


def test_one_among_thousands_is_seen_and_nothing_leaves_the_drawing() -> None:
    minutes = [MinuteCount(minutes_ago=0, outcome="ROTATED", count=90_000)] + [
        MinuteCount(minutes_ago=0, outcome=outcome, count=1)
        for outcome in ("REFUSED", "UNKNOWN", "MISCONFIGURED", "STALE")
    ]

    drawn = bars(chart(minutes))

    assert min(height for _, _, height in drawn) == 2
    assert sum(height for _, _, height in drawn) <= 120


def test_an_hour_without_attempts_is_drawn_empty() -> None:
    drawing = chart([])

    assert bars(drawing) == []
    assert "most in a minute: 0" in drawing


def test_an_outcome_of_a_newer_release_is_among_the_others() -> None:
    counted = totals([MinuteCount(minutes_ago=1, outcome="VANISHED", count=2)])

    assert counted[Ending.OTHER] == 2


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90_061, "1 d 1 h"),
    ],
)
def test_spans_are_said_with_two_numbers(seconds: float, words: str) -> None:
    assert span(timedelta(seconds=seconds)) == words
