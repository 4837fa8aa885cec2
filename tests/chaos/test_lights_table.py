"""What `make lights` makes of what it has seen: missing, false, and summed up. Breaks nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chaos.lights_faults import FAULTS, Fault
from chaos.lights_table import HEAD, Told, document_of, row, runbook_of, summed_up

CONTROL, DOWN = FAULTS[:2]


def seen(fault: Fault, *more: str, without: str = "") -> Told:
    """Returns a run in which all was seen that must be, and more, but for one."""
    return Told(
        fault=fault,
        lights=dict.fromkeys({*fault.lights, *more} - {without}, 1.0),
        alerts=dict.fromkeys(fault.alerts, 2.0),
        back=3.0,
        left=frozenset(),
        metrics={},
        status="all well",
        story="",
    )


def test_all_that_must_be_seen_and_no_more_is_good() -> None:
    assert seen(DOWN).is_good
    assert summed_up([seen(DOWN)]).startswith("\n1 runs: false alarms 0, missing 0,")


def test_whatever_changes_while_nothing_is_broken_is_false() -> None:
    told = seen(CONTROL, "readyz redis")

    assert (told.false, told.is_good) == ({"readyz redis"}, False)
    assert "false alarms 1" in summed_up([told, seen(DOWN)])


def test_a_light_that_stays_good_in_its_fault_is_missing() -> None:
    told = seen(DOWN, without="can_persist")

    assert (told.missing, told.is_good) == ({"can_persist"}, False)
    assert "missing 1" in summed_up([told])


def test_a_fault_that_leaves_something_bad_behind_is_not_good() -> None:
    assert not replace(seen(DOWN), back=None).is_good


def test_what_was_skipped_is_named_and_counted_as_no_run() -> None:
    told = replace(seen(DOWN, without="can_persist"), skipped="no disk")

    assert summed_up([told]).startswith("\n0 runs:")
    assert summed_up([told]).endswith("skipped: PostgreSQL down\n")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_but_the_control_has_something_to_do_in_the_runbook(fault: Fault) -> None:
    assert (runbook_of(fault) == "nothing") == (fault is CONTROL)
    assert row(seen(fault)).count(" | ") == HEAD.partition("\n")[0].count(" | ")
    assert document_of(seen(fault))["missing"] == []


def test_there_are_fourteen_faults_and_a_control() -> None:
    assert len({each.name for each in FAULTS}) == len(FAULTS) == 15
