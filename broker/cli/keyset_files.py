"""Keysets as files of the command line: read, and written so that no key is lost by accident.

Without its keyset, what was sealed under it is lost for good. So a file that is there already is
kept, unless it was named to be replaced and the new one has all of its keys.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from broker.cli.failing import CommandFailed
from broker.store.keysets import (
    KeysetFile,
    KeysetUnreadableError,
    read_keyset_file,
    written,
)

_OWNER_ONLY: Final = 0o600

_NEW: Final = "token-broker keys generate --out FILE makes a new one, for a new installation"


def read(path: Path) -> KeysetFile:
    """Reads a keyset.

    Raises:
        CommandFailed: it cannot be read.
    """
    try:
        return read_keyset_file(path)
    except KeysetUnreadableError as error:
        raise CommandFailed(str(error), hint=_NEW) from None


def write_new(path: Path, keyset: KeysetFile) -> None:
    """Writes so that the file holds all of it, or is not there.

    Raises:
        CommandFailed: the file is there already, or cannot be written.
    """
    text = _text_of(keyset)
    try:
        # Exclusive, so that it neither overwrites nor follows a link that somebody put there.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    except FileExistsError:
        raise CommandFailed(
            f"{path} exists already, and a keyset is never overwritten",
            hint="choose another name; without its keyset, what was sealed under it is lost",
        ) from None
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}") from None
    try:
        _fill(descriptor, text)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise CommandFailed(f"{path}: {error.strerror}") from None


def write_named(path: Path, keyset: KeysetFile, *, removed: frozenset[int] = frozenset()) -> None:
    """Writes where somebody said, also in the place of a keyset: whoever reads sees either whole.

    Raises:
        CommandFailed: it cannot be written, or what is there is no keyset, or has keys that the new
            one lacks, `removed` aside.
    """
    if not path.exists():
        write_new(path, keyset)
        return
    lost = read(path).key_ids - keyset.key_ids - removed
    if lost:
        raise CommandFailed(
            f"{path} has keys that the new keyset lacks, and they would be lost: {sorted(lost)}",
            hint="is BROKER_KEYSET_FILE the newest keyset? Else choose another name",
        )
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    write_new(beside, keyset)
    try:
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise CommandFailed(f"{path}: {error.strerror}") from None


def _text_of(keyset: KeysetFile) -> str:
    try:
        return written(keyset)
    except KeysetUnreadableError as error:
        raise CommandFailed(str(error)) from None


def _fill(descriptor: int, text: str) -> None:
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
