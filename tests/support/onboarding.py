"""How tenants come to a fleet and what they ask of it, as a web tier and backends do it.

Each function is a step of a story; what must come of it is the test's to say.
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import asyncpg
from google.protobuf.timestamp_pb2 import Timestamp

from broker.sandbox.sandbox import Sandbox
from broker.sandbox.settings import Company
from broker.sandbox.visitor import walk_consent
from broker.v1 import grant_service_pb2, token_service_pb2, token_service_pb2_grpc
from support.fleet import PATIENCE_SECONDS, Fleet
from support.law_seven import LEDGER
from support.replica import Replica
from support.sandbox_client import Tokens, client_of, parameters_of
from support.waiting import until

if TYPE_CHECKING:
    from broker.v1.grant_service_pb2_grpc import GrantServiceAsyncStub

# Beyond what a token lives by default: what the tests change is what decides.
_LIVING: Final = timedelta(hours=1)

EXPIRE: Final = """
    UPDATE grants SET expires_at = clock_timestamp() - interval '1 second',
    renew_at = clock_timestamp() - interval '1 second',
    renewal_taken_until = clock_timestamp() + interval '1 day',
    version = version + 1, changed_xid = pg_current_xact_id()
    WHERE tenant = ANY($1::text[])
"""

T = TypeVar("T")


def new_company(sandbox: Sandbox) -> str:
    """Adds a company that nobody else has, and returns its URN."""
    urn = f"urn:pleo:company:{uuid.uuid4()}"
    sandbox.server.realm.add_company(Company(urn=urn, name="A company of a test"))
    return urn


def new_tenant() -> str:
    """Returns a name that no other tenant has."""
    return f"tenant-{secrets.token_hex(6)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """A tenant, and the Pleo company behind it."""

    tenant: str
    company: str


def new_customer(sandbox: Sandbox) -> Customer:
    """Returns one that nothing is known of yet."""
    return Customer(tenant=new_tenant(), company=new_company(sandbox))


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """A customer who has come back from Pleo's consent page."""

    tenant: str
    binding: bytes = field(repr=False)
    state: str = field(repr=False)
    code: str = field(repr=False, default="")
    error: str = ""

    def with_code(self, code: str) -> Returned:
        """Returns the same visit with another code."""
        return replace(self, code=code)


async def visit(
    fleet: Fleet, replica: Replica, customer: Customer, *, is_approved: bool = True
) -> Returned:
    """Starts an authorization and takes the customer through the consent page."""
    return await visit_over(replica.grants, fleet, customer, is_approved=is_approved)


async def visit_over(
    grants: GrantServiceAsyncStub, fleet: Fleet, customer: Customer, *, is_approved: bool = True
) -> Returned:
    """As `visit`, over a channel of one's own."""
    # As text, so that it can be looked for (law 7).
    browser = secrets.token_urlsafe(32)
    LEDGER.note("session binding", browser)
    binding = browser.encode()
    started = await grants.StartAuthorization(
        grant_service_pb2.StartAuthorizationRequest(
            tenant=customer.tenant, session_binding=binding
        ),
        timeout=PATIENCE_SECONDS,
    )
    location = await walk_consent(
        fleet.http, started.authorization_uri, company=customer.company, is_approved=is_approved
    )
    parameters = parameters_of(location)
    LEDGER.note("state", parameters["state"])
    return Returned(
        tenant=customer.tenant,
        binding=binding,
        state=parameters["state"],
        code=parameters.get("code", ""),
        error=parameters.get("error", ""),
    )


async def complete(replica: Replica, returned: Returned) -> grant_service_pb2.Grant:
    """Completes the authorization with what the redirect brought."""
    return await complete_over(replica.grants, returned)


async def complete_over(
    grants: GrantServiceAsyncStub, returned: Returned
) -> grant_service_pb2.Grant:
    """As `complete`, over a channel of one's own."""
    request = grant_service_pb2.CompleteAuthorizationRequest(
        tenant=returned.tenant, state=returned.state, session_binding=returned.binding
    )
    if returned.code:
        request.code = returned.code
    else:
        request.error.error = returned.error
    completed = await grants.CompleteAuthorization(request, timeout=PATIENCE_SECONDS)
    return completed.grant


