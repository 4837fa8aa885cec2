"""What documents tell people to type, and whether the program has it."""

from __future__ import annotations

import re

import typer
from typer.main import get_command

from broker.cli.app import build_app


def typed_commands(text: str) -> list[str]:
    """Returns every use of the command line, in blocks and in the running text."""
    return re.findall(r"token-broker ((?:[a-z-]+ ?)+(?:--[a-z-]+)?)", text)


def parse(command_line: str) -> None:
    """Follows the words to a command of the program, and looks its options up.

    Raises:
        AssertionError: there is no such command, or it has no such option.
    """
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
