"""A small share of `python -m bench.history`: some thousand lines, and what is asked of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from xml.etree import ElementTree as ET

from bench.history import measure, write


async def test_the_history_is_filled_asked_and_dropped_by_age(tmp_path: Path) -> None:
    steps: list[None] = []
    asked = argparse.Namespace(grants=300, days=2, lifetimes=4)

    volume = await measure(asked, lambda: steps.append(None))
    write(volume, tmp_path)

    assert len(steps) == len(volume.seconds_a_slot) == 8
    assert volume.lines == 2400
    assert volume.dropped == 1
    assert 100 < volume.bytes_a_line < 1000
    assert ET.parse(tmp_path / "history.svg").getroot().tag.endswith("svg")  # noqa: S314 - ours
