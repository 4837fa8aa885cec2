"""Declares `keys`: the encryption keyset. The keys themselves are printed by `generate` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from broker.cli.declaring import AsJson, environ_of, quietly
from broker.domain.fields import check_reason

Output: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "--out",
        help="Where the new keyset goes; a keyset there is replaced. Without it: a new file beside"
        " BROKER_KEYSET_FILE.",
        show_default=False,
    ),
]

KeyId: TypeAlias = Annotated[int, typer.Argument(metavar="KEY_ID", help="Of `keys status`.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(no_args_is_help=True)
    group.command("generate")(_generate)
    group.command("add")(_add)
    group.command("promote")(_promote)
    group.command("rewrap")(quietly(_rewrap))
    group.command("remove")(quietly(_remove))
    group.command("status")(quietly(_status))
    app.add_typer(
        group,
        name="keys",
        help="Make, change and show the encryption keyset.",
        rich_help_panel="Installation",
    )


def _generate(
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--output",
            help="A new file, readable by its owner alone; one that exists is kept. Without it: on"
            " stdout.",
        ),
    ] = None,
    wrapped: Annotated[
        bool, typer.Option("--wrapped", help="Encrypted by the KMS of an installed package.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a new keyset of one key (Tink, AES-256-GCM): keep it as the secret that it is."""
    from broker.cli.keyset import generate  # noqa: PLC0415 - starts fast

    generate(out, is_wrapped=wrapped, as_json=as_json)


def _add(context: typer.Context, *, output: Output = None, as_json: AsJson = False) -> None:
    """Step 1: write a keyset with one more key, which opens and does not seal yet."""
    from broker.cli.key_steps import Target, add  # noqa: PLC0415 - starts fast

    add(Target(output=output, as_json=as_json), environ_of(context))


def _promote(
    context: typer.Context, key_id: KeyId, *, output: Output = None, as_json: AsJson = False
) -> None:
    """Step 2, once every replica has the key: write a keyset that seals under it."""
    from broker.cli.key_steps import Target, promote  # noqa: PLC0415 - starts fast

    promote(key_id, Target(output=output, as_json=as_json), environ_of(context))


def _reason(reason: str) -> str:
    violation = check_reason(reason) if reason else None
    if violation is not None:
        raise typer.BadParameter(violation.description)
    return reason


def _rewrap(
    context: typer.Context,
    *,
    reason: Annotated[str, typer.Option(help="Why, for the record.", callback=_reason)] = "",
    as_json: AsJson = False,
) -> None:
    """Step 3, once every replica seals under it: have a running broker seal all rows anew."""
    from broker.cli.key_use import rewrap  # noqa: PLC0415 - starts fast

    rewrap(reason, environ_of(context), as_json=as_json)


def _remove(
    context: typer.Context,
    key_id: KeyId,
    *,
    output: Output = None,
    rows_are_gone: Annotated[
        bool,
        typer.Option(
            "--the-rows-are-gone", help="Ask no broker: nothing that is under the key is wanted."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Step 4: write a keyset without a key. Refused while a row uses it, or nobody can tell."""
    from broker.cli.key_steps import Target, remove  # noqa: PLC0415 - starts fast

    target = Target(output=output, as_json=as_json)
    remove(key_id, target, environ_of(context), rows_are_gone=rows_are_gone)


def _status(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List the keys of BROKER_KEYSET_FILE: id, status, primary, rows where a broker is named."""
    from broker.cli.keyset import show_status  # noqa: PLC0415 - starts fast

    show_status(environ_of(context), as_json=as_json)
