"""Addresses that name several nodes: Sentinels, or some of a Redis Cluster's.

    redis+sentinel(s)://u:p@h1:p,h2:p/SERVICE/DB?options
    redis+cluster(s)://u:p@h1:p,h2:p/?options

Pure text. No error holds a word of the address.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

Node: TypeAlias = tuple[str, int]
"""Host and port."""

_SENTINEL_PORT: Final = 26_379
_PORT: Final = 6379
_SENTINELS: Final = {"redis+sentinel": "redis", "redis+sentinels": "rediss"}
_CLUSTERS: Final = {"redis+cluster": "redis", "redis+clusters": "rediss"}


class SeveralUnreadableError(ValueError):
    """What is wrong with the address, and nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentinels:
    """Whom to ask for the master of what."""

    nodes: tuple[Node, ...]

    service: str


def is_sentinel(url: str) -> bool:
    """Whether it names Sentinels."""
    return url.partition("://")[0] in _SENTINELS


def is_cluster(url: str) -> bool:
    """Whether it names nodes of a Redis Cluster."""
    return url.partition("://")[0] in _CLUSTERS


def plain(url: str) -> str:
    """Returns the address of one server with the same user, password, number and options.

    Any other address is returned as it is.

    Raises:
        SeveralUnreadableError: it names no service, or no number after it; or a cluster's database.
    """
    parts = urlsplit(url)
    if is_sentinel(url):
        _, number = _service_and_number(parts)
    elif is_cluster(url):
        number = _number_in_cluster(parts)
    else:
        return url
    user, at, _ = parts.netloc.rpartition("@")
    scheme = (_SENTINELS | _CLUSTERS)[parts.scheme]
    # Where to connect, the nodes say: the host is only what the format needs.
    return parts._replace(scheme=scheme, netloc=f"{user}{at}master", path=f"/{number}").geturl()


def read_sentinels(url: str) -> Sentinels:
    """Reads hosts and service.

    Raises:
        SeveralUnreadableError: see there.
    """
    parts = urlsplit(url)
    service, _ = _service_and_number(parts)
    return Sentinels(nodes=_nodes(parts, port=_SENTINEL_PORT), service=service)


def read_cluster(url: str) -> tuple[Node, ...]:
    """Reads the nodes to ask; the others they name.

    Raises:
        SeveralUnreadableError: see there.
    """
    return _nodes(urlsplit(url), port=_PORT)


def _number_in_cluster(parts: SplitResult) -> int:
    if parts.path not in {"", "/", "/0"}:
        raise SeveralUnreadableError("names a database, and a Redis Cluster has 0 alone")
    return 0


def _service_and_number(parts: SplitResult) -> tuple[str, int]:
    service, _, number = parts.path.removeprefix("/").partition("/")
    if not service:
        raise SeveralUnreadableError("names no service after the hosts: /SERVICE or /SERVICE/DB")
    if number and not (number.isascii() and number.isdigit()):
        raise SeveralUnreadableError("has no number of a database after the service")
    return unquote(service), int(number or 0)


def _nodes(parts: SplitResult, *, port: int) -> tuple[Node, ...]:
    hosts = parts.netloc.rpartition("@")[2].split(",")
    return tuple(_node(each, port=port) for each in hosts)


def _node(written: str, *, port: int) -> Node:
    try:
        parts = urlsplit(f"//{written}")
        host, port = parts.hostname or "", parts.port or port
    except ValueError:
        raise SeveralUnreadableError("has a node that is not host:port") from None
    if not host:
        raise SeveralUnreadableError("has a node without a host")
    return host, port
