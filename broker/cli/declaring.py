"""What the declarations of several commands have in common. Imports nothing but typer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeAlias

import typer

AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, and nothing else.")
]


def environ_of(context: typer.Context) -> Mapping[str, str]:
    """Returns the environment variables that the command goes by."""
    environ: Mapping[str, str] = context.obj
    return environ
