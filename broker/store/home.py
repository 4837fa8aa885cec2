"""The home of a database: the one installation whose grants it holds.

Two brokers on one database would share grants, and two databases of one installation would rotate
each other's tokens. So the first start leaves its name, and another one is refused.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Final

from broker.domain.errors import KeyUnavailable
from broker.store.connecting import Connection, DatabaseUnfit
from broker.store.pool import Pool
from broker.store.restored import RESTAMP
from broker.store.schema import SchemaFitness, read_schema
from broker.store.sealing import Keyring, Place, Sealed

FINGERPRINT_KEY: Final = Place(table="home", tenant="", field="fingerprint_key", row="")
"""Where the key of the fingerprints lies."""

_FINGERPRINT_KEY_BYTES: Final = 32
"""As long as the digests of the HMAC that it is for (RFC 2104 §3)."""

# There is room for one row: of two replicas that start at once, one leaves its name.
_INSERT: Final = """
    INSERT INTO home (name, environment, token_url, client_id, sealed_fingerprint_key, key_id)
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING
"""

_READ: Final = "SELECT name, environment, token_url, client_id FROM home"

HOME_DIFFERS: Final = "HOME_DIFFERS"
"""What health calls it."""

MEND: Final = (
    "BROKER_HOME and the settings of Pleo, or another database; where this installation takes it"
    " over, and the other one is off for good: token-broker adopt --the-old-one-is-off"
)
"""What to do about a home that differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Which installation this is (`SETTINGS.md`)."""

    name: str
    environment: str
    token_url: str
    client_id: str


class HomeDiffersError(RuntimeError):
    """The database belongs to another installation."""

    def __init__(self, *, stored: Home, ours: Home) -> None:
        differing = (
            f"{field.name}: {getattr(stored, field.name)!r}, here {getattr(ours, field.name)!r}"
            for field in fields(Home)
            if getattr(stored, field.name) != getattr(ours, field.name)
        )
        super().__init__(f"the database is another broker's home: {'; '.join(differing)}")
        self.stored = stored
        self.ours = ours


async def settle_home(pool: Pool, keyring: Keyring, home: Home) -> None:
    """Leaves our name on first start; afterwards insists that it is ours.

    Raises:
        HomeDiffersError: it is another's. Lists what differs.
        StoreUnavailable, KeyUnavailable: try again.
    """
    stored = await read_home(pool)
    if stored is None:
        key = keyring.seal(secrets.token_bytes(_FINGERPRINT_KEY_BYTES), FINGERPRINT_KEY)
        await pool.fetch(_INSERT, *_columns(home), key.ciphertext, key.key_id)
        # Another replica may have been first, perhaps of another installation.
        stored = await read_home(pool)
    if stored is not None and stored != home:
        raise HomeDiffersError(stored=stored, ours=home)
    await pool.fetch(RESTAMP)


async def read_home(pool: Pool | Connection) -> Home | None:
    """Returns whose home it is; None: nobody's yet.

    Raises:
        StoreUnavailable: try again.
    """
    rows = await pool.fetch(_READ)
    return Home(**rows[0]) if rows else None


def admission(home: Home, keyring: Keyring) -> Callable[[Connection], Awaitable[None]]:
    """Returns what lets a serving broker use a connection: our schema, our home, and our keys.

    Asked for each connection and not once at start: behind an address there may be another database
    one day, restored, failed over or mistaken, and one look into it would share its grants. With
    another installation's keyset we would seal grants that no other replica opens.
    """

    async def admit(connection: Connection) -> None:
        # First: without our schema there is no home to read.
        _, fitness = await read_schema(connection)
        if fitness is not SchemaFitness.FIT:
            what = f"{fitness.value}: run `token-broker migrate` of this release"
            raise DatabaseUnfit(what, code=fitness.value)
        if await read_home(connection) != home:
            what = "the database is not this broker's home, or not yet"
            raise DatabaseUnfit(what, code=HOME_DIFFERS)
        (row,) = await connection.fetch("SELECT key_id FROM home")
        if not keyring.can_open(row["key_id"]):
            what = "the keyset lacks the key of this database: roll the newest keyset out"
            raise DatabaseUnfit(what, code=KeyUnavailable.reason)

    return admit


async def read_fingerprint_key(pool: Pool, keyring: Keyring) -> bytes:
    """Returns the key of the fingerprints; the home is settled.

    Raises:
        StoreUnavailable, KeyUnavailable: try again.
        RecordUnreadable: it was altered.
    """
    (row,) = await pool.fetch("SELECT sealed_fingerprint_key, key_id FROM home")
    sealed = Sealed(ciphertext=row["sealed_fingerprint_key"], key_id=row["key_id"])
    return keyring.unseal(sealed, FINGERPRINT_KEY)


def _columns(home: Home) -> tuple[str, str, str, str]:
    return home.name, home.environment, home.token_url, home.client_id
