"""Callers with service-account tokens over gRPC, and the issuer's keys from a real HTTP server."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.domain.facts import Fact, FilesLoaded, FilesRefused
from broker.rpc.jwks_url import UrlIssuer
from broker.v1.grant_service_pb2 import GetGrantRequest, StartAuthorizationRequest
from broker.v1.grant_service_pb2_grpc import GrantServiceStub
from support.callers import Guarded, guarded
from support.certificates import uri
from support.key_server import KeyServer, key_server
from support.rpc import Told, failure_of
from support.tokens import AUDIENCE, ISSUER, SUBJECT, Signer, key_set, some_claims
from support.waiting import until

POLICY = f"""
callers:
  - identity: sa:{SUBJECT}
    rpcs: [GrantService/GetGrant]
    tenants: ["acme"]
  - identity: uri:spiffe://example.org/sidecar
    rpcs: [GrantService/GetGrant]
    tenants: ["*"]
"""


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
async def keys(signer: Signer) -> AsyncIterator[KeyServer]:
    async with key_server(key_set(signer.jwk())) as server:
        yield server


@asynccontextmanager
async def served_with(folder: Path, keys: KeyServer, **settings: str) -> AsyncIterator[Guarded]:
    jwt_settings = {
        "BROKER_JWT_ISSUER": ISSUER,
        "BROKER_JWT_AUDIENCE": AUDIENCE,
        "BROKER_JWT_JWKS": keys.url,
        **settings,
    }
    async with (
        guarded(folder, POLICY, settings=jwt_settings) as server,
        asyncio.TaskGroup() as tasks,
    ):
        loops = [
            tasks.create_task(loop(), name=name) for name, loop in server.guarding.loops().items()
        ]
        yield server
        for loop in loops:
            loop.cancel()


@pytest.fixture
async def server(tmp_path: Path, keys: KeyServer) -> AsyncIterator[Guarded]:
    """No client certificates are asked for: tokens alone tell who calls."""
    async with served_with(tmp_path, keys, BROKER_TLS_CLIENT_CA_FILE="") as server:
        yield server


@pytest.fixture
async def channel(server: Guarded) -> AsyncIterator[grpc.aio.Channel]:
    async with server.channel(None) as channel:
        yield channel


def ask(
    channel: grpc.aio.Channel, *tokens: str, tenant: str = "acme", scheme: str = "Bearer"
) -> Awaitable[object]:
    metadata = [("authorization", f"{scheme} {token}") for token in tokens]
    stub = GrantServiceStub(channel)
    return stub.GetGrant(GetGrantRequest(tenant=tenant), metadata=metadata)


async def test_a_service_account_is_let_in(channel: grpc.aio.Channel, signer: Signer) -> None:
    assert await ask(channel, signer.sign()) is not None
    assert await ask(channel, signer.sign(), scheme="bearer") is not None


async def test_a_service_account_is_bound_to_the_policy(
    channel: grpc.aio.Channel, signer: Signer
) -> None:
    stub = GrantServiceStub(channel)
    metadata = [("authorization", f"Bearer {signer.sign()}")]
    start = stub.StartAuthorization(StartAuthorizationRequest(tenant="acme"), metadata=metadata)

    failures = [
        await failure_of(ask(channel, signer.sign(), tenant="other")),
        await failure_of(ask(channel, signer.sign(sub="system:serviceaccount:web:other"))),
        await failure_of(start),
    ]

    assert {each.error_info.reason for each in failures} == {"CALLER_NOT_ALLOWED"}


def signed_with_the_public_key(signer: Signer) -> str:
    """Returns a token as it is checked where a token may say that its key is a symmetric one."""
    public = signer.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    token = jwt.encode(some_claims(), "another" * 8, "HS256", {"kid": signer.kid})
    signed = token.rpartition(".")[0]
    # By hand: the library does not lend itself to it.
    signature = base64.urlsafe_b64encode(hmac.digest(public, signed.encode(), "sha256"))
    return f"{signed}.{signature.decode().rstrip('=')}"


REFUSED: dict[str, tuple[Callable[[Signer], list[str]], str]] = {
    "no token": (lambda _: [], "expected a service-account token"),
    "two tokens": (lambda signer: [signer.sign()] * 2, "expected one `authorization: Bearer …`"),
    "expired": (lambda signer: [signer.sign(exp=1_700_000_000)], "it has expired"),
    "a foreign audience": (lambda signer: [signer.sign(aud="x")], "it is for another audience"),
    "a foreign key": (lambda _: [Signer("other").sign()], "is none of the issuer's"),
    "no signature": (
        lambda signer: [jwt.encode(some_claims(), "", "none", {"kid": signer.kid})],
        "expected a signature with a public key",
    ),
    "signed with a public key": (
        lambda signer: [signed_with_the_public_key(signer)],
        "expected a signature with a public key",
    ),
    "rubbish": (lambda _: ["x"], "it is no JSON Web Token"),
}


@pytest.mark.parametrize("which", REFUSED)
async def test_who_is_no_service_account_of_ours_is_told_why(
    server: Guarded, channel: grpc.aio.Channel, signer: Signer, which: str
) -> None:
    make, why = REFUSED[which]

    failure = await failure_of(ask(channel, *make(signer)))

    assert failure.code is grpc.StatusCode.UNAUTHENTICATED
    assert failure.error_info.reason == "CALLER_UNAUTHENTICATED"
    assert why in failure.message
    assert server.served.broker.asked == []


async def test_another_scheme_is_no_token(channel: grpc.aio.Channel, signer: Signer) -> None:
    failure = await failure_of(ask(channel, signer.sign(), scheme="Basic"))

    assert "expected one `authorization: Bearer …`" in failure.message


async def test_a_token_over_a_sidecars_connection_counts_as_the_token(
    tmp_path: Path, keys: KeyServer, signer: Signer
) -> None:
    async with served_with(tmp_path, keys) as server:
        sidecar = server.authority.issue(uri("spiffe://example.org/sidecar"))
        async with server.channel(sidecar) as channel:
            by_certificate = await ask(channel, tenant="acme")
            by_token = await failure_of(ask(channel, signer.sign(), tenant="other"))
            by_bad_token = await failure_of(ask(channel, signer.sign(exp=1), tenant="acme"))

    assert by_certificate is not None
    assert by_token.error_info.metadata["caller"] == f"sa:{SUBJECT}"
    assert by_bad_token.error_info.reason == "CALLER_UNAUTHENTICATED"


class Hours:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def issuer_of(url: str, told: Told, clock: Hours | None = None) -> AsyncIterator[UrlIssuer]:
    issuer = UrlIssuer(url, observer=told, clock=clock)
    async with asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(issuer.run(), name="keys")
        yield issuer
        loop.cancel()


async def test_a_new_key_is_fetched_when_it_is_first_seen(keys: KeyServer, signer: Signer) -> None:
    clock, told, newer = Hours(), Told(), Signer("key-2")
    async with issuer_of(keys.url, told, clock) as issuer:
        assert await issuer.find("key-1") is not None
        keys.body = key_set(signer.jwk(), newer.jwk())
        clock.now += 10

        found = await issuer.find("key-2")

    assert found is not None
    assert told.facts == [FilesLoaded(what="jwks")] * 2


async def test_keys_that_there_are_not_cost_one_fetch_in_a_while(keys: KeyServer) -> None:
    clock = Hours()
    async with issuer_of(keys.url, Told(), clock) as issuer:
        await issuer.find("key-1")
        for number in range(100):
            assert await issuer.find(f"made up {number}") is None
        assert keys.requests == 1

        clock.now += 10
        async with asyncio.TaskGroup() as tasks:
            for number in range(100):
                tasks.create_task(issuer.find(f"made up {number}"), name="a caller")

    assert keys.requests == 2


async def test_a_caller_who_leaves_takes_no_fetch_along(keys: KeyServer) -> None:
    async with keys.hold(), issuer_of(keys.url, Told()) as issuer, asyncio.TaskGroup() as tasks:
        leaving = tasks.create_task(issuer.find("key-1"), name="leaving")
        staying = tasks.create_task(issuer.find("key-1"), name="staying")
        await keys.waiting.wait()
        leaving.cancel()
        keys.let_go()

        assert await staying is not None

    assert keys.requests == 1


async def last_of(told: Told) -> Fact:
    await until(lambda: bool(told.facts))
    return told.facts[-1]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, b"", "answers with status 500"),
        (302, b"", "answers with status 302"),
        (200, b"no keys", "expected a JSON Web Key Set with public keys"),
        (200, b" " * (1024 * 1024 + 1), "answers with more than 1048576 bytes"),
    ],
)
async def test_an_issuer_without_keys_is_told_and_fails_no_loop(
    keys: KeyServer, status: int, body: bytes, said: str
) -> None:
    keys.status, keys.body, told = status, body, Told()
    async with issuer_of(keys.url, told) as issuer:
        fact = await last_of(told)
        assert await issuer.find("key-1") is None

    assert isinstance(fact, FilesRefused)
    assert fact.error.startswith(f"{keys.url}: {said}")


async def test_an_issuer_that_is_away_is_told(keys: KeyServer) -> None:
    await keys.close()
    told = Told()

    async with issuer_of(keys.url, told):
        fact = await last_of(told)

    assert fact == FilesRefused(what="jwks", error=f"{keys.url}: cannot be fetched (ConnectError)")


async def test_without_keys_callers_are_told_that_they_are_missing(
    tmp_path: Path, keys: KeyServer, signer: Signer
) -> None:
    keys.status = 503
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            served_with(tmp_path, keys, BROKER_TLS_CLIENT_CA_FILE="")
        )
        channel = await stack.enter_async_context(server.channel(None))
        failure = await failure_of(ask(channel, signer.sign()))

    assert "the issuer's keys could not be fetched yet" in failure.message


async def test_keys_stay_in_force_while_the_issuer_is_away(keys: KeyServer, signer: Signer) -> None:
    clock = Hours()
    async with issuer_of(keys.url, Told(), clock) as issuer:
        await issuer.find(signer.kid)
        keys.status = 500
        clock.now += 10
        assert await issuer.find("unknown") is None

        assert await issuer.find(signer.kid) is not None

    assert keys.requests == 2
