"""Declares the commands about tenants, which all talk to a running broker over gRPC."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from broker.cli.declaring import AsJson, Reason, environ_of, quietly
from broker.domain.fields import check_tenant

_PANEL: Final = "Tenants, at a running broker (BROKER_ADDRESS)"

_MOST_AT_ONCE: Final = 64
"""Imports; each may rotate a token at Pleo, whose limits nobody knows."""


def _tenant(tenant: str | None) -> str | None:
    """Says what was expected of a tenant, and not what it was."""
    violation = check_tenant(tenant) if tenant is not None else None
    if violation is not None:
        raise typer.BadParameter(violation.description)
    return tenant


_TENANT_HELP: Final = "Your own key for the customer."

Tenant: TypeAlias = Annotated[
    str, typer.Argument(metavar="TENANT", help=_TENANT_HELP, callback=_tenant, show_default=False)
]


class State(StrEnum):
    """The states that `grants` can be asked for."""

    ACTIVE = "active"
    REAUTH_REQUIRED = "reauth_required"
    REVOKED = "revoked"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for name, command in (
        ("connect", _connect),
        ("import", _import),
        ("get", _get),
        ("grants", _grants),
        ("explain", _explain),
        ("refresh", _refresh),
        ("revoke", _revoke),
    ):
        app.command(name, rich_help_panel=_PANEL)(quietly(command))


def _connect(
    context: typer.Context,
    tenant: Tenant,
    *,
    redirect_uri: Annotated[
        str | None,
        typer.Option(help="One of those registered with Pleo; the broker's first one if none."),
    ] = None,
    paste: Annotated[
        bool, typer.Option("--paste", help="Read the redirected address from standard input.")
    ] = False,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only print the address to open.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take a customer through the consent at Pleo."""
    from broker.cli.connecting import Way, connect  # noqa: PLC0415 - starts fast

    way = Way(redirect_uri=redirect_uri, is_pasted=paste, may_browse=not no_browser)
    connect(tenant, environ_of(context), way=way, as_json=as_json)


def _import(
    context: typer.Context,
    tenant: Annotated[
        str | None, typer.Argument(metavar="TENANT", help=_TENANT_HELP, callback=_tenant)
    ] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            help="NDJSON, - is standard input: tenant, refresh_token; optional access_token,"
            " expire_time (RFC 3339), scopes, expected_subject, replace."
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="An active grant is replaced; in a file: a field.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check what is given; call nobody.")
    ] = False,
    concurrency: Annotated[
        int, typer.Option(min=1, max=_MOST_AT_ONCE, help="Imports at once, of a file.")
    ] = 4,
    as_json: AsJson = False,
) -> None:
    """Take over refresh tokens: one from standard input, or those of a file. Safe to run again.

    Whoever held them before must have stopped using them. Of a file --json prints one line for each
    token (NDJSON).
    """
    from broker.cli.importing import Manner, import_file, import_one  # noqa: PLC0415 - starts fast

    manner = Manner(dry_run=dry_run, concurrency=concurrency, as_json=as_json)
    match tenant, file:
        case str(), None:
            import_one(tenant, environ_of(context), replace=replace, manner=manner)
        case None, Path() if not replace:
            import_file(file, environ_of(context), manner=manner)
        case None, Path():
            raise typer.BadParameter("goes with TENANT; in a file it is a field of the line")
        case _:
            raise typer.BadParameter("give either TENANT or --file")


def _get(
    context: typer.Context,
    tenant: Tenant,
    *,
    show_token: Annotated[
        bool, typer.Option("--show-token", help="Print the access token too: a secret.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Get an access token (GetAccessToken). Exit status 3: the customer must consent again."""
    from broker.cli.getting import get  # noqa: PLC0415 - starts fast

    get(tenant, environ_of(context), show_token=show_token, as_json=as_json)


def _grants(
    context: typer.Context,
    *,
    state: Annotated[
        list[State] | None,
        typer.Option(case_sensitive=False, help="Only those; may be given several times."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List grants, revoked ones too."""
    from broker.cli.granting import list_grants  # noqa: PLC0415 - starts fast

    list_grants([each.name for each in state or []], environ_of(context), as_json=as_json)


def _refresh(
    context: typer.Context, tenant: Tenant, *, reason: Reason, as_json: AsJson = False
) -> None:
    """Rotate a grant's tokens now, due or not: those that callers hold die with it."""
    from broker.cli.granting import refresh  # noqa: PLC0415 - starts fast

    refresh(tenant, reason, environ_of(context), as_json=as_json)


def _explain(context: typer.Context, tenant: Tenant, *, as_json: AsJson = False) -> None:
    """Tell all about a grant: how it stands, what happened, who has its token, what to do.

    Exit status 3: the customer must consent again.
    """
    from broker.cli.explaining import explain  # noqa: PLC0415 - starts fast

    explain(tenant, environ_of(context), as_json=as_json)


def _revoke(
    context: typer.Context,
    tenant: Tenant,
    *,
    reason: Reason,
    at_provider: Annotated[
        bool,
        typer.Option("--at-provider", help="Delete the installation at Pleo too, for everybody."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """End a grant: it is served no longer, and its tokens are destroyed."""
    from broker.cli.granting import Revocation, revoke  # noqa: PLC0415 - starts fast

    revocation = Revocation(tenant=tenant, reason=reason, at_provider=at_provider)
    revoke(revocation, environ_of(context), as_json=as_json)
