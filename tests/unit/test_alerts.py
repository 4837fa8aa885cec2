"""The alerts are complete, each is tried both ways, and promtool finds that they do as they say."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import yaml

from broker.ops.metrics import Metrics
from support.queries import RULE_TESTS, RULES, Exposed, alerts

NAMES = [each["alert"] for each in alerts()]

SEVERITIES = {"critical", "warning", "info"}


def tried() -> list[tuple[str, bool]]:
    """Returns which alerts are tried, and whether they must fire."""
    tests = yaml.safe_load(RULE_TESTS.read_text())["tests"]
    return [
        (trial["alertname"], bool(trial["exp_alerts"]))
        for test in tests
        for trial in test["alert_rule_test"]
    ]


@pytest.mark.parametrize("alert", alerts(), ids=NAMES)
def test_every_alert_says_how_bad_what_and_where_to_read(alert: dict[str, dict[str, str]]) -> None:
    assert alert["labels"]["severity"] in SEVERITIES
    assert alert["annotations"]["summary"]
    anchor = str(alert["alert"]).lower()
    assert alert["annotations"]["runbook_url"] == f"deploy/runbook.md#{anchor}"


@pytest.mark.parametrize("fires", [True, False])
def test_every_alert_is_tried_both_ways(*, fires: bool) -> None:
    # An alert may be tried more than once, where there is more than one way to it.
    assert list(dict.fromkeys(name for name, fired in tried() if fired == fires)) == NAMES


def test_promtool_finds_that_the_alerts_do_as_they_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")

    ended = subprocess.run(
        [promtool, "test", "rules", RULE_TESTS.name],
        cwd=RULES.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("query", "lack"),
    [
        ("sum(token_broker_redy)", "no metric token_broker_redy"),
        ("sum by (state) (token_broker_ready)", "token_broker_ready has no label state"),
        ('token_broker_guard_state{state="held"}', "token_broker_guard_state is never state=held"),
    ],
)
def test_a_query_that_asks_in_vain_is_found(query: str, lack: str) -> None:
    exposed = Exposed()
    exposed.take(Metrics().registry.collect())

    assert exposed.lacks(query) == [lack]
