"""Puts many grants into a database at once, sealed as the broker seals them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from broker.domain.grant import Grant
from broker.store.pairs import seal_pair
from broker.store.rows import values_of
from broker.store.sealing import Keyring
from support.grants import some_grant, some_pair

_CHUNK: Final = 2_000
"""Rows a COPY: a second of sealing, after which somebody is told."""

_LIVING: Final = timedelta(days=2)
"""Longer than any measurement: these grants are read, and not refreshed."""


def tenant_number(number: int) -> str:
    """Returns the name of one of them."""
    return f"filled-{number:07}"


async def fill(url: str, keyring: Keyring, *, count: int, told: Callable[[int], None]) -> None:
    """Writes `count` ACTIVE grants with living tokens; `told`: how many there are."""
    connection = await asyncpg.connect(url)
    try:
        for first in range(0, count, _CHUNK):
            numbers = range(first, min(first + _CHUNK, count))
            records = list(_records(keyring, numbers))
            columns = list(records[0])
            rows = [tuple(each.values()) for each in records]
            await connection.copy_records_to_table("grants", records=rows, columns=columns)
            told(numbers.stop)
        await connection.execute("ANALYZE grants")
    finally:
        await connection.close()


def _records(keyring: Keyring, numbers: range) -> Iterator[dict[str, object]]:
    now = datetime.now(UTC)
    for number in numbers:
        grant = _grant(number, now)
        sealed = seal_pair(keyring, grant.tenant, pair=some_pair(grant.generation))
        yield {"tenant": grant.tenant, "version": 1, **values_of(grant), **sealed}


def _grant(number: int, now: datetime) -> Grant:
    return some_grant(
        tenant=tenant_number(number),
        subject=None,
        lifetime=_LIVING,
        expires_at=now + _LIVING,
        renew_at=now + _LIVING,
        refreshed_at=now,
    )
