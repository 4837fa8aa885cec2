"""The runbook has a section for whatever somebody may be woken by, and names only what there is."""

from __future__ import annotations

import re

import pytest

from broker.cli.tenants import State
from broker.config import unknown_names
from broker.ops.fact_log import event_name
from broker.ops.metrics import Metrics
from broker.v1.errors_pb2 import ErrorReason
from support.facts import KINDS
from support.queries import Exposed, alerts
from support.source import ROOT
from support.typed import parse, typed_commands

RUNBOOK = (ROOT / "deploy" / "runbook.md").read_text()

REASONS = [name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()][1:]  # noqa: SIM118 - a protobuf enum is no mapping

PARTS = ["Means", "See", "Do", "Wake"]

LONGEST_SECTION = 1200
"""Characters: what somebody takes in who was just woken."""


def sections(text: str) -> dict[str, str]:
    found = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


def facts_and_events() -> set[str]:
    """Returns the names of all events that are logged."""
    logged = {
        name
        for path in (ROOT / "broker").rglob("*.py")
        for name in re.findall(r"\.event\(\s*\"(\w+)\"", path.read_text())
    }
    return logged | {event_name(kind.__name__) for kind in KINDS}


def shown() -> set[str]:
    """Returns the names of all metrics."""
    metrics = Metrics()
    metrics.watch_holdings(())
    metrics.watch_escrows(())
    metrics.watch_disclosures((), lost=int)
    exposed = Exposed()
    exposed.take(metrics.registry.collect())
    return exposed.names


def test_every_alert_and_every_reason_has_its_section() -> None:
    assert list(sections(RUNBOOK)) == [*(each["alert"] for each in alerts()), *REASONS]


@pytest.mark.parametrize("name", sections(RUNBOOK))
def test_every_section_is_short_and_tells_all_four_things(name: str) -> None:
    section = sections(RUNBOOK)[name].partition("\n# ")[0]

    assert re.findall(r"^- \*\*(\w+)\*\*: \S", section, re.MULTILINE) == PARTS
    assert len(section) < LONGEST_SECTION


def test_every_command_that_it_prints_exists() -> None:
    lines = typed_commands(RUNBOOK)

    for line in lines:
        parse(line)
    assert len(lines) > 10


def test_every_state_that_it_asks_for_is_one() -> None:
    asked = set(re.findall(r"--state (\w+)", RUNBOOK))

    assert asked <= {each.value for each in State}
    assert asked


def test_every_metric_that_it_names_exists() -> None:
    named = set(re.findall(r"`(token_broker_\w+)", RUNBOOK))
    families = {re.sub(r"_(total|bucket)$", "", name) for name in shown()}
    later = {"keyset_modified_timestamp_seconds", "database_connections_used"}

    known = shown() | families | {f"token_broker_{name}" for name in later}

    assert sorted(named - known) == []
    assert len(named) > 20


def test_every_event_that_it_names_is_logged() -> None:
    named = {
        event
        for told in re.findall(r"the log's ((?:`\w+`(?:, | and )?)+)", RUNBOOK)
        for event in re.findall(r"`(\w+)`", told)
    }

    assert sorted(named - facts_and_events()) == []
    assert len(named) > 5


def test_every_setting_that_it_names_exists() -> None:
    named = set(re.findall(r"BROKER_[A-Z_]*[A-Z]", RUNBOOK))

    assert list(map(str, unknown_names(dict.fromkeys(named, "")))) == []


def test_every_anchor_that_it_links_to_exists() -> None:
    anchors = {name.lower() for name in sections(RUNBOOK)}

    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOK)) <= anchors
