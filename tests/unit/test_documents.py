"""What documents have people type, the program takes: whole lines, with every option."""

from __future__ import annotations

import pytest

from support.source import ROOT
from support.typed import documents, parse_whole, printed_commands

PRINTED = [
    pytest.param(line, id=f"{path.relative_to(ROOT)}: {line}")
    for path in documents()
    for line in printed_commands(path.read_text())
]


@pytest.mark.parametrize("line", PRINTED)
def test_every_command_line_of_a_document_is_taken(line: str) -> None:
    parse_whole(line)


def test_many_command_lines_are_found() -> None:
    assert len(PRINTED) > 50


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("token-broker explode TENANT", "no command explode"),
        ("token-broker explain TENANT --loud", "No such option: --loud"),
        ("token-broker explain TENANT ANOTHER", "too much"),
        ("token-broker refresh TENANT --reason", "requires an argument"),
        ("token-broker guard forget --reason why", "no command forget"),
    ],
)
def test_a_command_line_that_the_program_refuses_is_found(line: str, why: str) -> None:
    with pytest.raises(Exception, match=why):
        parse_whole(line)
