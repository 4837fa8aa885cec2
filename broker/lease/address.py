"""Reads the address of a Redis and makes its pool of connections. Opens none.

With Sentinel each connection is to the server that is the master when it is opened, and with Redis
Cluster to the node that has our slot then.

redis-py's defaults break law 6: ten retries block for up to a minute, and an option in the URL
outranks the program's. Here ours win. No error of this module holds a word of the address, in
which a password may be.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from redis.asyncio.connection import BlockingConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from broker.lease.sentinel import Master
from broker.lease.several import (
    SeveralUnreadableError,
    is_cluster,
    is_sentinel,
    plain,
    read_cluster,
    read_sentinels,
)
from broker.lease.slot import TAG, SlotOwner
from broker.lease.times import LeaseTimes

Given = TypeVar("Given")

# A question takes a millisecond, so these carry 30 000 a second. Whoever finds them all in use
# waits; redis-py's other pool would say at once that Redis is away.
_MOST_CONNECTIONS: Final = 32

_ENCRYPTED: Final = ("rediss", "redis+sentinels", "redis+clusters")
_BARE: Final = ("redis", "unix", "redis+sentinel", "redis+cluster")


class RedisUrlRefused(ValueError):  # noqa: N818 - what happened to it, as a reader of settings says
    """The address of Redis cannot be used. The message says why, and nothing of the address."""


def make_pool(
    read_url: Callable[[], str], *, ca_file: Path | None, times: LeaseTimes
) -> BlockingConnectionPool:
    """Makes a pool that opens connections when they are needed.

    Raises:
        RedisUrlRefused: see there.
    """
    url = read_url()
    options = _read_options(url, ca_file)
    if any([options.pop("username", None), options.pop("password", None)]):
        options["credential_provider"] = _FreshCredentials(read_url)
    options |= _our_options(times)
    if is_sentinel(url):
        options |= _asking(Master(_read(read_sentinels, url), options), options)
    if is_cluster(url):
        options |= _asking(SlotOwner(_read(read_cluster, url), options), options)
    pool = BlockingConnectionPool(**options)
    _try_options(pool)
    return pool


def prefix_of(url: str, home: str) -> str:
    """Returns what all keys and channels of an installation begin with in a Redis at an address."""
    return f"{TAG if is_cluster(url) else 'token-broker'}:{home}:"


def _read_options(url: str, ca_file: Path | None) -> dict[str, Any]:
    scheme = url.partition("://")[0]
    if scheme not in (*_BARE, *_ENCRYPTED):
        raise RedisUrlRefused(
            "begins with none of redis://, rediss://, unix://, redis+sentinel(s)://,"
            " redis+cluster(s)://"
        )
    if ca_file is not None and scheme not in _ENCRYPTED:
        raise RedisUrlRefused(
            "a CA file is given, but only rediss://, redis+sentinels:// and redis+clusters://"
            " are encrypted"
        )
    try:
        options: dict[str, Any] = dict(parse_url(plain(url)))
    except SeveralUnreadableError as error:
        raise RedisUrlRefused(str(error)) from None
    except ValueError:  # quotes a piece of the address, as the port of `user:pass/word@host`
        raise RedisUrlRefused("not readable; is the password percent-encoded?") from None
    return options | ({"ssl_ca_certs": str(ca_file)} if ca_file else {})


def _read(read: Callable[[str], Given], url: str) -> Given:
    try:
        return read(url)
    except SeveralUnreadableError as error:
        raise RedisUrlRefused(str(error)) from None


def _asking(whom: Master | SlotOwner, options: dict[str, Any]) -> dict[str, Any]:
    """Returns what lets a pool's connections ask where to connect."""
    is_encrypted = options.get("connection_class") is SSLConnection
    kind = SentinelManagedSSLConnection if is_encrypted else SentinelManagedConnection
    return {"connection_class": kind, "connection_pool": whom}


def _our_options(times: LeaseTimes) -> dict[str, Any]:
    """Returns what an address cannot change."""
    return {
        "socket_connect_timeout": times.connect.total_seconds(),
        "socket_timeout": times.answer.total_seconds(),
        "timeout": times.answer.total_seconds(),  # for a connection that is free
        "max_connections": _MOST_CONNECTIONS,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "retry_on_error": [],
        "health_check_interval": 0,  # a PING before a command would cost more than it spares
        # RESP3, the default, needs HELLO and lets the server stretch our timeouts when it tells of
        # its maintenance; there is nothing in it for us.
        "protocol": 2,
        "decode_responses": False,
        "client_name": "token-broker",
        "driver_info": None,  # two commands less on each connect; Redis 6.2 knows neither
    }


def _try_options(pool: BlockingConnectionPool) -> None:
    """Makes a connection without opening it: redis-py looks at its options only then."""
    try:
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError, RedisError):
        raise RedisUrlRefused("has an option that redis-py does not know") from None


class _FreshCredentials(CredentialProvider):
    """Reads user and password anew for each connection, so that a `_FILE` may be rotated."""

    def __init__(self, read_url: Callable[[], str]) -> None:
        self._read_url = read_url

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        try:
            read = dict(parse_url(plain(self._read_url())))
        except (OSError, ValueError):
            # redis-py closes the half-open connection for its own errors only.
            raise RedisConnectionError("the address cannot be read again") from None
        password = str(read.get("password") or "")
        return (str(read["username"]), password) if read.get("username") else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()
