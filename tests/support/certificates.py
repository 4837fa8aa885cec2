"""Certificates as a test needs them: an authority, and what it signs, valid or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

A_DAY = timedelta(days=1)


def some_key() -> ec.EllipticCurvePrivateKey:
    """Makes a key."""
    return ec.generate_private_key(ec.SECP256R1())


def uri(text: str) -> x509.GeneralName:
    """Returns a name of this kind."""
    return x509.UniformResourceIdentifier(text)


def dns(text: str) -> x509.GeneralName:
    """Returns a name of this kind."""
    return x509.DNSName(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate and its key, both in PEM."""

    cert: bytes
    key: bytes = field(repr=False)

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Writes `NAME.crt` and `NAME.key`, and returns where."""
        cert, key = folder / f"{name}.crt", folder / f"{name}.key"
        cert.write_bytes(self.cert)
        key.write_bytes(self.key)
        return cert, key


class Authority:
    """Signs certificates."""

    def __init__(self, name: str = "the authority", *, ends: timedelta = A_DAY) -> None:
        self._name = name
        self._key = some_key()
        own = _builder(name, issuer=name, key=self._key, ends=ends).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.cert = own.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def issue(
        self, *names: x509.GeneralName, starts: timedelta = -A_DAY, ends: timedelta = A_DAY
    ) -> Issued:
        """Signs a certificate with these alternative names; the spans count from now."""
        return self.issue_for(some_key(), names, starts=starts, ends=ends)

    def issue_for(
        self,
        key: ec.EllipticCurvePrivateKey,
        names: Sequence[x509.GeneralName],
        *,
        starts: timedelta = -A_DAY,
        ends: timedelta = A_DAY,
    ) -> Issued:
        """Signs a certificate for a key that is there already."""
        builder = _builder("somebody", issuer=self._name, key=key, starts=starts, ends=ends)
        if names:
            alternative = x509.SubjectAlternativeName(names)
            builder = builder.add_extension(alternative, critical=False)
        cert = builder.sign(self._key, hashes.SHA256())
        return Issued(cert=cert.public_bytes(Encoding.PEM), key=pem(key))


def self_signed(*names: x509.GeneralName) -> Issued:
    """Makes a certificate that nobody vouches for."""
    key = some_key()
    builder = _builder("somebody", issuer="somebody", key=key).add_extension(
        x509.SubjectAlternativeName(names), critical=False
    )
    cert = builder.sign(key, hashes.SHA256())
    return Issued(cert=cert.public_bytes(Encoding.PEM), key=pem(key))


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Returns a key as files hold it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _builder(
    name: str,
    *,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    starts: timedelta = -A_DAY,
    ends: timedelta = A_DAY,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_common_name(name))
        .issuer_name(_common_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + starts)
        .not_valid_after(now + ends)
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
