"""What the README tells to type exists: commands, options, targets, variables, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from broker.cli.app import build_app
from broker.config import unknown_names
from broker.rpc.policy_file import parse_policy
from support.source import ROOT

README = (ROOT / "README.md").read_text()

MAKEFILE = (ROOT / "Makefile").read_text()


def typed_commands(text: str) -> list[str]:
    """Every use of the command line, in blocks and in the running text."""
    return re.findall(r"token-broker ((?:[a-z-]+ ?)+(?:--[a-z-]+)?)", text)


def parse(command_line: str) -> None:
    """Follows the words to a command of the program, and looks its options up."""
    context = typer.Context(get_command(build_app()), info_name="token-broker")
    command = context.command
    for word in command_line.split():
        if word.startswith("--"):
            known = {option for each in command.params for option in each.opts}
            assert word in known, f"{command_line}: no option {word}"
        elif hasattr(command, "get_command"):
            found = command.get_command(context, word)
            assert found is not None, f"{command_line}: no command {word}"
            command = found


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


def test_every_file_that_the_readme_links_to_is_there() -> None:
    linked = re.findall(r"\]\((?!https://)([^)#]+)", README)

    assert [each for each in linked if not (ROOT / each).exists()] == []
    assert linked
