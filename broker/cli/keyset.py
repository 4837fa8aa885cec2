"""Does `keys generate` and `keys status`. A keyset leaves as a file of its owner's, or on stdout.

Never overwrites: rows that were sealed under the keys of a lost keyset can never be opened again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from broker.cli.calling import CallFailed
from broker.cli.configured import read_settings
from broker.cli.failing import CommandFailed
from broker.cli.key_use import read_key_use
from broker.cli.keyset_files import read, write_new
from broker.cli.showing import say, show_json, show_table
from broker.config import KeysSettings
from broker.store.keysets import KeysetFile, KeysetUnreadableError, new_keyset, written
from broker.store.sealing import KeyDescription, described

_ASKED_FOR = ("BROKER_ADDRESS", "BROKER_ADMIN_SOCKET")


def generate(out: Path | None, *, is_wrapped: bool, as_json: bool) -> None:
    """Makes a keyset: on stdout, where it is JSON either way, or as a new file.

    Raises:
        CommandFailed: the file is there already, or cannot be written; no KMS wraps it.
    """
    keyset = new_keyset(is_wrapped=is_wrapped)
    if out is None:
        try:
            typer.echo(written(keyset))
        except KeysetUnreadableError as error:
            raise CommandFailed(str(error)) from None
        return
    write_new(out, keyset)
    show_keyset(out, keyset, as_json=as_json)


def show_status(environ: Mapping[str, str], *, as_json: bool) -> None:
    """Shows the keys of the keyset's file, and the rows under each where a broker is named.

    Raises:
        CommandFailed: it cannot be read.
    """
    path = read_settings(KeysSettings, environ).keyset_file
    keyset = read(path)
    show_keyset(path, keyset, as_json=as_json, use=_use(environ))


def show_keyset(
    path: Path,
    keyset: KeysetFile,
    *,
    as_json: bool,
    use: Mapping[int, int] | None = None,
    following: str = "",
) -> None:
    """Prints a keyset without its keys; `following`: the next step, for people on stderr."""
    keys = described(keyset)
    if as_json:
        document = {"file": str(path), "keys": [_document(each, use) for each in keys]}
        show_json(document | ({"next": following} if following else {}))
        return
    show_table(
        ("key id", "status", "primary", *(() if use is None else ("rows",))),
        [*(_row(each, use) for each in keys), *_missing(keys, use)],
    )
    if following:
        typer.echo(f"\n{path}\n")
        say(following)


def _use(environ: Mapping[str, str]) -> Mapping[int, int] | None:
    if not any(name in environ for name in _ASKED_FOR):
        return None
    try:
        return read_key_use(environ)
    except CallFailed as error:
        # The file can be shown all the same, and that was asked for first.
        say(f"rows per key: not known, {error.message}")
        return None


def _row(each: KeyDescription, use: Mapping[int, int] | None) -> Sequence[str]:
    rows = () if use is None else (str(use.get(each.key_id, 0)),)
    return (str(each.key_id), each.status, "primary" if each.is_primary else "", *rows)


def _missing(
    keys: Sequence[KeyDescription], use: Mapping[int, int] | None
) -> Sequence[Sequence[str]]:
    ours = {each.key_id for each in keys}
    return [
        (str(key_id), "MISSING", "", str(rows))
        for key_id, rows in (use or {}).items()
        if rows and key_id not in ours
    ]


def _document(each: KeyDescription, use: Mapping[int, int] | None) -> dict[str, object]:
    rows = {} if use is None else {"rows": use.get(each.key_id, 0)}
    return {
        "key_id": each.key_id,
        "status": each.status,
        "primary": each.is_primary,
        **rows,
    }
