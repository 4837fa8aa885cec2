"""A small share of `make chaos`: each kind of fault on real processes, and nothing lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

import pytest

from broker.dev.rundir import RunDirectory
from broker.dev.wheels import WheelMissingError
from chaos.cases import Place
from chaos.other_outages import OTHER_OUTAGES
from chaos.postgres_outages import POSTGRES_OUTAGES
from chaos.rounds import Judged, Plan, play
from chaos.strikes import KILLS, PAUSES
from chaos.tables import kills_of, sums_of

pytestmark = pytest.mark.timeout(300)

SEED: Final = 1

SMALL: Final = Plan(
    strikes=(("strict", (*KILLS[3:6], KILLS[7])), ("grace", (KILLS[4], PAUSES[0], PAUSES[3]))),
    outages=(*POSTGRES_OUTAGES[:3], POSTGRES_OUTAGES[5], *OTHER_OUTAGES[:3], OTHER_OUTAGES[-1]),
)
"""What takes longest is waited for once."""


@pytest.fixture(scope="module")
def judged(run: RunDirectory) -> Iterator[list[Judged]]:
    """The verdicts of one small round."""
    try:
        yield asyncio.run(play(run, SMALL, seed=SEED, told=lambda _: None))
    except WheelMissingError as error:
        pytest.skip(f"this module kills its servers, so it needs the wheels: {error}")


def test_no_case_has_anything_wrong_with_it(judged: list[Judged]) -> None:
    bad = [each for each in judged if not each.verdict.is_good]

    told = [f"{each.case.fault}: {each.verdict}\n{each.what_was_said}" for each in bad]
    assert not bad, "\n\n".join(told)


def test_every_fault_of_the_plan_has_befallen_tenants(judged: list[Judged]) -> None:
    faults = {fault for fault, _ in sums_of(judged)}

    planned = {each.fault for _, strikes in SMALL.strikes for each in strikes}
    planned |= {each.fault for each in SMALL.outages}
    assert planned - faults == set()


def test_kills_fall_where_a_pair_is_lost_and_elsewhere(judged: list[Judged]) -> None:
    strict, grace = (kills_of(judged)[mode] for mode in ("strict", "grace"))

    assert strict.lost_at(Place.SENDING) > 0
    assert {ending for _, ending in strict.endings} == {"ROTATION_LOST"}
    assert {ending for _, ending in grace.endings} == {"retried"}
    assert len(strict.places) > 2
