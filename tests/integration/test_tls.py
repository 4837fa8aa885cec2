"""Mutual TLS: who gets a connection, and what becomes of calls when certificates are replaced."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest

from broker.domain.facts import FilesLoaded, FilesRefused
from broker.rpc.reloading import FilesUnusableError, Reloaded
from broker.rpc.tls import ServerCertificate, TlsFiles, load_certificate, server_credentials
from broker.v1.token_service_pb2 import GetAccessTokenRequest
from broker.v1.token_service_pb2_grpc import TokenServiceStub
from support.certificates import A_DAY, Authority, Issued, dns, self_signed, uri
from support.rpc import Served, Told, failure_of, serving

A_CALLER = uri("spiffe://example.org/ns/export/sa/exporter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Secured:
    """A server with mutual TLS, its files, and who signed them."""

    served: Served
    authority: Authority
    certificate: Reloaded[ServerCertificate]
    files: TlsFiles
    told: Told

    async def replace(self, issued: Issued, authority: Authority | None = None) -> None:
        """Puts other files in place, and has them looked at."""
        issued.write(self.files.cert.parent, "tls")
        if authority is not None and self.files.client_ca is not None:
            self.files.client_ca.write_bytes(authority.cert)
        for _ in range(2):
            await self.certificate.refresh()


@asynccontextmanager
async def secured_server(folder: Path) -> AsyncIterator[Secured]:
    authority, told = Authority(), Told()
    cert, key = authority.issue(dns("localhost")).write(folder, "tls")
    client_ca = folder / "ca.crt"
    client_ca.write_bytes(authority.cert)
    files = TlsFiles(cert=cert, key=key, client_ca=client_ca)
    certificate = load_certificate(files, observer=told)
    credentials = server_credentials(lambda: certificate.current, asks_callers=True)
    async with serving(credentials=credentials) as served:
        yield Secured(
            served=served, authority=authority, certificate=certificate, files=files, told=told
        )


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[Secured]:
    async with secured_server(tmp_path) as secured:
        yield secured


def channel_of(secured: Secured, caller: Issued | None) -> grpc.aio.Channel:
    """Opens a connection of its own, which trusts the server's first authority."""
    credentials = grpc.ssl_channel_credentials(
        secured.authority.cert,
        caller.key if caller else None,
        caller.cert if caller else None,
    )
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(f"localhost:{secured.served.port}", credentials, options)


async def generation_for(channel: grpc.aio.Channel) -> int:
    stub = TokenServiceStub(channel)
    return (await stub.GetAccessToken(GetAccessTokenRequest(tenant="acme"))).generation


async def test_a_caller_whom_the_authority_vouches_for_is_answered(secured: Secured) -> None:
    async with channel_of(secured, secured.authority.issue(A_CALLER)) as channel:
        assert await generation_for(channel) == 7


SOON = timedelta(hours=1)

