"""Whole replicas on a fake world, for stories of consents, imports and revocations.

    async with fleet() as ours:
        one = desk(ours)
        came = await one.consented()
        grant = await one.complete(came)

What is shared is `support.service`; each desk is `build_service` as it runs in production, without
its loops: a test runs the ones that it is about. `came` is what the customer's browser brings back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypedDict, TypeVar, Unpack

from broker.domain.authorization import Authorization
from broker.domain.grant import Grant
from broker.domain.hashing import sha256
from broker.domain.imports import Import
from broker.domain.secret import AccessToken, AuthorizationCode, RefreshToken, Secret
from broker.sandbox.record import Presentation
from broker.sandbox.settings import DEMO_CLIENT, DEMO_COMPANIES
from broker.service.build import build_service
from broker.service.foundation import Options, Ports
from broker.service.messages import (
    AuthorizationDenied,
    CompleteAuthorization,
    ImportGrant,
    RevokeGrant,
    StartAuthorization,
    StartedAuthorization,
)
from broker.service.running import Service
from broker.service.starting import Registration
from support.fake_escrows import FakeEscrows
from support.fake_fleet import FakeFleetStore
from support.fake_lease import FakeAnnouncements, FakeLeases
from support.fake_records import FakeRecords
from support.fake_renewals import FakeRenewals
from support.fake_store import FakeConsentStore, FakeGrantStore
from support.fake_world import Call, Hook
from support.service import BUDGET, Fleet, Recorder
from support.virtual_time import let_others_run

T = TypeVar("T")

ACME: Final = DEMO_COMPANIES[0].urn
"""The company of the grants of `support.service`."""

BLUE: Final = DEMO_COMPANIES[1].urn

WEB: Final = "uri:spiffe://example.org/web"
"""The caller who onboards customers."""

BINDING: Final = b"derived from the cookie"

SCOPES: Final = ("export-items:read", "accounts:read")

KEEPALIVE = timedelta(days=20)

REGISTRATION: Final = Registration(
    redirect_uris=DEMO_CLIENT.redirect_uris,
    scopes=SCOPES,
    time_to_live=timedelta(minutes=10),
)

DENIED: Final = AuthorizationDenied(error="access_denied", error_description="not today")


class LongChance:
    """Names that count, secrets as long as real ones, and a jitter of nothing."""

    def __init__(self, replica: str) -> None:
        self._replica = replica
        self._count = 0

    def jitter(self) -> float:
        """See the port."""
        return 0.0

    def identifier(self) -> str:
        """See the port."""
        self._count += 1
        return f"{self._replica}-{self._count}"

    def urlsafe_secret(self) -> str:
        """See the port."""
        return f"{self.identifier()}-secret-".ljust(43, "x")


class StartChanges(TypedDict, total=False):
    """What may be different about a start."""

    tenant: str
    caller: str
    session_binding: bytes
    scopes: tuple[str, ...] | None
    redirect_uri: str | None
    expected_subject: str | None
    allow_subject_change: bool


class CompleteChanges(TypedDict, total=False):
    """What may be different about a completion."""

    tenant: str
    caller: str
    state: str
    session_binding: bytes
    result: AuthorizationCode | AuthorizationDenied


class ImportChanges(TypedDict, total=False):
    """What may be different about an import."""

    tenant: str
    replace: bool
    access_token: AccessToken | None
    expires_at: datetime | None
    scopes: tuple[str, ...] | None
    expected_subject: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """What the browser of a customer who consented brings back."""

    tenant: str
    state: str
    code: AuthorizationCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """One replica, from the web tier's side."""

    fleet: Fleet
    service: Service
    told: Recorder

    async def start(self, **changes: Unpack[StartChanges]) -> StartedAuthorization:
        """Calls StartAuthorization."""
        asked: StartChanges = {"tenant": "acme", "caller": WEB, "session_binding": BINDING}
        asked.update(changes)
        return await self.service.broker.start_authorization(StartAuthorization(**asked))

    async def consented(self, company: str = ACME, **changes: Unpack[StartChanges]) -> Came:
        """Starts an authorization, and lets a company consent to it."""
        started = await self.start(**changes)
        code = self.fleet.pleo.consent(started.authorization_uri, company=company)
        return Came(tenant=changes.get("tenant", "acme"), state=started.state, code=code)

    async def complete(
        self, came: Came, *, budget: timedelta | None = None, **changes: Unpack[CompleteChanges]
    ) -> Grant:
        """Calls CompleteAuthorization."""
        asked: CompleteChanges = {
            "tenant": came.tenant,
            "caller": WEB,
            "state": came.state,
            "session_binding": BINDING,
            "result": came.code,
        }
        asked.update(changes)
        return await self.service.broker.complete_authorization(
            CompleteAuthorization(**asked), budget=budget
        )

    async def bring(
        self,
        refresh_token: RefreshToken,
        *,
        budget: timedelta | None = None,
        **changes: Unpack[ImportChanges],
    ) -> Grant:
        """Calls ImportGrant."""
        asked: ImportChanges = {"tenant": "acme"}
        asked.update(changes)
        request = ImportGrant(caller=WEB, refresh_token=refresh_token, **asked)
        return await self.service.broker.import_grant(request, budget=budget)

    async def revoke(self, *, tenant: str = "acme", at_provider: bool = False) -> Grant:
        """Calls RevokeGrant."""
        request = RevokeGrant(
            tenant=tenant, caller=WEB, reason="it is over", at_provider=at_provider
        )
        return await self.service.broker.revoke_grant(request)

    async def generation(self, tenant: str = "acme") -> int:
        """Calls GetAccessToken, and returns the generation that was served."""
        served = await self.service.broker.get_access_token(
            tenant, rejected_generation=None, budget=BUDGET
        )
        return served.generation

    def call(self, work: Coroutine[object, object, T]) -> asyncio.Task[T | Exception]:
        """Makes a call from a task of its own; errors are what the task returns."""
        return self.fleet.tasks.create_task(_outcome(work), name="a caller")


