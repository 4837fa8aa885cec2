"""A small share of `python -m bench.key_rotation`: some hundred grants, and no call fails."""

from __future__ import annotations

import pytest

from bench.key_rotation import measure
from broker.dev.rundir import RunDirectory
from support.fleet import fleet

pytestmark = pytest.mark.timeout(300)


async def test_a_rotation_of_the_key_fails_no_call_under_load(
    database_url: str, redis_url: str, run: RunDirectory
) -> None:
    async with fleet(database_url, redis_url, run) as brokers:
        figures = await measure(brokers, grants=500, rate=50, told=lambda *_: None)

    assert figures.is_good, figures
    assert figures.rewrapped >= 500
