"""The page that a tired person reads: is it well, and if not, what is not.

Plain HTML without scripts, readable on a phone, by night too. Every value is escaped here, though
none should need it. What is wrong is said in words; colours only repeat it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from html import escape
from typing import Final

from broker.domain.advice import what_to_do_around
from broker.domain.breaker import Breaker
from broker.domain.fleet_report import AttemptHour, AttemptLine, FleetTally
from broker.domain.guard import Guard, GuardState
from broker.ops.health import CheckState
from broker.ops.status_chart import chart, ending_of
from broker.ops.status_style import STYLE
from broker.ops.status_view import Aged, StatusView

_NOT_YET: Final = '<p class="quiet">PostgreSQL has not told yet.</p>'

_RELOAD_SECONDS: Final = 15

_OLD: Final = timedelta(minutes=1)
"""Older than four looks at PostgreSQL: it does not answer."""

_STATES: Final = {
    GuardState.WATCHING: "watching",
    GuardState.HOLDING: "HOLDING",
    GuardState.CONFIRMING: "CONFIRMING: held grants are being given up",
    GuardState.DISCARDING: "DISCARDING: held grants are being taken back",
}


def status_page(view: StatusView) -> str:
    """Returns the page."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="{_RELOAD_SECONDS}">
<title>{escape(_verdict(view)[1])} · token broker</title>
<style>{STYLE}</style>
</head>
<body>
{_header(view)}
<main>
{_section("Dependencies", _checks(view.health.checks))}
{_section("Grants", _of_tally(view.tally, _grants), age=_age(view.tally))}
{_section("Breaker and guard", _breaker(view.breaker, view.now) + _guard(view))}
{_section("Renewals", _of_tally(view.tally, _renewals), age=_age(view.tally))}
{_section("Attempts in the last hour", _hour(view.hour), age=_age(view.hour), is_wide=True)}
{_section("Latest attempts", _latest(view.hour), age=_age(view.hour), is_wide=True)}
{_section("Replicas", _replicas(view.tally), age=_age(view.tally), is_wide=True)}
</main>
<footer>{view.now:%Y-%m-%d %H:%M:%S} UTC · broker {escape(view.version)} ·
<span class="name">{escape(view.replica)}</span> ·
this page loads itself anew every {_RELOAD_SECONDS} seconds</footer>
</body>
</html>
"""


def _header(view: StatusView) -> str:
    mood, *words = _verdict(view)
    where = f"{escape(view.home)} · {escape(view.environment)}"
    abilities = (
        ("hands out tokens", view.health.can_serve),
        ("refreshes", view.health.can_refresh),
        ("stores", view.health.can_persist),
    )
    told = "".join(f"<li>{what}: {_light(is_good=can)}</li>" for what, can in abilities)
    headline, *further = (escape(each) for each in words)
    more = "".join(f"<li>{each}</li>" for each in further)
    return (
        f'<header class="{mood}"><p>Token broker, {where}</p><h1>{headline}</h1>'
        f'<ul class="further">{more}</ul><ul class="abilities">{told}</ul>{_deed(view)}</header>'
    )


def _deed(view: StatusView) -> str:
    deed = what_to_do_around(view.health.troubles, view.breaker)
    return f'<p class="deed">What to do: {escape(deed)}</p>' if deed else ""


def _verdict(view: StatusView) -> Sequence[str]:
    """Returns the mood, and what is wrong in words, the worst first."""
    bad = [f"{each.name} ({each.error})" for each in view.health.troubles if each.name != "breaker"]
    wrong = (
        ("bad", "Stopping", view.health.is_draining),
        ("bad", "Not ready", not (view.health.is_ready or view.health.is_draining)),
        ("bad", "The guard is holding: somebody must decide", _is_holding(view.guard)),
        ("bad", "The breaker is open: nothing is presented to Pleo", view.breaker is not None),
        ("worse", f"Not well: {', '.join(bad)}", bool(bad)),
    )
    found = [(mood, words) for mood, words, is_so in wrong if is_so]
    if not found:
        return "good", "All is well"
    return found[0][0], *(words for _, words in found)


def _is_holding(guard: Guard) -> bool:
    return guard.state is GuardState.HOLDING


def _section(title: str, body: str, *, age: str = "", is_wide: bool = False) -> str:
    wide = ' class="wide"' if is_wide else ""
    return f"<section{wide}><h2>{title}{age}</h2>{body}</section>"


def _age(aged: Aged[FleetTally] | Aged[AttemptHour] | None) -> str:
    if aged is None:
        return ""
    words = f"{span(aged.age)} ago"
    if aged.age > _OLD:
        return f'<small class="warning">{words}: PostgreSQL does not answer</small>'
    return f"<small>{words}</small>"


def _light(*, is_good: bool, good: str = "yes", bad: str = "NO") -> str:
    mood, word = ("good", good) if is_good else ("bad", bad)
    return f'<span class="light {mood}">{word}</span>'


def _checks(checks: Iterable[CheckState]) -> str:
    return f"<dl>{''.join(_check(each) for each in checks)}</dl>"


def _check(state: CheckState) -> str:
    if state.age is None:
        light = '<span class="light">not asked yet</span>'
    else:
        light = _light(is_good=state.is_good, good="well", bad="NOT WELL")
    details = ", ".join(_detail(name, value) for name, value in state.details.items())
    words = [escape(details)] if details else []
    if state.last_error and state.last_error_age is not None:
        when = "now" if not state.is_good else f"{span(state.last_error_age)} ago"
        words.append(
            f"{'' if not state.is_good else 'last error '}{escape(state.last_error)} {when}"
        )
    return f"<dt>{escape(state.name)}</dt><dd>{light}{_small(words)}</dd>"


def _detail(name: str, value: object) -> str:
    what, unit = (name.removesuffix("_seconds"), " s") if name.endswith("_seconds") else (name, "")
    return f"{what.replace('_', ' ')} {value}{unit}"


def _small(words: Iterable[str]) -> str:
    joined = "<br>".join(words)
    return f"<small>{joined}</small>" if joined else ""


def _of_tally(aged: Aged[FleetTally] | None, show: Callable[[FleetTally], str]) -> str:
    return _NOT_YET if aged is None else show(aged.found)


def _grants(tally: FleetTally) -> str:
    counts = tally.counts
    rows = (
        ("active", counts.active),
        ("of them in doubt", counts.in_doubt),
        ("held by the guard", counts.held),
        ("must consent again", counts.reauth_required),
        ("revoked", counts.revoked),
    )
    return _numbers(rows)


def _renewals(tally: FleetTally) -> str:
    rows = [
        ("overdue", tally.overdue.count),
        ("refused within five minutes", tally.recent_refusals),
    ]
    longest = tally.overdue.longest
    late = f"<p>The latest is {span(longest)} late.</p>" if longest else ""
    return _numbers(rows) + late


def _numbers(rows: Iterable[tuple[str, int]]) -> str:
    return f"<dl>{''.join(f'<dt>{what}</dt><dd>{count:,}</dd>' for what, count in rows)}</dl>"


def _breaker(breaker: Breaker | None, now: datetime) -> str:
    if breaker is None:
        return f"<p>Breaker {_light(is_good=True, good='closed')}</p>"
    probe = breaker.probe_at - now
    when = f"in {span(probe)}" if probe > timedelta(0) else "with the next refresh"
    return (
        f"<p>Breaker {_light(is_good=False, bad='OPEN')}"
        f"<small>{escape(breaker.cause.value)} ({escape(breaker.code)}) since"
        f" {_time(breaker.since)}. The next probe goes {when}.</small></p>"
    )


def _guard(view: StatusView) -> str:
    guard = view.guard
    is_watching = guard.state is GuardState.WATCHING
    words = _STATES[guard.state]
    return f"<p>Guard {_light(is_good=is_watching, good=words, bad=words)}{_hold(guard)}</p>"


def _hold(guard: Guard) -> str:
    # Who decided and why stays away: both may name a caller or a customer.
    if not _is_holding(guard) or guard.since is None or guard.until is None:
        return ""
    return (
        f"<small>since {_time(guard.since)}. The refusals are believed from"
        f" {_time(guard.until)} on, unless somebody decides before:"
        " <code>token-broker guard discard</code>, or <code>confirm</code>.</small>"
    )


def _hour(aged: Aged[AttemptHour] | None) -> str:
    return _NOT_YET if aged is None else chart(aged.found.minutes)


def _latest(aged: Aged[AttemptHour] | None) -> str:
    if aged is None:
        return _NOT_YET
    if not aged.found.latest:
        return '<p class="quiet">There were none yet.</p>'
    # What has happened grows older too while PostgreSQL does not answer.
    now = aged.found.at + aged.age
    rows = "".join(_attempt(each, now) for each in aged.found.latest)
    return _table(("ended", "what", "outcome", "by"), rows)


def _attempt(line: AttemptLine, now: datetime) -> str:
    ending = ending_of(line.outcome)
    took = "" if line.duration is None else f"{line.duration.total_seconds():.2f} s"
    answer = " ".join(filter(None, (str(line.http_status or ""), escape(line.error))))
    outcome = (
        f'<i class="{ending.name.lower()}"></i>{escape(line.outcome.lower().replace("_", " "))}'
        f"{_small([', '.join(filter(None, (answer, took)))])}"
    )
    ago, kind = f"{span(now - line.ended_at)} ago", escape(line.kind.lower())
    return _row((ago, kind, outcome, f'<span class="name">{escape(line.replica)}</span>'))


def _replicas(aged: Aged[FleetTally] | None) -> str:
    if aged is None:
        return _NOT_YET
    now = aged.found.at + aged.age
    rows = "".join(
        _row(
            (
                f'<span class="name">{escape(each.name)}</span>',
                escape(each.build),
                f"{span(now - each.seen_at)} ago",
                f"{span(now - each.started_at)} ago",
            )
        )
        for each in aged.found.replicas
    )
    return _table(("name", "version", "last sign of life", "started"), rows)


def _table(columns: Iterable[str], rows: str) -> str:
    return f'<div class="scroll"><table>{_row(columns, cell="th")}{rows}</table></div>'


def _row(cells: Iterable[str], *, cell: str = "td") -> str:
    """Lays out a row; what does not fit on a phone, the last one, is left out there."""
    *shown, last = (f">{each}</{cell}>" for each in cells)
    return f'<tr>{"".join(f"<{cell}{each}" for each in shown)}<{cell} class="detail"{last}</tr>'


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def span(time: timedelta) -> str:
    """Returns how long, as people say it: two numbers at most."""
    seconds = max(0, round(time.total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"