async def _outcome(work: Awaitable[T]) -> T | Exception:
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return error


class HoldOne:
    """A hook of the world: holds one call of a method, by its number, until it is let go."""

    def __init__(self, method: str, number: int) -> None:
        """Counts from 1."""
        self.reached = asyncio.Event()
        self._method = method
        self._left = number
        self._open = asyncio.Event()

    def let_go(self) -> None:
        """Lets it go on."""
        self._open.set()

    def counts(self, call: Call) -> bool:
        """Takes note of a call, and says whether it is the one."""
        self._left -= call.method == self._method
        return call.method == self._method and self._left == 0

    async def hold(self) -> None:
        """Holds the call."""
        self.reached.set()
        await self._open.wait()

    async def __call__(self, call: Call) -> None:
        """Runs where a call arrives or departs."""
        if self.counts(call):
            await self.hold()


def hold_each(*holds: HoldOne) -> Hook:
    """Returns a hook that is all of these; each counts every call."""

    async def hook(call: Call) -> None:
        for hold in [hold for hold in holds if hold.counts(call)]:
            await hold.hold()

    return hook


def crash(tenant: str = "acme") -> None:
    """Ends the flights of a tenant where they are, as the end of their processes would."""
    for task in asyncio.all_tasks():
        if task.get_name() == f"flight {tenant}":
            task.cancel()


def desk(
    fleet: Fleet,
    name: str = "one",
    *,
    may_delete_at_provider: bool = True,
    http_timeout: timedelta = timedelta(seconds=10),
) -> Desk:
    """Starts a replica."""
    told = Recorder()
    ports = Ports(
        store=FakeGrantStore(fleet.world),
        fleet=FakeFleetStore(fleet.world),
        renewals=FakeRenewals(fleet.world, keepalive=KEEPALIVE),
        consents=FakeConsentStore(fleet.world),
        records=FakeRecords(fleet.world),
        escrows=FakeEscrows(fleet.redis),
        leases=FakeLeases(fleet.redis),
        announcements=FakeAnnouncements(fleet.redis),
        provider=fleet.pleo,
        chance=LongChance(name),
        observer=told,
    )
    options = Options(
        replica=name,
        registration=REGISTRATION,
        http_timeout=http_timeout,
        max_rate=int(fleet.rate),
        may_delete_at_provider=may_delete_at_provider,
    )
    service = build_service(ports, options, fleet.tasks)
    return Desk(fleet=fleet, service=service, told=told)


@asynccontextmanager
async def looping(one: Desk, *names: str) -> AsyncIterator[None]:
    """Runs loops of a replica while the block runs; they have had their first turn by then."""
    loops = one.service.loops()
    async with asyncio.TaskGroup() as tasks:
        under_way = [tasks.create_task(loops[name](), name=f"loop {name}") for name in names]
        await let_others_run()
        yield
        for loop in under_way:
            loop.cancel()


def authorization(fleet: Fleet, came: Came) -> Authorization:
    """Returns the row of an authorization as it lies in PostgreSQL."""
    return fleet.world.authorizations[sha256(came.state)]


def the_import(fleet: Fleet) -> Import:
    """Returns the only record of an import there is."""
    (record,) = fleet.world.imports.values()
    return record


def exchanges(fleet: Fleet) -> list[Presentation]:
    """Returns the codes that Pleo was shown."""
    record = fleet.pleo.sandbox.record
    return [entry for entry in record.presentations if entry.presented.kind == "code"]


def another_code() -> AuthorizationCode:
    """Returns a code that nobody issued."""
    return AuthorizationCode(Secret("another-code"))
