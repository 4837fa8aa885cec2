"""How often the page's counts are taken: a small part of PostgreSQL's time, however long."""

from __future__ import annotations

import pytest

from broker.domain.fleet_report import AttemptHour, FleetTally, GrantCounts, Overdue
from broker.ops.status_view import COLLECT_SECONDS, Overview
from support.grants import THE_NOW
from support.virtual_time import nap, run_virtual

TALLY = FleetTally(
    at=THE_NOW,
    counts=GrantCounts(active=1, held=0, reauth_required=0, revoked=0, in_doubt=0),
    recent_refusals=0,
    overdue=Overdue(count=0, longest=None),
    replicas=(),
)
HOUR = AttemptHour(at=THE_NOW, minutes=(), latest=())


async def counted(*, took: float, within: float) -> int:
    """Returns how often grants are counted, each time for so many seconds, within a time."""
    count = 0

    async def tally() -> FleetTally:
        nonlocal count
        count += 1
        await nap(took)
        return TALLY

    async def hour() -> AttemptHour:
        return HOUR

    overview = Overview(tally, hour)
    for _ in range(int(within / COLLECT_SECONDS)):
        await overview.turn()
        await nap(COLLECT_SECONDS)
    return count


@pytest.mark.parametrize(("took", "times"), [(0.01, 40), (0.6, 10), (6.0, 1)])
def test_counting_takes_a_hundredth_of_the_time(took: float, times: int) -> None:
    assert run_virtual(counted(took=took, within=600)) == times
