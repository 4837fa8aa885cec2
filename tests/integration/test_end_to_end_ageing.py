"""Connections end by age: callers find new replicas, and a withdrawn certificate ends with one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from broker.dev.rundir import RunDirectory
from broker.dev.servers import free_port
from broker.v1.token_service_pb2_grpc import TokenServiceStub
from support.certificates import Authority, dns
from support.fleet import Fleet, fleet_of_a_module, until_true
from support.names import name_server
from support.onboarding import connect, get, new_customer
from support.rolling import calls_of, recommended_config
from support.rpc import told_by

pytestmark = pytest.mark.asyncio(loop_scope="module")

AGE = {"BROKER_MAX_CONNECTION_AGE_SECONDS": "1"}
"""The least that the settings allow."""

POLICY = """
callers:
  - {identity: "dns:exporter", rpcs: [TokenService/*], tenants: ["*"]}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def brokers(
    database_server: str, migrated_template: str, redis_server: str, run: RunDirectory
) -> AsyncIterator[Fleet]:
    stores = (database_server, migrated_template, redis_server)
    async with fleet_of_a_module(*stores, run=run) as brokers:
        yield brokers


async def test_a_replica_that_is_added_is_found_within_the_age(brokers: Fleet) -> None:
    port = free_port()
    first = await brokers.started(BROKER_GRPC_ADDRESS=f"127.0.0.1:{port}", **AGE)
    customer = new_customer(brokers.sandbox)
    await connect(brokers, first, customer)
    options = [
        ("grpc.service_config", recommended_config()),
        # gRPC's own are 30 s, which are little beside the age that brokers usually have.
        ("grpc.dns_min_time_between_resolutions_ms", 100),
    ]
    async with name_server("127.0.0.1") as names:
        target = f"{names.target}:{port}"
        async with grpc.aio.insecure_channel(target, options) as channel:
            tokens = TokenServiceStub(channel)
            await get(tokens, customer.tenant)
            second = await brokers.started(BROKER_GRPC_ADDRESS=f"127.0.0.2:{port}", **AGE)
            names.addresses.append("127.0.0.2")

            async def is_found() -> bool:
                await get(tokens, customer.tenant)  # none may fail meanwhile
                return await calls_of(brokers, second) > 0

            await until_true(is_found)
            before = await calls_of(brokers, first)
            for _ in range(10):
                await get(tokens, customer.tenant)

    assert await calls_of(brokers, first) - before > 2
    brokers.tell()


async def test_a_withdrawn_certificate_ends_with_its_connection(
    brokers: Fleet, tmp_path: Path
) -> None:
    authority, newer = Authority(), Authority("newer")
    cert, key = authority.issue(dns("localhost")).write(tmp_path, "tls")
    client_ca, policy = tmp_path / "ca.crt", tmp_path / "policy.yaml"
    client_ca.write_bytes(authority.cert)
    policy.write_text(POLICY)
    replica = await brokers.started(
        BROKER_TLS_CERT_FILE=str(cert),
        BROKER_TLS_KEY_FILE=str(key),
        BROKER_TLS_CLIENT_CA_FILE=str(client_ca),
        BROKER_POLICY_FILE=str(policy),
        **AGE,
    )
    caller = authority.issue(dns("exporter"))
    credentials = grpc.ssl_channel_credentials(authority.cert, caller.key, caller.cert)
    address = replica.target.replace("127.0.0.1", "localhost")
    async with grpc.aio.secure_channel(address, credentials) as channel:
        tokens = TokenServiceStub(channel)

        async def code() -> grpc.StatusCode:
            try:
                await get(tokens, "nobody")
            except grpc.aio.AioRpcError as error:
                return told_by(error).code
            raise AssertionError("there is no such tenant")

        assert await code() is grpc.StatusCode.NOT_FOUND
        client_ca.write_bytes(newer.cert)
        await replica.saw("files_loaded", what="tls", count=2)

        async def has_ended() -> bool:
            return await code() is not grpc.StatusCode.NOT_FOUND

        await until_true(has_ended)
        assert await code() is grpc.StatusCode.UNAVAILABLE
