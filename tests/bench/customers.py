"""Grants that Pleo's sandbox knows and that lie in a database, without the way through a consent.

They are idle and alive; nobody renews them until they are made due.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg

from broker.domain.grant import TokenPair
from broker.domain.secret import AccessToken, RefreshToken, Secret
from broker.sandbox.sandbox import Sandbox
from broker.sandbox.settings import DEMO_CLIENT
from broker.store.pairs import seal_pair
from broker.store.rows import values_of
from broker.store.sealing import Keyring
from support.grants import some_grant
from support.onboarding import Customer, new_customer

_LIVING: Final = timedelta(days=2)
"""Longer than any measurement."""

GENERATION: Final = 1

QUIET: Final = {"BROKER_LOG_LEVEL": "info", "BROKER_OTLP_ENDPOINT": ""}
"""Settings of a broker that is measured: as in production, without traces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a tenant holds at Pleo."""

    tenant: str
    access_token: str
    refresh_token: str


def opened(sandbox: Sandbox, *, count: int) -> tuple[list[Customer], list[Held]]:
    """Has so many companies consent, each to one tenant."""
    customers = [new_customer(sandbox) for _ in range(count)]
    held = []
    for each in customers:
        realm = sandbox.server.realm
        grant = realm.ledger.open(
            client_id=DEMO_CLIENT.client_id, company=each.company, scopes=("export-items:read",)
        )
        realm.issue(grant, now=sandbox.now(), parent=None)
        pair = grant.current
        held.append(
            Held(
                tenant=each.tenant,
                access_token=pair.access_token,
                refresh_token=pair.refresh_token,
            )
        )
    return customers, held


async def put(url: str, keyset: Path, held: Sequence[Held]) -> None:
    """Writes them as the broker would have."""
    keyring, now = Keyring.from_file(keyset), datetime.now(UTC)
    records = [_record(keyring, each, now) for each in held]
    columns = list(records[0])
    connection = await asyncpg.connect(url)
    try:
        rows = [tuple(each.values()) for each in records]
        await connection.copy_records_to_table("grants", records=rows, columns=columns)
    finally:
        await connection.close()


def _record(keyring: Keyring, held: Held, now: datetime) -> dict[str, object]:
    grant = some_grant(
        tenant=held.tenant,
        subject=None,
        generation=GENERATION,
        pair_base=None,
        expires_at=now + _LIVING,
        renew_at=now + _LIVING,
        refreshed_at=now,
    )
    pair = TokenPair(
        access_token=AccessToken(Secret(held.access_token)),
        refresh_token=RefreshToken(Secret(held.refresh_token)),
        generation=GENERATION,
    )
    sealed = seal_pair(keyring, held.tenant, pair=pair)
    return {"tenant": held.tenant, "version": 1, **values_of(grant), **sealed}
