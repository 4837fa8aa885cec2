"""Declares `guard`: what to make of many refusals at once, told to a running broker over gRPC."""

from __future__ import annotations

import typer

from broker.cli.declaring import AsJson, Reason, environ_of, quietly
from broker.cli.fleet import PANEL


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(no_args_is_help=True)
    group.command("confirm")(quietly(_confirm))
    group.command("discard")(quietly(_discard))
    app.add_typer(
        group,
        name="guard",
        help="Decide about grants that are held since many were refused at once.",
        rich_help_panel=PANEL,
    )


def _confirm(context: typer.Context, *, reason: Reason, as_json: AsJson = False) -> None:
    """Believe the refusals: the customers must consent again. It can be undone for some days."""
    from broker.cli.releasing import confirm  # noqa: PLC0415 - starts fast

    confirm(reason, environ_of(context), as_json=as_json)


def _discard(context: typer.Context, *, reason: Reason, as_json: AsJson = False) -> None:
    """Believe none of them: held grants, and those given up before, are tried once more each."""
    from broker.cli.releasing import discard  # noqa: PLC0415 - starts fast

    discard(reason, environ_of(context), as_json=as_json)
