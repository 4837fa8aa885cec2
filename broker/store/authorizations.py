"""The rows of authorizations, and what is written there beside a grant.

The verifier is sealed, and destroyed with the outcome. State and session binding come hashed.
"""

from __future__ import annotations

import json
from typing import Final

import asyncpg

from broker.domain.authorization import Authorization, Outcome
from broker.domain.errors import KeyUnavailable, RecordUnreadable
from broker.domain.secret import CodeVerifier
from broker.store.sealing import Keyring, Place, Sealed, to_bytes, to_secret

AUTHORIZATION_TYPES: Final = {
    "state_hash": "bytea",
    "tenant": "text",
    "session_binding_hash": "bytea",
    "caller": "text",
    "sealed_code_verifier": "bytea",
    "key_id": "bigint",
    "redirect_uri": "text",
    "scopes": "text[]",
    "expected_subject": "text",
    "allow_subject_change": "boolean",
    "created_at": "timestamptz",
    "expires_at": "timestamptz",
    "spent_at": "timestamptz",
    "code_hash": "bytea",
    "attempt_number": "bigint",
    "outcome_reason": "text",
    "outcome_metadata": "jsonb",
}
"""What is written, with the types that PostgreSQL is told."""


def values_of_authorization(keyring: Keyring, authorization: Authorization) -> dict[str, object]:
    """Returns what the columns of an authorization hold.

    Raises:
        KeyUnavailable: the keyring does not seal.
    """
    sealed = None
    if authorization.code_verifier is not None:
        place = verifier_place(authorization.tenant, authorization.state_hash)
        sealed = keyring.seal(to_bytes(authorization.code_verifier), place)
    outcome = authorization.outcome
    return {
        "state_hash": authorization.state_hash,
        "tenant": authorization.tenant,
        "session_binding_hash": authorization.session_binding_hash,
        "caller": authorization.caller,
        "sealed_code_verifier": sealed and sealed.ciphertext,
        "key_id": sealed and sealed.key_id,
        "redirect_uri": authorization.redirect_uri,
        "scopes": list(authorization.scopes),
        "expected_subject": authorization.expected_subject,
        "allow_subject_change": authorization.allow_subject_change,
        "created_at": authorization.created_at,
        "expires_at": authorization.expires_at,
        "spent_at": authorization.spent_at,
        "code_hash": authorization.code_hash,
        "attempt_number": authorization.attempt_number,
        "outcome_reason": outcome and outcome.reason,
        "outcome_metadata": outcome and metadata_json(outcome),
    }


def metadata_json(outcome: Outcome) -> str:
    """Returns the metadata as PostgreSQL stores it."""
    return json.dumps(dict(outcome.metadata))


def authorization_of(keyring: Keyring, row: asyncpg.Record) -> Authorization:
    """Returns the authorization of a row; a verifier that does not open is None."""
    return Authorization(
        state_hash=row["state_hash"],
        tenant=row["tenant"],
        session_binding_hash=row["session_binding_hash"],
        caller=row["caller"],
        code_verifier=_verifier_of(keyring, row),
        redirect_uri=row["redirect_uri"],
        scopes=tuple(row["scopes"]),
        expected_subject=row["expected_subject"],
        allow_subject_change=row["allow_subject_change"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        spent_at=row["spent_at"],
        code_hash=row["code_hash"],
        attempt_number=row["attempt_number"],
        outcome=_outcome_of(row),
    )


def _outcome_of(row: asyncpg.Record) -> Outcome | None:
    if row["outcome_reason"] is None:
        return None
    return Outcome(reason=row["outcome_reason"], metadata=json.loads(row["outcome_metadata"]))


def _verifier_of(keyring: Keyring, row: asyncpg.Record) -> CodeVerifier | None:
    if row["sealed_code_verifier"] is None:
        return None
    sealed = Sealed(ciphertext=row["sealed_code_verifier"], key_id=row["key_id"])
    try:
        value = keyring.unseal(sealed, verifier_place(row["tenant"], row["state_hash"]))
    except (KeyUnavailable, RecordUnreadable):
        return None  # the port says so: the customer starts again
    return CodeVerifier(to_secret(value))


def verifier_place(tenant: str, state_hash: bytes) -> Place:
    """Returns where the verifier of an authorization lies."""
    return Place(table="authorizations", tenant=tenant, field="code_verifier", row=state_hash.hex())
