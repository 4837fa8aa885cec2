"""Upholds `ports.KeyStore`: which rows are under which key, and sealing them anew.

A row is written only if it still holds the very values that were opened, of the same generation
and the same attempt: a rotation that was stored meanwhile is never overwritten (law 4). Nothing of
a grant changes but its ciphertext, so the version stays, and no write that is under way is refused
for it. Rows that somebody else has locked are passed over: nobody waits for this, nor this for
anybody.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import asyncpg

from broker.domain.errors import RecordUnreadable
from broker.ports import RewrapBatch
from broker.store.authorizations import verifier_place
from broker.store.home import FINGERPRINT_KEY
from broker.store.imports import import_place
from broker.store.pairs import pair_place
from broker.store.pool import Pool
from broker.store.sealing import Keyring, Keyset, Place, Sealed

BATCH: Final = 200
"""Rows at a time. Opening and sealing both tokens of so many takes some five milliseconds, in which
this replica answers nobody; their locks are held for one statement."""

_USE: Final = """
    SELECT key_id, count(*) AS rows FROM (
        SELECT key_id FROM home
        UNION ALL SELECT key_id FROM grants
        UNION ALL SELECT key_id FROM authorizations
        UNION ALL SELECT key_id FROM imports
    ) AS sealed WHERE key_id IS NOT NULL GROUP BY key_id
"""

# An act on all tenants, as `store.fleet` notes those about the fleet.
_NOTE: Final = """
    INSERT INTO grant_events
    (tenant, actor, call, reason, state_before, state_after, generation)
    VALUES ('*', $1, 'OperationsService/RewrapKeys', $2, '', '', 0)
"""

_PlaceOf: TypeAlias = Callable[[asyncpg.Record], Place]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A table with sealed columns. Names and types are ours, never a caller's."""

    table: str
    identity: str
    identity_type: str
    first: object
    """Sorts before every identity."""

    sealed: Mapping[str, _PlaceOf]
    also_read: Sequence[str] = ()
    fence: Sequence[str] = field(default=())
    """Further numbers (bigint) that must be as they were read."""


def _token_of(field_name: str) -> _PlaceOf:
    return lambda row: pair_place(row["tenant"], field_name, row["pair_generation"])


_KINDS: Final = (
    _Kind(
        table="home",
        identity="is_only",
        identity_type="boolean",
        first=False,
        sealed={"sealed_fingerprint_key": lambda _: FINGERPRINT_KEY},
    ),
    _Kind(
        table="grants",
        identity="tenant",
        identity_type="text",
        first="",
        sealed={
            "sealed_access_token": _token_of("access_token"),
            "sealed_refresh_token": _token_of("refresh_token"),
        },
        fence=("generation", "pair_generation", "pair_attempt", "last_attempt"),
    ),
    _Kind(
        table="authorizations",
        identity="state_hash",
        identity_type="bytea",
        first=b"",
        sealed={
            "sealed_code_verifier": lambda row: verifier_place(row["tenant"], row["state_hash"])
        },
        also_read=("tenant",),
    ),
    _Kind(
        table="imports",
        identity="fingerprint",
        identity_type="bytea",
        first=b"",
        sealed={
            "sealed_refresh_token": lambda row: import_place(row["tenant"], row["fingerprint"])
        },
        also_read=("tenant",),
    ),
)


