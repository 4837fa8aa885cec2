"""The server's side of TLS: certificate, key, and who signs callers' certificates.

Decides which files belong together; handshakes are gRPC's, which speaks TLS 1.2 and 1.3 and asks
for the newest files at each. A connection keeps the certificate that it began with, so replacing
files harms no call; how old a connection may become is limited elsewhere (`server.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from broker.ports import Observer
from broker.rpc.identity import UNREADABLE
from broker.rpc.reloading import Contents, FilesUnusableError, Reloaded


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where they are. Without a client CA, callers prove themselves by other means."""

    cert: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCertificate:
    """One reading of the files, whole and in itself right."""

    configuration: grpc.ServerCertificateConfiguration = field(repr=False)
    names: tuple[str, ...]
    """The hosts that it is for."""

    not_before: datetime
    expires_at: datetime
    authorities_expire_at: datetime | None
    """When the first of those who sign callers' certificates ends; None: no client CA."""


def load_certificate(files: TlsFiles, *, observer: Observer) -> Reloaded[ServerCertificate]:
    """Reads the files, and again when they change.

    Raises:
        FilesUnusableError: they cannot be read, or do not belong together.
    """
    paths = (files.cert, files.key, *([files.client_ca] if files.client_ca else []))
    return Reloaded(
        "tls",
        paths,
        parse=lambda contents: read_certificate(files, contents),
        observer=observer,
        expires_at=lambda certificate: certificate.expires_at,
    )


def server_credentials(
    current: Callable[[], ServerCertificate], *, asks_callers: bool
) -> grpc.ServerCredentials:
    """Returns credentials that follow `current`, which gRPC asks from threads of its own.

    `asks_callers`: a caller without a certificate that the client CA signed gets no connection.
    """
    given = current()

    def newest() -> grpc.ServerCertificateConfiguration:
        nonlocal given
        now, before = current(), given
        given = now
        # None spares gRPC reading the same certificate again at every handshake. Its types leave
        # out that it may be None.
        return None if now is before else now.configuration  # type: ignore[return-value]

    return grpc.dynamic_ssl_server_credentials(
        given.configuration, newest, require_client_authentication=asks_callers
    )


def read_certificate(files: TlsFiles, contents: Contents) -> ServerCertificate:
    """Reads what is in the files.

    Raises:
        FilesUnusableError: a file is not what it should be, or key and certificate do not match.
    """
    chain, key, *client_ca = contents
    leaf = _read_certificates(files.cert, chain)[0]
    if _public_part(files.key, key) != _spki(files.cert, leaf):
        raise FilesUnusableError(f"{files.key}: expected the key of the certificate {files.cert}")
    authorities = _read_certificates(files.client_ca, client_ca[0]) if files.client_ca else []
    ends = [authority.not_valid_after_utc for authority in authorities]
    return ServerCertificate(
        configuration=grpc.ssl_server_certificate_configuration(
            [(key, chain)], client_ca[0] if client_ca else None
        ),
        names=_names(leaf),
        not_before=leaf.not_valid_before_utc,
        expires_at=leaf.not_valid_after_utc,
        authorities_expire_at=min(ends, default=None),
    )


def _read_certificates(path: Path, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except UNREADABLE:
        raise FilesUnusableError(f"{path}: expected certificates in PEM") from None


def _public_part(path: Path, key: bytes) -> bytes:
    try:
        private_key = load_pem_private_key(key, password=None)
    # TypeError: it is encrypted, and nobody is there to be asked for the password.
    except (*UNREADABLE, TypeError):
        raise FilesUnusableError(f"{path}: expected a private key in PEM, not encrypted") from None
    public_key = private_key.public_key()
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _spki(path: Path, certificate: x509.Certificate) -> bytes:
    try:
        public_key = certificate.public_key()
    except UNREADABLE:
        raise FilesUnusableError(f"{path}: expected a key of a known kind (RSA, EC)") from None
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return ()
    return tuple(names.get_values_for_type(x509.DNSName))
