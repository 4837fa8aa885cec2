"""Addresses that name several Sentinels: `redis+sentinel(s)://u:p@h1:p,h2:p/SERVICE/DB?options`.

Pure text. No error holds a word of the address.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

_SENTINEL_PORT: Final = 26_379
_PLAIN: Final = {"redis+sentinel": "redis", "redis+sentinels": "rediss"}


class SeveralUnreadableError(ValueError):
    """What is wrong with the address, and nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentinels:
    """Whom to ask for the master of what."""

    nodes: tuple[tuple[str, int], ...]
    """Hosts and ports."""

    service: str


def is_sentinel(url: str) -> bool:
    """Whether it names Sentinels."""
    return url.partition("://")[0] in _PLAIN


def plain(url: str) -> str:
    """Returns the address of one server with the same user, password, number and options.

    Any other address is returned as it is.

    Raises:
        SeveralUnreadableError: it names no service, or no number after it.
    """
    if not is_sentinel(url):
        return url
    parts = urlsplit(url)
    _, number = _service_and_number(parts)
    user, at, _ = parts.netloc.rpartition("@")
    # Where to connect, Sentinel says: the host is only what the format needs.
    one = parts._replace(scheme=_PLAIN[parts.scheme], netloc=f"{user}{at}master", path=f"/{number}")
    return one.geturl()


def read_sentinels(url: str) -> Sentinels:
    """Reads hosts and service.

    Raises:
        SeveralUnreadableError: see there.
    """
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2].split(",")
    service, _ = _service_and_number(parts)
    return Sentinels(nodes=tuple(_node(each) for each in hosts), service=service)


def _service_and_number(parts: SplitResult) -> tuple[str, int]:
    service, _, number = parts.path.removeprefix("/").partition("/")
    if not service:
        raise SeveralUnreadableError("names no service after the hosts: /SERVICE or /SERVICE/DB")
    if number and not (number.isascii() and number.isdigit()):
        raise SeveralUnreadableError("has no number of a database after the service")
    return unquote(service), int(number or 0)


def _node(written: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{written}")
        host, port = parts.hostname, parts.port or _SENTINEL_PORT
    except ValueError:
        raise SeveralUnreadableError("has a Sentinel that is not host:port") from None
    if not host:
        raise SeveralUnreadableError("has a Sentinel without a host")
    return host, port