class PostgresKeys:
    """Which keys rows are under. Safe for any number of tasks at once."""

    def __init__(self, pool: Pool, keyring: Keyring) -> None:
        self._pool = pool
        self._keyring = keyring

    def primary_key_id(self) -> int:
        """Upholds the port."""
        return self._keyring.newest().primary_key_id

    def can_open(self, key_id: int) -> bool:
        """Upholds the port."""
        return self._keyring.can_open(key_id)

    async def key_use(self) -> Mapping[int, int]:
        """Upholds the port."""
        return {row["key_id"]: row["rows"] for row in await self._pool.fetch(_USE)}

    async def note_rewrap(self, *, by: str, reason: str) -> None:
        """Upholds the port."""
        await self._pool.fetch(_NOTE, by, reason)

    async def rewrap(self) -> AsyncGenerator[RewrapBatch, None]:
        """Upholds the port."""
        # One for the whole pass: what it seals, it seals under one key.
        keyset = self._keyring.newest()
        for kind in _KINDS:
            after = kind.first
            while rows := await self._pool.fetch(_read(kind), keyset.primary_key_id, after, BATCH):
                after = rows[-1][kind.identity]
                yield await self._rewrap_rows(kind, rows, keyset=keyset)

    async def _rewrap_rows(
        self, kind: _Kind, rows: Sequence[asyncpg.Record], *, keyset: Keyset
    ) -> RewrapBatch:
        sealed = [(row, values) for row in rows if (values := self._sealed_anew(kind, row, keyset))]
        columns = [
            [row[name] for row, _ in sealed] for name in (kind.identity, "key_id", *kind.fence)
        ]
        for name in kind.sealed:
            columns += [[row[name] for row, _ in sealed], [values[name] for _, values in sealed]]
        written = await self._pool.fetch(_write(kind), keyset.primary_key_id, *columns)
        return RewrapBatch(
            rewrapped=len(written),
            unreadable=len(rows) - len(sealed),
            passed_over=len(sealed) - len(written),
        )

    def _sealed_anew(
        self, kind: _Kind, row: asyncpg.Record, keyset: Keyset
    ) -> Mapping[str, bytes | None] | None:
        """Returns the new values of a row; None: what it has does not open."""
        try:
            return {
                name: self._resealed(row[name], row["key_id"], place=place(row), keyset=keyset)
                for name, place in kind.sealed.items()
            }
        except RecordUnreadable:
            return None  # counted, and told by the keyring; it stays as it is

    def _resealed(
        self, ciphertext: bytes | None, key_id: int, *, place: Place, keyset: Keyset
    ) -> bytes | None:
        if ciphertext is None:
            return None
        clear = self._keyring.unseal(Sealed(ciphertext=ciphertext, key_id=key_id), place)
        return keyset.seal(clear, place).ciphertext


def _read(kind: _Kind) -> str:
    columns = ", ".join(
        (kind.identity, "key_id", *kind.also_read, *kind.fence, *kind.sealed),
    )
    return (
        f"SELECT {columns} FROM {kind.table} "
        f"WHERE key_id <> $1 AND {kind.identity} > $2 ORDER BY {kind.identity} LIMIT $3"
    )


def _write(kind: _Kind) -> str:
    types = {"id": kind.identity_type, "old_key": "bigint"} | dict.fromkeys(kind.fence, "bigint")
    for name in kind.sealed:
        types |= {f"old_{name}": "bytea", f"new_{name}": "bytea"}
    arrays = ", ".join(f"${place}::{each}[]" for place, each in enumerate(types.values(), start=2))
    same = [f"held.{name} IS NOT DISTINCT FROM known.{name}" for name in kind.fence]
    same += [f"held.{name} IS NOT DISTINCT FROM known.old_{name}" for name in kind.sealed]
    fence = " AND ".join([f"held.{kind.identity} = known.id", "held.key_id = old_key", *same])
    values = ", ".join(f"{name} = new_{name}" for name in kind.sealed)
    # PostgreSQL looks at the fence again on the row that it has locked.
    return (
        f"WITH known AS (SELECT * FROM unnest({arrays}) AS each({', '.join(types)})), "
        f"ours AS (SELECT known.* FROM {kind.table} AS held JOIN known ON {fence} "
        f"ORDER BY held.{kind.identity} FOR NO KEY UPDATE OF held SKIP LOCKED) "
        f"UPDATE {kind.table} SET key_id = $1::bigint, {values} FROM ours "
        f"WHERE {kind.table}.{kind.identity} = ours.id RETURNING 1"
    )
