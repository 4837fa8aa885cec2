"""The way to a running broker. Tokens go over it: it is encrypted, or stays on this machine.

Decides between TLS and clear text by the settings alone; the server is not asked. What the admin
socket answers goes there wherever that socket exists, as it does inside the broker's own pod.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc

from broker.cli.failing import CommandFailed, ExitStatus
from broker.config import Address, ClientSettings

_OPTIONS: Final = (
    # A proxy that somebody set for the web has no business between us and the broker.
    ("grpc.enable_http_proxy", 0),
)

# gRPC's names of its ways to look an address up; after them comes what is looked up.
_RESOLVERS: Final = ("dns:///", "dns:")


def open_channel(settings: ClientSettings, *, for_admins: bool = False) -> grpc.Channel:
    """Returns a channel, which connects when it is used; close it at the end.

    `for_admins`: nothing is called but what the admin socket answers.

    Raises:
        CommandFailed: wrong use; the settings do not belong together, or a file cannot be read.
    """
    if for_admins and settings.admin_socket is not None and settings.admin_socket.is_socket():
        return grpc.insecure_channel(f"unix:{settings.admin_socket}", options=_OPTIONS)
    problems = list(_problems(settings))
    if problems:
        raise CommandFailed(
            "\n  ".join(["the settings do not do:", *problems]), status=ExitStatus.WRONG_USE
        )
    if settings.ca_file is None:
        return grpc.insecure_channel(settings.address, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_read("BROKER_CA_FILE", settings.ca_file),
        private_key=_read("BROKER_CLIENT_KEY_FILE", settings.client_key_file),
        certificate_chain=_read("BROKER_CLIENT_CERT_FILE", settings.client_cert_file),
    )
    return grpc.secure_channel(settings.address, credentials, options=_OPTIONS)


def is_local(target: str) -> bool:
    """Whether what is sent to a gRPC address stays on this machine."""
    if target.startswith("unix:"):
        return True
    for resolver in _RESOLVERS:
        target = target.removeprefix(resolver)
    try:
        return Address.read(target).is_loopback
    except ValueError:
        return False


def _problems(settings: ClientSettings) -> Iterator[str]:
    has_cert, has_key = settings.client_cert_file is not None, settings.client_key_file is not None
    if has_cert != has_key:
        missing = "BROKER_CLIENT_KEY_FILE" if has_cert else "BROKER_CLIENT_CERT_FILE"
        yield f"{missing}: expected a value, since a certificate and its key belong together"
    if settings.ca_file is not None:
        return
    if has_cert or has_key:
        yield "BROKER_CA_FILE: expected a value, since a client certificate needs TLS"
    elif not (settings.insecure or is_local(settings.address)):
        yield (
            "BROKER_CA_FILE: expected a value, since BROKER_ADDRESS is not on loopback"
            " (or BROKER_INSECURE=true, where a mesh encrypts)"
        )


def _read(variable: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandFailed(
            f"{variable}: {path}: {error.strerror}", status=ExitStatus.WRONG_USE
        ) from None
