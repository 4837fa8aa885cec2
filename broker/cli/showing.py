"""How a command shows what it has: JSON for programs, lines and tables for people.

JSON is the only thing on stdout where it was asked for. Text is never read as markup, and cannot
move the cursor of a terminal. Decides nothing about what is shown.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TextIO

import typer


def show_json(document: object) -> None:
    """Prints one JSON document, readable for people too."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def show_json_line(document: object) -> None:
    """Prints one line of NDJSON."""
    typer.echo(json.dumps(document, ensure_ascii=False))


def show_fields(fields: Mapping[str, str]) -> None:
    """Prints names and values, a line each; values are never wrapped, so that they can be copied.

    What is empty is left out.
    """
    shown = {name: printable(value) for name, value in fields.items() if value}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        typer.echo(f"{name:<{width}}  {value}")


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table: folded into a terminal, else a line each, as `grep` wants it."""
    cells = [tuple(map(printable, row)) for row in rows]
    if is_terminal(sys.stdout):
        _show_folded(columns, cells)
        return
    lines = [tuple(map(str.upper, columns)), *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(padded).rstrip())


def _show_folded(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich import box  # noqa: PLC0415 - starts fast
    from rich.console import Console  # noqa: PLC0415 - likewise
    from rich.table import Table  # noqa: PLC0415 - likewise

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(markup=False, emoji=False, highlight=False).print(table)


def say(line: str) -> None:
    """Tells people something on stderr, where it is in no program's way."""
    typer.echo(line, err=True)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody is looking; None: the stream is closed, as with `>&-`."""
    return stream is not None and stream.isatty()


def printable(text: str) -> str:
    """Returns text as one line that does nothing to a terminal."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def moment(time: datetime) -> str:
    """Returns a time in UTC, to the second."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
