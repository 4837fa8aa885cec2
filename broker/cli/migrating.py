"""Does `migrate`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import typer

from broker.cli.configured import read_settings
from broker.cli.failing import CommandFailed
from broker.cli.showing import show_json
from broker.cli.store_trouble import TROUBLE, in_words
from broker.config import MigrateSettings
from broker.config.transport import database_tls
from broker.store.migrate import MigrationError, migrate
from broker.store.privileges import UnfitRoleError


def migrate_schema(
    environ: Mapping[str, str],
    *,
    service_role: str | None,
    is_restored: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Applies what is pending, or says what that is; gives the service's role what it needs.

    `is_restored`: marks the database as put back from a backup.

    Raises:
        CommandFailed: nothing was changed.
    """
    settings = read_settings(MigrateSettings, environ)
    try:
        url = settings.database_url.read().reveal()
        tls = database_tls(settings)
        migrating = migrate(
            url, dry_run=dry_run, tls=tls, service_role=service_role, is_restored=is_restored
        )
        names = asyncio.run(migrating)
    except MigrationError as error:
        raise CommandFailed(str(error), hint="run the release that applied them") from None
    except UnfitRoleError as error:
        hint = "as its owner: CREATE ROLE … LOGIN, a member of no other role"
        raise CommandFailed(f"--service-role: {error}", hint=hint) from None
    except TROUBLE as error:
        hint = "nothing was changed; try again, or see token-broker doctor"
        raise CommandFailed(in_words(error), hint=hint) from None
    _show(names, is_marked=is_restored and not dry_run, dry_run=dry_run, as_json=as_json)


def _show(names: Sequence[str], *, is_marked: bool, dry_run: bool, as_json: bool) -> None:
    if as_json:
        what = "pending" if dry_run else "applied"
        show_json({"dry_run": dry_run, what: list(names), "marked_restored": is_marked})
        return
    _show_files(names, dry_run=dry_run)
    if is_marked:
        typer.echo(
            "Marked as restored: no token is presented for an attempt's span and quarantine."
        )


def _show_files(names: Sequence[str], *, dry_run: bool) -> None:
    if not names:
        typer.echo("The schema is up to date.")
    else:
        for name in names:
            typer.echo(f"{'pending' if dry_run else 'applied'}  {name}")