async def connect(fleet: Fleet, replica: Replica, customer: Customer) -> grant_service_pb2.Grant:
    """Connects a tenant through the whole consent flow."""
    return await complete(replica, await visit(fleet, replica, customer))


async def tokens_of(sandbox: Sandbox, company: str) -> Tokens:
    """Lets a company consent to somebody else's integration, and returns the tokens."""
    async with client_of(sandbox) as elsewhere:
        return await elsewhere.connected(company)


async def take_over(
    replica: Replica, tenant: str, tokens: Tokens, *, is_living: bool = False, may: bool = False
) -> grant_service_pb2.Grant:
    """Imports a refresh token; `is_living`: with its access token; `may`: replace a grant."""
    request = grant_service_pb2.ImportGrantRequest(
        tenant=tenant, refresh_token=tokens["refresh_token"], replace=may
    )
    if is_living:
        expire_time = Timestamp()
        expire_time.FromDatetime(datetime.now(UTC) + _LIVING)
        request.access_token = tokens["access_token"]
        request.expire_time.CopyFrom(expire_time)
    return (await replica.grants.ImportGrant(request, timeout=PATIENCE_SECONDS)).grant


async def take_over_living(fleet: Fleet, replica: Replica, customers: Iterable[Customer]) -> None:
    """Imports grants of which nothing has been presented yet."""

    async def one(customer: Customer) -> None:
        tokens = await tokens_of(fleet.sandbox, customer.company)
        await take_over(replica, customer.tenant, tokens, is_living=True)

    await asyncio.gather(*map(one, customers))


async def expire(fleet: Fleet, *tenants: str, known_to: Replica) -> None:
    """Ends the access tokens of tenants, as time would, for every broker.

    PostgreSQL's clock decides what is expired, and a shorter life than a minute is not believed. So
    the row is changed, in the way in which another replica would, and is nobody's planned work.
    `known_to`, which alone may have a copy of the token in memory, is waited for until it has
    dropped that.
    """
    before = len(known_to.seen("memory_dropped"))
    await execute(fleet.database_url, EXPIRE, list(tenants))

    def has_forgotten() -> bool:
        dropped = {each.get("tenant") for each in known_to.seen("memory_dropped")[before:]}
        return None in dropped or dropped >= set(tenants)

    await until(has_forgotten)


async def execute(database_url: str, statement: str, *arguments: object) -> None:
    """Runs one statement."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()


async def get(
    tokens: token_service_pb2_grpc.TokenServiceAsyncStub,
    tenant: str,
    *,
    seconds: float = PATIENCE_SECONDS,
) -> token_service_pb2.GetAccessTokenResponse:
    """Asks for an access token."""
    request = token_service_pb2.GetAccessTokenRequest(tenant=tenant)
    return await tokens.GetAccessToken(request, timeout=seconds)


async def grant_of(replica: Replica, tenant: str) -> grant_service_pb2.Grant:
    """Asks for a grant."""
    request = grant_service_pb2.GetGrantRequest(tenant=tenant)
    return (await replica.grants.GetGrant(request, timeout=PATIENCE_SECONDS)).grant


def stubs_of(
    replicas: Sequence[Replica], *, each: int
) -> list[token_service_pb2_grpc.TokenServiceAsyncStub]:
    """Returns TokenServices over several connections to each replica."""
    return [
        token_service_pb2_grpc.TokenServiceStub(replica.channel())
        for replica in replicas
        for _ in range(each)
    ]


async def all_of(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Awaits calls that run at the same time."""
    return list(await asyncio.gather(*calls))


async def revoke(replica: Replica, tenant: str) -> grant_service_pb2.Grant:
    """Ends a grant."""
    request = grant_service_pb2.RevokeGrantRequest(tenant=tenant, reason="the test says so")
    return (await replica.grants.RevokeGrant(request, timeout=PATIENCE_SECONDS)).grant


async def grants_at(replica: Replica) -> list[grant_service_pb2.Grant]:
    """Lists all grants."""
    request = grant_service_pb2.ListGrantsRequest(page_size=1000)
    return list((await replica.grants.ListGrants(request, timeout=PATIENCE_SECONDS)).grants)
