"""The example callers in Go and Node, and the grpcurl session: run as their page says."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509

from broker.dev.rundir import RunDirectory
from broker.domain.errors import BrokerError, ProviderUnavailable, RefreshOutcomeUnknown
from broker.sandbox.faults import Substitute, rate_limit
from broker.sandbox.oauth import json_answer
from broker.testing import fake_broker
from support.certificates import Authority, dns
from support.fleet import Fleet, fleet_of_a_module
from support.onboarding import Customer, connect, expire, grant_of, new_customer
from support.source import ROOT
from support.toolchains import EXAMPLES, go_caller, grpcurl, node_caller

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUCCEEDED, FAILED, RECONNECT = 0, 1, 3
NOT_FOUND = 64 + 5
"""grpcurl's exit status for gRPC's code 5."""

NOWHERE = "http://127.0.0.1:9"
"""For who never comes as far as Pleo's API."""

A_MOMENT = timedelta(milliseconds=50)

KINDS = {"go": go_caller, "node": node_caller}

POLICY = """
callers:
  - identity: dns:caller.example.org
    rpcs: [TokenService/*]
    tenants: ["*"]
"""


@pytest.fixture(params=KINDS)
def caller(request: pytest.FixtureRequest) -> list[str]:
    """The command that runs a caller."""
    return KINDS[request.param]()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(
    database_server: str, migrated_template: str, redis_server: str, run: RunDirectory
) -> AsyncIterator[Fleet]:
    """One broker."""
    stores = (database_server, migrated_template, redis_server)
    async with fleet_of_a_module(*stores, run=run) as brokers:
        await brokers.start()
        yield brokers


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A broker of the fleet that knows its callers."""

    address: str
    folder: Path
    """With `ca.crt`, and a caller's certificate and key."""

    authority: Authority

    @property
    def environ(self) -> dict[str, str]:
        """As the caller of the policy."""
        return self._environ("caller")

    def environ_of(self, name: x509.GeneralName) -> dict[str, str]:
        """As a caller of another name."""
        self.authority.issue(name).write(self.folder, "other")
        return self._environ("other")

    def _environ(self, name: str) -> dict[str, str]:
        return {
            "BROKER_CA_FILE": str(self.folder / "ca.crt"),
            "BROKER_CLIENT_CERT_FILE": str(self.folder / f"{name}.crt"),
            "BROKER_CLIENT_KEY_FILE": str(self.folder / f"{name}.key"),
        }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(one: Fleet) -> Guarded:
    """A second broker, with mutual TLS and a policy."""
    authority, folder = Authority(), one.directory
    cert, key = authority.issue(dns("localhost")).write(folder, "tls")
    authority.issue(dns("caller.example.org")).write(folder, "caller")
    (folder / "ca.crt").write_bytes(authority.cert)
    (folder / "policy.yaml").write_text(POLICY)
    replica = await one.started(
        BROKER_TLS_CERT_FILE=str(cert),
        BROKER_TLS_KEY_FILE=str(key),
        BROKER_TLS_CLIENT_CA_FILE=str(folder / "ca.crt"),
        BROKER_POLICY_FILE=str(folder / "policy.yaml"),
    )
    address = replica.target.replace("127.0.0.1", "localhost")
    return Guarded(address=address, folder=folder, authority=authority)


@pytest_asyncio.fixture(loop_scope="module")
async def customer(one: Fleet) -> AsyncIterator[Customer]:
    """A connected tenant."""
    customer = new_customer(one.sandbox)
    await connect(one, one.replicas[0], customer)
    yield customer
    one.sandbox.faults.clear()
    one.tell()


