"""From a proven certificate to an identity: `uri:…` or `dns:…`, one and no more.

A certificate with a URI name is known by that alone, and one with two of them by none, because
whoever chose would choose for the signer (SPIFFE X.509-SVID §2 wants exactly one as well). Else its
first DNS name counts. The common name never does (RFC 6125 §6.4.4), nor gRPC's merged list of
names, which does not say of what kind each is: a DNS name could pose as a URI.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from broker.domain.errors import CallerUnauthenticated
from broker.rpc.caller import IDENTITY, Context

_CERTIFICATE: Final = "x509_pem_cert"

_MOST_REMEMBERED: Final = 4096
"""Certificates: a few kilobytes each, and more than callers that one replica has at a time."""

UNREADABLE: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What reading a certificate that somebody made up ends with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What a certificate says of its owner: an identity, or why it is none."""

    identity: str = ""
    why: str = ""


def certificate_identity(context: Context) -> str | None:
    """Returns the identity of the connection's certificate; None: there is no certificate.

    gRPC has checked it against the client CA before the first call came in.

    Raises:
        CallerUnauthenticated: it names nobody, or too many.
    """
    properties = context.auth_context()
    for pem in properties.get(_CERTIFICATE, ()):
        # Reading it takes a hundred times as long as looking its bytes up.
        named = name_of(pem)
        if named.why:
            raise CallerUnauthenticated(f"the certificate is no identity: {named.why}")
        return named.identity
    return None


@lru_cache(maxsize=_MOST_REMEMBERED)
def name_of(pem: bytes) -> Named:
    """Returns who a certificate is for."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return Named(why="expected a URI or a DNS name (subjectAltName), and it has none")
    except UNREADABLE:
        return Named(why="it cannot be read")
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) > 1:
        return Named(why=f"expected one URI name, and it has {len(uris)}")
    if uris:
        return _named("uri", uris[0])
    dns_names = names.get_values_for_type(x509.DNSName)
    if dns_names:
        return _named("dns", dns_names[0].lower())
    return Named(why="expected a URI or a DNS name, and it has others only")


def _named(kind: str, name: str) -> Named:
    identity = f"{kind}:{name}"
    if IDENTITY.fullmatch(identity) is None:
        return Named(why="expected a name of at most 500 visible ASCII characters")
    return Named(identity=identity)
