"""Keyset files in the steps of a rotation, and a KMS of nobody's."""

from __future__ import annotations

from pathlib import Path

from broker.store.keysets import (
    KeysetFile,
    KeysetUnwrapper,
    read_keyset_file,
    with_new_key,
    with_primary,
    without_key,
    written,
)


def put_keyset(path: Path, keyset: KeysetFile, *, kms: KeysetUnwrapper | None = None) -> None:
    """Puts a keyset there as a mounted secret is replaced: by another file of the same name."""
    newer = path.with_suffix(".new")
    newer.write_text(written(keyset, unwrapper=kms))
    newer.rename(path)


def add_key(path: Path) -> int:
    """Adds a key that does not seal yet; returns its id."""
    keyset, key_id = with_new_key(read_keyset_file(path))
    put_keyset(path, keyset)
    return key_id


def promote_key(path: Path, key_id: int) -> None:
    """Lets a key seal from now on."""
    put_keyset(path, with_primary(read_keyset_file(path), key_id))


def remove_key(path: Path, key_id: int) -> None:
    """Takes a key away."""
    put_keyset(path, without_key(read_keyset_file(path), key_id))
