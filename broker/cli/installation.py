"""Declares `migrate`, `adopt` and `doctor`, which look after an installation from its settings."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.cli.declaring import AsJson, environ_of

_PANEL = "Installation"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("migrate", rich_help_panel=_PANEL)(_migrate)
    app.command("adopt", rich_help_panel=_PANEL)(_adopt)
    app.command("doctor", rich_help_panel=_PANEL)(_doctor)


def _migrate(
    context: typer.Context,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be applied.")
    ] = False,
    service_role: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The role that `serve` connects as: it is given just what it needs.",
            show_default=False,
        ),
    ] = None,
    restored: Annotated[
        bool,
        typer.Option(
            "--restored",
            help="The database was put back from a backup: its tokens may be superseded.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the database's schema up to date. Several may run at once."""
    from broker.cli.migrating import migrate_schema  # noqa: PLC0415 - starts fast

    environ = environ_of(context)
    migrate_schema(
        environ,
        service_role=service_role,
        is_restored=restored,
        dry_run=dry_run,
        as_json=as_json,
    )


def _adopt(
    context: typer.Context,
    *,
    the_old_one_is_off: Annotated[
        bool,
        typer.Option(
            "--the-old-one-is-off",
            help="Affirms that no broker of the other home runs, nor will run again.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take over the database of an installation that is off: it becomes this one's home."""
    from broker.cli.adopting import adopt  # noqa: PLC0415 - starts fast

    adopt(environ_of(context), is_old_off=the_old_one_is_off, as_json=as_json)


def _doctor(
    context: typer.Context,
    *,
    registration: Annotated[
        bool, typer.Option("--registration", help="Only print what to register with Pleo.")
    ] = False,
    caller: Annotated[
        str | None,
        typer.Option(
            metavar="IDENTITY",
            help="Only explain what a caller may do (uri:…, dns:… or sa:…).",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check settings, keys, certificates, policy and stores as `serve` does; say what to mend."""
    if caller is not None:
        from broker.cli.explaining_caller import explain_caller  # noqa: PLC0415 - starts fast

        explain_caller(caller, environ_of(context), as_json=as_json)
        return
    if registration:
        from broker.cli.registration import show_registration  # noqa: PLC0415 - starts fast

        show_registration(environ_of(context), as_json=as_json)
        return
    from broker.cli.doctor import examine  # noqa: PLC0415 - starts fast

    examine(environ_of(context), as_json=as_json)
