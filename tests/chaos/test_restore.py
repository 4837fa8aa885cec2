"""A small share of `make drill`: what takes deadlines to happen is left to that."""

from __future__ import annotations

from typing import Final

import pytest

from broker.dev.rundir import RunDirectory
from broker.dev.wheels import WheelMissingError
from chaos.restored import Outcomes, Restore, Since, is_good, restore

pytestmark = pytest.mark.timeout(120)

QUICK: Final = tuple(since for since in Since if since is not Since.NOTHING)
"""What nobody remembers waits for an attempt's span and a quarantine."""

REMEMBERED: Final = Restore(mode="strict", memory="all run on", way="snapshot")


async def played(run: RunDirectory, asked: Restore) -> Outcomes:
    try:
        return await restore(run, asked, name="restore", each=3, seed=1, kinds=QUICK)
    except WheelMissingError as error:
        pytest.skip(f"this test puts a server's files back, so it needs the wheel: {error}")


async def test_what_replicas_remember_is_back_and_nothing_is_presented(run: RunDirectory) -> None:
    outcomes = await played(run, REMEMBERED)

    assert is_good(REMEMBERED, outcomes), outcomes
    assert {since: each.tenants for since, each in outcomes.items()} == dict.fromkeys(QUICK, 3)
