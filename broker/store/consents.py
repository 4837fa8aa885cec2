"""Upholds `ports.ConsentStore`."""

from __future__ import annotations

import hmac
from datetime import datetime
from typing import Final

from broker.domain.authorization import Authorization, Outcome
from broker.domain.imports import Import
from broker.domain.secret import RefreshToken
from broker.store.authorizations import (
    AUTHORIZATION_TYPES,
    authorization_of,
    metadata_json,
    values_of_authorization,
)
from broker.store.home import read_fingerprint_key
from broker.store.imports import import_of
from broker.store.pool import Pool
from broker.store.sealing import Keyring, to_bytes
from broker.store.statement import Statement, columns_and_values

# A day after its end an authorization is of no use to anybody's reloaded page, and tells whoever
# looks into an incident no more than the events do. Few at a time: each start pays for its own.
_DELETE_OVER: Final = """
    DELETE FROM authorizations WHERE state_hash IN (
        SELECT state_hash FROM authorizations
        WHERE expires_at < statement_timestamp() - interval '1 day'
        ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED
    )
"""

_FIND: Final = """
    SELECT *, clock_timestamp() AS read_at FROM authorizations WHERE state_hash = $1
"""

# The first outcome stays: it is what a repeated call is told.
_SPEND: Final = """
    UPDATE authorizations SET spent_at = clock_timestamp(), outcome_reason = $2,
    outcome_metadata = $3, sealed_code_verifier = NULL, key_id = NULL
    WHERE state_hash = $1 AND spent_at IS NULL
"""

_FIND_IMPORT: Final = "SELECT * FROM imports WHERE fingerprint = $1"


class PostgresConsents:
    """Pending consents and imports. Safe for any number of tasks at once."""

    def __init__(self, pool: Pool, keyring: Keyring) -> None:
        self._pool = pool
        self._keyring = keyring
        self._fingerprint_key: bytes | None = None

    async def start(self, authorization: Authorization) -> None:
        """Upholds the port."""
        statement = Statement()
        values = values_of_authorization(self._keyring, authorization)
        columns, bound = columns_and_values(statement.bind_all(values, AUTHORIZATION_TYPES))
        statement.add("deleted", _DELETE_OVER)
        insert = f"INSERT INTO authorizations ({columns}) VALUES ({bound})"
        await self._pool.fetch(statement.text(insert), *statement.arguments)

    async def find(self, state_hash: bytes) -> tuple[Authorization, datetime] | None:
        """Upholds the port."""
        rows = await self._pool.fetch(_FIND, state_hash)
        if not rows:
            return None
        return authorization_of(self._keyring, rows[0]), rows[0]["read_at"]

    async def spend(self, state_hash: bytes, outcome: Outcome) -> None:
        """Upholds the port."""
        await self._pool.fetch(_SPEND, state_hash, outcome.reason, metadata_json(outcome))

    async def find_import(self, fingerprint: bytes) -> Import | None:
        """Upholds the port."""
        rows = await self._pool.fetch(_FIND_IMPORT, fingerprint)
        return import_of(self._keyring, rows[0]) if rows else None

    async def fingerprint(self, refresh_token: RefreshToken) -> bytes:
        """Upholds the port. HMAC-SHA256 under the home's key: 32 bytes."""
        # Kept for good: it is as old as the home, and a new one would know no token again.
        if self._fingerprint_key is None:
            self._fingerprint_key = await read_fingerprint_key(self._pool, self._keyring)
        # Keyed: a plain hash would tell whoever reads the table whether a token they hold is in it.
        return hmac.digest(self._fingerprint_key, to_bytes(refresh_token), "sha256")
