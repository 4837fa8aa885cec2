"""Escrows in Redis: sealed copies of pairs that PostgreSQL did not take.

Upholds the ports `Escrows` and `EscrowKeys`.

One hash for all, `prefix` and `escrows`, a field for each attempt: tenant, `|` (which no tenant
has) and number. One key, so that writing is one command whose answer says whether it is there, in
a cluster as well. It never expires: an outage that outlasts a time to live would cost customers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, cast

from broker.domain.errors import KeyUnavailable, RecordUnreadable
from broker.domain.escrow import Escrow
from broker.lease.client import RedisClient
from broker.lease.escrow_text import EscrowUnreadableError, read_escrow, write_escrow
from broker.lease.failure import RedisUnreachable

_NAME: Final = "escrows"

_SLOT: Final = re.compile(rb"(?P<tenant>[!-{}~]{1,200})\|(?P<number>[0-9]{1,19})")
"""What `_field` writes. Anything may stand in Redis."""

_PAGE: Final = 500
"""Fields that Redis looks at in one go: it answers nobody else meanwhile."""


class Sealer(Protocol):
    """Seals what leaves this process. Bound to tenant and attempt."""

    def seal(self, clear: bytes, *, tenant: str, number: int) -> bytes:
        """Seals.

        Raises:
            KeyUnavailable: the keyset does not seal.
        """
        ...

    def key_id_of(self, sealed: bytes) -> int:
        """Returns the id of the key that it is sealed under."""
        ...

    def unseal(self, sealed: bytes, *, tenant: str, number: int) -> bytes:
        """Opens.

        Raises:
            KeyUnavailable, RecordUnreadable: it does not open here.
        """
        ...


class RedisEscrows:
    """Upholds `ports.Escrows`."""

    def __init__(self, client: RedisClient, sealer: Sealer, *, prefix: str) -> None:
        self._client = client
        self._sealer = sealer
        self._name = f"{prefix}escrows"

    async def put(self, escrow: Escrow) -> bool:
        """See the port."""
        tenant, number = escrow.tenant, escrow.attempt.number
        try:
            sealed = self._sealer.seal(write_escrow(escrow), tenant=tenant, number=number)
            field = _field(tenant, number)
            # Also during a pause after a failure: this is no convenience.
            await self._client.ask_anyway(lambda redis: redis.hset(self._name, field, sealed))
        except (RedisUnreachable, KeyUnavailable):
            return False
        return True

    async def find(self, tenant: str) -> Sequence[Escrow] | None:
        """See the port."""
        try:
            found = await self._scan(f"{tenant}|*")
        except RedisUnreachable:
            return None
        opened = [self._open(field, sealed) for field, sealed in found.items()]
        if None in opened:
            return None  # there is a pair, and not for us: far from "there is none"
        return [each for each in opened if each is not None]

    async def everything(self) -> Sequence[Escrow] | None:
        """See the port. What does not open here is left out, and keeps no other waiting."""
        try:
            found = await self._scan("*")
        except RedisUnreachable:
            return None
        opened = [self._open(field, sealed) for field, sealed in found.items()]
        if None in opened:
            self._client.report(_NAME, f"{opened.count(None)} do not open")
        return [each for each in opened if each is not None]

    async def key_use(self) -> Mapping[int, int] | None:
        """See `ports.EscrowKeys`."""
        try:
            found = await self._scan("*")
        except RedisUnreachable:
            return None
        return Counter(self._sealer.key_id_of(sealed) for sealed in found.values())

    async def drop(self, escrow: Escrow) -> None:
        """See the port."""
        field = _field(escrow.tenant, escrow.attempt.number)
        try:
            await self._client.ask_anyway(lambda redis: redis.hdel(self._name, field))
        except RedisUnreachable:
            return  # found again, and found stale

    async def count(self) -> int | None:
        """Counts all copies, whoever can open them; None: Redis does not tell. Never raises."""
        try:
            return await self._client.ask_anyway(lambda redis: redis.hlen(self._name))
        except RedisUnreachable:
            return None

    async def _scan(self, pattern: str) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        cursor = 0
        while True:
            cursor, page = await self._page(cursor, pattern)
            # HSCAN may give a field more than once; none that stays is left out.
            found.update(page)
            if cursor == 0:
                return found

    async def _page(self, cursor: int, pattern: str) -> tuple[int, dict[bytes, bytes]]:
        following, page = await self._client.ask_anyway(
            lambda redis: redis.hscan(self._name, cursor, match=pattern, count=_PAGE)
        )
        # Bytes, since nothing here asks for text; its types allow for more.
        return following, cast("dict[bytes, bytes]", page)

    def _open(self, field: bytes, sealed: bytes) -> Escrow | None:
        """Returns what lies in a slot; None: it does not open here, or is none of ours."""
        slot = _SLOT.fullmatch(field)
        if slot is None:
            return None
        tenant, number = slot["tenant"].decode(), int(slot["number"])
        try:
            return read_escrow(self._sealer.unseal(sealed, tenant=tenant, number=number))
        except (KeyUnavailable, RecordUnreadable, EscrowUnreadableError):
            return None


def _field(tenant: str, number: int) -> str:
    return f"{tenant}|{number}"
