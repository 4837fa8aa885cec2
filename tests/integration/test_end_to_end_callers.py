"""`serve` with callers who must say who they are: TLS, policy, tokens, the admin socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest

from broker.dev.rundir import RunDirectory
from broker.v1.grant_service_pb2 import GetGrantRequest
from broker.v1.grant_service_pb2_grpc import GrantServiceStub
from broker.v1.token_service_pb2 import GetAccessTokenRequest
from broker.v1.token_service_pb2_grpc import TokenServiceStub
from support.certificates import Authority, Issued, dns
from support.cli import run_beside
from support.fleet import Fleet, fleet
from support.replica import Replica
from support.rpc import failure_of
from support.tokens import AUDIENCE, ISSUER, SUBJECT, Signer, key_set

POLICY = f"""
callers:
  - identity: dns:exporter
    rpcs: [TokenService/*, GrantService/ListGrants]
    tenants: ["acme"]
  - identity: sa:{SUBJECT}
    rpcs: [GrantService/GetGrant]
    tenants: ["*"]
"""


@pytest.fixture
async def brokers(database_url: str, redis_url: str, run: RunDirectory) -> AsyncIterator[Fleet]:
    async with fleet(database_url, redis_url, run) as brokers:
        yield brokers


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """One broker with everything switched on."""

    replica: Replica
    fleet: Fleet
    folder: Path
    authority: Authority
    signer: Signer

    @property
    def address(self) -> str:
        return self.replica.target.replace("127.0.0.1", "localhost")

    def channel(self, caller: Issued) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(self.authority.cert, caller.key, caller.cert)
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(self.address, credentials, options)

    async def metrics(self) -> str:
        return (await self.fleet.asked(self.replica, "/metrics")).text


@pytest.fixture
async def guarded(brokers: Fleet, tmp_path: Path) -> Guarded:
    authority, signer = Authority(), Signer()
    cert, key = authority.issue(dns("localhost")).write(tmp_path, "tls")
    (tmp_path / "ca.crt").write_bytes(authority.cert)
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "keys.json").write_bytes(key_set(signer.jwk()))
    replica = await brokers.started(
        BROKER_TLS_CERT_FILE=str(cert),
        BROKER_TLS_KEY_FILE=str(key),
        BROKER_TLS_CLIENT_CA_FILE=str(tmp_path / "ca.crt"),
        BROKER_POLICY_FILE=str(tmp_path / "policy.yaml"),
        BROKER_JWT_ISSUER=ISSUER,
        BROKER_JWT_AUDIENCE=AUDIENCE,
        BROKER_JWT_JWKS=str(tmp_path / "keys.json"),
        BROKER_ADMIN_SOCKET=str(tmp_path / "admin.sock"),
    )
    return Guarded(
        replica=replica, fleet=brokers, folder=tmp_path, authority=authority, signer=signer
    )


async def reason_of_token(channel: grpc.aio.Channel, tenant: str) -> str:
    call = TokenServiceStub(channel).GetAccessToken(GetAccessTokenRequest(tenant=tenant))
    return (await failure_of(call)).error_info.reason


async def reason_of_grant(channel: grpc.aio.Channel, token: str) -> str:
    call = GrantServiceStub(channel).GetGrant(
        GetGrantRequest(tenant="acme"), metadata=[("authorization", f"Bearer {token}")]
    )
    return (await failure_of(call)).error_info.reason


async def test_certificates_tokens_and_rules_decide_who_gets_in(guarded: Guarded) -> None:
    async with guarded.channel(guarded.authority.issue(dns("exporter"))) as channel:
        reasons = [
            await reason_of_token(channel, "acme"),
            await reason_of_token(channel, "other"),
            await reason_of_grant(channel, guarded.signer.sign()),
            await reason_of_grant(channel, guarded.signer.sign(aud="vault")),
        ]

    assert reasons == [
        "TENANT_NOT_FOUND",
        "CALLER_NOT_ALLOWED",
        "TENANT_NOT_FOUND",
        "CALLER_UNAUTHENTICATED",
    ]


async def test_files_are_taken_as_they_change_and_broken_ones_are_told(guarded: Guarded) -> None:
    policy, replica = guarded.folder / "policy.yaml", guarded.replica
    async with guarded.channel(guarded.authority.issue(dns("exporter"))) as channel:
        policy.write_text("callers: [")
        refused = await replica.saw("files_refused", what="policy")
        while_broken = await reason_of_token(channel, "acme")
        metrics_while_broken = await guarded.metrics()

        policy.write_text(POLICY.replace('["acme"]', '["other"]'))
        await replica.saw("files_loaded", what="policy", count=2)
        mended = [await reason_of_token(channel, tenant) for tenant in ("acme", "other")]

    guarded.authority.issue(dns("localhost")).write(guarded.folder, "tls")
    await replica.saw("files_loaded", what="tls", count=2)

    assert str(refused["error"]).startswith(f"{policy}: line ")
    assert while_broken == "TENANT_NOT_FOUND"
    assert 'token_broker_files_good{what="policy"} 0.0' in metrics_while_broken
    assert 'token_broker_files_good{what="policy"} 1.0' in await guarded.metrics()
    assert mended == ["CALLER_NOT_ALLOWED", "TENANT_NOT_FOUND"]


async def test_on_call_looks_at_grants_over_the_admin_socket(guarded: Guarded) -> None:
    socket = guarded.folder / "admin.sock"

    listed = await run_beside("grants", environ={"BROKER_ADMIN_SOCKET": str(socket)})
    guarded.replica.terminate()

    assert (listed.stdout, listed.status) == ("No grants.\n", 0)
    assert await guarded.replica.ended() == 0
    assert not socket.exists()


async def test_the_command_line_proves_itself_by_certificate(guarded: Guarded) -> None:
    cert, key = guarded.authority.issue(dns("exporter")).write(guarded.folder, "me")
    environ = {
        "BROKER_ADDRESS": guarded.address,
        "BROKER_CA_FILE": str(guarded.folder / "ca.crt"),
        "BROKER_CLIENT_CERT_FILE": str(cert),
        "BROKER_CLIENT_KEY_FILE": str(key),
    }

    listed = await run_beside("grants", environ=environ)
    refused = await run_beside("get", "other", environ=environ)

    assert (listed.stdout, listed.status) == ("No grants.\n", 0)
    assert refused.stderr.startswith("error: CALLER_NOT_ALLOWED: no rule of the policy allows")


async def test_clear_text_is_not_listened_for_off_loopback(brokers: Fleet) -> None:
    replica = brokers.launch(BROKER_GRPC_ADDRESS="0.0.0.0:0")

    assert await replica.ended() == 2
    assert "BROKER_GRPC_ADDRESS: expected a loopback address" in replica.said


async def test_behind_a_mesh_callers_still_need_an_identity(brokers: Fleet, tmp_path: Path) -> None:
    signer = Signer()
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "keys.json").write_bytes(key_set(signer.jwk()))
    replica = await brokers.started(
        BROKER_GRPC_ADDRESS="0.0.0.0:0",
        BROKER_INSECURE="true",
        BROKER_POLICY_FILE=str(tmp_path / "policy.yaml"),
        BROKER_JWT_ISSUER=ISSUER,
        BROKER_JWT_AUDIENCE=AUDIENCE,
        BROKER_JWT_JWKS=str(tmp_path / "keys.json"),
    )
    address = replica.target.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - where to, not from

    async with grpc.aio.insecure_channel(address) as channel:
        nobody = await reason_of_token(channel, "acme")
        somebody = await reason_of_grant(channel, signer.sign())

    assert (nobody, somebody) == ("CALLER_UNAUTHENTICATED", "TENANT_NOT_FOUND")


@pytest.mark.parametrize(
    ("variable", "file", "said"),
    [
        ("BROKER_POLICY_FILE", "policy.yaml", "line 1: expected `callers:`"),
        ("BROKER_TLS_KEY_FILE", "tls.key", "expected a private key in PEM"),
        ("BROKER_JWT_JWKS", "keys.json", "expected a JSON Web Key Set"),
    ],
)
async def test_a_broker_with_a_file_of_no_use_says_so_and_ends(
    guarded: Guarded, variable: str, file: str, said: str
) -> None:
    (guarded.folder / file).write_text("of no use")
    settings = {
        "BROKER_TLS_CERT_FILE": str(guarded.folder / "tls.crt"),
        "BROKER_TLS_KEY_FILE": str(guarded.folder / "tls.key"),
        "BROKER_TLS_CLIENT_CA_FILE": str(guarded.folder / "ca.crt"),
        "BROKER_POLICY_FILE": str(guarded.folder / "policy.yaml"),
        "BROKER_JWT_ISSUER": ISSUER,
        "BROKER_JWT_AUDIENCE": AUDIENCE,
        "BROKER_JWT_JWKS": str(guarded.folder / "keys.json"),
    }

    replica = guarded.fleet.launch(**settings)

    assert await replica.ended() == 1
    assert f"error: {variable}: {guarded.folder / file}: {said}" in replica.said
    assert "Traceback" not in replica.said
