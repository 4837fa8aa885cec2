"""The rows of imports: refresh tokens that callers handed over, sealed while they are needed."""

from __future__ import annotations

from typing import Final

import asyncpg

from broker.domain.errors import KeyUnavailable, RecordUnreadable
from broker.domain.imports import Import, ImportOutcome
from broker.domain.secret import RefreshToken
from broker.store.sealing import Keyring, Place, Sealed, to_bytes, to_secret

IMPORT_TYPES: Final = {
    "tenant": "text",
    "fingerprint": "bytea",
    "sealed_refresh_token": "bytea",
    "key_id": "bigint",
    "outcome": "text",
    "presentations": "integer",
    "error": "text",
}
"""What is written, with the types that PostgreSQL is told."""


def values_of_import(keyring: Keyring, record: Import) -> dict[str, object]:
    """Returns what the columns of an import hold.

    Raises:
        KeyUnavailable: the keyring does not seal.
    """
    sealed = None
    if record.refresh_token is not None:
        place = import_place(record.tenant, record.fingerprint)
        sealed = keyring.seal(to_bytes(record.refresh_token), place)
    return {
        "tenant": record.tenant,
        "fingerprint": record.fingerprint,
        "sealed_refresh_token": sealed and sealed.ciphertext,
        "key_id": sealed and sealed.key_id,
        "outcome": record.outcome.value,
        "presentations": record.presentations,
        "error": record.error,
    }


def import_of(keyring: Keyring, row: asyncpg.Record) -> Import:
    """Returns the import of a row; a token that does not open is None."""
    return Import(
        tenant=row["tenant"],
        fingerprint=row["fingerprint"],
        refresh_token=_token_of(keyring, row),
        outcome=ImportOutcome(row["outcome"]),
        presentations=row["presentations"],
        error=row["error"],
        created_at=row["created_at"],
    )


def _token_of(keyring: Keyring, row: asyncpg.Record) -> RefreshToken | None:
    if row["sealed_refresh_token"] is None:
        return None
    sealed = Sealed(ciphertext=row["sealed_refresh_token"], key_id=row["key_id"])
    try:
        value = keyring.unseal(sealed, import_place(row["tenant"], row["fingerprint"]))
    except (KeyUnavailable, RecordUnreadable):
        return None  # the port says so: whoever imports has the token and can bring it again
    return RefreshToken(to_secret(value))


def import_place(tenant: str, fingerprint: bytes) -> Place:
    """Returns where an imported token lies."""
    return Place(table="imports", tenant=tenant, field="refresh_token", row=fingerprint.hex())
