"""Addresses of Redis: which are taken, what they cannot change, and that no error repeats them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError

from broker.lease.address import RedisUrlRefused, make_pool, prefix_of
from broker.lease.several import read_cluster, read_sentinels
from broker.lease.slot import TAG, owner_of_slot
from broker.lease.times import LeaseTimes

PASSWORD = "hunter2"


def connection(url: str | Callable[[], str], *, ca_file: Path | None = None) -> AbstractConnection:
    """Makes a connection of the pool's, without opening it."""
    read_url = url if callable(url) else lambda: url
    pool = make_pool(read_url, ca_file=ca_file, times=LeaseTimes())
    return pool.connection_class(**pool.connection_kwargs)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://host:7000/3", Connection),
        ("rediss://host", SSLConnection),
        ("unix:///run/redis.sock?db=3", UnixDomainSocketConnection),
        ("redis+sentinel://u:p@h1:1,h2/main/3", SentinelManagedConnection),
        ("redis+sentinels://h1/main", SentinelManagedSSLConnection),
    ],
)
def test_an_address_says_how_to_connect(url: str, kind: type[AbstractConnection]) -> None:
    assert type(connection(url)) is kind


def test_a_ca_file_is_what_an_encrypted_connection_trusts() -> None:
    made = connection("rediss://host", ca_file=Path("ca.pem"))

    assert isinstance(made, SSLConnection)
    assert made.ca_certs == "ca.pem"
    assert made.check_hostname


@pytest.mark.parametrize(
    "url",
    [
        f"redis+sentinel://u:{PASSWORD}@h1:1,h2:2",
        f"redis+sentinel://u:{PASSWORD}@h1:1,h2:2/main/{PASSWORD}",
        f"redis+sentinel://u:{PASSWORD}@h1:{PASSWORD}/main",
        f"redis+sentinel://u:{PASSWORD}@h1,,h2/main",
        f"redis+clusters://u:{PASSWORD}@h1:1,,h2:2",
        f"redis+cluster://u:{PASSWORD}@h1:1/3",
        f"http://u:{PASSWORD}@host",
        f"{PASSWORD}",
        "",
        f"redis://user:{PASSWORD}/word@host",
        f"redis://host?socket_timeout={PASSWORD}",
        f"redis://host?{PASSWORD}=1",
        f"redis://host?ssl_ca_certs={PASSWORD}",
        f"rediss://host?ssl_cert_reqs={PASSWORD}",
    ],
)
def test_what_cannot_be_used_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(RedisUrlRefused) as caught:
        connection(url)

    assert PASSWORD not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_cluster_has_no_databases_but_one() -> None:
    with pytest.raises(RedisUrlRefused, match="has 0 alone"):
        connection("redis+cluster://h1:1,h2:2/3")


def test_nodes_of_a_cluster_are_those_of_the_address() -> None:
    assert read_cluster("redis+clusters://u:p@h1:1,h2/0?x=1") == (("h1", 1), ("h2", 6379))


def test_keys_in_a_cluster_have_one_slot() -> None:
    prefixes = [prefix_of("redis+cluster://h1", home) for home in ("one", "two")]

    assert {key_slot(f"{each}lease:acme".encode()) for each in prefixes} == {key_slot(TAG.encode())}
    assert prefix_of("redis://h1", "one") == "token-broker:one:"


@pytest.mark.parametrize(
    ("told", "owner"),
    [
        ([[0, 16_383, [b"h1", 1, b"id"]]], ("h1", 1)),
        ([[0, 1, [b"h1", 1]], [2, 16_383, [b"h2", 2, b"id", []], [b"h3", 3]]], ("h2", 2)),
        ([[0, 16_383, [b"", 7, b"id"]]], ("asked", 7)),
        ([[0, 16_383, [None, 7, b"id"]]], ("asked", 7)),
    ],
)
def test_our_slot_is_where_the_nodes_say(told: object, owner: tuple[str, int]) -> None:
    assert owner_of_slot(told, asked="asked") == owner


@pytest.mark.parametrize("told", [[], [[0, 1, [b"h1", 1]]], [[0, 16_383, [b"?", 1]]]])
def test_a_cluster_that_does_not_say_is_an_error(told: object) -> None:
    with pytest.raises(ValueError, match="slot"):
        owner_of_slot(told, asked="asked")


def test_sentinels_are_those_of_the_address_each_with_its_port() -> None:
    read = read_sentinels("redis+sentinel://u:p@h1:1,[::1]:2,h3/main/4")

    assert read.nodes == (("h1", 1), ("::1", 2), ("h3", 26_379))
    assert read.service == "main"


def test_a_ca_file_without_encryption_is_refused() -> None:
    with pytest.raises(RedisUrlRefused, match="rediss"):
        connection("redis://host", ca_file=Path("ca.pem"))


def test_no_option_in_an_address_outranks_ours() -> None:
    made = connection(
        "redis://host?socket_timeout=60&socket_connect_timeout=60&retry_on_timeout=yes"
        "&health_check_interval=9&protocol=3&timeout=60&client_name=x"
    )

    assert (made.socket_timeout, made.socket_connect_timeout) == (0.25, 0.25)
    assert made.retry.get_retries() == 0
    assert (made.retry_on_error, made.health_check_interval) == ([], 0)
    assert (made.protocol, made.client_name) == (2, "token-broker")


@pytest.mark.parametrize(
    ("url", "credentials"),
    [
        ("redis://:p%2Fw@host", ("p/w",)),
        ("redis://user:pw@host", ("user", "pw")),
        ("unix:///s?username=user&password=pw", ("user", "pw")),
        ("redis://host", None),
        ("redis+sentinel://user:p%2Fw@h1,h2/main", ("user", "p/w")),
    ],
)
async def test_user_and_password_are_those_of_the_address(
    url: str, credentials: tuple[str, ...] | None
) -> None:
    provider = connection(url).credential_provider

    assert (await provider.get_credentials_async() if provider else None) == credentials


async def test_a_password_is_read_anew_for_each_connection() -> None:
    urls = [f"redis://:{password}@host" for password in ("newest", "newer", "old")]
    made = connection(urls.pop)

    assert made.credential_provider is not None
    assert await made.credential_provider.get_credentials_async() == ("newer",)
    assert await made.credential_provider.get_credentials_async() == ("newest",)


async def test_an_address_that_cannot_be_read_again_is_a_failed_connection() -> None:
    """Of redis-py's own errors alone, after which it closes the socket."""
    made = connection(["", "redis://:password@host", "redis://:password@host"].pop)
    assert made.credential_provider is not None
    await made.credential_provider.get_credentials_async()

    with pytest.raises(RedisConnectionError):
        await made.credential_provider.get_credentials_async()
