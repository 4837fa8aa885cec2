"""From a certificate to one identity, or to none."""

from __future__ import annotations

import ipaddress

import pytest
from cryptography import x509

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
