"""The last hour of attempts as a drawing: a bar a minute, stacked by how they ended. Inline SVG.

What the colours say, the words beside them say too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Final

from broker.domain.fleet_report import MinuteCount
from broker.domain.history import AttemptOutcome

MINUTES: Final = 60

_BAR: Final = 10
"""Units of the drawing from one bar to the next; it is scaled to the page."""

_HEIGHT: Final = 120
_LEAST: Final = 2
"""Units high that one attempt among thousands is at least drawn, so that it is seen."""


class Ending(Enum):
    """How attempts ended, as far as a person who is tired wants to tell them apart."""

    ROTATED = "rotated"
    REFUSED = "refused by Pleo"
    UNANSWERED = "no answer"
    CLIENT_REFUSED = "our client refused"
    OTHER = "not sent, or too late"


_ENDINGS: Final = {
    AttemptOutcome.ROTATED.value: Ending.ROTATED,
    AttemptOutcome.REFUSED.value: Ending.REFUSED,
    AttemptOutcome.UNKNOWN.value: Ending.UNANSWERED,
    AttemptOutcome.ABANDONED.value: Ending.UNANSWERED,
    AttemptOutcome.MISCONFIGURED.value: Ending.CLIENT_REFUSED,
}


def ending_of(outcome: str) -> Ending:
    """Returns how an outcome is drawn; what a newer release calls its own is among the others."""
    return _ENDINGS.get(outcome, Ending.OTHER)


def totals(minutes: Sequence[MinuteCount]) -> dict[Ending, int]:
    """Returns how many ended which way, in the order of drawing."""
    counted = Counter[Ending]()
    for each in minutes:
        counted[ending_of(each.outcome)] += each.count
    return {ending: counted[ending] for ending in Ending}


def chart(minutes: Sequence[MinuteCount]) -> str:
    """Draws them, the present minute at the right."""
    bars = _bars(minutes)
    highest = max((sum(bar.values()) for bar in bars.values()), default=0)
    drawn = "".join(_drawn(bar, ago, highest) for ago, bar in sorted(bars.items()))
    words = ", ".join(f"{count} {ending.value}" for ending, count in totals(minutes).items())
    return f"""<figure>
<svg viewBox="0 0 {MINUTES * _BAR} {_HEIGHT}" preserveAspectRatio="none" role="img"
 aria-label="Attempts in each of the last sixty minutes: {words}">
<path class="grid" d="M0 .5H600M0 {_HEIGHT // 2}H600M0 {_HEIGHT - 0.5}H600"/>
{drawn}
</svg>
<figcaption><span>an hour ago</span><span>most in a minute: {highest}</span><span>now</span>
</figcaption>
</figure>
{_legend(minutes)}"""


def _bars(minutes: Sequence[MinuteCount]) -> dict[int, Counter[Ending]]:
    bars: dict[int, Counter[Ending]] = {}
    for each in minutes:
        if 0 <= each.minutes_ago < MINUTES:
            bars.setdefault(each.minutes_ago, Counter())[ending_of(each.outcome)] += each.count
    return bars


def _drawn(bar: Counter[Ending], ago: int, highest: int) -> str:
    left, floor = (MINUTES - 1 - ago) * _BAR + 1, float(_HEIGHT)
    parts = []
    for ending, height in _heights(bar, highest):
        floor -= height
        parts.append(
            f'<rect class="{ending.name.lower()}" x="{left}" y="{floor:.1f}"'
            f' width="{_BAR - 2}" height="{height:.1f}"/>'
        )
    return "".join(parts)


def _heights(bar: Counter[Ending], highest: int) -> Iterator[tuple[Ending, float]]:
    # Room for what is drawn higher than it is.
    room = _HEIGHT - _LEAST * len(Ending)
    for ending in Ending:
        if bar[ending]:
            yield ending, max(_LEAST, room * bar[ending] / highest)


def _legend(minutes: Sequence[MinuteCount]) -> str:
    items = "".join(
        f'<li><i class="{ending.name.lower()}"></i><b>{count}</b> {ending.value}</li>'
        for ending, count in totals(minutes).items()
    )
    return f'<ul class="legend">{items}</ul>'
