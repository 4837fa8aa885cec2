"""What is done beside the calls, every hour by every replica: partitions, and forgetting.

Forgets what is of no use to anybody's repeated call. `grant_events` is kept: an audit trail of a
few lines a tenant and year. Grants are kept as tombstones, so that their numbers never restart.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from broker.domain.imports import OUTCOME_UNKNOWN
from broker.store.partitions import maintain_attempts
from broker.store.pool import Pool

AUTHORIZATION_KEPT: Final = timedelta(days=1)
"""After its end an authorization is of no use to anybody's reloaded page, and tells whoever looks
into an incident no more than the events do."""

TOKEN_KEPT: Final = timedelta(days=90)
"""For an imported token that is on record sealed because its import did not end: Pleo lets one live
for 60 days at least, and whoever has not come again in three months does not."""

IMPORT_KEPT: Final = timedelta(days=366)
"""For the fingerprint of a token that was rotated or refused: presented again it could end a grant.
Lists of tokens are imported again within weeks; after a year what is on them has been dead for
long, and a tenant's active grant goes only where the caller says `replace`."""

# By the statement's time: no index is searched by what moves on meanwhile.
_FORGET_AUTHORIZATIONS: Final = """
    DELETE FROM authorizations WHERE expires_at < statement_timestamp() - $1::interval
"""

# Never presented, and nothing newer came: it can be brought again as if for the first time.
_FORGET_UNTRIED: Final = """
    DELETE FROM imports WHERE created_at < clock_timestamp() - $1::interval
    AND outcome = 'PENDING' AND presentations = 0 AND error = ''
"""

_DESTROY_TOKENS: Final = """
    UPDATE imports SET outcome = 'REFUSED', error = coalesce(nullif(error, ''), $2::text),
    sealed_refresh_token = NULL, key_id = NULL
    WHERE created_at < clock_timestamp() - $1::interval AND outcome = 'PENDING'
"""

# A grant that a token made is found by its record for as long as it is that token's grant.
_FORGET_IMPORTS: Final = """
    DELETE FROM imports WHERE created_at < clock_timestamp() - $1::interval
    AND NOT EXISTS (
        SELECT FROM grants
        WHERE grants.tenant = imports.tenant AND import_fingerprint = imports.fingerprint
    )
"""


async def maintain(pool: Pool, *, attempt_retention: timedelta) -> None:
    """Does what is due. Any replica may, at any time. Safe to cancel and to retry.

    Raises:
        StoreUnavailable: also when a table was in use for too long; what was done stays done.
    """
    await pool.fetch(_FORGET_AUTHORIZATIONS, AUTHORIZATION_KEPT)
    await pool.fetch(_FORGET_UNTRIED, TOKEN_KEPT)
    await pool.fetch(_DESTROY_TOKENS, TOKEN_KEPT, OUTCOME_UNKNOWN)
    await pool.fetch(_FORGET_IMPORTS, IMPORT_KEPT)
    # Last: whoever reads the history for long keeps no token from being destroyed.
    await maintain_attempts(pool, retention=attempt_retention)
