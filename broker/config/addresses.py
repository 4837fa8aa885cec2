"""Addresses: of our listeners, of Pleo, of the stores. Pure text, nothing is looked up.

What counts as loopback is decided here alone, by name and number and never by asking a resolver:
the rules that hang on it must not change with somebody's DNS.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

_LISTEN = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})")
_HIGHEST_PORT = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen: a name or number of this machine, and a port; 0 is any free one."""

    host: str
    """Without brackets, also where it is IPv6."""

    port: int

    @classmethod
    def read(cls, text: str) -> Address:
        """Reads `host:port` or `[ipv6]:port`.

        Raises:
            ValueError: it is neither.
        """
        found = _LISTEN.fullmatch(text)
        if found is None or int(found["port"]) > _HIGHEST_PORT:
            raise ValueError("not host:port")
        if found["six"]:
            ipaddress.IPv6Address(found["six"])
        return cls(host=found["six"] or found["host"], port=int(found["port"]))

    def __str__(self) -> str:
        """As it was read."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can connect."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: a loopback number, `localhost`, or a Unix socket's path."""
    if host.startswith("/") or host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_url(text: str) -> SplitResult:
    """Splits an address into its parts.

    Raises:
        ValueError: it cannot be split, its port is none, its path holds an `@`, or it holds blanks
            or control characters, which `urlsplit` would remove in silence.
    """
    if re.search(r"[\x00-\x20\x7f]", text):
        raise ValueError("blanks")
    parts = urlsplit(text)
    if "@" in parts.path:
        # A password with an unescaped slash: the half of it that stands there would be printed.
        raise ValueError("@ in the path")
    if "," not in parts.netloc:
        parts.port  # noqa: B018 - raises for a port that is none
    return parts


def without_secrets(text: str) -> str:
    """Returns an address as it may be printed: no password, no query, no fragment."""
    try:
        parts = split_url(text)
    except ValueError:
        return "<unreadable>"
    user, has_user, host = parts.netloc.rpartition("@")
    shown = user.partition(":")[0] + has_user + host
    return parts._replace(netloc=shown, query="", fragment="").geturl()


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseUrl:
    """What the rules need to know of a PostgreSQL address. Holds no password."""

    hosts: tuple[str, ...]
    sslmode: str
    has_root_certificate: bool
    target_session_attrs: str = ""
    certificate: str = ""
    """Our own, as a file; empty: none."""

    certificate_key: str = ""

    @classmethod
    def read(cls, text: str) -> DatabaseUrl:
        """Reads `postgresql://user:password@host:port/database?sslmode=…`, as asyncpg will.

        Raises:
            ValueError: asyncpg would not read it, or would read more than is written in it: no
                host (it would take `PGHOST`), a service file, or an unescaped `@` in the password,
                which it would take for the end of the password.
        """
        parts = split_url(text)
        options = parse_qs(parts.query, strict_parsing=bool(parts.query))
        hosts = _hosts(parts, options)
        is_clear = parts.scheme in {"postgresql", "postgres"} and parts.netloc.count("@") <= 1
        if not is_clear or not hosts or not all(hosts) or "service" in options:
            raise ValueError("not a PostgreSQL address")
        return cls(
            hosts=hosts,
            sslmode=options.get("sslmode", [""])[-1],
            has_root_certificate="sslrootcert" in options,
            target_session_attrs=options.get("target_session_attrs", [""])[-1],
            certificate=options.get("sslcert", [""])[-1],
            certificate_key=options.get("sslkey", [""])[-1],
        )

    @property
    def is_local(self) -> bool:
        """Whether every host is this machine."""
        return all(is_loopback(host) for host in self.hosts)


def _hosts(parts: SplitResult, options: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    before_path = parts.netloc.rpartition("@")[2].split(",")
    in_query = options.get("host", [""])[-1].split(",")
    return tuple(
        [unquote(_host(each)) for each in before_path if each]
        + [_host(each) for each in in_query if each]
    )


def _host(written: str) -> str:
    if written.startswith("["):
        return written[1:].partition("]")[0]
    return written if written.startswith("/") else written.partition(":")[0]
