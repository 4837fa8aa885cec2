"""Moments as people read them: the time itself, and how far away it is."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_MINUTE: Final = timedelta(minutes=1)


def at(moment: datetime, now: datetime) -> str:
    """Returns a moment as people read it, and how far away it is."""
    away = abs(moment - now)
    if away < timedelta(seconds=1):
        near = "now"
    else:
        near = f"{_span(away)} ago" if moment < now else f"in {_span(away)}"
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC ({near})"


def _span(span: timedelta) -> str:
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if span >= 2 * unit:
            return f"{span // unit} {name}"
    return f"{span // timedelta(seconds=1)} s"
