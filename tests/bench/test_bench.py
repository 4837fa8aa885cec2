"""`make bench` with hardly any pairs: what it leaves behind, and how it judges."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from bench import hot_path, keeping, telemetry
from bench.__main__ import run, table, write
from bench.figures import Figure, Measurement, Pair


def some_figure(*ratios: float, is_floor: bool = True) -> Figure:
    return Figure(
        name="calls <a second>",
        baseline="none",
        unit="calls",
        aim=0.9,
        is_floor=is_floor,
        pairs=tuple(Pair(value=2 * each, baseline=2.0) for each in ratios),
    )


@pytest.mark.parametrize(
    "over", [hot_path.over_clear_text, hot_path.over_mutual_tls, telemetry.over_none]
)
async def test_a_token_from_memory_is_measured_against_a_baseline(over: hot_path.Measure) -> None:
    steps: list[None] = []

    figure = await over(1, lambda: steps.append(None), calls=60)

    assert len(steps) == len(figure.pairs) == 1
    assert figure.ratio > 0


async def test_the_slowest_calls_are_measured_at_a_rate() -> None:
    figure = await hot_path.tail_at_half(1, lambda: None, calls=60)

    assert len(figure.pairs) == 1
    assert figure.ratio > 0


async def test_all_figures_are_left_in_files(tmp_path: Path) -> None:
    chosen = [Measurement(name="memory", pairs=1, measure=partial(keeping.kept_tokens, copies=50))]

    figures = await run(chosen, Console(quiet=True))
    write(figures, tmp_path)

    assert ET.parse(tmp_path / "figures.svg").getroot().tag.endswith("svg")  # noqa: S314 - ours
    told = json.loads((tmp_path / "figures.json").read_text())
    assert [each["name"] for each in told["figures"]] == [figures[0].name]
    assert table(figures).row_count == 1


def test_a_figure_is_judged_by_its_median_pair() -> None:
    figure = some_figure(0.5, 0.91, 0.95)

    assert figure.ratio == 0.91
    assert figure.spread == (0.5, 0.95)
    assert figure.is_met


def test_an_aim_may_be_a_ceiling_as_well() -> None:
    assert some_figure(0.8, is_floor=False).is_met
    assert not some_figure(1.1, is_floor=False).is_met


def test_a_name_is_written_as_text_into_the_plot(tmp_path: Path) -> None:
    write([some_figure(3.0, 0.1)], tmp_path)

    assert "calls &lt;a second&gt;" in (tmp_path / "figures.svg").read_text()
