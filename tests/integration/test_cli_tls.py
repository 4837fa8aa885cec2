"""The command line and a broker that wants mutual TLS."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from broker.v1.token_service_pb2_grpc import add_TokenServiceServicer_to_server
from support.cli import run_beside
from support.fake_broker import FakeBroker
from support.rpc import servicers_of


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, str]:
    """A certificate that its owner signed, for both sides: what the command line is told of it."""
    if shutil.which("openssl") is None:
        pytest.skip("this test makes a certificate with openssl")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    key, cert = tmp_path / "tls.key", tmp_path / "tls.crt"
    subprocess.run([*made, *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return {
        "BROKER_CA_FILE": str(cert),
        "BROKER_CLIENT_CERT_FILE": str(cert),
        "BROKER_CLIENT_KEY_FILE": str(key),
    }


@pytest.fixture
async def address(certificate: dict[str, str]) -> AsyncIterator[str]:
    key, cert = (
        Path(certificate[f"BROKER_CLIENT_{part}_FILE"]).read_bytes() for part in ("KEY", "CERT")
    )
    server = grpc.aio.server()
    add_TokenServiceServicer_to_server(servicers_of(FakeBroker()).tokens, server)
    credentials = grpc.ssl_server_credentials(
        [(key, cert)], root_certificates=cert, require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def test_both_sides_prove_who_they_are(address: str, certificate: dict[str, str]) -> None:
    ended = await run_beside("get", "acme", environ={**certificate, "BROKER_ADDRESS": address})

    assert ended.status == 0


async def test_without_a_client_certificate_the_hint_says_so(
    address: str, certificate: dict[str, str]
) -> None:
    environ = {"BROKER_CA_FILE": certificate["BROKER_CA_FILE"], "BROKER_ADDRESS": address}

    ended = await run_beside("get", "acme", environ=environ)

    assert ended.status == 1
    assert ended.stderr.startswith("error: UNAVAILABLE: ")
    assert "client certificate" in ended.stderr


async def test_clear_text_to_tls_is_told_too(address: str) -> None:
    ended = await run_beside("get", "acme", environ={"BROKER_ADDRESS": address})

    assert ended.status == 1
    assert "BROKER_CA_FILE" in ended.stderr
