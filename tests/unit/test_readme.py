"""What the README tells to type exists: commands, options, targets, variables, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker.config import unknown_names
from broker.rpc.policy_file import parse_policy
from broker.v1.errors_pb2 import ErrorReason
from support.source import ROOT
from support.typed import parse, typed_commands

README = (ROOT / "README.md").read_text()

MAKEFILE = (ROOT / "Makefile").read_text()


def test_every_command_of_the_readme_exists() -> None:
    lines = typed_commands(README)

    for line in lines:
        parse(line)
    assert len(lines) > 5


@pytest.mark.parametrize("line", ["conect acme", "get acme --show-tokens", "keys invent"])
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    with pytest.raises(AssertionError):
        parse(line)


def test_every_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE))

    assert targets >= {"run", "test"}
    assert targets <= set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))


def test_the_policy_of_the_readme_is_one() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)

    policy = parse_policy(Path("README.md"), (example.encode(),))

    assert len(policy.rules) == 2


def test_every_setting_of_the_readme_exists() -> None:
    named = set(re.findall(r"BROKER_[A-Z_]*[A-Z]", README))

    assert list(map(str, unknown_names(dict.fromkeys(named, "")))) == []


def test_the_readme_says_what_to_do_about_every_reason() -> None:
    reasons = {each.removeprefix("ERROR_REASON_") for each in ErrorReason.keys()}  # noqa: SIM118 - a wrapper, not a mapping
    told = "".join(re.findall(r"^\| (`[A-Z].*?) \|", README, re.MULTILINE))

    assert set(re.findall(r"`([A-Z_]+)`", told)) == reasons - {"UNSPECIFIED"}


def test_every_file_that_the_readme_links_to_is_there() -> None:
    linked = re.findall(r"\]\((?!https://)([^)#]+)", README)

    assert [each for each in linked if not (ROOT / each).exists()] == []
    assert linked
