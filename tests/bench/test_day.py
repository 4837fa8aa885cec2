"""A few hours of `python -m bench.day` with few grants: its outage, and what comes after it."""

from __future__ import annotations

import argparse
from xml.etree import ElementTree as ET

from bench.day import figures_of, plot
from bench.day_story import Day
from support.virtual_time import run_virtual


def test_an_outage_is_caught_up_at_the_rate_and_forgotten() -> None:
    asked = argparse.Namespace(grants=200, rate=0.5, hours=3, outage=1.0, outage_hours=0.5, seed=1)
    day, minutes = Day(asked), list[None]()

    run_virtual(day.run(lambda: minutes.append(None)), debug=False)

    found = figures_of(day)
    assert len(minutes) == 180
    assert found.calls["refused"] > 0
    assert found.failed_outside == 0
    assert 0 < found.caught_up_after < 10
    assert found.planned > found.refreshes / 2
    assert ET.fromstring(plot(day)).tag.endswith("svg")  # noqa: S314 - ours
