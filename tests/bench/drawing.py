"""Draws figures: each a bar between the quartiles, its median, every pair, and the aim."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from bench.figures import Figure

_LEFT: Final = 360
_WIDTH: Final = 520
_ROW: Final = 44
_TOP: Final = 44

_MOST: Final = 2.0
"""The ratio at the right edge: whatever is worse is drawn there."""


def draw(figures: Sequence[Figure]) -> str:
    """Returns an SVG; 1.0, the baseline, is in the middle."""
    height = _TOP + _ROW * len(figures) + 16
    rows = "".join(_row(each, _TOP + _ROW * index) for index, each in enumerate(figures))
    ticks = "".join(_tick(number / 4, height) for number in range(9))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 40}" height="{height}"'
        ' font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{ticks}{rows}</svg>\n'
    )


def _tick(ratio: float, height: int) -> str:
    colour = "#888" if ratio == 1 else "#ddd"
    return (
        f'<line x1="{_x(ratio)}" x2="{_x(ratio)}" y1="26" y2="{height}" stroke="{colour}"/>'
        f'<text x="{_x(ratio)}" y="20" text-anchor="middle" fill="#666">{ratio:g}</text>'
    )


def _row(figure: Figure, top: int) -> str:
    low, high = (_x(each) for each in figure.spread)
    middle, colour = top + 14, "#2a7d4f" if figure.is_met else "#b3402a"
    points = "".join(
        f'<circle cx="{_x(each.ratio)}" cy="{middle}" r="2" fill="{colour}" fill-opacity="0.5"/>'
        for each in figure.pairs
    )
    side = "≥" if figure.is_floor else "≤"
    return (
        f'<text x="12" y="{top + 12}">{escape(figure.name)}</text>'
        f'<text x="12" y="{top + 27}" fill="#666">{escape(figure.baseline)}</text>'
        f'<rect x="{low}" y="{top + 6}" width="{max(high - low, 1)}" height="16" fill="{colour}"'
        f' fill-opacity="0.25"/>{points}'
        f'<path d="M{_x(figure.ratio)} {top + 2}v24" stroke="{colour}" stroke-width="3"/>'
        f'<path d="M{_x(figure.aim)} {top}v28" stroke="black" stroke-dasharray="3 2">'
        f"<title>{side} {figure.aim:g}</title></path>"
    )


def _x(ratio: float) -> float:
    return round(_LEFT + _WIDTH * min(max(ratio, 0.0), _MOST) / _MOST, 1)
