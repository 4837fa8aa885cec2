"""What several modules begin with: two brokers, the API over a fake service, a sandbox.

A module that needs another one of these has a fixture of the same name, which comes before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from broker.dev.rundir import RunDirectory
from broker.sandbox.sandbox import Sandbox
from broker.sandbox.server import sandbox_server
from support.fleet import Fleet, fleet_of_a_module
from support.onboarding import Customer, new_customer
from support.replica import Replica
from support.rpc import Served, serving
from support.sandbox_client import SandboxClient, client_of


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def brokers(
    database_server: str, migrated_template: str, redis_server: str, run: RunDirectory
) -> AsyncIterator[Fleet]:
    """The brokers of a module."""
    stores = (database_server, migrated_template, redis_server)
    async with fleet_of_a_module(*stores, run=run) as brokers:
        await brokers.start(2)
        yield brokers


@pytest.fixture
def two(brokers: Fleet) -> Iterator[Fleet]:
    """Two brokers, and what they said, where a test fails."""
    yield brokers
    brokers.tell()


@pytest.fixture
def first(two: Fleet) -> Replica:
    """One of the brokers."""
    return two.replicas[0]


@pytest.fixture
def second(two: Fleet) -> Replica:
    """The other one."""
    return two.replicas[1]


@pytest.fixture
def customer(two: Fleet) -> Customer:
    """A customer that nothing is known of yet."""
    return new_customer(two.sandbox)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """The API over a fake service, and a channel to it."""
    async with serving() as running:
        yield running


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """A Pleo sandbox."""
    async with sandbox_server() as served:
        yield served


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[SandboxClient]:
    """Its demo client."""
    async with client_of(sandbox) as opened:
        yield opened
