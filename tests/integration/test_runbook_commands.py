"""The runbook's commands, typed as it prints them, against real brokers, stores and the sandbox."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from support.cli import run_beside
from support.fleet import Fleet
from support.onboarding import Customer, connect
from support.replica import Replica
from support.source import ROOT
from support.typed import printed_commands

pytestmark = pytest.mark.asyncio(loop_scope="module")

BY_A_PERSON = {"token-broker connect TENANT"}
"""Asks a customer in a browser."""

COMMANDS = sorted(
    {
        re.sub(r"\s+", " ", each)
        for each in printed_commands((ROOT / "deploy/runbook.md").read_text())
    }
    - BY_A_PERSON
)

POLICY = """
callers:
  - identity: dns:exporter.example.org
    rpcs: [TokenService/*]
    tenants: ["*"]
"""


@pytest.mark.parametrize("line", COMMANDS)
async def test_a_command_of_the_runbook_does_what_it_is_for(
    two: Fleet, first: Replica, customer: Customer, line: str, tmp_path: Path
) -> None:
    await connect(two, first, customer)
    (tmp_path / "policy.yaml").write_text(POLICY)
    environ = {**two.settings(), "BROKER_ADDRESS": first.target}
    if "--caller" in line:
        environ["BROKER_POLICY_FILE"] = str(tmp_path / "policy.yaml")
    names = {"TENANT": customer.tenant, "IDENTITY": "dns:exporter.example.org"}

    words = [names.get(word, word) for word in shlex.split(line)[1:]]
    ended = await run_beside(*words, environ=environ)

    assert (ended.status, ended.stderr.startswith("error:")) == (0, False), ended.stderr
    assert ended.stdout.strip()
