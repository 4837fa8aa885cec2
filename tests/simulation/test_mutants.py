"""The simulation finds the broker broken: each rule of its writes is there for a reason."""

from __future__ import annotations

import pytest

from simulation.mutants import BASIC, Mutant, replaced
from simulation.schedule import first_broken


@pytest.mark.parametrize(
    ("mutant", "seeds"), BASIC.items(), ids=[mutant.__name__ for mutant in BASIC]
)
def test_a_broken_rule_breaks_a_law_soon(mutant: Mutant, seeds: range) -> None:
    with mutant():
        outcome = first_broken(seeds)

    assert outcome is not None


def test_what_was_replaced_is_put_back_after() -> None:
    class Thing:
        name = "as it was"

    with replaced((Thing, "name", "another")):
        assert Thing.name == "another"

    assert Thing.name == "as it was"
