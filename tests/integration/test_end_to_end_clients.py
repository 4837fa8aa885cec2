"""Clients that share no code with the broker: by reflection in Python, and grpc-js from protos."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import google.rpc
import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from broker.dev.rundir import RunDirectory
from support.fleet import Fleet, fleet_of_a_module
from support.onboarding import Customer, connect, get, new_customer
from support.source import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNKNOWN = "nobody-knows-me"
UNREACHABLE = re.compile(
    r"ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN|ENETUNREACH|ERR_SOCKET_TIMEOUT|E40[134]"
)
JS_CLIENT = Path(__file__).parent / "grpc_js"
INCLUDED = (ROOT / "protos", Path(next(iter(google.rpc.__path__))).parents[1])
"""Where the .proto files are: the broker's, and those of googleapis-common-protos."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(
    database_server: str, migrated_template: str, redis_server: str, run: RunDirectory
) -> AsyncIterator[Fleet]:
    """One broker."""
    stores = (database_server, migrated_template, redis_server)
    async with fleet_of_a_module(*stores, run=run) as brokers:
        await brokers.start()
        yield brokers


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def customer(one: Fleet) -> Customer:
    """A connected tenant."""
    customer = new_customer(one.sandbox)
    await connect(one, one.replicas[0], customer)
    return customer


@pytest.fixture(autouse=True)
def told(one: Fleet) -> Iterator[None]:
    """What the broker said, where a test fails."""
    yield
    one.tell()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reflected:
    """A client that knows of the broker what reflection tells, and nothing else."""

    channel: grpc.Channel
    pool: DescriptorPool

    def message(self, name: str) -> type[Message]:
        return GetMessageClass(self.pool.FindMessageTypeByName(name))

    def call(self, service: str, method: str, **fields: object) -> Any:  # noqa: ANN401 - of any type
        described = self.pool.FindServiceByName(service).FindMethodByName(method)
        unary: grpc.UnaryUnaryMultiCallable[Message, Message] = self.channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=GetMessageClass(described.output_type).FromString,
        )
        return unary(GetMessageClass(described.input_type)(**fields), timeout=20)

    def details(self, failed: grpc.Call) -> list[Any]:
        trailers = dict(failed.trailing_metadata() or ())
        packed: Any = trailers["grpc-status-details-bin"]
        status: Any = self.message("google.rpc.Status").FromString(packed)
        return [
            self.message(each.type_url.rpartition("/")[2]).FromString(each.value)
            for each in status.details
        ]


@pytest.fixture
def reflected(one: Fleet) -> Iterator[Reflected]:
    """A client by reflection, of gRPC's blocking kind."""
    with grpc.insecure_channel(one.replicas[0].target) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        yield Reflected(channel=channel, pool=pool)


async def test_reflection_is_enough_to_get_a_token(
    one: Fleet, customer: Customer, reflected: Reflected
) -> None:
    answer = await asyncio.to_thread(
        reflected.call, "broker.v1.TokenService", "GetAccessToken", tenant=customer.tenant
    )

    served = await get(one.replicas[0].tokens, customer.tenant)
    assert (answer.access_token, answer.generation) == (served.access_token, served.generation)
    assert answer.expire_time.ToDatetime() == served.expire_time.ToDatetime()


async def test_reflection_is_enough_to_read_what_went_wrong(reflected: Reflected) -> None:
    def failed() -> list[Any]:
        try:
            reflected.call("broker.v1.TokenService", "GetAccessToken", tenant=UNKNOWN)
        except grpc.RpcError as error:
            # gRPC raises what is the call as well, which its types do not say.
            return reflected.details(cast("grpc.Call", error))
        raise AssertionError("the call did not fail")

    (info,) = await asyncio.to_thread(failed)

    assert (info.reason, info.domain) == ("TENANT_NOT_FOUND", "pleo-token-broker")
    assert dict(info.metadata) == {"tenant": UNKNOWN}


@pytest.fixture(scope="module")
def js_client(run: RunDirectory) -> Path:
    """The directory of the JavaScript client with its packages, in the run's own."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("there is no node or no npm on this machine")
    directory = run.path / "grpc_js"
    shutil.copytree(JS_CLIENT, directory)
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", f"--cache={run.path / 'npm'}")
    try:
        installed = subprocess.run(
            [npm, "ci", *quiet, "--fetch-retries=0", "--fetch-timeout=20000"],
            cwd=directory,
            env={**os.environ, "NO_UPDATE_NOTIFIER": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry does not answer")
    if installed.returncode != 0:
        # Anything else, as a lock that does not fit, is ours to mend.
        assert UNREACHABLE.search(installed.stderr), installed.stderr
        pytest.skip("npm's registry cannot be reached, or does not let us in")
    return directory


async def test_grpc_js_reads_tokens_and_error_details(
    one: Fleet, customer: Customer, js_client: Path
) -> None:
    replica = one.replicas[0]
    tenants = (customer.tenant, UNKNOWN)
    asked = await asyncio.to_thread(
        subprocess.run,
        ["node", "client.js", replica.target, *tenants, *map(str, INCLUDED)],
        cwd=js_client,
        capture_output=True,
        timeout=60,
        check=True,
    )

    answers, served = json.loads(asked.stdout), await get(replica.tokens, customer.tenant)
    assert answers["known"]["access_token"] == served.access_token
    assert answers["known"]["generation"] == str(served.generation)
    assert answers["unknown"]["code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert answers["unknown"]["message"].startswith("TENANT_NOT_FOUND: ")
    (detail,) = answers["unknown"]["details"]
    assert detail["type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert detail["value"]["reason"] == "TENANT_NOT_FOUND"
    assert detail["value"]["metadata"] == {"tenant": UNKNOWN}
