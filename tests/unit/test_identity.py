"""From a certificate to one identity, or to none."""

from __future__ import annotations

import base64
import ipaddress
import warnings

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.rpc.identity import Named, name_of
from support.certificates import Authority, dns, uri

A_URI = "spiffe://example.org/ns/export/sa/exporter"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.mark.parametrize(
    ("names", "identity"),
    [
        ([uri(A_URI)], f"uri:{A_URI}"),
        ([dns("web.example.org"), uri(A_URI)], f"uri:{A_URI}"),
        ([dns("Web.Example.org")], "dns:web.example.org"),
        ([dns("web"), dns("web.example.org")], "dns:web"),
        ([x509.RFC822Name("a@example.org"), dns("web")], "dns:web"),
        # What a list without types would take for the identity of another caller.
        ([dns(A_URI)], f"dns:{A_URI}"),
    ],
)
def test_a_certificate_is_known_by_one_name(
    authority: Authority, names: list[x509.GeneralName], identity: str
) -> None:
    assert name_of(authority.issue(*names).cert) == Named(identity=identity)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([uri(A_URI), uri("spiffe://example.org/other")], "expected one URI name, and it has 2"),
        ([], "expected a URI or a DNS name (subjectAltName), and it has none"),
        (
            [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))],
            "expected a URI or a DNS name, and it has others only",
        ),
        ([uri("spiffe://a b")], "expected a name of at most 500 visible ASCII characters"),
        ([dns("x" * 501)], "expected a name of at most 500 visible ASCII characters"),
        ([uri("")], "expected a name of at most 500 visible ASCII characters"),
    ],
)
def test_a_certificate_that_names_nobody_says_why(
    authority: Authority, names: list[x509.GeneralName], why: str
) -> None:
    assert name_of(authority.issue(*names).cert) == Named(why=why)


def test_what_is_no_certificate_names_nobody() -> None:
    assert name_of(b"-----BEGIN NOTHING-----") == Named(why="it cannot be read")


@given(place=st.floats(0, 1, exclude_max=True), put=st.binary(max_size=4), cut=st.integers(0, 4))
@settings(max_examples=300)
def test_whatever_is_in_a_certificate_is_a_name_or_a_reason(
    place: float, put: bytes, cut: int
) -> None:
    at = int(place * len(THE_CERTIFICATE))
    altered = THE_CERTIFICATE[:at] + put + THE_CERTIFICATE[at + cut :]

    # A serial number below zero is only warned of.
    with warnings.catch_warnings(action="ignore", category=CryptographyDeprecationWarning):
        named = name_of(pem_of(altered))

    assert bool(named.identity) != bool(named.why)


def test_a_certificate_of_another_version_cannot_be_read() -> None:
    """Found by altering bytes at random: an error of the library's that is no ValueError."""
    version = bytes.fromhex("a003020102")  # RFC 5280 §4.1: [0] EXPLICIT INTEGER 2
    assert THE_CERTIFICATE.count(version) == 1
    altered = THE_CERTIFICATE.replace(version, version[:-1] + b"\x07")

    assert name_of(pem_of(altered)) == Named(why="it cannot be read")


THE_CERTIFICATE = x509.load_pem_x509_certificate(
    Authority().issue(uri(A_URI), dns("web")).cert
).public_bytes(Encoding.DER)


def pem_of(der: bytes) -> bytes:
    return PEM_HEAD + base64.encodebytes(der) + PEM_FOOT


PEM_HEAD = b"-----BEGIN CERTIFICATE-----\n"
PEM_FOOT = b"-----END CERTIFICATE-----\n"
