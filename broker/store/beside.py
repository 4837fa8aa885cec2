"""What is written beside a grant, in its statement: all of it, or nothing of anything.

A part that can fail to apply (`Spend`) is locked before the grant is written, and the grant is
written only if the lock was got; everything else is written only if the grant was.
"""

from __future__ import annotations

from typing import assert_never

from broker.ports import Beside, Conclude, PutImport, Spend, Unspend
from broker.store.authorizations import metadata_json
from broker.store.imports import IMPORT_TYPES, values_of_import
from broker.store.sealing import Keyring
from broker.store.statement import Statement, columns_and_values


def add_condition(statement: Statement, beside: Beside | None) -> str:
    """Adds what has to hold besides the version; returns the end of the grant's condition."""
    if not isinstance(beside, Spend):
        return ""
    # Whoever waits here for another's spending sees the row as that left it, and finds none.
    statement.add(
        "spendable",
        "SELECT state_hash FROM authorizations",
        f"WHERE state_hash = {statement.bind(beside.state_hash, 'bytea')}",
        "AND spent_at IS NULL FOR UPDATE",
    )
    return "AND EXISTS (SELECT FROM spendable)"


def add_beside(statement: Statement, beside: Beside, *, keyring: Keyring) -> None:
    """Adds what is written if the grant is.

    Raises:
        KeyUnavailable: the keyring does not seal.
    """
    match beside:
        case Spend():
            _update(
                statement,
                beside.state_hash,
                "spent_at = clock_timestamp()",
                f"code_hash = {statement.bind(beside.code_hash, 'bytea')}",
                f"attempt_number = {statement.bind(beside.attempt_number, 'bigint')}",
            )
        case Unspend():
            # What is concluded has no verifier left to try again with.
            unspent = ("spent_at = NULL", "code_hash = NULL", "attempt_number = NULL")
            _update(statement, beside.state_hash, *unspent, also="AND outcome_reason IS NULL")
        case Conclude():
            _update(
                statement,
                beside.state_hash,
                f"outcome_reason = {statement.bind(beside.outcome.reason, 'text')}",
                f"outcome_metadata = {statement.bind(metadata_json(beside.outcome), 'jsonb')}",
                "sealed_code_verifier = NULL",
                "key_id = NULL",
            )
        case PutImport():
            _put_import(statement, values_of_import(keyring, beside.record))
        case _:
            assert_never(beside)


def _update(statement: Statement, state_hash: bytes, *assignments: str, also: str = "") -> None:
    statement.add(
        "beside",
        f"UPDATE authorizations SET {', '.join(assignments)} FROM written",
        f"WHERE state_hash = {statement.bind(state_hash, 'bytea')} {also}",
    )


def _put_import(statement: Statement, values: dict[str, object]) -> None:
    columns, bound = columns_and_values(statement.bind_all(values, IMPORT_TYPES))
    # Brought again by the same tenant: the same record. By another one it violates `imports_once`,
    # which the store reads as "does not apply".
    statement.add(
        "beside",
        f"INSERT INTO imports ({columns}) SELECT {bound} FROM written",
        "ON CONFLICT (tenant, fingerprint) DO UPDATE SET",
        ", ".join(f"{column} = excluded.{column}" for column in values),
    )
