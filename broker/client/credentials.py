"""How the way to the broker is protected, and how the caller says who it is.

Tokens go over it: it is encrypted, or stays on this machine, unless a mesh is said to encrypt.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# gRPC's names of its ways to look an address up; after them comes what is looked up.
_RESOLVERS: Final = ("dns:///", "dns:", "ipv4:", "ipv6:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Files, and no secret itself."""

    ca_file: str | Path | None = None
    """Whom the broker's certificate must come from (PEM). None: clear text."""

    cert_file: str | Path | None = None
    """The caller's own certificate, for mutual TLS; read when the client is entered."""

    key_file: str | Path | None = None
    """Its key."""

    jwt_file: str | Path | None = None
    """A projected service-account token, read again for every call: Kubernetes renews it."""

    insecure: bool = False
    """True: clear text off this machine, where a mesh encrypts."""

    def check(self, address: str) -> None:
        """Refuses what would show tokens to the network.

        Raises:
            ValueError: says what to change.
        """
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        if self.ca_file is not None:
            return
        if self.cert_file is not None:
            raise ValueError("a client certificate needs TLS: set ca_file")
        if not (self.insecure or is_local(address)):
            raise ValueError(f"{address} is not on this machine: set ca_file, or insecure=True")

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns what goes with a call.

        Raises:
            OSError: the file cannot be read.
        """
        if self.jwt_file is None:
            return ()
        # A small file in memory (a projected volume): quicker than a thread would be.
        return (("authorization", f"Bearer {Path(self.jwt_file).read_text().strip()}"),)


def is_local(address: str) -> bool:
    """Whether what is sent to a gRPC address stays on this machine."""
    if address.startswith("unix:"):
        return True
    for resolver in _RESOLVERS:
        address = address.removeprefix(resolver)
    # `ipv4:` and `ipv6:` take several, with commas between them.
    return all(is_loopback(_host(each)) for each in address.split(","))


def _host(address: str) -> str:
    return (address.rpartition(":")[0] or address).strip("[]")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name or number; nothing is looked up."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
