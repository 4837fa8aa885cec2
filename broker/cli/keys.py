"""Declares `keys`: the encryption keyset. The keys themselves are printed by `generate` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from broker.cli.declaring import AsJson, environ_of


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(no_args_is_help=True)
    group.command("generate")(_generate)
    group.command("status")(_status)
    app.add_typer(group, name="keys", help="The encryption keyset.", rich_help_panel="Installation")


def _generate(
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="A new file, readable by its owner alone. One that exists is kept."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a new keyset of one key (Tink, AES-256-GCM): keep it as the secret that it is."""
    from broker.cli.keyset import generate  # noqa: PLC0415 - starts fast

    generate(out, as_json=as_json)


def _status(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List the keys of BROKER_KEYSET_FILE: id, status, which one is primary; not the key."""
    from broker.cli.keyset import show_status  # noqa: PLC0415 - starts fast

    show_status(environ_of(context), as_json=as_json)
