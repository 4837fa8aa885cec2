"""TLS to both stores: a private authority, names that must fit, and certificates of our own."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.config import MigrateSettings
from broker.config.transport import database_tls
from broker.domain.errors import StoreUnavailable
from broker.domain.facts import LeaseOutcome
from broker.lease.client import RedisClient
from broker.lease.leases import RedisLeases
from broker.lease.status import RedisStatus, probe
from broker.store.pool import PoolSettings, open_pool
from support.certificates import Authority, dns
from support.redis_worlds import PREFIX, QUICK, ask
from support.tls_front import Front, for_localhost, postgres_front, redis_front, server_context

REFUSED = "SSLCertVerificationError"

# Both ends of each handshake are in this process, however busy the machine is.
PATIENT = replace(QUICK, connect=timedelta(seconds=20), answer=timedelta(seconds=20))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def ca_file(authority: Authority, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.cert)
    return path


@pytest.fixture
async def redis(redis_url: str, authority: Authority, tmp_path: Path) -> AsyncIterator[Front]:
    async with redis_front(redis_url, server_context(for_localhost(authority), tmp_path)) as front:
        yield front


@pytest.fixture
async def postgres(database_url: str, authority: Authority, tmp_path: Path) -> AsyncIterator[Front]:
    context = server_context(for_localhost(authority), tmp_path)
    async with postgres_front(database_url, context) as front:
        yield front


def redis_client(
    front: Front, ca_file: Path | None, *, host: str = "localhost", more: str = ""
) -> RedisClient:
    url = f"rediss://{host}:{front.port}{front.path}{more}"
    return RedisClient(lambda: url, ca_file=ca_file, times=PATIENT)


async def status(client: RedisClient) -> RedisStatus:
    async with client:
        return await probe(client)


async def fetched(
    front: Front, *, host: str = "localhost", ca_file: Path | None = None, more: str = ""
) -> object:
    """Asks as `serve` does, whose settings these are."""
    url = f"postgresql://{front.user}@{host}:{front.port}{front.path}?sslmode=verify-full{more}"
    given = {"BROKER_DATABASE_CA_FILE": str(ca_file)} if ca_file else {}
    settings = MigrateSettings.from_environ({"BROKER_DATABASE_URL": url, **given})
    tls = database_tls(settings)
    async with open_pool(PoolSettings(url=lambda: url, tls=tls)) as pool:
        (row,) = await pool.fetch("SELECT 1 AS one")
        return row["one"]


async def test_a_redis_that_the_authority_vouches_for_is_used(redis: Front, ca_file: Path) -> None:
    async with redis_client(redis, ca_file) as client:
        assert await ask(RedisLeases(client, prefix=PREFIX), "acme") is LeaseOutcome.ACQUIRED


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_redis_is_refused_by_its_authority_or_its_name(
    redis: Front, ca_file: Path, host: str
) -> None:
    trusted = None if host == "localhost" else ca_file

    found = await status(redis_client(redis, trusted, host=host))

    assert not found.is_reachable
    assert REFUSED in found.why


@pytest.mark.parametrize("has_one", [True, False])
async def test_a_redis_that_wants_a_certificate_is_shown_that_of_the_address(
    redis_url: str, authority: Authority, tmp_path: Path, ca_file: Path, *, has_one: bool
) -> None:
    context = server_context(for_localhost(authority), tmp_path, callers=authority)
    cert, key = authority.issue(dns("broker")).write(tmp_path, "ours")
    more = f"?ssl_certfile={cert}&ssl_keyfile={key}" if has_one else ""

    async with redis_front(redis_url, context) as front:
        found = await status(redis_client(front, ca_file, more=more))

    assert found.is_reachable is has_one


async def test_a_postgres_that_the_authority_vouches_for_is_used(
    postgres: Front, ca_file: Path
) -> None:
    assert await fetched(postgres, ca_file=ca_file) == 1
    assert await fetched(postgres, more=f"&sslrootcert={ca_file}") == 1


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_postgres_is_refused_by_its_authority_or_its_name(
    postgres: Front, ca_file: Path, host: str
) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        await fetched(postgres, host=host, ca_file=None if host == "localhost" else ca_file)

    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


@pytest.mark.parametrize("has_one", [True, False])
async def test_a_postgres_that_wants_a_certificate_is_shown_that_of_the_address(
    database_url: str, authority: Authority, tmp_path: Path, ca_file: Path, *, has_one: bool
) -> None:
    context = server_context(for_localhost(authority), tmp_path, callers=authority)
    cert, key = authority.issue(dns("broker")).write(tmp_path, "ours")
    more = f"&sslcert={cert}&sslkey={key}" if has_one else ""

    async with postgres_front(database_url, context) as front:
        if has_one:
            assert await fetched(front, ca_file=ca_file, more=more) == 1
            return
        with pytest.raises(StoreUnavailable):
            await fetched(front, ca_file=ca_file)
