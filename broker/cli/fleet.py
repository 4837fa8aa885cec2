"""Declares the commands about the whole fleet, told to a running broker over gRPC: `status`."""

from __future__ import annotations

from typing import Final

import typer

from broker.cli.declaring import AsJson, environ_of, quietly

PANEL: Final = "The fleet, at a running broker (BROKER_ADDRESS)"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("status", rich_help_panel=PANEL)(quietly(_status))


def _status(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Show how the fleet is: dependencies, counts, breaker, guard, overdue renewals."""
    from broker.cli.status import show_status  # noqa: PLC0415 - starts fast

    show_status(environ_of(context), as_json=as_json)
