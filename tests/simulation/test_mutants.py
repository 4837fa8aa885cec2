"""The simulation finds the broker broken: each rule of its writes is there for a reason."""

from __future__ import annotations

from itertools import islice

import pytest

from simulation.mutants import ALL, SOON
from simulation.mutating import Mutant, replaced
from simulation.profiles import seeds_of
from simulation.schedule import first_broken
from simulation.serving import DEFECT

ENOUGH = 60
"""Schedules on the stage that shows a rule: it is broken in a tenth of them or more."""


@pytest.mark.parametrize(
    ("mutant", "profile"), SOON.items(), ids=[mutant.__name__ for mutant in SOON]
)
def test_a_broken_rule_breaks_a_law_soon(mutant: Mutant, profile: str) -> None:
    with mutant():
        outcome = first_broken(islice(seeds_of(profile), ENOUGH))

    assert outcome is not None
    assert outcome.broken is not None
    # A mutant that no longer fits the code breaks it, and no law.
    assert outcome.broken.law != DEFECT


@pytest.mark.parametrize("mutant", ALL, ids=[mutant.__name__ for mutant in ALL])
def test_every_mutant_finds_what_it_replaces(mutant: Mutant) -> None:
    with mutant() as replacing:
        assert replacing is None


def test_every_rule_that_is_broken_is_listed_once() -> None:
    assert len(set(ALL)) == len(ALL)
    assert set(SOON) <= set(ALL)


def test_what_was_replaced_is_put_back_after() -> None:
    class Thing:
        name = "as it was"

    with replaced((Thing, "name", "another")):
        assert Thing.name == "another"

    assert Thing.name == "as it was"
