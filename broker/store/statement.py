"""One statement out of several: common table expressions with their arguments.

PostgreSQL runs all of them on one snapshot and in one transaction, in one round trip. The text is
made of constants and placeholders only; every value is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping


class Statement:
    """A statement while it is put together."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self.arguments: list[object] = []

    def bind(self, value: object, sql_type: str) -> str:
        """Adds an argument; returns the placeholder to write in its place."""
        self.arguments.append(value)
        return f"${len(self.arguments)}::{sql_type}"

    def bind_all(self, values: Mapping[str, object], types: Mapping[str, str]) -> dict[str, str]:
        """Returns the placeholder of each column's value."""
        return {column: self.bind(value, types[column]) for column, value in values.items()}

    def add(self, name: str, *clauses: str) -> None:
        """Adds a part that others can select from by its name."""
        self._parts.append(f"{name} AS ({' '.join(clauses)})")

    def text(self, final: str) -> str:
        """Returns the whole, which answers what `final` selects."""
        # PostgreSQL runs a part that writes whether or not anything selects from it (manual,
        # 7.8.4).
        return f"WITH {', '.join(self._parts)} {final}"


def columns_and_values(placeholders: Mapping[str, str]) -> tuple[str, str]:
    """Returns the column list and the value list of an INSERT."""
    return ", ".join(placeholders), ", ".join(placeholders.values())
