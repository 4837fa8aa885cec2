"""Does `keys generate` and `keys status`. A keyset leaves as a file of its owner's, or on stdout.

Never overwrites: rows that were sealed under the keys of a lost keyset can never be opened again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from broker.cli.configured import read_settings
from broker.cli.failing import CommandFailed
from broker.cli.showing import show_json, show_table
from broker.config import KeysSettings
from broker.store.sealing import KeyDescription, Keyring, KeysetUnreadableError, generate_keyset


def generate(out: Path | None, *, as_json: bool) -> None:
    """Makes a keyset: on stdout, where it is JSON either way, or as a new file.

    Raises:
        CommandFailed: the file is there already, or cannot be written.
    """
    if out is None:
        typer.echo(generate_keyset())
        return
    _write_new(out, generate_keyset())
    _show(out, _read(out), as_json=as_json)


def show_status(environ: Mapping[str, str], *, as_json: bool) -> None:
    """Shows the keys of the keyset's file.

    Raises:
        CommandFailed: it cannot be read.
    """
    path = read_settings(KeysSettings, environ).keyset_file
    _show(path, _read(path), as_json=as_json)


def _read(path: Path) -> Sequence[KeyDescription]:
    try:
        return Keyring.from_file(path).describe()
    except KeysetUnreadableError as error:
        hint = "token-broker keys generate --out FILE makes a new one, for a new installation"
        raise CommandFailed(str(error), hint=hint) from None


def _show(path: Path, keys: Sequence[KeyDescription], *, as_json: bool) -> None:
    if as_json:
        show_json({"file": str(path), "keys": [_document(each) for each in keys]})
        return
    show_table(
        ("key id", "status", "primary"),
        [(str(each.key_id), each.status, "primary" if each.is_primary else "") for each in keys],
    )


def _document(described: KeyDescription) -> dict[str, object]:
    return {
        "key_id": described.key_id,
        "status": described.status,
        "primary": described.is_primary,
    }


def _write_new(path: Path, keyset: str) -> None:
    """Writes so that the file holds all of it, or is not there."""
    try:
        # Exclusive, so that it neither overwrites nor follows a link that somebody put there.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandFailed(
            f"{path} exists already, and a keyset is never overwritten",
            hint="choose another name; without its keyset, what was sealed under it is lost",
        ) from None
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{keyset}\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise CommandFailed(f"{path}: {error.strerror}") from None
