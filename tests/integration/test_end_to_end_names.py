"""The ops address, which anybody in the cluster can read, names no customer and no caller."""

from __future__ import annotations

import html
from collections.abc import AsyncIterator
from typing import Final

import asyncpg
import pytest

from broker.dev.rundir import RunDirectory
from support.fleet import Fleet, fleet, until_true
from support.onboarding import (
    Customer,
    connect,
    execute,
    expire,
    get,
    new_company,
    revoke,
)
from support.replica import Replica
from support.rpc import failure_of

ODD: Final = ("zebra/eu:42@blue", "quokka@example.org", "-._:/@narwhal", "n" * 128)
"""As the form of a tenant lets them be."""

CALLER: Final = "uri:spiffe://example.org/walrus"
PAGES: Final = ("/statusz", "/metrics", "/readyz?verbose")

_NOTE: Final = """
    INSERT INTO disclosures VALUES ($1, $2, 1, 1, clock_timestamp(), clock_timestamp())
"""
_COUNT: Final = "SELECT count(*) FROM disclosures"


@pytest.fixture
async def brokers(database_url: str, redis_url: str, run: RunDirectory) -> AsyncIterator[Fleet]:
    """No broker yet."""
    async with fleet(database_url, redis_url, run) as brokers:
        yield brokers
        brokers.tell()


async def with_a_past(brokers: Fleet, replica: Replica) -> list[Customer]:
    """Connects odd tenants, of which one left Pleo, one ended, and one is fine."""
    customers = [Customer(tenant=each, company=new_company(brokers.sandbox)) for each in ODD]
    for each in customers:
        await connect(brokers, replica, each)
        await get(replica.tokens, each.tenant)
        await execute(brokers.database_url, _NOTE, each.tenant, CALLER)
    left, ended, *_ = customers
    await expire(brokers, left.tenant, known_to=replica)
    brokers.sandbox.server.disconnect(company=left.company)
    failure = await failure_of(get(replica.tokens, left.tenant))
    assert failure.error_info.reason == "REAUTH_REQUIRED"
    await revoke(replica, ended.tenant)
    return customers


async def until_disclosed(brokers: Fleet) -> None:
    """Waits until what was handed out is on record."""

    async def is_written() -> bool:
        connection = await asyncpg.connect(brokers.database_url)
        try:
            disclosed = await connection.fetchval(_COUNT)
        finally:
            await connection.close()
        return bool(disclosed == 2 * len(ODD))

    await until_true(is_written)


async def test_no_page_names_a_tenant_a_caller_or_a_company(brokers: Fleet) -> None:
    replica = await brokers.started()
    customers = await with_a_past(brokers, replica)
    await until_disclosed(brokers)

    shown = [html.unescape((await brokers.asked(replica, page)).text) for page in PAGES]

    names = {CALLER, "walrus", "anonymous", "urn:pleo:company"}
    names |= {each.tenant for each in customers} | {each.company for each in customers}
    names |= {"zebra", "quokka", "narwhal"}
    assert all("broker" in page.lower() or "postgres" in page.lower() for page in shown)
    assert [(name, page) for name in names for page in shown if name in page] == []
