"""Does `keys add`, `keys promote` and `keys remove`: each reads the keyset and writes a new file.

The order is what a rolling update survives: every replica can open with a key before any seals with
it, and none needs a key that is gone. What comes next is told at the end of each step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from broker.cli.configured import read_settings
from broker.cli.failing import CommandFailed
from broker.cli.key_use import check_unused
from broker.cli.keyset import show_keyset
from broker.cli.keyset_files import read, write_named, write_new
from broker.config import KeysSettings
from broker.store.keysets import (
    KeysetFile,
    KeysetStepRefusedError,
    with_new_key,
    with_primary,
    without_key,
)

_ROLL_OUT = "next: roll this file out as BROKER_KEYSET_FILE to every replica"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the new keyset goes, and how it is told."""

    output: Path | None
    """None: beside the one there is, under a name that says what was done."""

    as_json: bool


def add(target: Target, environ: Mapping[str, str]) -> None:
    """Adds a key that opens and does not seal yet.

    Raises:
        CommandFailed: the keyset cannot be read or written.
    """
    path, keyset = _current(environ)
    changed, key_id = with_new_key(keyset)
    following = f"{_ROLL_OUT}; then: token-broker keys promote {key_id}"
    _write(target, path, changed, step=f"added-{key_id}", following=following)


def promote(key_id: int, target: Target, environ: Mapping[str, str]) -> None:
    """Makes a key the one that seals.

    Raises:
        CommandFailed: also where the keyset has no such key that is enabled.
    """
    path, keyset = _current(environ)
    try:
        changed = with_primary(keyset, key_id)
    except KeysetStepRefusedError as error:
        raise CommandFailed(str(error), hint="token-broker keys status") from None
    following = f"{_ROLL_OUT}; then: token-broker keys rewrap"
    _write(target, path, changed, step=f"promoted-{key_id}", following=following)


def remove(key_id: int, target: Target, environ: Mapping[str, str], *, rows_are_gone: bool) -> None:
    """Takes a key out of the keyset, once a broker says that nothing is sealed under it.

    Raises:
        CommandFailed: something is, or nobody says so; or it is the primary key, or none.
    """
    path, keyset = _current(environ)
    try:
        changed = without_key(keyset, key_id)
    except KeysetStepRefusedError as error:
        raise CommandFailed(str(error), hint="token-broker keys status") from None
    if not rows_are_gone:
        check_unused(key_id, environ)
    following = f"{_ROLL_OUT}; keep the file before it for as long as backups that need it"
    _write(
        target,
        path,
        changed,
        step=f"removed-{key_id}",
        following=following,
        removed=frozenset({key_id}),
    )


def _current(environ: Mapping[str, str]) -> tuple[Path, KeysetFile]:
    path = read_settings(KeysSettings, environ).keyset_file
    return path, read(path)


def _write(
    target: Target,
    before: Path,
    keyset: KeysetFile,
    *,
    step: str,
    following: str,
    removed: frozenset[int] = frozenset(),
) -> None:
    if target.output is None:
        path = before.with_name(f"{before.stem}.{step}{before.suffix}")
        write_new(path, keyset)
    else:
        path = target.output
        write_named(path, keyset, removed=removed)
    show_keyset(path, keyset, as_json=target.as_json, following=following)