STRANGERS: dict[str, tuple[Callable[[Authority], Issued | None], str]] = {
    "none": (lambda _: None, "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
    "expired": (lambda known: known.issue(A_CALLER, ends=-SOON), "certificate has expired"),
    "early": (lambda known: known.issue(A_CALLER, starts=SOON), "certificate is not yet valid"),
    "foreign": (
        lambda _: Authority("another").issue(A_CALLER),
        "unable to get local issuer certificate",
    ),
    "false": (lambda _: Authority().issue(A_CALLER), "certificate signature failure"),
    "self-signed": (lambda _: self_signed(A_CALLER), "self signed certificate"),
}
"""Callers, and what gRPC's log says of them. They are told nothing but that the line is dead."""


@pytest.mark.parametrize("which", STRANGERS)
async def test_a_stranger_gets_no_connection(
    secured: Secured, which: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make, reason = STRANGERS[which]

    async with channel_of(secured, make(secured.authority)) as channel:
        failure = await failure_of(generation_for(channel))

    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert reason in capfd.readouterr().err
    assert secured.served.broker.asked == []


@pytest.mark.parametrize(("version", "is_spoken"), [("TLSv1.1", False), ("TLSv1.2", True)])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_nothing_older_than_tls_1_2_is_spoken(
    secured: Secured, version: str, *, is_spoken: bool, tmp_path: Path
) -> None:
    caller = secured.authority.issue(A_CALLER).write(tmp_path, "caller")

    spoken = await asyncio.to_thread(version_spoken, secured, caller, version)

    assert spoken == (version if is_spoken else None)


def version_spoken(secured: Secured, caller: tuple[Path, Path], version: str) -> str | None:
    context = ssl.create_default_context(cadata=secured.authority.cert.decode())
    # Else this machine's OpenSSL would refuse the old version itself.
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
    context.load_cert_chain(*caller)
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("localhost", secured.served.port)) as connection:
        try:
            with context.wrap_socket(connection, server_hostname="localhost") as wrapped:
                return wrapped.version()
        except (ssl.SSLError, ConnectionError):
            return None


async def test_a_new_certificate_is_shown_to_those_who_come_next(secured: Secured) -> None:
    caller, other = secured.authority.issue(A_CALLER), Authority("another")
    await secured.replace(other.issue(dns("localhost")))

    async with channel_of(secured, caller) as channel:
        failure = await failure_of(generation_for(channel))

    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert "CERTIFICATE_VERIFY_FAILED" in failure.message


async def test_a_new_authority_counts_for_those_who_come_next(secured: Secured) -> None:
    other = Authority("another")
    await secured.replace(secured.authority.issue(dns("localhost")), other)

    async with channel_of(secured, secured.authority.issue(A_CALLER)) as channel:
        failure = await failure_of(generation_for(channel))
    async with channel_of(secured, other.issue(A_CALLER)) as channel:
        assert await generation_for(channel) == 7

    assert failure.code is grpc.StatusCode.UNAVAILABLE


async def test_a_call_under_way_outlives_the_certificate_it_began_with(secured: Secured) -> None:
    caller = secured.authority.issue(A_CALLER)
    async with AsyncExitStack() as held, asyncio.TaskGroup() as tasks:
        channel = await held.enter_async_context(channel_of(secured, caller))
        async with secured.served.broker.hold():
            call = tasks.create_task(generation_for(channel), name="a call")
            await secured.served.broker.waiting.wait()
            await secured.replace(Authority("another").issue(dns("localhost")), Authority("third"))

        assert await call == 7


async def test_certificates_replaced_under_load_fail_no_call(secured: Secured) -> None:
    caller = secured.authority.issue(A_CALLER)
    async with AsyncExitStack() as channels, asyncio.TaskGroup() as tasks:
        calls = []
        for round_number in range(20):
            channel = await channels.enter_async_context(channel_of(secured, caller))
            calls += [
                tasks.create_task(generation_for(channel), name=f"call {round_number}")
                for _ in range(20)
            ]
            await secured.replace(secured.authority.issue(dns("localhost")))

    assert [call.result() for call in calls] == [7] * 400
    assert len(secured.told.facts) == 21
    assert {type(fact) for fact in secured.told.facts} == {FilesLoaded}


async def test_a_broken_certificate_leaves_the_good_one_in_force(secured: Secured) -> None:
    good = secured.files.cert.read_bytes()
    secured.files.cert.write_bytes(good[: len(good) // 2])
    for _ in range(2):
        await secured.certificate.refresh()

    async with channel_of(secured, secured.authority.issue(A_CALLER)) as channel:
        assert await generation_for(channel) == 7

    said = f"{secured.files.cert}: expected certificates in PEM"
    assert secured.told.facts[1:] == [FilesRefused(what="tls", error=said)]


async def test_a_key_of_another_certificate_is_refused(secured: Secured) -> None:
    files, other = secured.files, secured.authority.issue(dns("localhost"))
    files.key.write_bytes(other.key)

    said = f"{files.key}: expected the key of the certificate {files.cert}"
    with pytest.raises(FilesUnusableError, match=f"^{said}$"):
        load_certificate(files, observer=Told())


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("cert", "expected certificates in PEM"),
        ("key", "expected a private key in PEM, not encrypted"),
        ("client_ca", "expected certificates in PEM"),
    ],
)
async def test_each_file_must_be_what_it_is_for(
    secured: Secured, which: str, expected: str
) -> None:
    path = getattr(secured.files, which)
    path.write_text("no certificate, no key")

    with pytest.raises(FilesUnusableError, match=f"{path}: {expected}"):
        load_certificate(secured.files, observer=Told())


async def test_the_end_of_the_certificate_is_told(secured: Secured) -> None:
    (loaded,) = secured.told.facts

    assert isinstance(loaded, FilesLoaded)
    assert loaded.expires_at == secured.certificate.current.expires_at
    assert secured.certificate.current.expires_at - secured.certificate.current.not_before == (
        2 * A_DAY
    )
