"""The servers that an address of PostgreSQL names, as the driver reads them. Pure text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

_PORT: Final = 5432

_WRITES: Final = "read-write"
"""Whatever else a server is: who cannot write is of no use here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One server."""

    name: str
    """Also the directory of a Unix socket."""

    port: int


def hosts_of(url: str) -> list[Host]:
    """Returns them in order; ports that are not written are PostgreSQL's own.

    Raises:
        ValueError: a port is none, or there are not as many ports as hosts.
    """
    parts = urlsplit(url)
    options = parse_qs(parts.query)
    port = options.get("port", [""])[-1]
    before_path = parts.netloc.rpartition("@")[2]
    if before_path:
        return [_host(unquote(each), "") for each in before_path.split(",")]
    names = options.get("host", [""])[-1].split(",")
    # One port is every host's.
    ports = port.split(",") if "," in port else [port] * len(names)
    return [_host(name, each) for name, each in zip(names, ports, strict=True)]


def wanted_of(url: str) -> str:
    """Returns what a server must be to be used, in the words of `target_session_attrs`."""
    return parse_qs(urlsplit(url).query).get("target_session_attrs", [_WRITES])[-1]


def _host(written: str, port: str) -> Host:
    name, own = written, ""
    if written.startswith("["):
        name, _, own = written[1:].partition("]")
        own = own.removeprefix(":")
    elif not written.startswith("/"):
        name, _, own = written.partition(":")
    return Host(name=name, port=int(own or port or _PORT))
