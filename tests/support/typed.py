"""What documents tell people to type, and whether the program has it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer
from typer.main import get_command

from broker.cli.app import build_app
from support.source import ROOT


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


def documents() -> list[Path]:
    """Returns what is written for people who run the broker."""
    return [ROOT / "README.md", *sorted((ROOT / "deploy").rglob("*.md"))]


def printed_commands(text: str) -> list[str]:
    """Returns every command line that stands in a block or a code span, to its end."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(
        r"(?<!`)`(token-broker [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    )
    return [*spans, *(line for block in blocks for line in _lines_of(block))]


def _lines_of(block: str) -> Iterator[str]:
    for line in block.replace("\\\n", " ").splitlines():
        # The last: of `kubectl exec deployment/token-broker -- token-broker doctor`.
        if found := re.search(
            r"(?:^|[\s(/])(token-broker [a-z](?!.*token-broker ).*)", line.partition(" #")[0]
        ):
            yield found[1].strip()


def parse_whole(line: str) -> None:
    """Parses a command line as the program would, values aside.

    Raises:
        Exception: it has no such option, or one lacks its value; typer's own, which it names not.
        AssertionError: there is no such command, or it takes no such argument.
    """
    context = typer.Context(get_command(build_app()), info_name="token-broker")
    command, rest = context.command, _arguments(line)
    while True:
        _, rest, _ = command.make_parser(context).parse_args(list(rest))
        if not hasattr(command, "get_command"):
            assert not rest, f"{line}: too much: {rest}"
            return
        if not rest:
            return
        found = command.get_command(context, rest[0])
        assert found is not None, f"{line}: no command {rest[0]}"
        context = typer.Context(found, info_name=rest[0], parent=context)
        command, rest = found, rest[1:]


def _arguments(line: str) -> Sequence[str]:
    """Returns the arguments, without what the shell takes for itself."""
    return shlex.split(re.split(r"\s[|;<>&]|\)", line)[0])[1:]
