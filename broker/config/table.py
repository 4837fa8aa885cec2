"""The table of all settings, `broker/SETTINGS.md`, made from their declarations.

`python -m broker.config.table` writes it anew; a test compares it with the declarations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo

from broker.config.fields import Fields
from broker.config.reading import SECRETS
from broker.config.showing import shown

PATH: Final = Path(__file__).parents[1] / "SETTINGS.md"

_HEAD: Final = """\
# Settings

Environment variables; `token-broker doctor` checks them. Where `_FILE` stands beside a name, the
value can come from the file that the variable of that name with `_FILE` at its end names; it is
read again at each use. A variable that is set and empty counts as not set, except where its
meaning says otherwise. Unknown names that begin with `BROKER_` are warned of.

This file is made by `python -m broker.config.table`.

| variable | meaning | default |
|---|---|---|
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A setting, as people read it."""

    variable: str
    meaning: str
    default: str


def rows() -> Iterator[Row]:
    """Gives all settings, in the order of their declarations."""
    for field in Fields.model_fields.values():
        yield Row(
            variable=str(field.alias), meaning=str(field.description), default=_default(field)
        )


def markdown() -> str:
    """Returns the whole file."""
    return _HEAD + "".join(
        f"| {_name(row.variable)} | {row.meaning} | {row.default} |\n" for row in rows()
    )


def _name(variable: str) -> str:
    return f"`{variable}` (`_FILE`)" if variable in SECRETS else f"`{variable}`"


def _default(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, dict):
        return str(extra["without"])
    text = shown(str(field.alias), field.default)
    return f"`{text}`" if text else "empty"


if __name__ == "__main__":
    PATH.write_text(markdown(), encoding="utf-8")
