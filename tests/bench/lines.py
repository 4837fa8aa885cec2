"""Draws lines over time as SVG: a panel for each quantity, all with the same hours below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_LEFT: Final = 70
_WIDTH: Final = 900
_HEIGHT: Final = 150
_GAP: Final = 60
_COLOURS: Final = ("#2a5d9f", "#b3402a", "#2a7d4f")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One quantity, at equal distances of time."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Lines over one axis."""

    title: str
    lines: Sequence[Line]
    limit: float | None = None
    """What they must not exceed: a line of dashes."""


def draw(panels: Sequence[Panel], *, ticks: Sequence[str]) -> str:
    """Returns an SVG; `ticks` are written below, at equal distances."""
    height = _GAP // 2 + len(panels) * (_HEIGHT + _GAP)
    parts = "".join(
        _panel(panel, _GAP // 2 + index * (_HEIGHT + _GAP), ticks)
        for index, panel in enumerate(panels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 30}" height="{height}"'
        ' font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{parts}</svg>\n'
    )


def _panel(panel: Panel, top: int, ticks: Sequence[str]) -> str:
    most = max([panel.limit or 0, *(max(line.values, default=0) for line in panel.lines)]) or 1
    bottom = top + _HEIGHT
    shown = [_scale(panel, top, most), *_names(panel, top)]
    shown += [
        f'<polyline fill="none" stroke="{colour}" points="{_points(line.values, bottom, most)}"/>'
        for line, colour in zip(panel.lines, _COLOURS, strict=False)
    ]
    for number, tick in enumerate(ticks):
        x = _LEFT + _WIDTH * number / max(len(ticks) - 1, 1)
        shown.append(
            f'<text x="{x:.0f}" y="{bottom + 16}" text-anchor="middle" fill="#666">'
            f"{escape(tick)}</text>"
        )
    return "".join(shown)


def _scale(panel: Panel, top: int, most: float) -> str:
    bottom = top + _HEIGHT
    limit = ""
    if panel.limit is not None:
        y = bottom - _HEIGHT * panel.limit / most
        limit = (
            f'<path d="M{_LEFT} {y:.1f}h{_WIDTH}" stroke="black" stroke-dasharray="4 3"'
            f' fill="none"/>'
        )
    return (
        f'<rect x="{_LEFT}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" fill="none"'
        f' stroke="#ddd"/>{limit}'
        f'<text x="{_LEFT - 6}" y="{top + 10}" text-anchor="end" fill="#666">{most:.4g}</text>'
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end" fill="#666">0</text>'
    )


def _names(panel: Panel, top: int) -> list[str]:
    shown = [f'<text x="{_LEFT}" y="{top - 8}">{escape(panel.title)}</text>']
    for number, (line, colour) in enumerate(zip(panel.lines, _COLOURS, strict=False)):
        x = _LEFT + _WIDTH - 200 * (len(panel.lines) - number)
        shown.append(f'<text x="{x}" y="{top - 8}" fill="{colour}">{escape(line.name)}</text>')
    return shown


def _points(values: Sequence[float], bottom: int, most: float) -> str:
    step = _WIDTH / max(len(values) - 1, 1)
    return " ".join(
        f"{_LEFT + number * step:.1f},{bottom - _HEIGHT * value / most:.1f}"
        for number, value in enumerate(values)
    )
