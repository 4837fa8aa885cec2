"""The figures of the client library with hardly any pairs, and the table of its consumers."""

from __future__ import annotations

from collections import Counter

from bench import client, consumer


async def test_a_kept_token_is_measured_against_a_look_up() -> None:
    figure = await client.kept_token(1, _step, gets=10)

    assert figure.ratio > 1
    assert " ns against " in figure.note


async def test_pleo_auth_is_measured_against_a_fixed_header() -> None:
    figure = await client.header(1, _step, requests=5)

    assert figure.ratio > 0


def test_consumers_are_told_in_a_row_each() -> None:
    figures = consumer.Figures(
        kind="asks",
        services=2,
        api_calls=100,
        seen_401=0,
        failures=Counter({"BrokerUnreachable": 1}),
        reports=1,
        planned=4,
        planned_calls=5,
        all_calls=9,
    )

    shown = consumer.table([figures])

    assert [list(column.cells) for column in shown.columns[-2:]] == [["1.25"], ["9"]]


def _step() -> None:
    """There is no bar."""