async def ran(
    command: list[str], *, cwd: Path = ROOT, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def called(
    caller: list[str], one: Fleet, tenant: str, *, calls: int = 1
) -> subprocess.CompletedProcess[str]:
    where = [one.replicas[0].target, tenant, one.sandbox.url]
    return await ran([*caller, *where, str(calls)])


def refuse_at_the_api(one: Fleet, customer: Customer, *, times: int) -> None:
    """Lets Pleo's API answer 401, to callers and to the broker that asks about a token."""
    refusal = json_answer(HTTPStatus.UNAUTHORIZED, {"error": "invalid_token"})
    one.sandbox.faults.add(
        Substitute(answer=refusal), times=times, endpoint="api", company=customer.company
    )


async def test_a_token_is_kept_for_as_long_as_promised(
    caller: list[str], one: Fleet, customer: Customer
) -> None:
    before = len(one.replicas[0].seen("token_served"))

    done = await called(caller, one, customer.tenant, calls=3)

    assert done.returncode == SUCCEEDED, done.stderr
    assert done.stdout.splitlines() == ["200 with generation 1"] * 3
    assert len(one.replicas[0].seen("token_served")) - before == 1


async def test_a_rejected_token_is_reported_and_the_call_made_again(
    caller: list[str], one: Fleet, customer: Customer
) -> None:
    refuse_at_the_api(one, customer, times=2)

    done = await called(caller, one, customer.tenant)

    assert (done.returncode, done.stdout) == (SUCCEEDED, "200 with generation 2\n"), done.stderr


async def test_a_token_that_lives_is_not_tried_again(
    caller: list[str], one: Fleet, customer: Customer
) -> None:
    refuse_at_the_api(one, customer, times=1)

    done = await called(caller, one, customer.tenant)

    assert (done.returncode, done.stdout) == (FAILED, "401 with generation 1\n"), done.stderr
    assert (await grant_of(one.replicas[0], customer.tenant)).generation == 1


async def test_a_customer_who_left_is_sent_to_reconnect(
    caller: list[str], one: Fleet, customer: Customer
) -> None:
    await called(caller, one, customer.tenant)
    await expire(one, customer.tenant, known_to=one.replicas[0])
    one.sandbox.server.disconnect(company=customer.company)

    done = await called(caller, one, customer.tenant)

    assert (done.returncode, done.stdout) == (RECONNECT, ""), done.stderr
    assert done.stderr.startswith(f"reconnect {customer.tenant}: EXPIRED_OR_REVOKED, since 20")


async def test_what_waiting_mends_is_waited_for(
    caller: list[str], one: Fleet, customer: Customer
) -> None:
    await expire(one, customer.tenant, known_to=one.replicas[0])
    one.sandbox.faults.add(rate_limit(), company=customer.company)

    done = await called(caller, one, customer.tenant)

    assert (done.returncode, done.stdout) == (SUCCEEDED, "200 with generation 2\n"), done.stderr
    (failed,) = one.replicas[0].seen("call_failed", tenant=customer.tenant)
    assert failed["reason"] == "PROVIDER_UNAVAILABLE"


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (ProviderUnavailable("away", retry_after=A_MOMENT), 4),
        (RefreshOutcomeUnknown("sent", retry_after=A_MOMENT), 1),
    ],
)
async def test_the_broker_says_whether_a_call_is_made_again(
    caller: list[str], error: BrokerError, times: int
) -> None:
    async with fake_broker() as broker:
        broker.connect("acme")
        with broker.outage(error):
            done = await ran([*caller, broker.address, "acme", NOWHERE])

    assert (done.returncode, done.stdout) == (FAILED, "")
    assert error.reason in done.stderr
    assert len(broker.asked) == times


async def test_a_caller_proves_itself_by_certificate(
    caller: list[str], one: Fleet, guarded: Guarded, customer: Customer
) -> None:
    where = [guarded.address, customer.tenant, one.sandbox.url]

    done = await ran([*caller, *where], environ=guarded.environ)
    stranger = await ran([*caller, *where], environ=guarded.environ_of(dns("stranger.example.org")))

    assert (done.returncode, done.stdout) == (SUCCEEDED, "200 with generation 1\n"), done.stderr
    assert stranger.returncode == FAILED
    assert "CALLER_NOT_ALLOWED" in stranger.stderr


async def test_another_failure_is_no_reason_to_reconnect(caller: list[str], one: Fleet) -> None:
    done = await called(caller, one, "nobody-knows-me")

    assert done.returncode == FAILED
    assert "TENANT_NOT_FOUND" in done.stderr


def session() -> list[str]:
    """Returns the commands of the page."""
    page = (EXAMPLES / "README.md").read_text().replace("\\\n", "")
    return re.findall(r"^grpcurl .*$", page, re.MULTILINE)


async def test_the_grpcurl_session_works_as_printed(
    one: Fleet, guarded: Guarded, customer: Customer
) -> None:
    program = grpcurl()
    brokers = {"127.0.0.1:50051": one.replicas[0].target, "localhost:50051": guarded.address}

    done = []
    for command in session():
        words = [brokers.get(word, word) for word in shlex.split(command)]
        words = [word.replace('"demo"', f'"{customer.tenant}"') for word in words]
        done.append(await ran([program, *words[1:]], cwd=guarded.folder))

    assert [each.returncode for each in done] == [0, 0, 0, NOT_FOUND, 0, 0, 0]
    assert "broker.v1.TokenService" in done[0].stdout
    assert '"generation": "1"' in done[2].stdout
    assert '"reason": "TENANT_NOT_FOUND"' in done[3].stderr
    assert '"generation": "1"' in done[6].stdout
